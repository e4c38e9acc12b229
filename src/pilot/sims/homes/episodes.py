"""Draws an episode in a home: which objects there are, in what colours and where, and the instruction.

No phrase is ever ambiguous: every object has its own (colour, kind). Level 1 is two objects and one move. Level 2 is
three to five objects, some of which share the target's colour or kind, so that only both words together name it.
"""

from dataclasses import dataclass

import numpy as np

from pilot.sims.homes import language
from pilot.sims.homes.objects import COLOURS_RGB
from pilot.sims.homes.rooms import Home, Receptacle, free_spots

TASKS = ("single", "multi")
SECONDS_PER_MOVE = 8.0  # three times as long as the expert takes


@dataclass(frozen=True)
class Thing:
    """One object on the table; `index` is its number in the home's pool."""

    index: int
    kind: str
    colour: str
    rgb: np.ndarray
    xy: np.ndarray
    yaw: float

    @property
    def name(self) -> str:
        """The words for the object, such as "red cup"."""
        return language.phrase(self.colour, self.kind)


@dataclass(frozen=True)
class HomesEpisode:
    """Objects with their places, and an instruction: `targets` (indices of `things`) are to go into `receptacle`."""

    prompt: str
    things: tuple[Thing, ...]
    targets: tuple[int, ...]
    receptacle: Receptacle
    gripper: np.ndarray


def draw_episode(home: Home, episode: int, *, task: str, seed: int = 0) -> HomesEpisode:
    """Draw episode number `episode` of a home; the same numbers give the same episode, bit for bit.

    Another `seed` gives other episodes: demonstrations in a home do not begin as its evaluation does, which has seed 0.
    """
    words = [home.seed, home.level, TASKS.index(task), episode]
    rng = np.random.default_rng([*words, seed] if seed else words)
    receptacle = home.receptacles[rng.integers(len(home.receptacles))]
    if task == "single":
        pairs, prompt = _single(rng, home, receptacle.name)
        targets = (0,)
    else:
        pairs, targets, prompt = _multi(rng, home, receptacle.name)
    things = _place(rng, home, pairs)
    gripper = rng.uniform([-0.26, -0.20, 0.20], [0.26, 0.20, 0.32])
    return HomesEpisode(prompt=prompt, things=things, targets=targets, receptacle=receptacle, gripper=gripper)


class _Draw:
    """Draws objects from the pool, one colour each, never the same (colour, kind) twice."""

    def __init__(self, rng: np.random.Generator, home: Home):
        self.rng, self.home = rng, home
        self.pairs: list[tuple[int, str]] = []  # (number in the pool, colour)

    def take(self, *, kinds=None, not_kinds=(), colour: str | None = None) -> bool:
        """Add one object of one of these kinds and of this colour; False if there is none left."""
        used = {index for index, _ in self.pairs}
        taken = {(self.home.pool[index][0], c) for index, c in self.pairs}
        colours = (colour,) if colour else language.COLOURS
        choices = [
            (index, c)
            for index, (kind, _) in enumerate(self.home.pool)
            for c in colours
            if index not in used and (kind, c) not in taken and (not kinds or kind in kinds) and kind not in not_kinds
        ]
        if choices:
            self.pairs.append(choices[self.rng.integers(len(choices))])
        return bool(choices)


def _single(rng: np.random.Generator, home: Home, receptacle: str) -> tuple[list[tuple[int, str]], str]:
    draw = _Draw(rng, home)
    draw.take()
    index, colour = draw.pairs[0]
    kind = home.pool[index][0]
    if home.level == 2:
        count = int(rng.integers(3, 6))
        draw.take(kinds=(kind,))
        draw.take(colour=colour)
    else:
        count = 2
    while len(draw.pairs) < count:
        draw.take()
    options = language.single_instructions(language.phrase(colour, kind), receptacle)
    return draw.pairs, options[rng.integers(len(options))]


def _multi(rng: np.random.Generator, home: Home, receptacle: str) -> tuple[list[tuple[int, str]], tuple[int, ...], str]:
    """Draw a task of several moves: a category, a list of two, or everything; only what the home's pool can fill."""
    draw = _Draw(rng, home)
    kinds = [kind for kind, _ in home.pool]
    full = [c for c, members in language.CATEGORIES.items() if sum(k in members for k in kinds) >= 2]
    form = rng.choice([*full, "list", "everything"])
    if form == "everything":
        count = total = int(rng.integers(2, 4))
        wanted, spared, prompt = None, (), language.everything_instruction(receptacle)
    elif form == "list":
        count, total = 2, int(rng.integers(3, 6))
        wanted, spared, prompt = None, (), ""
    else:
        count, total = int(rng.integers(2, 4)), int(rng.integers(3, 6))
        wanted = spared = language.CATEGORIES[str(form)]
        prompt = language.category_instruction(str(form), receptacle)
    while len(draw.pairs) < count and draw.take(kinds=wanted):
        pass
    targets = tuple(range(len(draw.pairs)))
    while len(draw.pairs) < total and draw.take(not_kinds=spared):
        pass
    if form == "list":
        names = [language.phrase(colour, kinds[index]) for index, colour in draw.pairs]
        prompt = language.list_instruction((names[0], names[1]), receptacle)
    return draw.pairs, targets, prompt


def _place(rng: np.random.Generator, home: Home, pairs: list[tuple[int, str]]) -> tuple[Thing, ...]:
    spots = None
    while spots is None:  # the home was drawn with room for five, so this ends
        spots = free_spots(rng, home.receptacles, count=len(pairs))
    return tuple(
        Thing(
            index=index,
            kind=home.pool[index][0],
            colour=colour,
            rgb=np.clip(np.array(COLOURS_RGB[colour]) * rng.uniform(0.9, 1.1) + rng.uniform(-0.03, 0.03, 3), 0, 1),
            xy=xy,
            yaw=float(rng.uniform(-np.pi, np.pi)),
        )
        for (index, colour), xy in zip(pairs, spots, strict=True)
    )
