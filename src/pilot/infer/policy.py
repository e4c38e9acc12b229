"""Policies as people use them: loaded from a checkpoint, asked by robots, exported.

Acting goes one way: a server or a rollout gives a raw observation to a `Session` (`session.py`: one robot's clocks and
history), which makes a `Request` of it; an `Actor` (`actor.py`: stateless, batched) answers requests with the pipeline
and an engine (`engine/`); the session brings the result into its state and answers. `Policy` is an actor that can start
sessions.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pilot.data.storage.remote import fetch_checkpoint
from pilot.infer.actor import Actor, Errors, attempt_each
from pilot.infer.high_level import HighLevel, make_high_level
from pilot.infer.record import Record
from pilot.infer.session import SUBTASK_SECONDS, Session, Turn
from pilot.models.bundle import Bundle, load_bundle, save_bundle
from pilot.models.trained_robots import folder_of
from pilot.nn.devices import resolve_device


def load_policy(
    path: str | Path,
    *,
    device: str = "auto",
    num_steps: int | None = None,
    replan_steps: int | None = None,
    seed: int = 0,
    verify: bool = False,
) -> "Policy":
    """Load the policy in a checkpoint folder; any missing, left-over or misshapen part is an error (`load_bundle`).

    Without `num_steps` of denoising or `replan_steps` between two looks, the model's own defaults are taken. The folder
    may be remote: `hf://owner/repo[@revision][/folder]`, `gs://bucket/folder`. With `verify` all
    files are compared with the manifest, large weights too, and what the checkpoint has recorded of each of its robots
    is replayed (`infer/record.py`).

    Raises:
        FileNotFoundError: no checkpoint there, or `verify` and it has no record.
        ValueError: the checkpoint is damaged or contradicts itself, does not act as it was recorded, or is of another
            project, which `pilot convert` reads; or there is no such device.
    """
    device = str(resolve_device(device))
    path = fetch_checkpoint(path)
    try:
        bundle = load_bundle(path, device=device, check_all=verify)
    except (FileNotFoundError, ValueError) as error:
        if (kind := kind_of_other_project(path)) is not None:
            raise ValueError(
                f"{path} is a checkpoint of kind '{kind}'; make it one of pilot first: pilot convert {path} FOLDER "
                f"(pilot convert --help says what may be missing from it)"
            ) from error
        raise
    for name in bundle.robots if verify else ():
        record = Record.load(folder_of(path, name, bundle.robots))
        recorded = Policy(bundle, device=device, num_steps=record.num_steps, seed=record.seed)
        record.check(recorded, path, robot=name)
    return Policy(
        bundle, device=device, num_steps=num_steps, replan_steps=replan_steps, seed=seed, path=Path(path)
    )  # fmt: skip


def kind_of_other_project(path: Path) -> str | None:
    """Return the kind of checkpoint of another project that `path` looks like; None if it looks like none."""
    from pilot.convert.folders import detect_kind  # every format of other projects is only imported when asked for

    try:
        kind = detect_kind(path)
    except (FileNotFoundError, ValueError):
        return None
    return kind if kind != "pilot" else None


def export(
    bundle: Bundle,
    path: str | Path,
    *,
    weights: dict[str, torch.Tensor] | None = None,
    device: str = "cpu",
    origin: Mapping[str, Any] | None = None,
) -> Path:
    """Save a checkpoint with a record of each robot, made by the policy that is read back from what was written.

    `origin`: what it was made from, for its manifest (`data/storage/manifest.py`).

    Raises:
        OSError: the folder cannot be written.
        ValueError: the policy cannot answer; then nothing is written.
    """

    def add_record(folder: Path) -> None:
        policy = load_policy(folder, device=device)
        for name in policy.robots:
            Record.of(policy, robot=name).save(folder_of(folder, name, policy.robots))

    return save_bundle(bundle, path, weights=weights, finish=add_record, origin=origin)


class Policy(Actor):
    """A checkpoint that acts: raw observations in, robot commands out. Shared by sessions, holds nothing of any robot.

    What it does with a batch of requests is `infer/actor.py`; this is what people call. Arguments as of `Actor`.
    """

    def session(
        self,
        *,
        robot: str | None = None,
        high_level: HighLevel | str | None = None,
        subtask_seconds: float = SUBTASK_SECONDS,
        replan_steps: int | None = None,
        on_gripper: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> Session:
        """Start one robot's run, see `infer/session.py`.

        `robot` names it among those that the policy was trained on (`robots`), and may be left out where there is one.
        `high_level` decides on subtasks, at the latest every `subtask_seconds` and, with `on_gripper`, when a gripper
        has opened or closed. Time is the robot's: `replan_steps` control ticks per turn, or what `clock` says.

        Raises:
            ValueError: no such robot, or several and none named; no such high level, or one that cannot work with this
                policy; a robot without a measured gripper, with `on_gripper`.
        """
        level = self.high_level if high_level is None else high_level
        return Session(
            self,
            robot=robot,
            high_level=make_high_level(level) if isinstance(level, str) else level,
            subtask_seconds=subtask_seconds,
            replan_steps=replan_steps,
            on_gripper=on_gripper,
            clock=clock,
        )

    def infer(self, observation: Mapping[str, Any], *, robot: str | None = None) -> dict[str, Any]:
        """Answer one observation with one decision and one chunk, without memory: see `session` and `Session.infer`."""
        return self.session(robot=robot).infer(observation)

    def infer_many(
        self, sessions: Sequence[Session], observations: Sequence[Mapping[str, Any]], *, errors: Errors = "raise"
    ) -> list[Any]:
        """Answer an observation of each of several robots in one batch: `Session.infer` of each, in less time.

        Robots whose high levels differ may be batches of their own. With `errors="return"` an exception takes the place
        of an answer that cannot be given; its session stays as it was, and all others are answered.

        Raises:
            ValueError: an observation is not what the robot declares; the same session twice, or of another policy.
        """
        pairs = list(zip(sessions, observations, strict=True))
        seen: set[int] = set()

        def begin(pair: tuple[Session, Mapping[str, Any]]) -> Turn:
            session, observation = pair
            if session.policy is not self:
                raise ValueError("this session is with another policy; session.move_to(policy) brings it to this one")
            if id(session) in seen:
                raise ValueError("a session has one turn at a time, this one is in the batch already")
            seen.add(id(session))
            return session.begin(observation)

        turns = attempt_each(begin, pairs, errors=errors)
        results = iter(self.act([turn.request for turn in turns if isinstance(turn, Turn)], errors=errors))
        answers: list[Any] = []
        for session, turn in zip(sessions, turns, strict=True):
            if isinstance(turn, Exception):
                answers.append(turn)
                continue
            result = next(results)
            answers.append(result if isinstance(result, Exception) else session.finish(turn, result))
        return answers
