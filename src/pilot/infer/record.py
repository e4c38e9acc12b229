"""One observation and what a policy made of it, kept in its checkpoint, so that a changed pipeline is noticed.

`policy.export` writes a checkpoint with a record of each robot; `load_policy(path, verify=True)` replays them. What is
compared is
what the user gets, by the way that the user takes: the prompt's tokens, the pictures and the state as the model sees
them, the subtask that it writes, the noise, and the actions in the robot's units.

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
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pilot.data.pipeline import Pipeline
from pilot.data.storage.manifest import refresh_file
from pilot.infer.actor import Actor
from pilot.infer.session import Session
from pilot.models.bundle import PREPROCESSING_VERSION
from pilot.tokenizers.base import write_atomically
from pilot.version import __version__

FILE = "record.safetensors"
PROMPT = "put the red cup in the sink"
TILES = (12, 16)  # rows and columns of a made-up picture
TILE_PIXELS = 10

TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
"""Largest difference of an action, as a share of its dim's range from q01 to q99, by the dtype of the weights."""
PICTURE_LEVELS = 1
"""Largest difference of a pixel, in levels of 255."""


@dataclass(frozen=True, kw_only=True)
class RecordedOutcome:
    """The result for an observation, and what led to it. `noise` is what the chunk starts from."""

    tokens: list[int]
    pictures: dict[str, np.ndarray]
    state: Float[np.ndarray, " ad"]
    noise: Float[np.ndarray, "ah ad"]
    subtask: str | None
    actions: Float[np.ndarray, "steps rd"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """An observation and its outcome, with the sampling choices, the dtype of the weights and the versions."""

    observation: dict[str, Any]
    outcome: RecordedOutcome
    num_steps: int
    seed: int
    dtype: str
    versions: str

    @classmethod
    def of(cls, policy: Actor, *, robot: str | None = None) -> "Record":
        """Record what a policy makes of an observation that is made for a robot (for the only one, if not named)."""
        observation = dummy_observation(policy, robot=robot)
        return cls(
            observation=observation,
            outcome=replay(policy, observation, robot=robot),
            num_steps=policy.num_steps,
            seed=policy.seed,
            dtype=str(next(policy.model.parameters()).dtype).removeprefix("torch."),
            versions=versions(policy),
        )

    def check(self, policy: Actor, path: str | Path, *, robot: str | None = None) -> None:
        """Replay with `policy`, which has the recorded sampling choices and was loaded from `path`.

        Raises:
            ValueError: something differs: what, by how much, and with which versions it was recorded.
        """
        assert (policy.num_steps, policy.seed) == (self.num_steps, self.seed)
        got = replay(policy, self.observation, robot=robot)
        pipeline, tolerance = _pipeline(policy, robot), TOLERANCE[self.dtype]
        if changes := differences(self.outcome, got, pipeline, tolerance=tolerance):
            whose = f" for robot '{pipeline.robot.name}'" if len(policy.robots) > 1 else ""
            raise ValueError(
                f"{path} does not act as it was recorded{whose}: {'; '.join(changes)}. Recorded with {self.versions}; "
                f"this is {versions(policy)}. Go back to what it was recorded with or, if the change is meant, record "
                "it anew"
            )

    def save(self, folder: str | Path) -> None:
        """Write the record into a checkpoint folder, in place of the one there."""
        observation, outcome = self.observation, self.outcome
        tensors = {f"images/{camera}": image for camera, image in observation["images"].items()}
        tensors |= {f"pictures/{camera}": picture for camera, picture in outcome.pictures.items()}
        tensors |= {"state": observation["state"], "normalized_state": outcome.state, "noise": outcome.noise}
        tensors |= {"tokens": np.array(outcome.tokens, np.int64), "actions": outcome.actions}
        choices = {"num_steps": self.num_steps, "seed": self.seed, "dtype": self.dtype, "versions": self.versions}
        note = choices | {"prompt": observation["prompt"], "subtask": outcome.subtask}
        whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        file = Path(folder) / FILE
        write_atomically(file, save(whole, {"note": json.dumps(note)}))
        # The folder is the checkpoint, or that of one of its robots in it (`folder_of`).
        for checkpoint in (file.parent, *file.parent.parents[:2]):
            if (checkpoint / "config.json").is_file():
                refresh_file(checkpoint, file)
                break

    @classmethod
    def load(cls, folder: str | Path) -> "Record":
        """Read the record of a checkpoint.

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
            with safe_open(file, framework="numpy") as stored:
                note = json.loads(stored.metadata()["note"])
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (it is no dict)
            images, pictures = (_select_pictures(tensors, kind) for kind in ("images/", "pictures/"))
            outcome = RecordedOutcome(
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


def dummy_observation(policy: Actor, *, robot: str | None = None, seed: int = 0) -> dict[str, Any]:
    """Make an observation from what a robot declares: pictures of coloured tiles, a state from its whole range."""
    pipeline = _pipeline(policy, robot)
    rng, stats = np.random.default_rng(seed), pipeline.norm_stats["state"]
    tiles = {camera: rng.integers(0, 256, (*TILES, 3), dtype=np.uint8) for camera in pipeline.robot.cameras}
    images = {camera: tile.repeat(TILE_PIXELS, axis=0).repeat(TILE_PIXELS, axis=1) for camera, tile in tiles.items()}
    state = stats.q01 + rng.uniform(0.05, 0.95, len(stats.q01)) * (stats.q99 - stats.q01)
    state = pipeline.adapter.state_inverse(state.astype(np.float32)).astype(np.float32)
    return {"images": images, "state": state, "prompt": PROMPT}


def _pipeline(policy: Actor, robot: str | None) -> Pipeline:
    return policy.pipelines[policy.bundle.find_robot(robot).robot.name]


def replay(policy: Actor, observation: dict[str, Any], *, robot: str | None = None) -> RecordedOutcome:
    """Return what the policy makes of a robot's `observation`, in a fresh session."""
    row = _pipeline(policy, robot).encode(policy.make_sample(observation, robot=robot), with_fast=False)
    session = Session(policy, robot=robot, high_level=policy.high_level)
    actions = session.infer(observation)["actions"]
    noise = policy.noise(torch.Generator().manual_seed(policy.seed))[0].float().cpu().numpy()
    return RecordedOutcome(
        tokens=row.tokens, pictures=row.images, state=row.state, noise=noise, subtask=session.subtask, actions=actions
    )


def differences(recorded: RecordedOutcome, got: RecordedOutcome, pipeline: Pipeline, *, tolerance: float) -> list[str]:
    """List what differs beyond its tolerance, in the order in which one thing leads to the next."""
    changes = []
    if got.tokens != recorded.tokens:
        changes.append(f"the prompt is now tokens {got.tokens}, was {recorded.tokens}")
    if got.pictures.keys() != recorded.pictures.keys():
        changes.append(f"the model now sees cameras {sorted(got.pictures)}, saw {sorted(recorded.pictures)}")
    for camera in sorted(got.pictures.keys() & recorded.pictures.keys()):
        pair = got.pictures[camera], recorded.pictures[camera]
        changes += _difference(
            f"the picture of camera '{camera}'", *pair, tolerance=PICTURE_LEVELS, unit=" levels of 255"
        )
    changes += _difference("the normalised state", got.state, recorded.state, tolerance=1e-5)
    if got.subtask != recorded.subtask:
        changes.append(f"the subtask is now {got.subtask!r}, was {recorded.subtask!r}")
    changes += _difference("the noise", got.noise, recorded.noise, tolerance=1e-6)
    low, high = (pipeline.adapter.actions_inverse(getattr(pipeline.norm_stats["actions"], q)) for q in ("q01", "q99"))
    spread = np.where(high != low, np.abs(high - low), 1.0)  # a dim that never moves is compared in its own unit
    pair = got.actions / spread, recorded.actions / spread
    dims, unit = pipeline.robot.action_names, " of a dim's range from q01 to q99"
    return changes + _difference("the actions", *pair, tolerance=tolerance, unit=unit, dims=dims)


def _difference(
    what: str, got: np.ndarray, want: np.ndarray, *, tolerance: float, unit: str = "", dims: tuple[str, ...] = ()
) -> list[str]:
    """Return a sentence if two arrays differ by more than `tolerance`; NaN differs from any number."""
    if got.shape != want.shape:
        return [f"{what} now has shape {list(got.shape)}, had {list(want.shape)}"]
    distance = np.abs(got.astype(np.float64) - want)
    distance = np.where(np.isnan(got) & np.isnan(want), 0.0, np.nan_to_num(distance, nan=np.inf))
    if not distance.size or distance.max() <= tolerance:
        return []
    where = f" in dim '{dims[int(distance.max(0).argmax())]}'" if dims else ""
    return [f"{what}: off by up to {distance.max():.3g}{unit}{where} (tolerance {tolerance:g})"]


def versions(policy: Actor) -> str:
    """Say which versions and device a policy runs with."""
    numbers = f"pilot {__version__}, torch {torch.__version__}, preprocessing version {PREPROCESSING_VERSION}"
    return f"{numbers}, {policy.device}"


def _select_pictures(tensors: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(kind): tensor for name, tensor in tensors.items() if name.startswith(kind)}
