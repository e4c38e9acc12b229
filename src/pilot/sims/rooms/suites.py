"""The suites of rooms: four lengths of tasks, and two that ask whether words are followed. It imports no physics.

Homes of the train, validation and test splits never share a seed. All of them have the same kinds of things, colours
and ways of asking, so that a test home is new and nothing else is; `novel` adds those that training never has.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from pilot.sims.base import Question, SimEnv
from pilot.sims.rooms import language
from pilot.sims.rooms.choices import NOVELTIES, ROOMS
from pilot.sims.world.mishaps import Mishaps
from pilot.sims.world.suites import WorldSuite

if TYPE_CHECKING:
    from pilot.sims.rooms.draw import SceneDraw


@dataclass(frozen=True, kw_only=True)
class RoomsSuite(WorldSuite):
    """Tasks of one length in rooms. Fields with a help text are options of `pilot collect`."""

    scene: ClassVar[str] = "home"
    has_supervisor: ClassVar[bool] = True
    has_questions: ClassVar[bool] = True

    length: str = "move"  # "skill", "move", "steps" or "room"
    level: int = field(
        default=1,
        metadata={
            "help": "1: few things, close by; 2: more, some alike; 3: anywhere in the room",
            "choices": (1, 2, 3),
        },
    )
    rooms: tuple[str, ...] = field(default=ROOMS, metadata={"help": "only these rooms", "nargs": "+"})
    tasks: tuple[str, ...] | None = field(default=None, metadata={"help": "only these tasks", "nargs": "+"})
    novel: tuple[str, ...] = field(
        default=(), metadata={"help": f"what training never has: {', '.join(NOVELTIES)} (test split)", "nargs": "+"}
    )

    def draw(self, scene: int, episode: int, seed: int) -> Any:
        return self._scenes()(scene, episode, seed)

    def make_env(self, *, image_size: int = 64) -> SimEnv:
        self._scenes()  # options that do not fit together are refused now, not at the first scene
        return super().make_env(image_size=image_size)

    def web_rows(self, scene: int, *, rows: int, seed: int, image_size: int = 64) -> list[tuple[bytes, list[Question]]]:
        from pilot.sims.rooms.questions import extra_kinds, pictures_of_home

        draw = self._scenes(extras=extra_kinds())
        return pictures_of_home(draw, scene, rows=rows, seed=seed, image_size=image_size)

    def utterances(self, subtask: str) -> tuple[str, ...]:
        return language.utterances(subtask)

    def _scenes(self, *, extras: Sequence[str] = ()) -> "SceneDraw":
        """Return what draws the scenes; a `ValueError` for options that do not fit together."""
        from pilot.sims.rooms.draw import SceneDraw

        options = {name: getattr(self, name) for name in ("length", "split", "level", "rooms", "tasks", "novel")}
        return SceneDraw(body=self.body, **options, extras=extras)


SUITES = (
    RoomsSuite(name="rooms-skill", title="one skill in a room", length="skill", level=2),
    RoomsSuite(
        name="rooms-grasp",
        title="picking up what the hand is beside",
        length="skill",
        tasks=("grasp",),
        begins="beside",
        mishaps=Mishaps(odd_starts=0.0),
    ),
    RoomsSuite(
        name="rooms-place",
        title="putting away what the hand holds",
        length="move",
        level=1,
        begins="holding",
        mishaps=Mishaps(odd_starts=0.0),
    ),
    RoomsSuite(name="rooms-move-l1", title="one move, all close by", length="move", level=1),
    RoomsSuite(name="rooms-move", title="one move in a room", length="move", level=2),
    RoomsSuite(name="rooms-steps", title="many steps in a room", length="steps", level=2),
    RoomsSuite(name="rooms-whole", title="a whole room", length="room", level=3),
    RoomsSuite(name="rooms-follow-in", title="the right one of several things", length="move", tasks=("follow",)),
    RoomsSuite(
        name="rooms-follow-out",
        title="the right one, in words and of kinds never met",
        length="move",
        tasks=("follow",),
        novel=NOVELTIES,
    ),
)
