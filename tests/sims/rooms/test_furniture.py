import numpy as np
import pytest

from pilot.sims.rooms.choices import ROOMS
from pilot.sims.rooms.draw import draw_room
from pilot.sims.world.physics import Physics
from pilot.sims.world.scene import openness, region_centre

SEEDS = range(6)
NEEDED = {
    "kitchen": {"counter", "sink", "table", "bin", "top drawer", "microwave", "fridge"},
    "bedroom": {"bed", "head of the bed", "blanket", "desk", "laundry basket", "toy box", "toy box lid", "shelf"},
    "living room": {"sofa", "table", "cabinet", "top drawer", "shelf", "bin", "toy box"},
}


def room_of(name, seed):
    return draw_room((0, seed), (name,))


@pytest.mark.parametrize("name", ROOMS)
def test_rooms_compile_and_their_furniture_rests(name):
    for seed in SEEDS:
        room = room_of(name, seed)
        world = Physics(room.spec)
        assert not world.contacts(deeper_than=0.001), seed
        before = {f: openness(world, fixture) for f, fixture in room.fixtures.items() if fixture.joint}
        world.step(100)
        assert not world.is_broken()
        for fixture, share in before.items():
            assert openness(world, room.fixtures[fixture]) == pytest.approx(share, abs=0.02), (seed, fixture)


@pytest.mark.parametrize("name", ROOMS)
def test_rooms_have_what_tasks_need(name):
    for seed in SEEDS:
        room = room_of(name, seed)
        assert NEEDED[name] <= set(room.fixtures), seed
        assert room.stations, "a robot that cannot drive needs a place"


@pytest.mark.parametrize("name", ROOMS)
def test_a_base_can_drive_straight_to_every_front(name):
    """No solid furniture is within a base's radius of the free floor, or of the places to stand."""
    for seed in SEEDS:
        room = room_of(name, seed)
        world = Physics(room.spec)
        x, y = room.floor
        corners = [(sx * x, sy * y) for sx in (-1, 1) for sy in (-1, 1)]
        fronts = {fixture: f.front for fixture, f in room.fixtures.items() if f.front}
        for at in [*corners, *(front[:2] for front in fronts.values())]:
            assert distance_to_furniture(world, np.array(at)) > 0.235, (seed, at, fronts)


def distance_to_furniture(world, at):
    """From a point of the floor to what stands lower than 0.3 m and is solid, seen from above."""
    model, data = world.model, world.data
    least = np.inf
    for geom in np.flatnonzero(model.geom_contype):
        rotation = data.geom_xmat[geom].reshape(3, 3)
        centre = data.geom_xpos[geom] + rotation @ model.geom_aabb[geom, :3]
        half = np.abs(rotation) @ model.geom_aabb[geom, 3:]
        if model.geom_type[geom] == 0 or centre[2] - half[2] > 0.24 or centre[2] + half[2] < 0.03:
            continue  # the floor, or nothing that a base touches
        least = min(least, np.linalg.norm(np.maximum(np.abs(at - centre[:2]) - half[:2], 0)))
    return least


def test_fixtures_open_where_their_joint_says():
    room = room_of("kitchen", 1)
    world = Physics(room.spec)
    drawer = room.fixtures["top drawer"]
    closed = region_centre(world, drawer)
    world.set_joint(drawer.joint, drawer.open_at)
    world.forward()
    yaw = drawer.front[2]
    moved = region_centre(world, drawer) - closed
    assert openness(world, drawer) == pytest.approx(1)
    assert moved[:2] == pytest.approx([-drawer.open_at * np.cos(yaw), -drawer.open_at * np.sin(yaw)], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "fixture"), [("kitchen", "top drawer"), ("kitchen", "microwave"), ("bedroom", "toy box lid")]
)
def test_what_is_left_open_begins_open_in_the_same_place(name, fixture):
    """The handle is where it would be had somebody opened it."""
    opened, closed = room_of(name, 3), room_of(name, 3)
    opened.leave_open(fixture, share=0.9)
    first, second = Physics(opened.spec), Physics(closed.spec)
    described = closed.fixtures[fixture]
    second.set_joint(described.joint, described.closed_at + 0.9 * (described.open_at - described.closed_at))
    second.forward()
    assert openness(first, opened.fixtures[fixture]) == pytest.approx(0.9)
    np.testing.assert_allclose(first.site(described.handle)[0], second.site(described.handle)[0], atol=1e-6)


def test_handles_point_into_what_they_open():
    for name in ROOMS:
        room = room_of(name, 2)
        world = Physics(room.spec)
        for fixture in room.fixtures.values():
            if fixture.handle:
                at, rotation = world.site(fixture.handle)
                stand = np.array(fixture.front[:2])
                ahead = (
                    rotation[:2, 0]
                    if fixture.name != "blanket"
                    else np.array([np.cos(fixture.front[2]), np.sin(fixture.front[2])])
                )
                assert (at[:2] - stand) @ ahead > 0.2, fixture.name


def test_the_same_seed_is_the_same_room_and_another_is_another():
    first, again, other = room_of("kitchen", 4), room_of("kitchen", 4), room_of("kitchen", 5)
    models = [room.spec.compile() for room in (first, again)]
    for part in ("geom_pos", "geom_size", "geom_rgba", "tex_data", "body_pos", "light_diffuse"):
        np.testing.assert_array_equal(*(getattr(model, part) for model in models))
    assert (first.palette, first.walls) == (again.palette, again.walls)
    assert first.palette != other.palette
    assert first.walls != other.walls
