"""A policy's chunks beside recorded ones: errors by step and dim, the loss of action tokens, whether words matter.

Axes: `n` frames, `ah` action horizon, `ad` action dims of the robot.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from pilot.data.formats.episodes import EpisodeDataset
from pilot.types import Sample

AT_ONCE = 16
STEPS = 4  # of a chunk that a table has columns for
OTHER_NOISE = 1  # the seed of a session's noise, whose own is 0


@dataclass(frozen=True, kw_only=True)
class ActionErrors:
    """Distances of chunks from recorded actions in the robot's units [n ah ad], and which of them count [n ah]."""

    errors: Float[np.ndarray, "n ah ad"]
    valid: Bool[np.ndarray, "n ah"]
    names: tuple[str, ...]
    spread: Float[np.ndarray, " ad"]  # the standard deviation of the recorded actions, to compare with

    def by_step(self) -> Float[np.ndarray, "ah ad"]:
        """Return the mean distance at each step of a chunk, NaN where nothing was recorded."""
        counted = np.where(self.valid[..., None], self.errors, np.nan)
        with np.errstate(invalid="ignore"):
            return np.nansum(counted, 0) / np.isfinite(counted).sum(0)

    @property
    def relative(self) -> float:
        """The mean distance as a share of the actions' own spread: 0 is perfect, about 0.8 is guessing the mean.

        NaN where no action moves.
        """
        moving = moves(self.spread)
        shares = self.errors[self.valid][:, moving] / self.spread[moving]
        return float(np.mean(shares)) if shares.size else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Return the mean distance by dim and step, None where nothing was recorded."""
        by_step = self.by_step()
        steps = {name: [known(round(float(value), 6)) for value in by_step[:, d]] for d, name in enumerate(self.names)}
        return {"frames": len(self.errors), "relative_error": known(self.relative), "error_by_step": steps}

    def to_markdown(self) -> str:
        """Write the mean distances as a table, a line per dim."""
        by_step = self.by_step()
        chosen = np.unique(np.linspace(0, len(by_step) - 1, STEPS).round().astype(int))
        share = known(self.relative)
        off = "they never move" if share is None else f"{share:.0%} of their own spread off on average"
        lines = [
            f"Actions: {off}, over {len(self.errors)} frames",
            "",
            f"| dim | spread | {' | '.join(f'step {step + 1}' for step in chosen)} |",
            "|---" * (len(chosen) + 2) + "|",
        ]
        for d, name in enumerate(self.names):
            cells = " | ".join(f"{by_step[step, d]:.4g}" for step in chosen)
            lines.append(f"| {name} | {self.spread[d]:.4g} | {cells} |")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class TokenLosses:
    """What chunks lose on their way through action tokens and back, in normalised actions, and how many tokens."""

    errors: Float[np.ndarray, " n"]  # root mean square of each chunk
    lengths: Int[np.ndarray, " n"]

    def to_json(self) -> dict[str, Any]:
        """Return the summary."""
        return {
            "chunks": len(self.errors),
            "rms_error": float(np.sqrt(np.mean(self.errors**2))),
            "worst_error": float(self.errors.max()),
            "tokens_median": float(np.median(self.lengths)),
            "tokens_max": int(self.lengths.max()),
        }

    def to_markdown(self) -> str:
        """Write the summary as a sentence."""
        row = self.to_json()
        return (
            f"Action tokens: {row['tokens_median']:.0f} for a chunk (at most {row['tokens_max']}); read back, they are "
            f"{row['rms_error']:.4f} off in normalised actions (the worst chunk {row['worst_error']:.4f})"
        )


@dataclass(frozen=True, kw_only=True)
class LanguageProbe:
    """How much chunks change, in spreads of the recorded actions, when only the words or only the noise change."""

    by_words: Float[np.ndarray, " n"]
    by_noise: Float[np.ndarray, " n"]

    @property
    def follows(self) -> float:
        """The share of frames in which other words change the chunk more than other noise does."""
        return float(np.mean(self.by_words > self.by_noise))

    def to_json(self) -> dict[str, Any]:
        """Return the summary."""
        changes = {"by_words": float(np.median(self.by_words)), "by_noise": float(np.median(self.by_noise))}
        return {"frames": len(self.by_words), "words_matter_more": self.follows} | changes

    def to_markdown(self) -> str:
        """Write the summary as a sentence."""
        row = self.to_json()
        return (
            f"Words: in {self.follows:.0%} of {row['frames']} frames another instruction changes the chunk more than "
            f"other noise does (median change {row['by_words']:.3f} by words, {row['by_noise']:.3f} by noise)"
        )


def measure_actions(
    policy: Any, dataset: EpisodeDataset, *, robot: str | None = None, rows: int = 512, seed: int = 0
) -> ActionErrors:
    """Compare the policy's chunks with the recorded ones at `rows` frames, each asked without memory.

    Raises:
        ValueError: the set's actions are not this robot's.
    """
    drawn = draw_rows(dataset, rows=rows, seed=seed)
    actions, is_pad = dataset.action_chunks(drawn)
    own = policy.bundle.find_robot(robot).robot
    if actions.shape[-1] != own.action_dim:
        raise ValueError(
            f"{dataset.path} has {actions.shape[-1]} action dims, robot '{own.name}' of the policy {own.action_dim}; "
            "name another of the policy's robots with --robot"
        )
    chunks = ask(policy, dataset, drawn, robot=robot)
    horizon = min(chunks.shape[1], actions.shape[1])
    return ActionErrors(
        errors=np.abs(chunks[:, :horizon] - actions[:, :horizon]),
        valid=~is_pad[:, :horizon],
        names=own.action_names,
        spread=np.asarray(actions[~is_pad].std(0), float),
    )


def measure_tokens(
    policy: Any, dataset: EpisodeDataset, *, robot: str | None = None, rows: int = 512, seed: int = 0
) -> TokenLosses | None:
    """Write recorded chunks as the policy's action tokens and read them back; None if it has no tokenizer."""
    tokenizer, pipeline = policy.bundle.action_tokenizer, policy.pipelines[policy.bundle.find_robot(robot).robot.name]
    if tokenizer is None:
        return None
    errors, lengths = [], []
    for i in draw_rows(dataset, rows=rows, seed=seed):
        row = dataset.row(int(i))
        sample = Sample(images={}, prompt="", state=row["state"], actions=row["actions"])
        chunk = pipeline.normalized_actions(sample)
        ids = tokenizer.encode(chunk)
        decoded = tokenizer.decode(ids, *chunk.shape)
        assert decoded.actions is not None, decoded.error
        errors.append(float(np.sqrt(np.mean((decoded.actions - chunk) ** 2))))
        lengths.append(len(ids))
    return TokenLosses(errors=np.array(errors), lengths=np.array(lengths))


