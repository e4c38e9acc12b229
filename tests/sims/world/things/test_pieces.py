"""Pieces as data agree with what MuJoCo makes of them."""

import numpy as np
import pytest

from pilot.sims.gl import mujoco
from pilot.sims.world.physics import add_geom, new_spec, quat_of
from pilot.sims.world.things import pieces as p

RGB = (0.5, 0.5, 0.5)
TURN = p.about("z", 0.7) @ p.about("x", 0.4)
PRIMITIVES = [
    p.box((0.02, 0.03, 0.04), (0.1, 0, 0.2), RGB, turn=TURN),
    p.sphere(0.03, (0.1, 0, 0.2), RGB),
    p.ellipsoid((0.02, 0.03, 0.05), (0, 0.1, 0), RGB, turn=TURN),
    p.cylinder(0.02, ((0, 0, 0), (0.1, 0.05, 0.02)), RGB),
    p.rod(0.02, ((0, 0, 0), (0.1, 0.05, 0.02)), RGB),
]
MESHES = [
    p.lathe(((0.02, 0), (0.05, 0.04), (0.01, 0.1)), RGB),
    p.prism(((-0.05, -0.02), (0.04, 0), (-0.03, 0.03)), (0.01, 0.05), RGB),
    p.lump(0.04, RGB, np.random.default_rng(0)),
]


@pytest.mark.parametrize("piece", PRIMITIVES, ids=lambda piece: piece.shape)
def test_the_reach_of_a_primitive_is_the_distance_to_a_wall_that_it_touches(piece):
    rng = np.random.default_rng(0)
    for direction in rng.normal(size=(20, 3)):
        direction /= np.linalg.norm(direction)
        spec = new_spec()
        # A plane that faces the thing, 1 m away in this direction.
        z = -direction
        x = np.linalg.svd(z[None])[2][1]
        turn = np.stack([x, np.cross(z, x), z], axis=1)
        add_geom(spec.worldbody, "plane", size=(1, 1, 0.1), pos=direction, quat=quat_of(turn))
        body = spec.worldbody.add_body(name="thing")
        body.add_freejoint()
        add_geom(body, piece.shape, size=piece.size, pos=piece.at, quat=quat_of(piece.turn))
        model = spec.compile()
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        distance = mujoco.mj_geomDistance(model, data, 0, 1, 2.0, None)
        assert piece.reach(direction) == pytest.approx(1 - distance, abs=2e-4)


@pytest.mark.parametrize("piece", PRIMITIVES[:3] + PRIMITIVES[3:], ids=lambda piece: piece.shape)
def test_the_volume_of_a_primitive_is_that_of_mujoco(piece):
    spec = new_spec()
    body = spec.worldbody.add_body()
    body.add_freejoint()
    geom = add_geom(body, piece.shape, size=piece.size)
    geom.density = 1000
    assert piece.volume == pytest.approx(spec.compile().body_mass[1] / 1000)


@pytest.mark.parametrize("piece", MESHES, ids=["lathe", "prism", "lump"])
def test_meshes_are_closed_and_face_outwards(piece):
    mesh = piece.mesh
    edges = [(a, b) for face in mesh.faces for a, b in zip(face, np.roll(face, -1), strict=True)]
    assert len(set(edges)) == len(edges)
    assert {(b, a) for a, b in edges} == set(edges)
    corners = mesh.vertices[mesh.faces]
    volume = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert volume > 0


def test_pieces_scale_and_move_together():
    cup = p.ring(0.03, (0, 0.1), lambda _: RGB) + (MESHES[0],)
    up, side = np.array([0, 0, 1.0]), np.array([1.0, 0, 0])
    large = [piece.stood(2, lift=0.01) for piece in cup]
    assert max(x.reach(up) for x in large) == pytest.approx(2 * max(x.reach(up) for x in cup) + 0.02)
    lying = p.moved(cup, (0.5, 0, 0), turn=p.about("y", np.pi / 2))
    assert max(x.reach(side) for x in lying) == pytest.approx(0.5 + max(x.reach(up) for x in cup))
