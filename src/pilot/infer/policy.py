"""Policies: raw observations in, robot commands out.

`Policy` is stateless weights and pipeline; a `Session` (`infer/session.py`) is one robot's conversation with it: the
clock of its high level and the subtask that was last decided on. Where the high level is the model itself, it and the
low level are the same network: what it reads of pictures and prompt is read once, the subtask is said from it, and the
chunk is denoised from the same cache.
"""

import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from pilot.data.layout import Kind, Observation
from pilot.data.pipeline import Pipeline, Row, collate
from pilot.data.storage.remote import CHECKPOINT_FILES, fetch
from pilot.infer import rtc
from pilot.infer.engine.choose import engine_for
from pilot.infer.high_level import SUBTASK_TOKENS, HighLevel, Model, Silent, named
from pilot.infer.record import Record
from pilot.infer.session import REPLAN_STEPS, SUBTASK_SECONDS, Session, Turn
from pilot.models.bundle import Bundle, load_bundle, save_bundle
from pilot.nn.devices import resolve_device
from pilot.robots import read_openpi
from pilot.tokenizers.base import action_ids
from pilot.tokenizers.grammar import ActionGrammar, Grammar, TextGrammar
from pilot.tokenizers.prompts import FORMATS, SUBTASK_END, decode_actions
from pilot.types import Sample

Item = TypeVar("Item")
Made = TypeVar("Made")


def load_policy(
    path: str | Path,
    *,
    device: str = "auto",
    num_steps: int = 10,
    replan_steps: int | None = None,
    seed: int = 0,
    verify: bool = False,
) -> "Policy":
    """The policy in a checkpoint folder; raises on any missing, left-over or misshapen part (`load_bundle`).

    The folder may lie elsewhere: `hf://owner/repo[@revision][/folder]`, `gs://bucket/folder`. With
    `verify` the checkpoint's record is replayed first (`infer/record.py`).

    Raises:
        FileNotFoundError: no checkpoint there, or `verify` and it has no record.
        ValueError: the checkpoint is damaged or contradicts itself, or it does not act as it was recorded; or it is
            one of another project, which `pilot convert` reads; or there is no such device.
    """
    device = str(resolve_device(device))
    path = fetch(path, only=CHECKPOINT_FILES)
    try:
        bundle = load_bundle(path, device=device)
    except (FileNotFoundError, ValueError) as error:
        if (kind := foreign_kind(path)) is not None:
            raise ValueError(
                f"{path} is a checkpoint of kind '{kind}'; make it one of pilot first: pilot convert {path} FOLDER "
                f"(pilot convert --help says what may be missing from it)"
            ) from error
        raise
    if verify:
        record = Record.load(path)
        record.check(Policy(bundle, device=device, num_steps=record.num_steps, seed=record.seed), path)
    return Policy(
        bundle, device=device, num_steps=num_steps, replan_steps=replan_steps, seed=seed, path=Path(path)
    )  # fmt: skip


