"""How much goes wrong in demonstrations; free of physics, because suites carry it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Mishaps:
    """The settings of what goes wrong. Shares are of episodes, rates per second."""

    bursts: float = 0.75  # share with bursts in which the joints are pushed off
    burst_rate: float = 0.6
    burst_seconds: float = 0.3  # the longest
    burst_grips: float = 0.25  # share of the bursts in which grippers open or close too, for twice as long
    missed_grasps: float = 0.2  # share in which a gripper closes beside the thing, or opens on the way
    shoves: float = 0.15  # share in which a thing is shoved while the hand comes
    odd_starts: float = 0.5  # share that starts with joints, and a base, elsewhere
    jitter: float = 0.004  # largest standard deviation of executed joint targets [rad]: too small to mark as perturbed
