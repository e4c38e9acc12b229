"""The expert: from a task's goals and the world's state it finds what to do next, and runs the skill for it."""

from typing import Any

import numpy as np

from pilot.sims.base import DONE, Box
from pilot.sims.experts.libero.fixtures import PULL, drawer_opening, is_drawer, open_drawer, push, turn_knob
from pilot.sims.experts.libero.language import drawer_of, name_of, pick_words, put_words
from pilot.sims.experts.libero.motions import LiberoHand, Missed, Motion, wait
from pilot.sims.experts.libero.scene import Goal, LiberoScene
from pilot.sims.experts.libero.skills import is_held, is_slope, lay, pick, place_at, release

WIDE_ENOUGH = 0.14  # is a drawer for a bowl; further out it would be in the way of what stands in front [m]
SKILLED_IN = ("in", "on", "open", "turnon")


class LiberoExpert:
    """Acts in the episode that `env` stands in; `rng` draws its style: grasps, speed, pauses.

    Raises:
        ValueError: the task has a goal that there is no skill for.
    """

    def __init__(self, env: Any, rng: np.random.Generator):
        self.scene, self.prompt, self.rng = LiberoScene(env.world), env.prompt, rng
        if strange := [goal for goal in self.scene.goals if goal[0] not in SKILLED_IN]:
            raise ValueError(f"LIBERO's expert knows the goals {SKILLED_IN}, and '{self.prompt}' has {strange}")
        self.hand = LiberoHand(self.scene, speed=float(rng.uniform(0.85, 1.0)))
        self.failures: list[str] = []  # why motions had to begin again
        self._words, self._about = DONE, ""
        self._motion = self._run()
        self._action, self._time = self.hand.still(), -1.0

    @property
    def subtask(self) -> tuple[str, Box | None]:
        """The subtask that the next action belongs to, and the box of what it is about."""
        self._look()
        return self._words, None if self._words == DONE else self.scene.box(self._about)

    def act(self) -> np.ndarray:
        """Return the next action [7]."""
        self._look()
        return self._action

    def _look(self) -> None:
        """Move the motion on if the world has moved on since it was last asked."""
        if self._time != self.scene.data.time:
            self._action, self._time = np.clip(next(self._motion), -1, 1), self.scene.data.time

    def _run(self) -> Motion:
        """Do what is missing until nothing is, then rest."""
        while True:
            missing = [goal for goal in self.scene.goals if not self.scene.is_done(goal)]
            if not missing:
                self._say(DONE, "")
                yield self.hand.still()
                continue
            try:
                yield from self._reach_goal(missing[0])
            except Missed as missed:
                self.failures.append(str(missed))
                yield from release(self.hand)
                yield from wait(self.hand, 4)

    def _reach_goal(self, goal: Goal) -> Motion:
        """Do what a goal still needs."""
        if goal[0] == "open":
            yield from self._open(goal[1])
        elif goal[0] == "turnon":
            self._say(f"turn on the {name_of(goal[1])}", f"{goal[1]}_button")
            yield from turn_knob(self.hand, f"{goal[1]}_button")
        elif self.prompt.startswith("push"):
            self._say(self.prompt, goal[1])
            yield from push(self.hand, goal[1], self.scene.site(goal[2])[0][:2])
        else:
            yield from self._bring(goal)
        yield from wait(self.hand, 4)

    def _bring(self, goal: Goal) -> Motion:
        """Bring a thing to where it belongs; if that is in a drawer, open it first."""
        _, item, region = goal
        drawer = self._seen(region)
        if is_drawer(self.scene, drawer) and drawer_opening(self.hand, drawer) < WIDE_ENOUGH - 0.03:
            yield from self._open(region, by=WIDE_ENOUGH)
        if not is_held(self.scene, item):
            self._say(pick_words(goal, self.prompt), item)
            along = self.scene.site(region)[1][:, 0] if is_slope(self.scene, region) else None
            yield from pick(self.hand, item, rng=self.rng, tries=len(self.failures), along=along)
        self._say(put_words(goal, self.prompt), drawer)
        if is_slope(self.scene, region):
            yield from lay(self.hand, item, region)
        else:
            yield from place_at(self.hand, item, region, rng=self.rng)

    def _open(self, region: str, *, by: float = PULL) -> Motion:
        drawer = self._seen(region)
        self._say(f"open the {drawer_of(region)}", drawer)
        yield from open_drawer(self.hand, drawer, rng=self.rng, by=by)

    def _seen(self, region: str) -> str:
        """Return what to look at for a region: what it belongs to, or the thing of that name."""
        return self.scene.site_body(region) if region in self.scene.world.object_sites_dict else region

    def _say(self, words: str, about: str) -> None:
        self._words, self._about = words, about
