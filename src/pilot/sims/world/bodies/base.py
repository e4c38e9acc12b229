"""What all robot bodies share: arms with parallel grippers, a base that drives, cameras, and how they are put together.

A body is data. It can be added to the spec of any scene (`Body.add_to`), or stand alone without fingers as the model
that kinematics is computed on (`Body.robot_model`). In both, its joints have the same names and order:
base x, base y, base yaw, lift (if it drives), then each arm's six joints.

The hand's frame, the site `Arm.tcp` between the fingertips: x points out of the gripper, the fingers open along y.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from pilot.sims.gl import mujoco
from pilot.sims.world.physics import add_geom, look_at, new_spec, quat_about
from pilot.types import Robot

FINGER_TRAVEL = 0.045  # of each finger from closed to open [m]: the gripper opens 9 cm
SQUEEZE = 0.005  # how far beyond closed a closed finger is commanded, so that it presses on what is thin [m]
FINGER_FORCE = 60.0  # [N]
READY = np.array([0.0, -1.55, 2.3, 0.0, 0.82, 0.0])  # hand ahead of the shoulder, pointing down [rad]
ROOT, COLUMN = "robot", "robot_column"
BASE_JOINTS = ("base_x", "base_y", "base_yaw")
LIFT, LIFT_RANGE, LIFT_READY = "lift", (0.3, 0.9), 0.72  # [m]

_SHELL, _DARK, _GREY = (0.85, 0.85, 0.88), (0.15, 0.15, 0.17), (0.3, 0.3, 0.3)
_ALONG_X = quat_about((0, 1, 0), np.pi / 2)
_HINGE, _SLIDE = mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Six joints and a gripper. `side` is "left" or "right", `prefix` begins all of its names."""

    side: str
    mount: tuple[float, float, float] = (0.0, 0.0, 0.0)  # in the frame of the stand or of the lift
    camera: str = "wrist"

    @property
    def prefix(self) -> str:
        """The start of the names of this arm's joints: `l_` or `r_`."""
        return f"{self.side[0]}_"

    @property
    def joints(self) -> tuple[str, ...]:
        """The names of the six joints, from the shoulder on."""
        return tuple(f"{self.prefix}joint_{i}" for i in range(1, 7))

    @property
    def fingers(self) -> tuple[str, str]:
        """The slides of the two fingers, and the bodies that they move."""
        return f"{self.prefix}left_finger", f"{self.prefix}right_finger"

    @property
    def pads(self) -> tuple[str, str]:
        """The geoms that touch what is gripped."""
        return f"{self.prefix}left_pad", f"{self.prefix}right_pad"

    @property
    def tcp(self) -> str:
        """The site between the fingertips."""
        return f"{self.prefix}tcp"

    @property
    def hand(self) -> str:
        """The body that the fingers slide on."""
        return f"{self.prefix}hand"


@dataclass(frozen=True, kw_only=True)
class View:
    """A camera that is fixed to the stand or to the lift: where it is and what it looks at, in that frame."""

    name: str
    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    fovy: float = 60.0  # [degrees], as MuJoCo counts it


@dataclass(frozen=True, kw_only=True)
class Body:
    """A robot's body. `robot` is its description when it is controlled by joints."""

    name: str
    robot: Robot
    arms: tuple[Arm, ...]
    views: tuple[View, ...]
    is_mobile: bool = False

    @property
    def root(self) -> str:
        """The body whose frame is the robot's: the base on the floor, or the stand."""
        return ROOT

    @cached_property
    def joints(self) -> tuple[str, ...]:
        """All joints but the fingers, in the order of `robot_model`."""
        base = (*BASE_JOINTS, LIFT) if self.is_mobile else ()
        return base + tuple(joint for arm in self.arms for joint in arm.joints)

    @cached_property
    def ready(self) -> np.ndarray:
        """Joint positions to begin and to rest in [nq]."""
        base = [0.0, 0.0, 0.0, LIFT_READY] if self.is_mobile else []
        return np.array([*base, *np.tile(READY, len(self.arms))])

    def arm(self, side: str) -> Arm:
        """Return the arm on that side; the only one, whatever the side, of a body with one."""
        return self.arms[0] if len(self.arms) == 1 else next(arm for arm in self.arms if arm.side == side)

    def joint_slice(self, arm: Arm) -> slice:
        """Return where an arm's six joints are among `joints`."""
        first = self.joints.index(arm.joints[0])
        return slice(first, first + 6)

    def add_to(
        self,
        spec: Any,
        *,
        xy: Sequence[float] = (0, 0),
        yaw: float = 0.0,
        height: float = 0.0,
        fingers: bool = True,
        jitter: np.random.Generator | None = None,
    ) -> None:
        """Add the body to a spec: a static one at `xy`, facing `yaw`, at `height`; a mobile one at the origin.

        The pose of a mobile base is in its joints: `BodyController.reset` puts it where it should stand. `jitter` moves
        the cameras a little, as on another robot of the same make.
        """
        if self.is_mobile:
            parent = _add_base(spec, shoulders=max(abs(arm.mount[1]) for arm in self.arms) + 0.06)
        else:
            parent = spec.worldbody.add_body(name=self.root, pos=(*xy, height), quat=quat_about((0, 0, 1), yaw))
        for arm in self.arms:
            if not self.is_mobile and height > 0:
                column, at = (0.05, height / 2), (*arm.mount[:2], -height / 2)
                add_geom(parent, "cylinder", size=column, pos=at, rgb=_DARK, contact="none")
            _add_arm(spec, parent, arm, fingers=fingers, jitter=jitter)
        for view in self.views:
            off = np.zeros((2, 3)) if jitter is None else jitter.uniform(-0.02, 0.02, (2, 3))
            eye = np.array(view.eye) + off[0]
            quat = look_at(eye, np.array(view.target) + off[1])
            parent.add_camera(name=view.name, pos=eye, quat=quat, fovy=view.fovy)

    def robot_model(self, *, xy: Sequence[float] = (0, 0), yaw: float = 0.0, height: float = 0.0) -> Any:
        """Return the MjModel of the body alone, without fingers: its qpos is in the order of `joints`."""
        model = copy.copy(_robot_model(self))
        if not self.is_mobile:
            stand = model.body(self.root).id
            model.body_pos[stand], model.body_quat[stand] = (*xy, height), quat_about((0, 0, 1), yaw)
        return model


