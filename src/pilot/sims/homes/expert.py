"""The scripted expert: it decides from the simulator's state alone, never from what it did before.

So it can take over anywhere: after a missed grasp, with the wrong object in the gripper, in the middle of a policy's
move. For every state that a policy gets into, the right action is known.
"""

from collections.abc import Sequence

import numpy as np

from pilot.sims.homes.env import HomesEnv
from pilot.sims.homes.mjcf import LIMITS
from pilot.sims.homes.rooms import MARGIN, REACH
from pilot.sims.homes.world import MAX_STEP, Box

_ALIGNED = 0.012  # near enough above the goal to go straight down [m]
_CLEARANCE = 0.025  # between what is carried and what is passed over [m]
_PRESS = 0.010  # how far below an object's top, or below itself, the pad aims until something seals it [m]


class Expert:
    """Acts in one episode. `rng` draws one style per expert: where on an object to grip, how high to travel.

    `order`: "nearest" takes the target nearest to the gripper first, "random" an order drawn now; a list of names says
    which objects to put away instead of the targets.

    Raises:
        ValueError: another order, or an object that is not there.
    """

    def __init__(self, env: HomesEnv, rng: np.random.Generator, *, order: str | Sequence[str] = "nearest"):
        if isinstance(order, str) and order not in ("nearest", "random"):
            raise ValueError(f"order is 'nearest', 'random' or a list of object names, got {order!r}")
        self.env = env
        self._aim = rng.uniform(-0.006, 0.006, 2)
        self._extra = float(rng.uniform(0, 0.03))
        if order == "random":
            order = [str(name) for name in rng.permutation(env.targets)]
        self._order = None if order == "nearest" else [env.find(name) for name in order]

    @property
    def subtask(self) -> tuple[str, Box | None]:
        """The subtask that the next action belongs to, and its box."""
        return self.env.next_subtask(self._order)

    def act(self) -> np.ndarray:
        """Return the next action: an absolute target at most one control step away, and suction."""
        held, missing = self.env.world.held_object(), self.env.missing(self._order)
        if held is not None:
            spot = self._spot_in_receptacle(held) if held in missing else self._spot_on_table(held)
            goal, suction = self._put(held, spot)
        elif missing:
            goal, suction = self._pick(missing[0])
        else:
            goal, suction = self._rest()
        gripper = self.env.world.gripper
        step = goal - gripper
        step *= min(1.0, MAX_STEP / max(np.abs(step).max(), 1e-9))
        return np.array([*(gripper + step), float(suction)])

    def _rest(self) -> tuple[np.ndarray, bool]:
        x, y, _ = self.env.world.gripper
        return np.array([x, y, 0.26]), False

    def _pick(self, item: int) -> tuple[np.ndarray, bool]:
        """Move over the object, down a steep funnel, and turn suction on just above it."""
        world = self.env.world
        gripper, top = world.gripper, world.top(item)
        goal = world.position(item)[:2] + self._aim
        distance = float(np.linalg.norm(gripper[:2] - goal))
        if distance < _ALIGNED:
            return np.array([*goal, min(top, gripper[2]) - _PRESS]), gripper[2] < top + 0.03
        travel = self._highest(but=item) + _CLEARANCE + self._extra
        height = min(max(travel, top + 0.04), top + 0.03 + 1.5 * distance)
        return self._over(goal, height), False

    def _put(self, item: int, spot: np.ndarray) -> tuple[np.ndarray, bool]:
        """Move up, over, down, and let go just above what lies there."""
        world = self.env.world
        gripper, centre = world.gripper, world.position(item)
        hangs = float(gripper[2] - centre[2] + world.extent(item)[2])  # from the pad down to the object's base
        goal = gripper[:2] + spot - centre[:2]
        ground = self._ground(item, spot)
        if np.linalg.norm(gripper[:2] - goal) < _ALIGNED:
            height = ground + 0.012 + hangs
            return np.array([*goal, height]), gripper[2] > height + 0.006
        return self._over(goal, self._highest(but=item) + _CLEARANCE + self._extra + hangs), True

    def _over(self, goal: np.ndarray, height: float) -> np.ndarray:
        """Move towards a place at a height; first straight up, if the gripper is too low to pass over things."""
        gripper = self.env.world.gripper
        height = min(height, LIMITS[1, 2] - 0.005)
        low = height - gripper[2] > 0.02
        return np.array([*(gripper[:2] if low else goal), height])

    def _highest(self, *, but: int) -> float:
        """Return the top of the highest thing to pass over [m]."""
        world = self.env.world
        tops = [world.top(i) for i in world.items if i != but]
        return max([r.wall for r in world.home.receptacles] + tops)

    def _ground(self, item: int, spot: np.ndarray) -> float:
        """Return the height of what an object would land on at a place [m]."""
        world = self.env.world
        half = world.extent(item)[:2]
        under = [0.006 if self.env.episode.receptacle.distance(spot) == 0 else 0.0]
        for other in world.items:
            if other != item and np.all(np.abs(world.position(other)[:2] - spot) < half + world.extent(other)[:2]):
                under.append(world.top(other))
        return max(under)

    def _spot_in_receptacle(self, item: int) -> np.ndarray:
        """Return the place in the receptacle with the most room; among equals, the nearest to the middle."""
        receptacle, world = self.env.episode.receptacle, self.env.world
        inner = np.array(receptacle.inner)
        room = np.maximum(inner - np.linalg.norm(world.extent(item)[:2]) * 0.8, 0)
        grid = np.array([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)]) * room
        others = [i for i in world.items if i != item and receptacle.distance(world.position(i)[:2]) == 0]
        if not others:
            return receptacle.world(grid[4])
        spots = receptacle.world(grid)
        there = np.array([world.position(i)[:2] for i in others])
        gaps = np.linalg.norm(spots[:, None] - there, axis=-1).min(axis=1)
        return spots[np.argmax(gaps - 1e-3 * np.linalg.norm(grid, axis=1))]

    def _spot_on_table(self, item: int) -> np.ndarray:
        """Return the nearest free place on the table."""
        world = self.env.world
        start = world.position(item)[:2]
        axes = [np.linspace(-r, r, 15) for r in REACH]
        grid = np.vstack([np.clip(start, -REACH, REACH), np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)])
        others = np.array([world.position(i)[:2] for i in world.items if i != item])
        gap = np.linalg.norm(grid[:, None] - others, axis=-1).min(axis=1) if len(others) else np.full(len(grid), 1.0)
        walls = np.min([r.distance(grid) for r in world.home.receptacles], axis=0)
        cost = np.linalg.norm(grid - start, axis=1) + 10 * (gap < 0.09) + 10 * (walls < MARGIN)
        return grid[np.argmin(cost)]
