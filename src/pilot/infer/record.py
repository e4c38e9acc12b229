"""One observation and what a policy made of it, kept in its checkpoint: a changed pipeline is noticed, not suffered.

`policy.export` writes a checkpoint with its record; `load_policy(path, verify=True)` replays it. What is compared is
what the user gets, by the way that the user takes: the prompt's tokens, the pictures and the state as the model sees
them, the subtask that it says, the noise, and the actions in the robot's units.

The observation is made up from what the robot declares, from a seed, and not taken from data: every checkpoint can have
one (a converted one comes without data), nobody's home is published with the weights, and it can be made hard: pictures
of another size and shape than the model's, with edges at every place, a state that uses its whole range. It is stored
whole, so a record can be replayed by versions of pilot that would make up another one.

On one machine a replay is equal to the bit. Elsewhere the order of sums differs, and pictures are scaled by another
version of the library; that is what `TOLERANCE` and `PICTURE_LEVELS` leave room for.

Axes: `ah` action horizon, `ad` the model's action dims, `rd` the robot's.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

import pilot
from pilot.data.pipeline import Pipeline
from pilot.models.bundle import PREPROCESSING_VERSION
from pilot.tokenizers.base import write_atomically

if TYPE_CHECKING:
    from pilot.infer.policy import Policy

FILE = "record.safetensors"
PROMPT = "put the red cup in the sink"
TILES = (12, 16)  # rows and columns of a made-up picture
TILE_PIXELS = 10

TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
"""Largest difference of an action, as a share of its dim's range from q01 to q99, by the dtype of the weights."""
PICTURE_LEVELS = 1
"""Largest difference of a pixel, in levels of 255."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a policy makes of an observation. `noise` is what its chunk starts from."""

    tokens: list[int]
    pictures: dict[str, np.ndarray]
    state: Float[np.ndarray, " ad"]
    noise: Float[np.ndarray, "ah ad"]
    subtask: str | None
    actions: Float[np.ndarray, "ah rd"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """An observation, its outcome, and by whom: the sampling choices, the dtype of the weights and the versions."""

    observation: dict[str, Any]
    outcome: Outcome
    num_steps: int
    seed: int
    dtype: str
    versions: str

    @classmethod
    def of(cls, policy: "Policy") -> "Record":
        observation = made_up(policy)
        return cls(
            observation=observation,
            outcome=replay(policy, observation),
            num_steps=policy.num_steps,
            seed=policy.seed,
            dtype=str(next(policy.model.parameters()).dtype).removeprefix("torch."),
            versions=versions(policy),
        )

    def check(self, policy: "Policy", path: str | Path) -> None:
        """Replay with `policy`, which samples as the recorded one did, from the checkpoint at `path`.

        Raises:
            ValueError: something differs: what, by how much, and with which versions it was recorded.
        """
        assert (policy.num_steps, policy.seed) == (self.num_steps, self.seed)
        got = replay(policy, self.observation)
        if found := differences(self.outcome, got, policy.pipeline, tolerance=TOLERANCE[self.dtype]):
            raise ValueError(
                f"{path} does not act as it was recorded: {'; '.join(found)}. Recorded with {self.versions}; this is "
                f"{versions(policy)}. Go back to what it was recorded with or, if the change is meant, record it anew"
            )

    def save(self, folder: str | Path) -> None:
        """Put it into a checkpoint folder, in place of the one that is there."""
        seen, outcome = self.observation, self.outcome
        tensors = {f"images/{camera}": image for camera, image in seen["images"].items()}
        tensors |= {f"pictures/{camera}": picture for camera, picture in outcome.pictures.items()}
        tensors |= {"state": seen["state"], "normalized_state": outcome.state, "noise": outcome.noise}
        tensors |= {"tokens": np.array(outcome.tokens, np.int64), "actions": outcome.actions}
        choices = {"num_steps": self.num_steps, "seed": self.seed, "dtype": self.dtype, "versions": self.versions}
        note = choices | {"prompt": seen["prompt"], "subtask": outcome.subtask}
        whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        write_atomically(Path(folder) / FILE, save(whole, {"note": json.dumps(note)}))

    @classmethod
    def load(cls, folder: str | Path) -> "Record":
        """The record of a checkpoint.

        Raises:
            FileNotFoundError: it has none.
            ValueError: the file is damaged.
        """
        file = Path(folder) / FILE
        if not file.is_file():
            raise FileNotFoundError(
                f"{folder} has no {FILE} to verify it by: it was written without one. Load it with verify=False, or, "
                "where it is known to act well: pilot.infer.record.Record.of(policy).save(path)"
            )
        try:
            with safe_open(file, framework="numpy") as opened:
                note = json.loads(opened.metadata()["note"])
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no dict)
            images, pictures = (_of_cameras(tensors, kind) for kind in ("images/", "pictures/"))
            outcome = Outcome(
                tokens=tensors["tokens"].tolist(),
                pictures=pictures,
                state=tensors["normalized_state"],
                noise=tensors["noise"],
                subtask=note.pop("subtask"),
                actions=tensors["actions"],
            )
            observation = {"images": images, "state": tensors["state"], "prompt": note.pop("prompt")}
            return cls(observation=observation, outcome=outcome, **note)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is damaged ({error!r}); fetch the checkpoint again") from error


