"""The stateless part of a policy: requests of many robots in, chunks out, in one batch, whatever bodies they have.

Where the high level is the model itself, it and the low level are the same network: pictures and prompt are prefilled
once, the subtask is generated behind them, and the chunk is denoised from the same cache.
"""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from pilot.data.layout import Kind, Observation
from pilot.data.pipeline import Pipeline, Row, collate
from pilot.data.storage.untrusted import has_half_character
from pilot.infer import rtc
from pilot.infer.engine.choose import engine_for
from pilot.infer.high_level import SUBTASK_TOKENS, HighLevel, ModelHighLevel, NoHighLevel, SubtaskCodec, make_high_level
from pilot.infer.high_level.base import Decision
from pilot.infer.request import Request, Result
from pilot.models.bundle import Bundle
from pilot.robots import limits_of, read_openpi
from pilot.tokenizers.grammar import ActionGrammar
from pilot.tokenizers.prompts import FORMATS, decode_actions
from pilot.types import Moment, Robot, Sample

Errors = Literal["raise", "return"]
"""Whether an error of one robot is raised, or returned in its place while the others are answered."""
Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Actor:
    """Weights, the pipeline of each kind of robot, and sampling choices; holds nothing of any one robot.

    `num_steps` of denoising. Sessions that do not choose otherwise ask again after `replan_steps` control ticks, and
    draw from `seed`. Without the first two, the model's own defaults are taken; one without a default asks again after
    a fifth of a second. `rtc` (how chunks are joined), `engine` and `high_level` may be set.

    Raises:
        ValueError: more `replan_steps` than a chunk has actions, or none; or the checkpoint has no way to act.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "cpu",
        num_steps: int | None = None,
        replan_steps: int | None = None,
        seed: int = 0,
        path: Path | None = None,
    ) -> None:
        config = bundle.model.config
        horizon = config.chunk_steps
        if replan_steps is None:
            replan_steps = bundle.model.default_replan_steps
        if replan_steps is not None and not 1 <= replan_steps <= horizon:
            raise ValueError(f"a chunk has {horizon} actions, replan_steps is 1 to {horizon}, got {replan_steps}")
        self.bundle = bundle
        self.device = device
        self.num_steps = bundle.model.default_num_steps if num_steps is None else num_steps
        self._replan_steps = replan_steps
        self.seed = seed
        self.path = path
        self.model = bundle.model.eval()
        self.engine = engine_for(self.model)
        self.pipelines = {name: bundle.pipeline(name) for name in bundle.robots}
        dims = {name: trained.robot.action_dim for name, trained in bundle.robots.items()}
        masks = {dim: self.model.padded_dims(dim) for dim in dims.values()}
        on_device = {dim: None if mask is None else mask.to(device) for dim, mask in masks.items()}
        self._padded_dims = {name: on_device[dim] for name, dim in dims.items()}
        self.rtc = rtc.Rtc(mode="trained" if config.rtc_max_delay else "guided")
        self.takes_subtasks = FORMATS[config.prompt].target is not None
        self.subtask_codec = make_subtask_codec(bundle) if config.generates_text and self.takes_subtasks else None
        self.action_grammars = {} if self.model.samples_actions else make_action_grammars(bundle)
        self._high_level: HighLevel | None = None

    @property
    def robots(self) -> tuple[str, ...]:
        """The names of the robots that the policy acts for."""
        return tuple(self.bundle.robots)

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline of the only robot; `ValueError` where there are several, see `pipelines`."""
        return self.pipelines[self.bundle.robot.name]

    def replan_steps_of(self, robot: str | None = None) -> int:
        """Return how many control ticks pass between two looks of a robot: by default what the model asks for.

        Raises:
            ValueError: no such robot, or none is named and there are several.
        """
        own = self.bundle.find_robot(robot).robot
        by_rate = max(1, round(self.model.default_replan_seconds * own.control_hz))
        return self._replan_steps or min(by_rate, self.model.config.chunk_steps)

    @property
    def replan_steps(self) -> int:
        """What `replan_steps_of` says for the only robot; `ValueError` where there are several."""
        return self.replan_steps_of()

    @property
    def metadata(self) -> dict[str, Any]:
        """What is said of the policy: its robots and, where it has one only, all about that (`describe`)."""
        of_all = {
            "robots": list(self.robots),
            "action_horizon": self.model.config.chunk_steps,
            "rtc": self.model.has_flow,
        }
        return self.describe() if len(self.robots) == 1 else of_all

    def describe(self, robot: str | None = None) -> dict[str, Any]:
        """Return what a client of one robot is told: its dims and cameras, its rate, how chunks are made for it.

        Raises:
            ValueError: no such robot, or none is named and there are several.
        """
        own, config = self.bundle.find_robot(robot).robot, self.model.config
        return {
            "robot": own.name,
            "robots": list(self.robots),
            "cameras": list(own.cameras),
            "state_names": list(own.state_names),
            "action_names": list(own.action_names),
            "action_units": list(own.action_units),
            "grippers": [gripper.action for gripper in own.grippers],
            "limits": None if (limits := limits_of(own)) is None else limits.to_dict(),
            "action_horizon": config.chunk_steps,
            "replan_steps": self.replan_steps_of(robot),
            "control_hz": own.control_hz,
            "control_mode": own.control_mode,
            "image_sizes": image_sizes(own, config),
            "rtc": self.model.has_flow,
        }

    @property
    def high_level(self) -> HighLevel:
        """The high level of sessions that do not name one: the model if it has learned to write subtasks, else none."""
        if self._high_level is not None:
            return self._high_level
        return NoHighLevel() if self.subtask_codec is None else ModelHighLevel()

    @high_level.setter
    def high_level(self, level: HighLevel | str) -> None:
        level = make_high_level(level) if isinstance(level, str) else level
        level.check(self.subtask_codec)
        self._high_level = level

    # --- from a raw observation to what the model takes --------------------------------------------------------------

    def make_sample(
        self, observation: Mapping[str, Any], *, robot: str | None = None, subtask: str | None = None
    ) -> Sample:
        """Check a robot's raw observation, also one of openpi's client for it; return it as the pipeline takes it.

        Every camera that the model is shown must be there. One that this robot lacks is sent as None: the model sees it
        masked, as in training where rows lack a camera, and it costs nothing.

        Raises:
            ValueError: cameras, state or prompt missing, or not what the robot declares; several robots, none named.
        """
        own = self.bundle.find_robot(robot).robot
        observation = read_openpi(own, observation)
        for name in ("images", "state", "prompt"):
            if name not in observation:
                raise ValueError(f"the observation has no '{name}'; it has {sorted(observation)}")
        images = self._present_images(own, observation["images"])
        if not isinstance(observation["prompt"], str):
            raise ValueError(f"'prompt' is a string, got {type(observation['prompt']).__name__}")
        if has_half_character(observation["prompt"]):  # no tokenizer takes it
            raise ValueError(f"'prompt' must be valid text, got half a character in {observation['prompt']!r:.60}")
        try:
            state = np.asarray(observation["state"], np.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(f"'state' is a vector of numbers ({', '.join(own.state_names)}): {error}") from error
        past = self._read_past(own, observation.get("past"), like=images)
        return Sample(images=images, prompt=observation["prompt"], state=state, subtask=subtask, past=past)

    def _read_past(self, robot: Robot, value: Any, *, like: Mapping[str, Any]) -> Moment | None:
        """Read what an observation holds under "past", for a model that sees two moments."""
        if value is None or getattr(self.model.config, "observation_steps", 1) == 1:
            return None
        if not isinstance(value, Mapping) or not {"images", "state"} <= value.keys():
            raise ValueError('\'past\' is what the robot saw one control step earlier: {"images": {…}, "state": […]}')
        images = self._present_images(robot, value["images"])
        if missing := [camera for camera in like if camera not in images]:
            raise ValueError(f"'past' lacks the pictures of {', '.join(missing)}, which are in the observation")
        return Moment(images=images, state=np.asarray(value["state"], np.float32))

    def _present_images(self, robot: Robot, images: Any) -> dict[str, Any]:
        """Return the pictures that are there, in the robot's order."""
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
        # In the robot's order, whatever order a client sends: the model reads cameras in the order it is shown.
        present = {camera: images[camera] for camera in robot.cameras if images.get(camera) is not None}
        if not present or (len(present) < len(images) and self.model.needs_all_cameras):
            needed = "all of its cameras" if present else "one camera at least"
            absent = [camera for camera in images if camera not in present]
            raise ValueError(f"this model needs {needed}, got None for {absent}")
        return present

    def make_observation(self, sample: Sample, *, robot: str | None = None) -> Observation:
        """Return a robot's sample as a batch of one for the model."""
        pipeline = self.pipelines[self.bundle.find_robot(robot).robot.name]
        return collate([pipeline.encode(sample, with_fast=False)], device=self.device).observation

    # --- acting ------------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def act(self, requests: Sequence[Request], *, errors: Errors = "raise") -> list[Any]:
        """Answer each request with a `Result`, in as few batches as their high levels allow (`group_requests`).

        With `errors="return"` an exception takes the place of the result of a request that cannot be answered.

        Raises:
            ValueError: an observation does not fit the model, such as a prompt that is too long.
        """
        results: list[Any] = [None] * len(requests)
        for group in group_requests(requests):
            answers = self._act_in_batch([requests[i] for i in group], errors=errors)
            for i, answer in zip(group, answers, strict=True):
                results[i] = answer
        return results

    def _act_in_batch(self, requests: list[Request], *, errors: Errors) -> list[Any]:
        start = time.perf_counter()
        rows = attempt_each(lambda request: self._encode(request, request.subtask.subtask), requests, errors=errors)
        results: list[Any] = list(rows)  # exceptions stay, rows become results
        encoded = [i for i, row in enumerate(rows) if not isinstance(row, Exception)]
        if not encoded:
            return results
        good = [requests[i] for i in encoded]  # those whose observation the pipeline could read
        # 1) Pictures and text into the cache.
        read = [row for row in rows if not isinstance(row, Exception)]
        observation = collate(read, device=self.engine.input_device).observation
        # Room for new tokens costs memory and part of the last layer, so only where somebody decides now.
        decides = good[0].high_level is not None and any(request.subtask.decide for request in good)
        prefilled = None
        # A model that writes its actions reads pictures and text where it does so, behind the subtask.
        if decides or self.model.samples_actions:
            prefilled = self.engine.prefill(observation, max_new_tokens=SUBTASK_TOKENS if decides else 0)
        prefill_end = time.perf_counter()
        # 2) The high level decides, behind them.
        decisions = [Decision(subtask=request.subtask.subtask) for request in good]
        if decides:
            decisions, prefilled = self._decide(prefilled, good)
        subtask_end = time.perf_counter()
        # 3) The low level acts on that.
        if self.model.samples_actions:
            chunks: list[Any] = list(self._denoise(prefilled, observation.state, good).cpu().numpy())
        else:
            chunks = self._generate_actions(good, decisions, errors=errors)
        actions = attempt_each(self._decode_actions, list(zip(good, chunks, strict=True)), errors=errors)
        end = time.perf_counter()
        timing = {
            "read": prefill_end - start, "subtask": subtask_end - prefill_end, "actions": end - subtask_end,
            "total": end - start,
        }  # fmt: skip
        for i, chunk, decision in zip(encoded, actions, decisions, strict=True):
            if isinstance(chunk, Exception):
                results[i] = chunk
            else:
                details = {**decision.details, "timing": timing}
                results[i] = Result(actions=chunk, subtask=decision.subtask, details=details)
        return results

    def _decode_actions(self, pair: tuple[Request, Any]) -> Any:
        """Bring a chunk into the robot's units; an exception in its place stays.

        Raises:
            ValueError: it holds NaN or infinity, which no robot may be sent.
        """
        request, chunk = pair
        if isinstance(chunk, Exception):
            return chunk
        pipeline = self.pipelines[request.robot]
        actions = pipeline.decode_actions(chunk, request.state, from_tokens=not self.model.samples_actions)
        if not (finite := np.isfinite(actions).all(axis=0)).all():
            dim = pipeline.robot.action_names[int(np.argmin(finite))]
            raise ValueError(
                f"the policy answered NaN or infinity in dim '{dim}' of robot '{pipeline.robot.name}', and nothing is "
                "sent; look at its weights and its statistics (pilot verify CHECKPOINT)"
            )
        return actions

    def _encode(self, request: Request, subtask: str | None) -> Row:
        sample = replace(request.sample, subtask=subtask)
        return self.pipelines[request.robot].encode(sample, with_fast=False, bounded=request.bounded)

    def _decide(self, prefilled: Any, requests: list[Request]) -> tuple[list[Decision], Any]:
        """Let the high level decide; robots that do not decide now keep their subtask."""
        level = requests[0].high_level
        assert level is not None and self.subtask_codec is not None
        subtask_requests = [request.subtask for request in requests]
        decisions, prefilled = level.decide(prefilled, subtask_requests, engine=self.engine, codec=self.subtask_codec)
        pairs = zip(subtask_requests, decisions, strict=True)
        return [decision if one.decide else Decision(subtask=one.subtask) for one, decision in pairs], prefilled

    def _denoise(self, prefilled: Any, state: Tensor, requests: list[Request]) -> Tensor:
        """Make a chunk for each request, joined to what is left of the one before where there is one (`rtc.py`)."""
        noise = torch.cat([self._draw(request.noise_generator) for request in requests])
        padded_dims = self.padded_dims([request.robot for request in requests])
        steps = {"num_steps": self.num_steps, "padded_dims": padded_dims}
        previous = [request.previous for request in requests]
        if not any(previous):
            return self.engine.denoise(prefilled, state, noise=noise.to(self.engine.input_device), **steps)[-1]
        states, own = [request.state for request in requests], [self.pipelines[r.robot] for r in requests]
        leftover = rtc.encode_leftover(own, previous, states, device=self.device)
        state, noise = state.to(self.device), noise.to(self.device)
        return rtc.denoise(self.engine, prefilled, state, noise=noise, leftover=leftover, rtc=self.rtc, **steps)[-1]

    def padded_dims(self, robots: Sequence[str]) -> Tensor | None:
        """Return for a batch of robots which action dims each lacks, as `Model.padded_dims`; one row if all are alike.

        None where no robot lacks any.
        """
        masks = [self._padded_dims[name] for name in robots]
        # One mask for all is broadcast; robots of different dims need a row each.
        if all(mask is masks[0] for mask in masks):
            return masks[0]
        # A robot that lacks no dim is all False among those that do.
        none = torch.zeros(1, self.model.config.action_dim, dtype=torch.bool, device=self.device)
        return torch.cat([none if mask is None else mask for mask in masks])

    def _generate_actions(self, requests: list[Request], decisions: list[Decision], *, errors: Errors) -> list[Any]:
        """Let the model write each chunk as action tokens, of which only whole chunks can be written."""
        text, config, horizon = self.bundle.text, self.model.config, self.model.config.action_horizon

        def encode(pair: tuple[Request, Decision]) -> Row:
            request, decision = pair
            just_written = request.subtask.decide and decision.subtask is not None
            return self._encode(replace(request, bounded=False) if just_written else request, decision.subtask)

        # The chunk is learned behind the subtask in the input, so a subtask that was just written is prefilled too.
        rows = attempt_each(encode, list(zip(requests, decisions, strict=True)), errors=errors)
        if not (readable := [row for row in rows if not isinstance(row, Exception)]):
            return rows
        observation = collate(readable, device=self.engine.input_device).observation
        pairs = zip(requests, rows, strict=True)
        grammars = [self.action_grammars[request.robot] for request, row in pairs if not isinstance(row, Exception)]
        # A value is at most three bytes.
        longest = max(len(one.start) + 3 * horizon * one.dim + len(one.end) for one in grammars)
        prefilled = self.engine.prefill(observation, max_new_tokens=longest)
        alike = all(one is grammars[0] for one in grammars)
        tokens, _ = self.engine.generate(
            prefilled,
            eos=text.eos_id,
            max_new_tokens=longest,
            kind=Kind.FAST,
            allowed=grammars[0] if alike else grammars,
        )
        shape = {"horizon": horizon, "vocab_size": config.vocab_size, "offset": config.fast_offset}

        def decode(pair: tuple[ActionGrammar, list[int]]) -> np.ndarray:
            grammar, row = pair
            result = decode_actions(text, row, actions=grammar.actions, dim=grammar.dim, **shape)
            if result.error is not None:
                raise ValueError(f"the model wrote action tokens that are no chunk: {result.error}")
            return np.asarray(result.actions, np.float32)

        chunks = iter(attempt_each(decode, list(zip(grammars, tokens.tolist(), strict=True)), errors=errors))
        return [row if isinstance(row, Exception) else next(chunks) for row in rows]

    def noise(self, generator: torch.Generator) -> Tensor:
        """Draw the noise [1 ah ad] of a chunk."""
        return self._draw(generator).to(self.device)

    def _draw(self, generator: torch.Generator) -> Tensor:
        config = self.model.config
        return torch.randn(1, config.action_horizon, config.action_dim, generator=generator)


def make_subtask_codec(bundle: Bundle) -> SubtaskCodec:
    """Return how the model of a checkpoint writes subtasks."""
    config, actions = bundle.model.config, bundle.action_tokenizer
    return SubtaskCodec(
        bundle.text,
        vocab_size=config.vocab_size,
        action_tokens=actions.vocab_size if actions is not None else 0,
        action_offset=config.fast_offset,
    )


def make_action_grammars(bundle: Bundle) -> dict[str, ActionGrammar]:
    """Return the grammar of each robot's chunks, for a model without an action expert.

    Raises:
        ValueError: the checkpoint has no action tokenizer either.
    """
    config, actions = bundle.model.config, bundle.action_tokenizer
    if actions is None:
        raise ValueError("the checkpoint has neither an action expert nor an action tokenizer: it cannot act")
    options = {"horizon": config.action_horizon, "vocab_size": config.vocab_size, "offset": config.fast_offset}
    dims = {name: trained.robot.action_dim for name, trained in bundle.robots.items()}
    of_dim = {dim: ActionGrammar(bundle.text, actions, dim=dim, **options) for dim in set(dims.values())}
    return {name: of_dim[dim] for name, dim in dims.items()}


def image_sizes(robot: Robot, config: Any) -> dict[str, list[int]]:
    """Return height and width of the pictures that the model sees, by camera: a client need not send larger ones."""
    return {camera: [config.image_size(wrist=camera in robot.wrist_cameras)] * 2 for camera in robot.shown_cameras}


def group_requests(requests: Sequence[Request]) -> list[list[int]]:
    """Return the indices of requests that one pass can answer.

    One pass has one high level. Robots that continue with their subtask join it where it can leave their rows as they
    are; else they are a group of their own.
    """
    groups: dict[Hashable, list[int]] = {}
    for i, request in enumerate(requests):
        level = request.high_level
        together = request.subtask.decide or (level is not None and level.batches_continuing_rows)
        groups.setdefault(level if together else None, []).append(i)
    return list(groups.values())


def attempt_each(
    function: Callable[[Item], Outcome], items: Sequence[Item], *, errors: Errors
) -> list[Outcome | Exception]:
    """Call `function` with each item; with `errors="return"` an exception takes the place of its result."""
    outcomes: list[Outcome | Exception] = []
    for item in items:
        try:
            outcomes.append(function(item))
        except Exception as error:
            if errors == "raise":
                raise
            outcomes.append(error)
    return outcomes
