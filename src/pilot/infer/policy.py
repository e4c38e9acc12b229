"""Policies: raw observations in, robot commands out.

`Policy` is stateless weights and pipeline; `Session` is one robot's conversation with it: the high level's clock and
the subtask that it last decided on. The high level and the low level are the same network: what it reads of pictures
and prompt is read once, the subtask is said from it, and the chunk is denoised from the same cache.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from pilot.data.layout import Kind, Observation
from pilot.data.pipeline import Pipeline, collate
from pilot.data.remote import CHECKPOINT_FILES, fetch
from pilot.infer import rtc
from pilot.infer.engine import Engine, engine_for
from pilot.infer.record import Record
from pilot.models.bundle import Bundle, load_bundle, save_bundle
from pilot.robots import read_openpi
from pilot.tokenizers.base import action_ids
from pilot.tokenizers.grammar import ActionGrammar, TextGrammar
from pilot.tokenizers.prompts import FORMATS, SUBTASK_END, decode_actions
from pilot.types import Sample

REPLAN_STEPS = 2
SUBTASK_SECONDS = 0.4
SUBTASK_TOKENS = 24


def load_policy(
    path: str | Path, *, device: str = "auto", num_steps: int = 10, seed: int = 0, verify: bool = False
) -> "Policy":
    """The policy in a checkpoint folder; raises on any missing, left-over or misshapen part (`load_bundle`).

    The folder may lie elsewhere: `hf://owner/repo[@revision][/folder]`, `gs://bucket/folder` (`data/remote.py`). With
    `verify` the checkpoint's record is replayed first (`infer/record.py`).

    Raises:
        FileNotFoundError: no checkpoint there, or `verify` and it has no record.
        ValueError: the checkpoint is damaged or contradicts itself, or it does not act as it was recorded.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    path = fetch(path, only=CHECKPOINT_FILES)
    bundle = load_bundle(path, device=device)
    if verify:
        record = Record.load(path)
        record.check(Policy(bundle, device=device, num_steps=record.num_steps, seed=record.seed), path)
    return Policy(bundle, device=device, num_steps=num_steps, seed=seed, path=Path(path))


def export(
    bundle: Bundle, path: str | Path, *, weights: dict[str, torch.Tensor] | None = None, device: str = "cpu"
) -> Path:
    """`save_bundle` with a record, made by the policy that is read back from what was written.

    Raises:
        OSError: the folder cannot be written.
        ValueError: the policy cannot answer; then nothing is written.
    """

    def add_record(folder: Path) -> None:
        Record.of(load_policy(folder, device=device)).save(folder)

    return save_bundle(bundle, path, weights=weights, finish=add_record)


