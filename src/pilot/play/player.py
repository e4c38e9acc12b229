"""One robot in one simulated scene, a policy that drives it, and a person who talks to it or takes over.

The person's words replace the instruction; the policy reads them at its next decision. A `Player` knows no network and
no clock: whoever owns it calls `tick` once per control step, `handle` for each message of a person, and shows `view`.
Pictures for people come from a second environment, with larger pictures, that repeats every action: physics repeats
itself exactly, and the policy must see what it was trained on. All calls belong to one thread, because OpenGL does.
"""

import base64
import io
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pilot.infer.policy import Policy, load_policy
from pilot.play.finetune import Finetuning
from pilot.play.recorder import Recorder
from pilot.play.steering import Steering
from pilot.sims.base import Box, Observation, ShowsMotion, Suite

PICTURE_SIZE = 320  # of pictures for people [pixels]
WORDS_LENGTH = 400
HISTORY = 30  # decisions
MIN_LOOK_SHARE = 3  # while a person drives, the policy thinks for at most a third of the time
SUGGESTIONS = 40


class Player:
    """A policy in a suite's scenes, ready to be played with.

    `robot` is the policy's name of the robot that acts here. `out` is where recordings and fine-tuned policies go;
    `checkpoint` is the folder that fine-tuning starts from.

    Raises:
        ValueError: the set of recordings in `out` is of another robot.
    """

    def __init__(
        self,
        policy: Policy,
        suite: Suite,
        *,
        robot: str | None,
        checkpoint: str | Path,
        out: str | Path,
        scene: int = 0,
        seed: int = 0,
        replan_steps: int | None = None,
    ) -> None:
        self.suite, self.robot_name, self.seed = suite, robot, seed
        self.replan_steps = replan_steps
        self.env, self.shown = suite.make_env(), suite.make_env(image_size=PICTURE_SIZE)
        self.robot = self.env.robot
        self.recorder = Recorder(Path(out) / "recordings", self.robot)
        self.finetuning = Finetuning(
            out, checkpoint=checkpoint, recordings=self.recorder.path, robot=robot or self.robot.name
        )
        self.policy_name = Path(checkpoint).name
        self.playing = False
        self.drive_by_person = False
        self.note: str | None = None
        self._use_policy(policy)
        self.scene, self.episode = scene, 0
        self._enter(scene, 0)

    # --- the world ---------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Run one control step: look if it is time to, act, record."""
        if self._is_time_to_look():
            self._look()
        if not self.playing and self.note is not None:  # looking failed
            return
        action = self._next_action()
        observation = self._observe() if self.recorder.is_on else None
        if observation is not None:
            subtask, box = self._said()
            self.recorder.add(
                observation, action, subtask=subtask, box=box, by_person=self.drive_by_person,
                labels=self.suite.labels(scene=self.scene, episode=self.episode),
            )  # fmt: skip
        self.info = self.env.advance(action)
        self.shown.advance(action)
        self.last, self.step = action, self.step + 1
        self._judge()

    def close(self) -> None:
        """Free what the environments hold, and end a fine-tuning that runs."""
        self.finetuning.stop()
        self.env.close()
        self.shown.close()

    def _enter(self, scene: int, episode: int) -> None:
        """Begin an episode; the instruction is then its own."""
        observation, self.info = self.env.reset_to(scene, episode=episode, seed=self.seed)
        self.shown.reset_to(scene, episode=episode, seed=self.seed)
        self.scene, self.episode, self.step = scene, episode, 0
        self.own_instruction = self.instruction = observation["prompt"]
        self.last: np.ndarray | None = None
        self.steering = Steering(self.env)
        self.reached = False
        self.recorder.cut()
        self._forget()
        if self.drive_by_person:
            self.steering.begin(observation["state"], last=None)
        self.suggestions = self.suite.instructions(self.env)[:SUGGESTIONS]

    def _forget(self) -> None:
        """Drop what was decided and planned."""
        self.session.reset()
        self.answer: dict[str, Any] = {}
        self.planned = np.zeros((0, self.robot.action_dim), np.float32)
        self.executed, self.looked_at = 0, -1
        self.history: deque[dict[str, Any]] = deque(maxlen=HISTORY)
        self.note = None

    def _use_policy(self, policy: Policy) -> None:
        self.policy = policy
        self.session = policy.session(robot=self.robot_name, replan_steps=self.replan_steps)
        self.infer_seconds = 0.0

    def _observe(self) -> Observation:
        return {**self.env.observe(), "prompt": self.instruction}

    def _is_time_to_look(self) -> bool:
        since = self.step - self.looked_at
        if self.looked_at < 0 or (not self.drive_by_person and self.executed >= len(self.planned)):
            return True
        if self.drive_by_person:
            return since >= max(self.session.replan_steps, MIN_LOOK_SHARE * self.infer_seconds * self.robot.control_hz)
        return since >= self.session.replan_steps

    def _look(self) -> None:
        """Let the policy decide and plan; an answer that cannot be given stops the play with a note."""
        started = time.perf_counter()
        try:
            self.answer = self.session.infer(self._observe())
        except ValueError as error:
            self.playing, self.note = False, str(error)
            return
        self.infer_seconds = time.perf_counter() - started
        self.planned, self.executed, self.looked_at = np.asarray(self.answer["actions"], np.float32), 0, self.step
        words = self.answer.get("subtask")
        if words and (not self.history or self.history[-1]["subtask"] != words):
            self.history.append({"seconds": round(self.seconds, 2), "subtask": words})

    def _next_action(self) -> np.ndarray:
        if self.drive_by_person:
            return self.steering.action()
        action = self.planned[self.executed]
        self.executed += 1
        return action

    def _said(self) -> tuple[str | None, Box | None]:
        """Return what is done now, in words and with its box: the simulator's own if it knows, else the policy's."""
        if self.suite.has_subtasks and self.instruction == self.own_instruction:
            return self.info.get("subtask"), self.info.get("box")
        return self.answer.get("subtask"), self.answer.get("box")

    def _judge(self) -> None:
        """Stop when the task is done for the first time, or when the physics broke."""
        if self.drive_by_person and hasattr(self.env, "state"):
            self.steering.settle(self.env.state())  # type: ignore[attr-defined]
        if self.info.get("broken"):
            self.playing, self.note = False, "The physics broke. Start again."
        elif self.info["success"] and not self.reached and self.instruction == self.own_instruction:
            self.reached, self.playing = True, False
            self.recorder.stop()
            self.note = f"Done after {self.seconds:.0f} s. Ask for something else, or go to another {self.suite.scene}."

    # --- what a person asks ------------------------------------------------------------------------------------------

    def handle(self, message: Mapping[str, Any]) -> str | None:
        """Do what a person asks, `{"do": WORD, …}`; return what to tell the person.

        Raises:
            ValueError: it cannot be done; nothing has changed then.
        """
        word = message.get("do")
        doer = getattr(self, f"_do_{word}", None) if isinstance(word, str) and word.isidentifier() else None
        if doer is None:
            raise ValueError(f"nobody knows how to do {word!r:.40}")
        return doer(message)

    def _do_say(self, message: Mapping[str, Any]) -> str:
        words = message.get("words")
        if not isinstance(words, str) or not 0 < len(words.strip()) <= WORDS_LENGTH:
            raise ValueError(f"an instruction has 1 to {WORDS_LENGTH} characters")
        words.encode()  # half a character is valid JSON, but no text: this is a ValueError then
        self.instruction = " ".join(words.split())
        self.note, self.reached = None, False
        self.looked_at = -1  # decide anew with the next step
        return "heard; it decides anew with its next step"

    def _do_play(self, message: Mapping[str, Any]) -> None:
        self.playing, self.note = True, None

    def _do_pause(self, message: Mapping[str, Any]) -> None:
        self.playing = False

    def _do_step(self, message: Mapping[str, Any]) -> None:
        self.playing, self.note = False, None
        self.tick()

    def _do_again(self, message: Mapping[str, Any]) -> None:
        words, own = self.instruction, self.own_instruction
        self._enter(self.scene, self.episode)
        if words != own:
            self.instruction = words

    def _do_scene(self, message: Mapping[str, Any]) -> None:
        number = message.get("number")
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**31:
            raise ValueError(f"a {self.suite.scene} has a number of 0 or more, got {number!r:.40}")
        self._enter(number, 0)

    def _do_new(self, message: Mapping[str, Any]) -> None:
        self._enter(self.scene + 1, 0)

    def _do_take(self, message: Mapping[str, Any]) -> str:
        self.drive_by_person, self.note = True, None
        self.steering.begin(self.env.observe()["state"], last=self.last)
        return "you drive"

    def _do_give(self, message: Mapping[str, Any]) -> str:
        self.drive_by_person, self.looked_at = False, -1
        return "the policy drives"

    def _do_steer(self, message: Mapping[str, Any]) -> None:
        axes, is_open = message.get("axes", {}), message.get("open")
        if not isinstance(axes, Mapping) or not (is_open is None or isinstance(is_open, bool)):
            raise ValueError('steering is {"axes": {NAME: −1 to 1}, "open": true or false}')
        self.steering.push(axes, is_open=is_open)

    def _do_record(self, message: Mapping[str, Any]) -> None:
        self.recorder.start()

    def _do_stop(self, message: Mapping[str, Any]) -> None:
        self.recorder.stop()

    def _do_keep(self, message: Mapping[str, Any]) -> str:
        kept = self.recorder.keep()
        self.finetuning.write()
        return f"kept {kept} {'episode' if kept == 1 else 'episodes'} in {self.recorder.path}"

    def _do_discard(self, message: Mapping[str, Any]) -> str:
        self.recorder.discard()
        return "the recording is dropped"

    def _do_finetune(self, message: Mapping[str, Any]) -> str:
        if not self.recorder.episodes:
            raise ValueError("there is nothing to learn from: record an episode and keep it first")
        self.finetuning.start()
        return f"learning in {self.finetuning.folder}"

    def _do_swap(self, message: Mapping[str, Any]) -> str:
        folder = self.finetuning.policy
        if folder is None:
            raise ValueError("there is no fine-tuned policy yet")
        self._use_policy(load_policy(folder, device=self.policy.device))
        self.policy_name = str(folder)
        self._forget()
        return f"{folder} drives now"

    # --- what a person sees ------------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """The time since the episode began, in the simulation."""
        return self.step / self.robot.control_hz

    def view(self) -> dict[str, Any]:
        """Return all that is shown, as JSON has it; pictures are JPEG in base64."""
        return {
            "kind": "view",
            "policy": self.policy_name,
            "suite": {"name": self.suite.name, "title": self.suite.title, "scene": self.suite.scene},
            "robot": self.robot.name,
            "scene": self.scene,
            "seconds": round(self.seconds, 2),
            "playing": self.playing,
            "driver": "person" if self.drive_by_person else "policy",
            "instruction": self.instruction,
            "own_instruction": self.own_instruction,
            "suggestions": list(self.suggestions),
            "subtask": self.answer.get("subtask"),
            "box": plain(self.answer.get("box")),
            "trouble": self.answer.get("trouble"),
            "note": self.note,
            "placed": self.info.get("placed"),
            "targets": self.info.get("targets"),
            "success": bool(self.info["success"]) and self.instruction == self.own_instruction,
            "history": list(self.history),
            "cameras": self._cameras(),
            "plan": self._plan(),
            "axes": list(self.steering.axes),
            "open": self.steering.is_open,
            "has_gripper": bool(self.robot.grippers),
            "recording": {
                "on": self.recorder.is_on,
                "frames": self.recorder.frames,
                "episodes": self.recorder.episodes,
                "path": str(self.recorder.path),
            },
            "finetuning": self.finetuning.describe(),
        }

    def _cameras(self) -> list[dict[str, Any]]:
        """Return the pictures for people: the robot's cameras, and the whole scene where it is none of them."""
        images = dict(self.shown.observe()["images"])
        overview = self.shown.render()
        if not any(np.array_equal(overview, image) for image in images.values()):
            images["overview"] = overview
        return [describe_picture(name, image) for name, image in images.items()]

    def _plan(self) -> dict[str, Any]:
        """Return the rest of the planned chunk, and where it leads in the first camera's picture."""
        left = self.planned[self.executed :]
        is_old = self.drive_by_person and self.step - self.looked_at > self.robot.control_hz
        drawn = isinstance(self.env, ShowsMotion) and len(left) > 0 and not is_old
        path = self.env.path_of(left) if drawn else np.zeros((0, 2))  # type: ignore[attr-defined]
        return {
            "names": list(self.robot.action_names),
            "units": list(self.robot.action_units),
            "actions": plain(self.planned),
            "executed": self.executed,
            "path": plain(path),
        }


def describe_picture(name: str, image: np.ndarray) -> dict[str, Any]:
    """Return a picture as JPEG in base64, with its size."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="jpeg", quality=85)
    height, width = image.shape[:2]
    return {"name": name, "width": width, "height": height, "jpeg": base64.b64encode(buffer.getvalue()).decode()}


def plain(values: Any) -> Any:
    """Return numbers as JSON has them, rounded; None stays None."""
    return None if values is None else np.round(np.asarray(values, float), 4).tolist()
