"""Do all kinds of things rest on a table, and hold in a gripper? One row per kind, of things in drawn looks.

`python bench/world_things.py [looks] [kind …]`. Each thing is dropped from 1 cm and must come to rest upright, as high
as its kind says. A gripper that flies freely then grasps it with an error of up to 3 mm and 0.1 rad, lifts it 15 cm,
swings it for two seconds and must still hold it, within 3 cm of where it held it at first.
"""

import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pilot.sims.gl import mujoco
from pilot.sims.world.physics import Physics, add_geom, new_spec, quat_of
from pilot.sims.world.things import KINDS, Grasp, Look, ThingKind, find_kind
from pilot.sims.world.things.build import add_thing
from pilot.sims.world.things.grasps import as_it_lies
from pilot.sims.world.things.pieces import about

_AXES = np.eye(3)
_FREE = ("x", "y", "z", "roll", "pitch", "yaw")
_BACK = 0.09  # how far before the grasp the gripper begins [m]


@dataclass(frozen=True)
class Trial:
    """What happened to one thing. `outcome` is "held", or what went wrong."""

    outcome: str
    part: str = ""
    slip: float = 0.0  # [m], while it was swung


def try_thing(kind: ThingKind, rng: np.random.Generator, *, swing_seconds: float = 2.0) -> Trial:
    """Drop a thing in a drawn look, then grasp, lift and swing it."""
    look = kind.draw_look(rng)
    spec = new_spec()
    add_geom(spec.worldbody, "plane", size=(2, 2, 0.1))
    add_thing(spec, "thing", kind, look=look, pos=(0, 0, 0.01), yaw=float(rng.uniform(-np.pi, np.pi)))
    world = Physics(spec, sleep=False)
    world.step(160)
    if fault := _resting_fault(world, kind, look):
        return Trial(fault)
    pose = world.pos("thing"), world.rot("thing")
    grasps = kind.grasps(look) if pose[1][2, 2] > 0.97 else as_it_lies(kind.pieces(look), pose[1])
    grasp = _disturbed(grasps[rng.integers(len(grasps))], pose[1], rng=rng)
    return _grasp_and_swing(kind, look, grasp=grasp, pose=pose, rng=rng, swing_seconds=swing_seconds)


def _resting_fault(world: Physics, kind: ThingKind, look: Look) -> str:
    """Return what is wrong with how it rests, "" if nothing is. What is round may lie in any pose."""
    if world.is_broken():
        return "blew up"
    if world.speed("thing") > 0.02 or np.abs(world.data.qvel[3:6]).max() > 0.5:
        return "did not rest"
    if world.contacts(deeper_than=0.002):
        return "sank in"
    rotation, height = world.rot("thing"), _top(kind, look, np.eye(3))
    top = world.pos("thing")[2] + _top(kind, look, rotation)
    if abs(top - height) > 0.012:
        return f"top at {top:.3f} instead of {height:.3f}" if rotation[2, 2] > 0.97 else "fell over"
    return ""


def _top(kind: ThingKind, look: Look, rotation: np.ndarray) -> float:
    """Return how far above its origin a thing is touched, turned by `rotation`."""
    return max(piece.reach(rotation.T @ _AXES[2]) for piece in kind.pieces(look) if piece.is_touched)


def _disturbed(grasp: Grasp, rotation: np.ndarray, *, rng: np.random.Generator) -> Grasp:
    """Return the grasp with the errors of a real one: sideways and up, never into the table."""
    error = rng.uniform(-0.003, 0.003, 3)
    error[2] = abs(error[2])
    turn = rotation.T @ about("z", rng.uniform(-0.1, 0.1)) @ rotation
    return replace(grasp, tcp=grasp.tcp + rotation.T @ error, rotation=turn @ grasp.rotation)


def _grasp_and_swing(
    kind: ThingKind, look: Look, *, grasp: Grasp, pose: Any, rng: np.random.Generator, swing_seconds: float
) -> Trial:
    pos, rot = pose
    tcp, hand = pos + rot @ grasp.tcp, rot @ grasp.rotation
    spec = new_spec()
    add_geom(spec.worldbody, "plane", size=(2, 2, 0.1))
    add_thing(spec, "thing", kind, look=look)
    _add_gripper(spec, tcp, hand)
    world = Physics(spec, sleep=False)
    world.set_pose("thing", pos, quat=quat_of(rot))
    start = -_BACK * hand[:, 0]
    for name, value in zip(_FREE, start, strict=False):
        world.set_joint(name, float(value))
    for name in ("left", "right"):
        world.set_joint(name, grasp.opening / 2)
    world.forward()
    _move(world, start, np.zeros(3), opening=grasp.opening / 2, steps=80)
    _move(world, np.zeros(3), np.zeros(3), opening=-0.005, steps=80)
    _move(world, np.zeros(3), np.array([0, 0, 0.15]), opening=-0.005, steps=100)
    held, part = _held_pose(world), grasp.part
    if world.pos("thing")[2] < pos[2] + 0.08:
        return Trial("not lifted", part)
    _swing(world, rng, seconds=swing_seconds)
    slip = float(np.linalg.norm(_held_pose(world) - held))
    return Trial("blew up" if world.is_broken() else "held" if slip < 0.03 else "slipped", part, slip)