@cache
def _robot_model(body: Body) -> Any:
    spec = new_spec()
    body.add_to(spec, fingers=False)
    model = spec.compile()
    assert tuple(model.joint(i).name for i in range(model.njnt)) == body.joints, body.name
    return model


def _add_arm(spec: Any, parent: Any, arm: Arm, *, fingers: bool, jitter: np.random.Generator | None) -> None:
    """Add an arm with a reach of 0.7 m to its parent."""
    p = arm.prefix
    base = parent.add_body(name=f"{p}shoulder", pos=arm.mount, gravcomp=1)
    add_geom(base, "cylinder", size=(0.06, 0.04), pos=(0, 0, 0.04), rgb=_DARK, mass=1)
    link = base
    for i, (pos, axis, limits, damping, armature, gain) in enumerate(_JOINTS):
        link = link.add_body(name=arm.hand if i == 5 else f"{p}link_{i + 1}", pos=pos, gravcomp=1)
        link.add_joint(
            name=arm.joints[i], type=_HINGE, axis=axis, range=limits, limited=1, damping=damping, armature=armature
        )
        if spec.body(COLUMN) is not None:  # behind the arm, which kinematics does not know to avoid
            spec.add_exclude(bodyname1=COLUMN, bodyname2=link.name)
        if i == 1:  # bent far back it would rest on the shoulder, which planning does not see as a collision
            spec.add_exclude(bodyname1=base.name, bodyname2=link.name)
        shape, size, at, rgb, mass, contact = _LINKS[i]
        turned = _ALONG_X if shape == "capsule" else None
        add_geom(link, shape, size=size, pos=at, rgb=rgb, mass=mass, quat=turned, contact=contact)
        _add_position_actuator(spec, arm.joints[i], kp=400 * gain, kv=32 * gain, force=120 * gain, limits=limits)
    link.add_site(name=arm.tcp, pos=(0.115, 0, 0), group=4)
    off = np.zeros(3) if jitter is None else jitter.uniform(-0.004, 0.004, 3)
    link.add_camera(name=arm.camera, pos=np.array([-0.02, 0, 0.075]) + off, fovy=75, quat=[0.5, 0.5, -0.5, -0.5])
    if fingers:
        _add_gripper(spec, link, arm)


# Of each joint: its place on the link before, axis, range [rad], damping, armature, strength as a share of 120 N m.
_JOINTS = (
    ((0, 0, 0.10), (0, 0, 1), (-3.0, 3.0), 2.0, 0.05, 1.0),
    ((0, 0, 0.05), (0, 1, 0), (-2.4, 1.4), 2.0, 0.05, 1.5),
    ((0.34, 0, 0), (0, 1, 0), (-0.2, 2.9), 2.0, 0.05, 1.0),
    ((0.16, 0, 0), (1, 0, 0), (-2.9, 2.9), 1.0, 0.03, 0.4),
    ((0.15, 0, 0), (0, 1, 0), (-2.0, 2.0), 1.0, 0.03, 0.4),
    ((0.06, 0, 0), (1, 0, 0), (-3.1, 3.1), 0.5, 0.02, 0.25),
)
_LINKS = (
    ("cylinder", (0.05, 0.05), (0, 0, 0), _SHELL, 1.0, "none"),
    ("capsule", (0.04, 0.15), (0.17, 0, 0), _SHELL, 1.2, "solid"),
    ("capsule", (0.035, 0.06), (0.08, 0, 0), _DARK, 0.7, "solid"),
    ("capsule", (0.033, 0.06), (0.07, 0, 0), _SHELL, 0.6, "solid"),
    ("capsule", (0.03, 0.02), (0.03, 0, 0), _DARK, 0.4, "solid"),
    ("box", (0.015, 0.055, 0.02), (0.015, 0, 0), _DARK, 0.3, "solid"),
)