class Policy:
    """Weights, pipeline and sampling choices; shared by sessions, holds nothing of any robot."""

    def __init__(
        self, bundle: Bundle, *, device: str = "cpu", num_steps: int = 10, seed: int = 0, path: Path | None = None
    ) -> None:
        self.bundle, self.device, self.num_steps, self.seed, self.path = bundle, device, num_steps, seed, path
        self.model = bundle.model.eval()
        self.engine = engine_for(self.model)
        self.rtc = rtc.Rtc(mode="trained" if self.model.config.rtc_max_delay else "guided")
        self.pipeline: Pipeline = bundle.pipeline
        self.decides = bundle.model.config.speaks and FORMATS[bundle.model.config.prompt].target is not None
        self.subtask_end = bundle.text.encode("x" + SUBTASK_END)[-1]
        self.words = self._words() if self.decides else None
        self.chunks = self._chunks() if bundle.model.config.action_expert is None else None
        self.metadata: dict[str, Any] = {
            "robot": bundle.robot.name,
            "cameras": list(bundle.robot.cameras),
            "state_names": list(bundle.robot.state_names),
            "action_names": list(bundle.robot.action_names),
            "action_horizon": bundle.model.config.action_horizon,
            "replan_steps": REPLAN_STEPS,
            "control_hz": bundle.robot.control_hz,
        }

    def session(self, *, subtask_seconds: float = SUBTASK_SECONDS, replan_steps: int = REPLAN_STEPS) -> "Session":
        """A robot's own conversation; between two decisions of the high level pass `subtask_seconds` of its time."""
        return Session(self, subtask_seconds=subtask_seconds, replan_steps=replan_steps)

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """One decision and one chunk, with no memory: see `Session.infer`."""
        return self.session().infer(observation)

    def sample(self, observation: Mapping[str, Any], *, subtask: str | None = None) -> Sample:
        """A raw observation, checked, as the pipeline takes it; also one of openpi's client for this robot.

        Raises:
            ValueError: cameras, state or prompt missing, or not what the robot declares.
        """
        robot = self.bundle.robot
        observation = read_openpi(robot, observation)
        for name in ("images", "state", "prompt"):
            if name not in observation:
                raise ValueError(f"the observation has no '{name}'; it has {sorted(observation)}")
        images = observation["images"]
        if not isinstance(images, Mapping) or not images:
            raise ValueError(
                f"'images' maps camera names to pictures, got {type(images).__name__}; cameras: {robot.cameras}"
            )
        if missing := [camera for camera in robot.cameras if camera not in images and robot.slot(camera) is not None]:
            raise ValueError(
                f"cameras {missing} are missing; robot '{robot.name}' has {robot.cameras}, got {sorted(images)}"
            )
        if not isinstance(observation["prompt"], str):
            raise ValueError(f"'prompt' is a string, got {type(observation['prompt']).__name__}")
        known = [camera for camera in robot.cameras if camera in images]
        ordered = {camera: images[camera] for camera in (*known, *(c for c in images if c not in robot.cameras))}
        try:
            state = np.asarray(observation["state"], np.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(f"'state' is a vector of numbers ({', '.join(robot.state_names)}): {error}") from error
        return Sample(images=ordered, prompt=observation["prompt"], state=state, subtask=subtask)

    @torch.inference_mode()
    def infer_many(
        self, sessions: Sequence["Session"], observations: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """One decision and one chunk for each of several robots, in one batch: `Session.infer` of each, in less time.

        Those whose high level decides now and those that go on with their subtask are two batches.
        """
        turns = [session.turn(observation) for session, observation in zip(sessions, observations, strict=True)]
        for decide in (True, False):
            if group := [turn for turn in turns if turn.decide == decide]:
                self._answer(group, decide=decide)
        return [turn.answer for turn in turns]

    def _answer(self, turns: list["Turn"], *, decide: bool) -> None:
        start = time.perf_counter()
        rows = [self.pipeline.encode(turn.sample, say_actions=False) for turn in turns]
        read = collate(rows, device=self.device).observation
        reading = self.engine.read(read, room=SUBTASK_TOKENS if decide else 0)
        decided = time.perf_counter()
        if decide:
            tokens, reading = self.speak(reading)
            for turn, said in zip(turns, tokens, strict=True):
                turn.spoken = self.bundle.text.decode(said).split(";\n")[0] or None
        spoke = time.perf_counter()
        if self.chunks is None:
            chunks = self.denoise(reading, read.state, turns).cpu().numpy()
        else:
            chunks = self.spell([replace(turn.sample, subtask=turn.spoken) for turn in turns], self.chunks)
        for turn, chunk in zip(turns, chunks, strict=True):
            assert turn.sample.state is not None
            turn.finish(self.pipeline.decode_actions(chunk, turn.sample.state))
        end = time.perf_counter()
        timing = {"read": decided - start, "subtask": spoke - decided, "actions": end - spoke, "total": end - start}
        for turn in turns:
            turn.answer["timing"] = timing

    def denoise(self, reading: Any, state: torch.Tensor, turns: list["Turn"]) -> torch.Tensor:
        """A chunk for each turn, joined to what is left of the one before where it is said (`infer/rtc.py`)."""
        noise = torch.cat([self.noise(turn.session.generator) for turn in turns])
        previous = [turn.previous for turn in turns]
        if not any(previous):
            return self.engine.act(reading, state, noise=noise, num_steps=self.num_steps)[-1]
        states = [turn.sample.state for turn in turns if turn.sample.state is not None]
        left = rtc.encode(self.pipeline, previous, states, device=self.device)
        steps = self.num_steps
        return rtc.act(self.engine, reading, state, noise=noise, leftover=left, rtc=self.rtc, num_steps=steps)[-1]

    def observe(self, sample: Sample) -> Observation:
        return collate([self.pipeline.encode(sample, say_actions=False)], device=self.device).observation

    def speak(self, reading: Any) -> tuple[list[list[int]], Any]:
        """The next subtask of each row, greedily: a box or none, then words, and never a token of actions.

        Also returns the reading that goes on with it.
        """
        end = self.subtask_end
        tokens, reading = self.engine.speak(reading, eos=end, max_tokens=SUBTASK_TOKENS, allowed=self.words)
        return tokens.tolist(), reading

    def spell(self, samples: list[Sample], grammar: ActionGrammar) -> list[np.ndarray]:
        """The chunk of each sample that the model writes as action tokens, of which only whole chunks can be written.

        Raises:
            ValueError: what was written cannot be read.
        """
        text, config, horizon, dim = self.bundle.text, self.model.config, grammar.horizon, grammar.dim
        read = collate([self.pipeline.encode(sample) for sample in samples], device=self.device).observation
        longest = len(grammar.start) + 3 * horizon * dim + len(grammar.end)  # a value is at most three bytes
        engine = cast(Engine, self.engine)  # what writes its actions can speak
        reading = engine.read(read, room=longest)
        said, _ = engine.speak(reading, eos=text.eos_id, max_tokens=longest, kind=Kind.FAST, allowed=grammar)
        shape = {"horizon": horizon, "dim": dim, "vocab_size": config.vocab_size, "offset": config.fast_offset}
        results = [decode_actions(text, row, actions=grammar.actions, **shape) for row in said.tolist()]
        if errors := [result.error for result in results if result.error is not None]:
            raise ValueError(f"the model wrote action tokens that are no chunk: {errors[0]}")
        return [np.asarray(result.actions, np.float32) for result in results]

    def _words(self) -> TextGrammar:
        """What the high level may say."""
        config, actions = self.model.config, self.bundle.action_tokenizer
        taken = action_ids(config.vocab_size, actions.vocab_size, offset=config.fast_offset) if actions else range(0)
        return TextGrammar(
            self.bundle.text, vocab_size=config.vocab_size, end=self.subtask_end, boxes="first", actions=taken
        )

    def _chunks(self) -> ActionGrammar:
        """What a model without an action expert may say of actions."""
        config, actions = self.model.config, self.bundle.action_tokenizer
        if actions is None:
            raise ValueError("the checkpoint has neither an action expert nor an action tokenizer: it cannot act")
        return ActionGrammar(
            self.bundle.text, actions, horizon=config.action_horizon, dim=self.bundle.robot.action_dim,
            vocab_size=config.vocab_size, offset=config.fast_offset,
        )  # fmt: skip

    def noise(self, generator: torch.Generator) -> torch.Tensor:
        config = self.model.config
        return torch.randn(1, config.action_horizon, config.action_dim, generator=generator).to(self.device)


class Session:
    """One robot's run with a policy."""

    def __init__(self, policy: Policy, *, subtask_seconds: float, replan_steps: int) -> None:
        self.policy, self.metadata = policy, policy.metadata
        self.replan_steps, self.subtask_seconds = replan_steps, subtask_seconds
        self.reset()

    def reset(self) -> None:
        """Forget the subtask, start the clock and the noise again."""
        self.generator = torch.Generator().manual_seed(self.policy.seed)
        self.subtask: str | None = None
        self.prompt: str | None = None
        self.since_decision = float("inf")

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """`{"images", "state", "prompt"[, "subtask"][, "previous"]}` → a chunk.

        `subtask` overrides the high level. With its box in front (as `<loc>` tokens) it is acted on as it stands; plain
        words are heard as a verbal instruction: they take the place of the prompt, and the model finds the box.

        `previous` is what the robot will do from this observation on if nothing new comes, and how much of that while
        it waits: `{"actions": [n robot action dim], "delay": ticks}`. The chunk goes on from there (`infer/rtc.py`).

        Returns `actions` float32 [ah, robot action dim] in the robot's units, `subtask` (words), `box` (y0, x0, y1, x1)
        or None, and `timing` in seconds.

        Raises:
            ValueError: the observation is not what the robot declares.
        """
        return self.policy.infer_many([self], [observation])[0]

    def turn(self, observation: Mapping[str, Any]) -> "Turn":
        """What is to be done about an observation: decide or go on, and the sample to read."""
        prompt, given = self._heard(observation)
        decide = given is None and self._due(prompt)
        spoken = given if given is not None else None if decide else self.subtask
        sample = self.policy.sample({**observation, "prompt": prompt}, subtask=spoken)
        previous = self._previous(observation.get("previous"))
        return Turn(session=self, sample=sample, decide=decide, spoken=spoken, previous=previous)

    def _previous(self, value: Any) -> rtc.Previous | None:
        if value is not None and self.policy.chunks is not None:
            raise ValueError("'previous' is for models with an action expert; this one writes its actions as tokens")
        return rtc.read_previous(value, self.policy.bundle.robot)

    def _heard(self, observation: Mapping[str, Any]) -> tuple[Any, str | None]:
        """The prompt to act on and, if one is given, a subtask that is complete with its box."""
        given, prompt = observation.get("subtask"), observation.get("prompt")
        if given is None:
            return prompt, None
        if not isinstance(given, str) or not given.strip():
            raise ValueError(f"'subtask' is words, with or without a box in front, got {given!r}")
        _, box = self.policy.pipeline.words_and_box(given)
        return (prompt, given) if box is not None else (given, None)

    def _due(self, prompt: str | None) -> bool:
        """The high level, if there is one, decides when its time has come, or when the person says something else."""
        if not self.policy.decides:
            return False
        return self.subtask is None or prompt != self.prompt or self.since_decision >= self.subtask_seconds - 1e-9

    def remember(self, prompt: str, subtask: str | None, *, decided: bool) -> None:
        """The subtask acted on, and the control time that passes until the next turn."""
        self.prompt, self.subtask = prompt, subtask
        elapsed = self.replan_steps / self.policy.bundle.robot.control_hz
        self.since_decision = elapsed if decided else self.since_decision + elapsed


@dataclass(kw_only=True)
class Turn:
    """One robot's part of a batch."""

    session: Session
    sample: Sample
    decide: bool
    spoken: str | None
    previous: rtc.Previous | None = None
    answer: dict[str, Any] = field(default_factory=dict)

    def finish(self, actions: np.ndarray) -> None:
        pipeline = self.session.policy.pipeline
        words, box = pipeline.words_and_box(self.spoken) if self.spoken else (None, None)
        self.answer |= {"actions": actions, "subtask": words, "box": box}
        self.session.remember(self.sample.prompt, self.spoken, decided=self.decide)