def foreign_kind(path: Path) -> str | None:
    """Which other project the checkpoint at `path` looks like one of, if any."""
    from pilot.convert.folders import detect  # knows every format, which most who act need not

    try:
        kind = detect(path)
    except (FileNotFoundError, ValueError):
        return None
    return kind if kind != "pilot" else None


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
    """Weights, pipeline and sampling choices; shared by sessions, holds nothing of any robot.

    `num_steps` of denoising; a robot that does not choose otherwise asks again after `replan_steps` control ticks, 2 if
    not given.

    Raises:
        ValueError: more `replan_steps` than a chunk has actions, or none.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "cpu",
        num_steps: int = 10,
        replan_steps: int | None = None,
        seed: int = 0,
        path: Path | None = None,
    ) -> None:
        horizon = bundle.model.config.action_horizon
        replan_steps = min(REPLAN_STEPS, horizon) if replan_steps is None else replan_steps
        if not 1 <= replan_steps <= horizon:
            raise ValueError(f"a chunk has {horizon} actions, replan_steps is 1 to {horizon}, got {replan_steps}")
        self.bundle, self.device, self.num_steps, self.seed, self.path = bundle, device, num_steps, seed, path
        self.replan_steps = replan_steps
        self.model = bundle.model.eval()
        self.engine = engine_for(self.model)
        padded_dims = self.model.padded_dims(bundle.robot.action_dim)
        self.padded_dims = None if padded_dims is None else padded_dims.to(device)
        self.rtc = rtc.Rtc(mode="trained" if self.model.config.rtc_max_delay else "guided")
        self.pipeline: Pipeline = bundle.pipeline
        self.masks_cameras = not self.model.needs_all_cameras
        self.own_high_level: HighLevel | None = None
        self.takes_subtasks = FORMATS[bundle.model.config.prompt].target is not None
        self.decides = bundle.model.config.generates_text and self.takes_subtasks
        self.subtask_end = bundle.text.encode("x" + SUBTASK_END)[-1]
        self.words = self.text_grammar(boxes="first") if self.decides else None
        self.grammars: dict[Hashable, Grammar] = {}
        self.chunks = None if self.model.samples_actions else self._chunks()
        self.metadata: dict[str, Any] = {
            "robot": bundle.robot.name,
            "cameras": list(bundle.robot.cameras),
            "state_names": list(bundle.robot.state_names),
            "action_names": list(bundle.robot.action_names),
            "action_units": list(bundle.robot.action_units),
            "action_horizon": horizon,
            "replan_steps": replan_steps,
            "control_hz": bundle.robot.control_hz,
            "image_sizes": self._image_sizes(),
            "rtc": self.model.has_flow,
        }

    @property
    def high_level(self) -> HighLevel:
        """What decides in sessions that do not say otherwise: the model if it has learned to, else nobody."""
        return self.own_high_level or (Model() if self.decides else Silent())

    @high_level.setter
    def high_level(self, level: HighLevel | str) -> None:
        level = named(level) if isinstance(level, str) else level
        level.check(self)
        self.own_high_level = level

    def session(
        self,
        *,
        high_level: HighLevel | str | None = None,
        subtask_seconds: float = SUBTASK_SECONDS,
        replan_steps: int | None = None,
        on_gripper: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> Session:
        """A robot's own conversation, see `infer/session.py`.

        `high_level` decides on subtasks, at the latest every `subtask_seconds` and, `on_gripper`, when a gripper has
        opened or closed. Time is the robot's: `replan_steps` control ticks per turn, or what `clock` says.

        Raises:
            ValueError: no such high level, or one that cannot work with this policy.
        """
        level = self.high_level if high_level is None else high_level
        return Session(
            self,
            high_level=named(level) if isinstance(level, str) else level,
            subtask_seconds=subtask_seconds,
            replan_steps=self.replan_steps if replan_steps is None else replan_steps,
            on_gripper=on_gripper,
            clock=clock,
        )

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """One decision and one chunk, with no memory: see `Session.infer`."""
        return self.session().infer(observation)

    def sample(self, observation: Mapping[str, Any], *, subtask: str | None = None) -> Sample:
        """A raw observation, checked, as the pipeline takes it; also one of openpi's client for this robot.

        Every camera that the model is shown is there. One that this robot lacks is sent as None: the model sees it
        masked, as in training where rows lack a camera, and it costs nothing.

        Raises:
            ValueError: cameras, state or prompt missing, or not what the robot declares.
        """
        robot = self.bundle.robot
        observation = read_openpi(robot, observation)
        for name in ("images", "state", "prompt"):
            if name not in observation:
                raise ValueError(f"the observation has no '{name}'; it has {sorted(observation)}")
        images = self._pictures(observation["images"])
        if not isinstance(observation["prompt"], str):
            raise ValueError(f"'prompt' is a string, got {type(observation['prompt']).__name__}")
        try:
            state = np.asarray(observation["state"], np.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(f"'state' is a vector of numbers ({', '.join(robot.state_names)}): {error}") from error
        return Sample(images=images, prompt=observation["prompt"], state=state, subtask=subtask)

    def _pictures(self, images: Any) -> dict[str, Any]:
        """The pictures that are there, in the robot's order."""
        robot = self.bundle.robot
        if not isinstance(images, Mapping) or not images:
            raise ValueError(
                f"'images' maps camera names to pictures, got {type(images).__name__}; cameras: {robot.cameras}"
            )
        if missing := [camera for camera in robot.cameras if camera not in images and robot.slot(camera) is not None]:
            raise ValueError(
                f"cameras {missing} are missing; robot '{robot.name}' has {robot.cameras}, got {sorted(images)} (one "
                "that it lacks is sent as None)"
            )
        if unknown := [camera for camera in images if camera not in robot.cameras]:
            raise ValueError(f"robot '{robot.name}' has cameras {robot.cameras}, not '{unknown[0]}'")
        there = {camera: images[camera] for camera in robot.cameras if images.get(camera) is not None}
        if not there or (len(there) < len(images) and not self.masks_cameras):
            needed = "all of its cameras" if there else "one camera at least"
            absent = [camera for camera in images if camera not in there]
            raise ValueError(f"this model needs {needed}, got None for {absent}")
        return there

    @torch.inference_mode()
    def infer_many(
        self,
        sessions: Sequence[Session],
        observations: Sequence[Mapping[str, Any]],
        *,
        errors: Literal["raise", "return"] = "raise",
    ) -> list[Any]:
        """One decision and one chunk for each of several robots, in one batch: `Session.infer` of each, in less time.

        Robots whose high levels differ may be batches of their own (`grouped`). With `errors="return"` what is wrong
        with one observation is nobody else's business: its place in the answer is taken by the exception, its session
        stands as before, and all others are answered.

        Raises:
            ValueError: an observation is not what the robot declares; the same session twice, or of another policy.
        """
        met: set[int] = set()

        def turn(pair: tuple[Session, Mapping[str, Any]]) -> Turn:
            session, observation = pair
            if session.policy is not self:
                raise ValueError(
                    "this session is one with another policy; session.move_to(policy) makes it one with this"
                )
            if id(session) in met:
                raise ValueError("a session has one turn at a time, this one is in the batch already")
            met.add(id(session))
            return session.turn(observation)

        turns = attempted(turn, list(zip(sessions, observations, strict=True)), errors=errors)
        for group in grouped(turn for turn in turns if isinstance(turn, Turn)):
            self._answer(group, errors=errors)
        return [turn if isinstance(turn, Exception) else turn.error or turn.answer for turn in turns]

    def _answer(self, turns: list[Turn], *, errors: Literal["raise", "return"]) -> None:
        start = time.perf_counter()
        rows = attempted(self.row, turns, errors=errors)
        turns, rows = without_errors(turns, rows)
        if not turns:
            return
        read = collate(rows, device=self.device).observation
        decider = turns[0].session.decider if any(turn.decide for turn in turns) else None
        prefilled = self.engine.prefill(read, max_new_tokens=SUBTASK_TOKENS if decider is not None else 0)
        decided = time.perf_counter()
        if decider is not None:
            prefilled = decider.decide(self, prefilled, turns)
        spoke = time.perf_counter()
        if self.chunks is None:
            chunks = list(self.denoise(prefilled, read.state, turns).cpu().numpy())
        else:
            turns, chunks = without_errors(turns, self.spell(turns, self.chunks, errors=errors))
        for turn, chunk in zip(turns, chunks, strict=True):
            assert turn.sample.state is not None
            turn.finish(self.pipeline.decode_actions(chunk, turn.sample.state))
        end = time.perf_counter()
        timing = {"read": decided - start, "subtask": spoke - decided, "actions": end - spoke, "total": end - start}
        for turn in turns:
            turn.answer["timing"] = timing

    def row(self, turn: Turn) -> Row:
        """What the model reads. Words of its own may be more than it was trained on, no person could shorten them."""
        own = turn.spoken is not None and not turn.told
        return self.pipeline.encode(replace(turn.sample, subtask=turn.spoken), with_fast=False, bounded=not own)

    def denoise(self, prefilled: Any, state: torch.Tensor, turns: list[Turn]) -> torch.Tensor:
        """A chunk for each turn, joined to what is left of the one before where it is said (`infer/rtc.py`)."""
        noise = torch.cat([self.noise(turn.session.generator) for turn in turns])
        previous = [turn.previous for turn in turns]
        if not any(previous):
            return self.engine.denoise(
                prefilled, state, noise=noise, num_steps=self.num_steps, padded_dims=self.padded_dims
            )[-1]
        states = [turn.sample.state for turn in turns if turn.sample.state is not None]
        left = rtc.encode(self.pipeline, previous, states, device=self.device)
        steps = self.num_steps
        engine = self.engine  # `Session` refuses what is left over for models without a flow
        return rtc.denoise(
            engine, prefilled, state, noise=noise, leftover=left, rtc=self.rtc, num_steps=steps,
            padded_dims=self.padded_dims,
        )[-1]  # fmt: skip

    def observe(self, sample: Sample) -> Observation:
        return collate([self.pipeline.encode(sample, with_fast=False)], device=self.device).observation

    def generate(self, prefilled: Any, *, skip_rows: torch.Tensor | None = None) -> tuple[list[list[int]], Any]:
        """The next subtask of each row, greedily: a box or none, then words, and never a token of actions.

        Rows that are `skip_rows` say nothing. Also returns the reading that goes on with it.
        """
        end, engine = self.subtask_end, self.engine
        tokens, prefilled = engine.generate(
            prefilled, eos=end, max_new_tokens=SUBTASK_TOKENS, allowed=self.words, skip_rows=skip_rows
        )  # fmt: skip
        return tokens.tolist(), prefilled

    def subtask_text(self, tokens: Sequence[int]) -> str | None:
        """What was said, up to its end; None if that is nothing."""
        said = self.bundle.text.decode(tokens).split(SUBTASK_END)[0]
        return said if said.strip() else None

    def spell(self, turns: list[Turn], grammar: ActionGrammar, *, errors: Literal["raise", "return"]) -> list[Any]:
        """The chunk of each turn that the model writes as action tokens, of which only whole chunks can be written.

        With `errors="return"`, an exception in the place of one that is none.
        """
        text, config, horizon, dim = self.bundle.text, self.model.config, grammar.horizon, grammar.dim
        rows = attempted(self.row, turns, errors=errors)
        if not (readable := [row for row in rows if not isinstance(row, Exception)]):
            return rows
        read = collate(readable, device=self.device).observation
        longest = len(grammar.start) + 3 * horizon * dim + len(grammar.end)  # a value is at most three bytes
        engine = self.engine  # what writes its actions can speak
        prefilled = engine.prefill(read, max_new_tokens=longest)
        said, _ = engine.generate(prefilled, eos=text.eos_id, max_new_tokens=longest, kind=Kind.FAST, allowed=grammar)
        shape = {"horizon": horizon, "dim": dim, "vocab_size": config.vocab_size, "offset": config.fast_offset}

        def chunk(row: list[int]) -> np.ndarray:
            result = decode_actions(text, row, actions=grammar.actions, **shape)
            if result.error is not None:
                raise ValueError(f"the model wrote action tokens that are no chunk: {result.error}")
            return np.asarray(result.actions, np.float32)

        chunks = iter(attempted(chunk, said.tolist(), errors=errors))
        return [row if isinstance(row, Exception) else next(chunks) for row in rows]

    def text_grammar(self, *, boxes: Literal["none", "first"]) -> TextGrammar:
        """What the high level may say."""
        config, actions = self.model.config, self.bundle.action_tokenizer
        taken = action_ids(config.vocab_size, actions.vocab_size, offset=config.fast_offset) if actions else range(0)
        return TextGrammar(
            self.bundle.text, vocab_size=config.vocab_size, end=self.subtask_end, boxes=boxes, actions=taken
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

    def _image_sizes(self) -> dict[str, list[int]]:
        """Height and width of the pictures that the model looks at, by camera: what a client need not send more of."""
        robot, config = self.bundle.robot, self.model.config
        seen = [camera for camera in robot.cameras if robot.slot(camera) is not None]
        return {camera: [config.image_size(wrist=camera in robot.wrist_cameras)] * 2 for camera in seen}

    def noise(self, generator: torch.Generator) -> torch.Tensor:
        config = self.model.config
        noise = torch.randn(1, config.action_horizon, config.action_dim, generator=generator)
        return noise.to(self.device)


def attempted(
    make: Callable[[Item], Made], items: Sequence[Item], *, errors: Literal["raise", "return"]
) -> list[Made | Exception]:
    """`make` of each item; with `errors="return"`, the exception where there is one."""
    made: list[Made | Exception] = []
    for item in items:
        try:
            made.append(make(item))
        except Exception as error:
            if errors == "raise":
                raise
            made.append(error)
    return made


def without_errors(turns: list[Turn], made: Sequence[Any]) -> tuple[list[Turn], list[Any]]:
    """The turns that something could be made for, and that; the others keep their exception."""
    for turn, one in zip(turns, made, strict=True):
        turn.error = one if isinstance(one, Exception) else None
    pairs = [(turn, one) for turn, one in zip(turns, made, strict=True) if turn.error is None]
    return [turn for turn, _ in pairs], [one for _, one in pairs]


def grouped(turns: Iterable[Turn]) -> list[list[Turn]]:
    """Turns that one pass can answer: those that the same high level decides for, and those that go on, in one where
    the high level can tell them apart."""
    groups: dict[Hashable, list[Turn]] = {}
    for turn in turns:
        decider = turn.session.decider
        together = turn.decide or (decider is not None and decider.mixes)
        groups.setdefault(decider if together else None, []).append(turn)
    return list(groups.values())