def _add_gripper(spec: Any, tcp: np.ndarray, hand: np.ndarray) -> None:
    """Add a gripper whose tcp is at `tcp` while its six joints are at 0."""
    body = spec.worldbody.add_body(name="hand", pos=tcp, gravcomp=1)
    for i, name in enumerate(_FREE):
        slides = i < 3
        joint = mujoco.mjtJoint.mjJNT_SLIDE if slides else mujoco.mjtJoint.mjJNT_HINGE
        body.add_joint(name=name, type=joint, axis=_AXES[i % 3], armature=1 if slides else 0.05)
        _add_servo(spec, name, kp=8000 if slides else 400, kv=250 if slides else 15)
    wrist = body.add_body(name="wrist", quat=quat_of(hand), gravcomp=1)
    add_geom(wrist, "box", size=(0.015, 0.055, 0.02), pos=(-0.10, 0, 0), rgb=(0.15, 0.15, 0.17), mass=0.3)
    for sign, name in ((1, "left"), (-1, "right")):
        finger = wrist.add_body(name=name, gravcomp=1)
        axis, limits = (0, sign, 0), (0, 0.045)
        slide = mujoco.mjtJoint.mjJNT_SLIDE
        finger.add_joint(name=name, type=slide, axis=axis, range=limits, limited=1, damping=10, armature=0.2)
        add_geom(
            finger, "box", size=(0.032, 0.006, 0.009), pos=(-0.053, sign * 0.014, 0), rgb=(0.15, 0.15, 0.17), mass=0.05
        )
        add_geom(finger, "box", size=(0.02, 0.004, 0.011), pos=(0, sign * 0.004, 0), contact="pad", mass=0.03)
        _add_servo(spec, name, kp=2000, kv=40, force=60)
    both = spec.add_equality(
        type=mujoco.mjtEq.mjEQ_JOINT, name1="left", name2="right", objtype=mujoco.mjtObj.mjOBJ_JOINT
    )
    both.data[:5], both.solref = [0, 1, 0, 0, 0], [0.01, 1]


def _add_servo(spec: Any, joint: str, *, kp: float, kv: float, force: float = 400) -> None:
    servo = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    servo.set_to_position(kp=kp, kv=kv)
    servo.forcelimited, servo.forcerange = 1, [-force, force]


def _move(world: Physics, start: np.ndarray, end: np.ndarray, *, opening: float, steps: int) -> None:
    for i in range(0, steps, 4):
        share = (i + 4) / steps
        world.data.ctrl[:3] = start + (end - start) * share**2 * (3 - 2 * share)
        world.data.ctrl[6:8] = opening
        world.step(4)


def _swing(world: Physics, rng: np.random.Generator, *, seconds: float) -> None:
    """Swing the hand by 12 cm and half a radian."""
    phase, up = rng.uniform(0, 2 * np.pi, 6), world.data.ctrl[:6].copy()
    for i in range(round(seconds / 0.02)):
        t, gain = i * 0.02, min(1.0, i / 25)
        wave = np.sin(2 * np.pi * np.array([0.6, 0.5, 0.8, 0.5, 0.4, 0.5]) * t + phase)
        world.data.ctrl[:6] = up + gain * np.array([0.06, 0.12, 0.05, 0.3, 0.3, 0.5]) * wave
        world.step(4)


def _held_pose(world: Physics) -> np.ndarray:
    """Return where the thing is in the frame of the wrist."""
    return world.rot("wrist").T @ (world.pos("thing") - world.pos("wrist"))


def print_row(kind: ThingKind, looks: int) -> bool:
    """Try a kind and print its row; return whether 9 of 10 held."""
    start = time.process_time()
    trials = [try_thing(kind, np.random.default_rng(seed)) for seed in range(looks)]
    held = [trial for trial in trials if trial.outcome == "held"]
    faults = Counter(f"{trial.outcome} {trial.part}".strip() for trial in trials if trial.outcome != "held")
    slip = 1000 * float(np.median([trial.slip for trial in held])) if held else float("nan")
    said = ", ".join(f"{fault}: {count}" for fault, count in faults.items())
    spent = (time.process_time() - start) / looks
    print(f"{kind.name:16s} {len(held):3d}/{looks}  slip {slip:4.1f} mm  {spent:.3f} s  {said}", flush=True)
    return len(held) >= 0.9 * looks


def main() -> None:
    """Print the table."""
    looks = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    kinds = [find_kind(name) for name in sys.argv[2:]] or [kind for kind in KINDS.values() if kind.is_handled]
    good = [print_row(kind, looks) for kind in kinds]
    print(f"{sum(good)} of {len(good)} kinds hold in at least 9 of 10 looks")


if __name__ == "__main__":
    main()
