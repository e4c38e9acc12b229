"""What a policy can be asked, by name: suites of tasks in unseen homes, and controls that take a sense away from it.

A suite fixes level, task and vocabulary; episode `i` happens in test home `i`, so a suite of 200 episodes sees 200
homes and the episodes are independent. The simulator is imported by who asks for a home: names are known at once.

A *control* takes away one thing the policy needs, so that its success can be told from luck: `blank_images` (flat grey
pictures), `shuffled_prompts` (the instruction of another episode). `oracle` gives instead: the true subtask in words,
with its box, so that what is left to fail is the low level. The same seeds are used for all of them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pilot.names import check_name

if TYPE_CHECKING:
    from pilot.sims.homes import HomesEnv

CONTROLS = ("none", "blank_images", "shuffled_prompts", "oracle")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What is asked of a policy, `title` in words. `kinds` and `receptacles` None are all those of training."""

    name: str
    title: str
    level: int
    task: str
    split: str = "test"
    kinds: tuple[str, ...] | None = None
    receptacles: tuple[str, ...] | None = None

    def make_env(self, *, image_size: int = 64) -> "HomesEnv":
        from pilot.sims.homes import HomesEnv

        return HomesEnv(
            level=self.level,
            task=self.task,
            split=self.split,
            image_size=image_size,
            kinds=self.kinds,
            receptacles=self.receptacles,
        )

    def prompt(self, home: int) -> str:
        """What is asked in that home's first episode, without building the home."""
        from pilot.sims.homes.episodes import draw_episode
        from pilot.sims.homes.rooms import draw_home, home_seed

        env = self.make_env()
        drawn = draw_home(home_seed(self.split, home), self.level, kinds=env.kinds, receptacles=env.receptacles)
        return draw_episode(drawn, 0, task=self.task).prompt


SUITES = {
    suite.name: suite
    for suite in (
        Suite(name="homes-l1", title="one move", level=1, task="single"),
        Suite(name="homes-l2", title="one move among look-alikes", level=2, task="single"),
        Suite(name="homes-l2-multi", title="several moves", level=2, task="multi"),
    )
}


def get_suite(name: str) -> Suite:
    """The suite of that name; ValueError with the nearest names otherwise."""
    return SUITES[check_name("suite", name, SUITES)]


def check_control(name: str) -> None:
    """ValueError with the nearest name for one that is none of `CONTROLS`."""
    check_name("control", name, CONTROLS)