def _add_gripper(spec: Any, hand: Any, arm: Arm) -> None:
    """Add two fingers that close on each other, coupled so that they stay symmetric."""
    for sign, name, pad in zip((1, -1), arm.fingers, arm.pads, strict=True):
        finger = hand.add_body(name=name, pos=(0.03, 0, 0), gravcomp=1)
        limits = (0, FINGER_TRAVEL)
        finger.add_joint(name=name, type=_SLIDE, axis=(0, sign, 0), range=limits, limited=1, damping=10, armature=0.2)
        add_geom(finger, "box", size=(0.032, 0.006, 0.009), pos=(0.032, sign * 0.014, 0), rgb=_DARK, mass=0.05)
        pad_size = (0.02, 0.004, 0.011)
        add_geom(
            finger, "box", size=pad_size, pos=(0.085, sign * 0.004, 0), rgb=_GREY, mass=0.03, contact="pad", name=pad
        )
        add_geom(finger, "box", size=pad_size, pos=(0.085, sign * 0.012, 0), rgb=_DARK, mass=0.02, contact="none")
        _add_position_actuator(spec, name, kp=2000, kv=40, force=FINGER_FORCE, limits=(-SQUEEZE, FINGER_TRAVEL))
    left, right = arm.fingers
    # Their joints' limits stop them. In contact, pads that were slammed through each other would lock for good.
    spec.add_exclude(bodyname1=left, bodyname2=right)
    coupling = spec.add_equality(
        type=mujoco.mjtEq.mjEQ_JOINT, name1=left, name2=right, objtype=mujoco.mjtObj.mjOBJ_JOINT, solref=[0.01, 1]
    )
    coupling.data = np.eye(len(coupling.data))[1]  # left = 0 + 1 * right


def _add_base(spec: Any, *, shoulders: float) -> Any:
    """Add a base that drives in any direction, a column, and a lift with a head; return the lift's body."""
    base = spec.worldbody.add_body(name=ROOT, gravcomp=1)
    for name, kind, axis, kp, kv, force in zip(
        BASE_JOINTS,
        (_SLIDE, _SLIDE, _HINGE),
        ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        (12000, 12000, 4000),
        (1500, 1500, 500),
        (800, 800, 400),
        strict=True,
    ):
        base.add_joint(name=name, type=kind, axis=axis, damping=5, armature=2)
        _add_position_actuator(spec, name, kp=kp, kv=kv, force=force)
    add_geom(base, "cylinder", size=(0.24, 0.1), pos=(0, 0, 0.13), rgb=(0.2, 0.22, 0.25), mass=30)
    column = base.add_body(name=COLUMN, pos=(-0.12, 0, 0.65), gravcomp=1)
    add_geom(column, "box", size=(0.05, 0.08, 0.45), rgb=(0.75, 0.75, 0.78), mass=5)
    lift = base.add_body(name=LIFT, gravcomp=1)
    lift.add_joint(name=LIFT, type=_SLIDE, axis=(0, 0, 1), range=LIFT_RANGE, limited=1, damping=50, armature=2)
    _add_position_actuator(spec, LIFT, kp=20000, kv=2000, force=1500, limits=LIFT_RANGE)
    add_geom(lift, "box", size=(0.06, shoulders, 0.05), pos=(-0.04, 0, 0.25), rgb=(0.9, 0.9, 0.92), mass=4)
    add_geom(lift, "box", size=(0.03, 0.03, 0.25), pos=(-0.08, 0, 0.5), rgb=_SHELL, mass=0.5, contact="none")
    add_geom(lift, "box", size=(0.04, 0.08, 0.04), pos=(-0.06, 0, 0.75), rgb=(0.1, 0.1, 0.1), mass=0.5, contact="none")
    return lift


def _add_position_actuator(
    spec: Any, joint: str, *, kp: float, kv: float, force: float, limits: tuple[float, float] | None = None
) -> None:
    """Add a motor that holds a joint's target; it is named as the joint."""
    motor = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    motor.set_to_position(kp=kp, kv=kv)
    motor.forcelimited, motor.forcerange = 1, [-force, force]
    if limits is not None:
        motor.ctrllimited, motor.ctrlrange = 1, limits
