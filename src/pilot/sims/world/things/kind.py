"""A kind of thing: its words, its looks, its shape and where a gripper can hold it. Importing it needs no physics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from pilot.sims.world.things.grasps import Grasps, as_it_lies
from pilot.sims.world.things.looks import HELD_OUT_COLOURS, PAINTS, Look, draw_look
from pilot.sims.world.things.pieces import Pieces, moved

_UPRIGHT = 0.97  # cosine of the angle at which a thing still stands
_UP = np.array([0.0, 0, 1])
_AROUND = np.array([(np.cos(a), np.sin(a), 0) for a in np.arange(32) * np.pi / 16])


class Form(NamedTuple):
    """What a thing is made of, and its grasps; its origin is the middle of its base as it stands."""

    pieces: Pieces
    grasps: Grasps = ()


def shifted(form: Form, x: float) -> Form:
    """Return a form whose origin is elsewhere: all of it is moved by `x` metres."""
    at = (x, 0.0, 0.0)
    return Form(moved(form.pieces, at), tuple(replace(grasp, tcp=grasp.tcp + at) for grasp in form.grasps))


@dataclass(frozen=True, kw_only=True)
class ThingKind:
    """A kind of thing. One without grasps is only looked at, for questions about pictures.

    `form` makes it in one look, at scale 1; the methods here answer for the look's own scale.
    """

    name: str
    family: str
    form: Callable[[Look], Form]
    synonyms: tuple[str, ...] = ()
    plural: str = ""  # where it is not name + "s"
    mass: float = 0.1  # kg, at scale 1
    colours: tuple[str, ...] = PAINTS
    patterns: tuple[str, ...] = ("plain",)
    scales: tuple[float, float] = (0.92, 1.06)
    is_handled: bool = True
    is_held_out: bool = False  # never in a training split of robot data

    def draw_look(self, rng: np.random.Generator, *, colours: Sequence[str] | None = None) -> Look:
        """Draw a look in a colour that training may see, or in one of `colours`.

        Raises:
            ValueError: this kind comes in none of `colours`.
        """
        training = [c for c in self.colours if c not in HELD_OUT_COLOURS]
        allowed = training if colours is None else [c for c in self.colours if c in colours]
        if not allowed:
            raise ValueError(f"a {self.name} comes in {', '.join(self.colours)}, not in {', '.join(colours or ())}")
        return draw_look(rng, allowed, patterns=self.patterns, scales=self.scales)

    def pieces(self, look: Look) -> Pieces:
        """Return what it is made of."""
        return _scaled_form(self, look).pieces

    def grasps(self, look: Look) -> Grasps:
        """Return where a gripper can hold it while it stands as it should."""
        return _scaled_form(self, look).grasps

    def grasps_as_it_lies(self, look: Look, rotation: np.ndarray) -> Grasps:
        """Return where a gripper can hold it in any `rotation` [3 3], in its own frame.

        If it fell over, these are grasps from above, and then those of its kind, turned with it: some of them may be
        within reach, as the rim of a mug that lies.
        """
        own = self.grasps(look)
        return own if rotation[2, 2] > _UPRIGHT else (*as_it_lies(self.pieces(look), rotation), *own)

    def height(self, look: Look) -> float:
        """Return how high it stands, in metres."""
        return max(piece.reach(_UP) for piece in self.pieces(look))

    def footprint(self, look: Look) -> float:
        """Return the radius in metres of the upright cylinder around its origin that holds it."""
        return max(float(piece.reaches(_AROUND).max()) for piece in self.pieces(look))

    def total_mass(self, look: Look) -> float:
        """Return its mass in kg."""
        return self.mass * look.scale**3

    def adjective(self, look: Look) -> str:
        """Return the word that tells this look from others, "" if all of its kind look alike."""
        if look.pattern != "plain":
            return look.pattern
        return look.colour if len(self.colours) > 1 else ""

    def names(self, look: Look) -> tuple[str, ...]:
        """Return what it may be called, its usual name first: "red mug", "red cup", …"""
        adjective = self.adjective(look)
        return tuple(f"{adjective} {noun}".strip() for noun in (self.name, *self.synonyms))

    def many(self) -> str:
        """Return its plural."""
        return self.plural or self.name + "s"


@lru_cache(maxsize=512)
def _scaled_form(kind: ThingKind, look: Look) -> Form:
    """Return the form at the look's scale, standing exactly on the ground."""
    form = kind.form(look)
    lift = max(piece.reach(-_UP) for piece in form.pieces if piece.is_touched)
    return Form(
        tuple(piece.stood(look.scale, lift=lift) for piece in form.pieces),
        tuple(replace(grasp, tcp=grasp.tcp + lift * _UP).scaled(look.scale) for grasp in form.grasps),
    )