def made_up(policy: "Policy", *, seed: int = 0) -> dict[str, Any]:
    """An observation from what the robot declares: pictures of coloured tiles, a state from all over its range."""
    rng, stats = np.random.default_rng(seed), policy.bundle.norm_stats["state"]
    tiles = {camera: rng.integers(0, 256, (*TILES, 3), dtype=np.uint8) for camera in policy.bundle.robot.cameras}
    images = {camera: tile.repeat(TILE_PIXELS, axis=0).repeat(TILE_PIXELS, axis=1) for camera, tile in tiles.items()}
    state = stats.q01 + rng.uniform(0.05, 0.95, len(stats.q01)) * (stats.q99 - stats.q01)
    state = policy.pipeline.adapter.state_inverse(state.astype(np.float32)).astype(np.float32)
    return {"images": images, "state": state, "prompt": PROMPT}


def replay(policy: "Policy", observation: dict[str, Any]) -> Outcome:
    """What the policy makes of `observation`, in a session of its own."""
    row = policy.pipeline.encode(policy.sample(observation), with_fast=False)
    session = policy.session()
    actions = session.infer(observation)["actions"]
    noise = policy.noise(torch.Generator().manual_seed(policy.seed))[0].float().cpu().numpy()
    return Outcome(
        tokens=row.tokens, pictures=row.images, state=row.state, noise=noise, subtask=session.subtask, actions=actions
    )


def differences(recorded: Outcome, got: Outcome, pipeline: Pipeline, *, tolerance: float) -> list[str]:
    """What differs beyond its tolerance, in the order in which one thing leads to the next; empty if nothing does."""
    found = []
    if got.tokens != recorded.tokens:
        found.append(f"the prompt is now tokens {got.tokens}, was {recorded.tokens}")
    if got.pictures.keys() != recorded.pictures.keys():
        found.append(f"the model now sees cameras {sorted(got.pictures)}, saw {sorted(recorded.pictures)}")
    for camera in sorted(got.pictures.keys() & recorded.pictures.keys()):
        pair = got.pictures[camera], recorded.pictures[camera]
        found += _apart(f"the picture of camera '{camera}'", *pair, tolerance=PICTURE_LEVELS, unit=" levels of 255")
    found += _apart("the normalised state", got.state, recorded.state, tolerance=1e-5)
    if got.subtask != recorded.subtask:
        found.append(f"the subtask is now {got.subtask!r}, was {recorded.subtask!r}")
    found += _apart("the noise", got.noise, recorded.noise, tolerance=1e-6)
    low, high = (pipeline.adapter.actions_inverse(getattr(pipeline.norm_stats["actions"], q)) for q in ("q01", "q99"))
    spread = np.where(high != low, np.abs(high - low), 1.0)  # a dim that never moves is compared in its own unit
    pair = got.actions / spread, recorded.actions / spread
    dims, unit = pipeline.robot.action_names, " of a dim's range from q01 to q99"
    return found + _apart("the actions", *pair, tolerance=tolerance, unit=unit, dims=dims)


def _apart(
    what: str, got: np.ndarray, want: np.ndarray, *, tolerance: float, unit: str = "", dims: tuple[str, ...] = ()
) -> list[str]:
    """A sentence if two arrays differ by more than `tolerance`; one that is NaN and one that is not differ."""
    if got.shape != want.shape:
        return [f"{what} now has shape {list(got.shape)}, had {list(want.shape)}"]
    apart = np.abs(got.astype(np.float64) - want)
    apart = np.where(np.isnan(got) & np.isnan(want), 0.0, np.nan_to_num(apart, nan=np.inf))
    if not apart.size or apart.max() <= tolerance:
        return []
    where = f" in dim '{dims[int(apart.max(0).argmax())]}'" if dims else ""
    return [f"{what}: off by up to {apart.max():.3g}{unit}{where} (tolerance {tolerance:g})"]


def versions(policy: "Policy") -> str:
    numbers = f"pilot {pilot.__version__}, torch {torch.__version__}, preprocessing version {PREPROCESSING_VERSION}"
    return f"{numbers}, {policy.device}"


def _of_cameras(tensors: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(kind): tensor for name, tensor in tensors.items() if name.startswith(kind)}
