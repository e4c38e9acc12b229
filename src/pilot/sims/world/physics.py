"""The physics that all scenes share: solver options, contacts that hold what a gripper grips, and a compiled world.

Measured on friction grasps of 13 kinds: the elliptic cone with impratio 10 and time steps of 5 ms holds them, the
pyramidal cone and MuJoCo's default contacts do not, and 10 ms lose them. The solver keeps MuJoCo's own limits of
iterations: with fewer line searches, heaps of objects blow up.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pilot.sims.gl import mujoco

# MuJoCo would write warnings to a file in whatever folder the process runs; `Physics.is_broken` says what matters.
mujoco.set_mju_user_warning(lambda message: None)

TIMESTEP = 0.005  # [s]; a whole number of them is a tick at 20 Hz and at 50 Hz
FASTEST = 100.0  # nothing in a sound world moves faster [m/s, rad/s]; a light thing that slips away spins at 40
FARTHEST = 50.0  # or gets farther away [m]

Rgb = Sequence[float]
Vec = Sequence[float] | np.ndarray

SHAPES = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,  # half sizes x y z
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,  # radius, half height
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,  # radius
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,  # radius, half length without the caps
    "ellipsoid": mujoco.mjtGeom.mjGEOM_ELLIPSOID,  # half axes
    "plane": mujoco.mjtGeom.mjGEOM_PLANE,  # half sizes x y, spacing of its grid
    "mesh": mujoco.mjtGeom.mjGEOM_MESH,  # a mesh of the spec, named by `mesh`
}

CONTACTS: dict[str, dict[str, Any]] = {
    "solid": {"condim": 4, "friction": [1.0, 0.02, 0.002], "solref": [0.01, 1], "solimp": [0.95, 0.99, 0.001, 0.5, 2]},
    # What is round needs rolling friction, or it never comes to rest.
    "round": {"condim": 6, "friction": [1.0, 0.02, 0.002], "solref": [0.01, 1], "solimp": [0.95, 0.99, 0.001, 0.5, 2]},
    # Fingertips decide over whatever they touch. Three contact dims would let round things turn out of the grip.
    "pad": {
        "condim": 6,
        "friction": [1.5, 0.05, 0.005],
        "solref": [0.01, 1],
        "solimp": [0.95, 0.99, 0.001, 0.5, 2],
        "priority": 1,
    },
    "none": {"contype": 0, "conaffinity": 0, "group": 1},  # only to be looked at, without mass
}


def new_spec() -> Any:
    """Return an empty MjSpec with the options of all our worlds: physics that grips, pictures that cost little."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    option = spec.option
    option.timestep = TIMESTEP
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.solver = mujoco.mjtSolver.mjSOL_NEWTON
    option.impratio = 10
    option.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET  # what blows up stays so, for `Physics.is_broken`
    visual = spec.visual
    visual.quality.offsamples = visual.quality.shadowsize = 0
    # Vertices are what a picture costs: coarse round shapes make it three times faster.
    visual.quality.numslices, visual.quality.numstacks, visual.quality.numquads = 8, 4, 1
    visual.map.znear, visual.map.zfar = 0.01, 20
    visual.headlight.ambient, visual.headlight.diffuse, visual.headlight.specular = [0.45] * 3, [0.3] * 3, [0.0] * 3
    spec.stat.extent, spec.stat.center = 1, [0, 0, 0]
    return spec


def add_geom(
    body: Any,
    shape: str,
    *,
    size: Vec = (),
    pos: Vec = (0, 0, 0),
    rgb: Rgb = (0.7, 0.7, 0.7),
    quat: Vec | None = None,
    mass: float | None = None,
    contact: str = "solid",
    name: str = "",
    material: str = "",
    mesh: str = "",
    alpha: float = 1.0,
) -> Any:
    """Add a geom of one of `SHAPES` to a body of a spec; `contact` is one of `CONTACTS`.

    Without `mass` [kg] the geom weighs what its volume of water would; what has no contact weighs nothing.
    """
    half = np.zeros(3)
    half[: len(size)] = size
    options: dict[str, Any] = {"type": SHAPES[shape], "size": half, "pos": pos, "rgba": [*rgb, alpha]}
    given = {"quat": quat, "mass": 0 if contact == "none" and mass is None else mass}
    given |= {"name": name or None, "material": material or None, "meshname": mesh or None}
    options |= {key: value for key, value in given.items() if value is not None}
    return body.add_geom(**options, **CONTACTS[contact])


def quat_about(axis: Vec, angle: float) -> np.ndarray:
    """Return the quaternion [4] of a turn by `angle` [rad] about `axis`."""
    quat = np.zeros(4)
    mujoco.mju_axisAngle2Quat(quat, np.asarray(axis, float), angle)
    return quat


def quat_of(rotation: np.ndarray) -> np.ndarray:
    """Return the quaternion [4] of a rotation matrix [3 3]."""
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.ascontiguousarray(rotation, float).ravel())
    return quat


def rotation_of(quat: Vec) -> np.ndarray:
    """Return the rotation matrix [3 3] of a quaternion [4]."""
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, np.asarray(quat, float))
    return matrix.reshape(3, 3)


