"""Draws the scene of one episode: a home from the scene's number, things and task from the episode's.

Homes of the splits never share a seed: the split is part of it. The room itself, its furniture and its colours are the
same in all episodes of a scene.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pilot.names import check_name
from pilot.sims.base import SPLITS
from pilot.sims.rooms.bedroom import draw_bedroom
from pilot.sims.rooms.choices import NOVELTIES, ROOMS
from pilot.sims.rooms.kitchen import draw_kitchen
from pilot.sims.rooms.living_room import draw_living_room
from pilot.sims.rooms.paints import add_textures, draw_palette
from pilot.sims.rooms.room import Room
from pilot.sims.rooms.stage import Stage
from pilot.sims.rooms.tasks import TASKS
from pilot.sims.world.bodies import load_body
from pilot.sims.world.physics import new_spec
from pilot.sims.world.scene import ImpossibleSceneError, Scene
from pilot.sims.world.task import LENGTHS

DRAW_ROOM = {"kitchen": draw_kitchen, "bedroom": draw_bedroom, "living room": draw_living_room}
assert tuple(DRAW_ROOM) == ROOMS
REDRAW = 32  # bits of a seed below the number of the attempt, as `WorldEnv` counts them
PATIENCE = 5  # attempts in one home, before the home itself is drawn anew
_HOME, _EPISODE = 1, 2  # of what a stream of random numbers decides


@dataclass(frozen=True, kw_only=True)
class SceneDraw:
    """Draws scenes of tasks of one length, or of the `tasks` named, for one body; called as `WorldEnv` calls it.

    `novel`: which of `choices.NOVELTIES` are those that training never sees; only the test split may have them.
    """

    body: str
    length: str
    split: str = "test"
    level: int = 1
    rooms: Sequence[str] = ROOMS
    tasks: Sequence[str] | None = None
    novel: Sequence[str] = ()
    extras: Sequence[str] = ()  # kinds of which some stand about, in any colour: for questions about pictures
    extra_count: int = 8

    def __post_init__(self) -> None:
        check_name("split", self.split, SPLITS)
        check_name("length of task", self.length, LENGTHS)
        for room in self.rooms:
            check_name("room", room, ROOMS)
        for task in self.tasks or ():
            check_name("task", task, TASKS)
        if not any(room in TASKS[task].rooms for room in self.rooms for task in self._tasks()):
            raise ValueError(f"none of {', '.join(self._tasks())} is done in {', '.join(self.rooms)}")
        for novelty in self.novel:
            check_name("novelty", novelty, NOVELTIES)
        if self.novel and self.split != "test":
            raise ValueError(f"novel {', '.join(self.novel)} are for the test split only, not for '{self.split}'")

    def __call__(self, scene: int, episode: int, seed: int) -> Scene:
        """Draw a scene.

        Raises:
            ImpossibleSceneError: these numbers draw none.
        """
        split, attempt = SPLITS.index(self.split), (seed >> REDRAW) // PATIENCE
        names = self._tasks()
        rooms = [room for room in self.rooms if any(room in TASKS[name].rooms for name in names)]
        room = draw_room((_HOME, split, scene, attempt), rooms)
        length = LENGTHS.index(self.length)
        rng = np.random.default_rng((_EPISODE, split, scene, episode, seed, self.level, length))
        stage = Stage(room, load_body(self.body), rng, level=self.level, novel=frozenset(self.novel))
        suited = [name for name in names if room.name in TASKS[name].rooms and TASKS[name].suits(stage)]
        if not suited:
            raise ImpossibleSceneError(f"robot '{self.body}' can do none of {', '.join(names)} in this {room.name}")
        task = TASKS[stage.pick(suited)].make(stage)
        if self.extras:
            stage.add_extras(self.extras, self.extra_count)
        return Scene(
            name=room.name,
            spec=room.spec,
            body=stage.body,
            task=task,
            robot_pose=stage.robot_pose,
            robot_height=0.0 if stage.station is None else stage.station.height,
            items=stage.items,
            fixtures=stage.fixtures,
            effects=tuple(stage.effects),
            camera_jitter=rng,
            extra={"floor": room.floor, "surfaces": stage.surfaces, "spots": stage.spots},
        )

    def _tasks(self) -> list[str]:
        if self.tasks:
            return list(self.tasks)
        return [name for name, kind in TASKS.items() if kind.length == self.length and not kind.on_request]


def draw_room(seed: tuple[int, ...], rooms: Sequence[str] = ROOMS) -> Room:
    """Draw a furnished room, one of the kinds `rooms`, without things."""
    rng, spec = np.random.default_rng(seed), new_spec()
    name = rooms[int(rng.integers(len(rooms)))]
    palette = draw_palette(rng)
    add_textures(spec, rng, hard_floor=name == "kitchen")
    return DRAW_ROOM[name](spec, rng, palette)