def probe_language(
    policy: Any, dataset: EpisodeDataset, *, robot: str | None = None, rows: int = 128, seed: int = 0
) -> LanguageProbe | None:
    """Ask at the same frames with another task's words, and with other noise.

    None if the set has one task only, or no action moves in these frames.
    """
    if len(dataset.tasks) < 2:
        return None
    drawn, rng = draw_rows(dataset, rows=rows, seed=seed), np.random.default_rng([seed, 1])
    actions, is_pad = dataset.action_chunks(drawn)
    spread = actions[~is_pad].std(0)
    if not (moving := moves(spread)).any():
        return None
    own = [dataset.tasks[dataset.task_index[i]] for i in drawn]
    others = [rng.choice([task for task in dataset.tasks if task != words]) for words in own]
    plain = ask(policy, dataset, drawn, robot=robot)
    by_words = ask(policy, dataset, drawn, robot=robot, prompts=[str(words) for words in others])
    by_noise = ask(policy, dataset, drawn, robot=robot, noise=OTHER_NOISE)
    changes = [np.abs((chunks - plain)[..., moving] / spread[moving]).mean((1, 2)) for chunks in (by_words, by_noise)]
    return LanguageProbe(by_words=changes[0], by_noise=changes[1])


def moves(spread: Float[np.ndarray, " ad"]) -> Bool[np.ndarray, " ad"]:
    """Return which dims move in recorded actions: of the others nothing can be said in shares of their spread."""
    return spread > 1e-6 * max(float(spread.max()), 1e-9)


def known(value: float) -> float | None:
    """Return a number as JSON can hold it: None for NaN."""
    return None if np.isnan(value) else value


def draw_rows(dataset: EpisodeDataset, *, rows: int, seed: int) -> Int[np.ndarray, " n"]:
    """Draw frames that training may start at, in order."""
    known = dataset.trainable_rows()
    return np.sort(np.random.default_rng(seed).choice(known, min(rows, len(known)), replace=False))


def ask(
    policy: Any,
    dataset: EpisodeDataset,
    rows: Int[np.ndarray, " n"],
    *,
    robot: str | None = None,
    prompts: Sequence[str] | None = None,
    noise: int | None = None,
) -> Float[np.ndarray, "n ah ad"]:
    """Return the chunk that a new session answers each frame with, to its own words or to `prompts`."""
    return np.concatenate(list(_ask(policy, dataset, rows, robot=robot, prompts=prompts, noise=noise)))


def _ask(
    policy: Any,
    dataset: EpisodeDataset,
    rows: Int[np.ndarray, " n"],
    *,
    robot: str | None,
    prompts: Sequence[str] | None,
    noise: int | None,
) -> Iterator[Float[np.ndarray, "b ah ad"]]:
    for start in range(0, len(rows), AT_ONCE):
        frames = [dataset.frame(int(i)) for i in rows[start : start + AT_ONCE]]
        words = [frame["task"] for frame in frames] if prompts is None else prompts[start : start + AT_ONCE]
        sessions = [policy.session(robot=robot) for _ in frames]
        for session in sessions:
            if noise is not None:
                session.noise_generator.manual_seed(noise)
        seen = [{"images": f["images"], "state": f["state"], "prompt": p} for f, p in zip(frames, words, strict=True)]
        yield np.stack([answer["actions"] for answer in policy.infer_many(sessions, seen)])