def multiply_quats(first: Vec, second: Vec) -> np.ndarray:
    """Return the quaternion [4] that turns by `second`, and then by `first`."""
    quat = np.zeros(4)
    mujoco.mju_mulQuat(quat, np.asarray(first, float), np.asarray(second, float))
    return quat


def look_at(eye: Vec, target: Vec) -> np.ndarray:
    """Return the quaternion [4] of a camera at `eye` that looks at `target`, upright."""
    back = np.asarray(eye, float) - np.asarray(target, float)
    back /= np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    if np.linalg.norm(right) < 1e-6:  # straight down: what is ahead is up in the picture
        right = np.array([0.0, -1.0, 0.0])
    right /= np.linalg.norm(right)
    return quat_of(np.stack([right, np.cross(back, right), back], axis=1))


class Physics:
    """A compiled spec and its state. Bodies, joints and sites are named; positions are in the world's frame.

    `sleep`: bodies that rest cost nothing until something awake touches them.
    """

    def __init__(self, spec: Any, *, sleep: bool = True):
        if sleep and hasattr(mujoco.mjtEnableBit, "mjENBL_SLEEP"):  # MuJoCo 3.4
            spec.option.enableflags |= mujoco.mjtEnableBit.mjENBL_SLEEP
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self._ids: dict[tuple[str, str], int] = {}
        self.memo: dict[Any, Any] = {}  # what others derive from the model, and would derive at every tick
        self.moment = 0  # counts steps, and states that were set: what is derived from a state is valid in one
        mujoco.mj_forward(self.model, self.data)

    def id_of(self, kind: str, name: str) -> int:
        """Return the number of a "body", "joint", "site", "geom", "actuator" or "camera".

        Raises:
            KeyError: there is none of that name.
        """
        if (number := self._ids.get((kind, name))) is None:
            number = self._ids[kind, name] = getattr(self.model, kind)(name).id
        return number

    def pos(self, body: str) -> np.ndarray:
        """Return where a body's frame is [3]."""
        return self.data.xpos[self.id_of("body", body)].copy()

    def rot(self, body: str) -> np.ndarray:
        """Return a body's rotation matrix [3 3]."""
        return self.data.xmat[self.id_of("body", body)].reshape(3, 3).copy()

    def centre(self, body: str) -> np.ndarray:
        """Return the centre of mass of a body and of what is jointed to it [3]."""
        return self.data.subtree_com[self.id_of("body", body)].copy()

    def speed(self, body: str) -> float:
        """Return how fast a free body's frame moves [m/s]; 0 for one that is fixed."""
        number = self.id_of("body", body)
        first, count = self.model.body_dofadr[number], self.model.body_dofnum[number]
        velocity = self.data.qvel[first : first + min(count, 3)]
        return math.sqrt(velocity @ velocity) if count else 0.0

    def site(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the position [3] and the rotation matrix [3 3] of a site."""
        number = self.id_of("site", name)
        return self.data.site_xpos[number].copy(), self.data.site_xmat[number].reshape(3, 3).copy()

    def joint(self, name: str) -> float:
        """Return the position of a hinge [rad] or slide [m]."""
        return float(self.data.qpos[self.model.jnt_qposadr[self.id_of("joint", name)]])

    def set_joint(self, name: str, value: float) -> None:
        """Put a hinge or slide to a position, at rest; call `forward` when all is set."""
        number = self.id_of("joint", name)
        self.data.qpos[self.model.jnt_qposadr[number]] = value
        self.data.qvel[self.model.jnt_dofadr[number]] = 0

    def set_pose(self, body: str, pos: Vec, *, quat: Vec = (1, 0, 0, 0)) -> None:
        """Put a free body somewhere, at rest; call `forward` when all is set."""
        joint = self.model.body_jntadr[self.id_of("body", body)]
        address, dof = self.model.jnt_qposadr[joint], self.model.jnt_dofadr[joint]
        self.data.qpos[address : address + 7] = [*pos, *quat]
        self.data.qvel[dof : dof + 6] = 0

    def forward(self) -> None:
        """Compute what follows from joint positions that were set by hand; bodies that were moved wake up."""
        self.moment += 1
        mujoco.mj_forward(self.model, self.data)

    def step(self, count: int = 1) -> None:
        """Run `count` time steps."""
        self.moment += 1
        mujoco.mj_step(self.model, self.data, count)

    def is_broken(self) -> bool:
        """Return whether the physics has blown up: numbers that are not finite, or far too fast or too far away."""
        # Written so that NaN, which is not less than anything, is found too.
        is_sound = np.abs(self.data.qvel).max(initial=0) < FASTEST and np.abs(self.data.xpos).max() < FARTHEST
        return not is_sound

    def contacts(self, *, deeper_than: float = 0.0) -> list[tuple[str, str, float]]:
        """Return pairs of bodies in contact and how deep they overlap [m]."""
        data, names = self.data, self.model.body
        found = []
        for i in np.flatnonzero(-data.contact.dist[: data.ncon] > deeper_than):
            first, second = self.model.geom_bodyid[data.contact.geom[i]]
            found.append((names(first).name, names(second).name, float(-data.contact.dist[i])))
        return found
