"""Fine-tuning on what was played: a run in a file that a person can read and change, and the process that trains it."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from pilot.data.storage.files import read_json

RUN_FILE, RUN = "finetune.py", "finetune"
RUN_FOLDER = re.compile(r"run-([0-9]+)")  # others, such as run-1-old, are the person's
LINE_LENGTH = 200  # of the log, as it is shown

TEMPLATE = '''"""Fine-tuning on what was recorded in `pilot play`, which wrote this file. Change it: it stays as it is.

    {command}
"""

from pilot.models.registry import read_config
from pilot.train.config import (
    CheckpointConfig,
    DataConfig,
    InitFrom,
    LoggingConfig,
    ObjectiveConfig,
    OptimConfig,
    Source,
    TrainConfig,
)

CHECKPOINT = {checkpoint!r}
RECORDINGS = {recordings!r}


def {run}() -> TrainConfig:
    """Go on from the checkpoint for some minutes, on the recordings alone.

    A policy forgets what it is not shown: to keep old skills, add their data as more sources, with weights.
    """
    return TrainConfig(
        name="{run}",
        model=read_config(CHECKPOINT),
        robot={robot!r},
        init_from=InitFrom(CHECKPOINT),
        steps=200,
        batch_size=16,
        data=DataConfig(sources=(Source(path=RECORDINGS),), loc_stride={loc_stride}, text_model=None),
        objective=ObjectiveConfig({objective}),
        optim=OptimConfig(peak_lr=2e-4, final_lr=1e-5, warmup_steps=20),
        logging=LoggingConfig(log_every=5),
        checkpoints=CheckpointConfig(save_every=100),
    )
'''


class Finetuning:
    """The fine-tuning of one checkpoint on one set; at most one process at a time, in the folder `out`."""

    def __init__(self, out: str | Path, *, checkpoint: str | Path, recordings: str | Path, robot: str) -> None:
        self.out = Path(out)
        self.checkpoint, self.recordings, self.robot = Path(checkpoint), Path(recordings), robot
        self.process: subprocess.Popen[bytes] | None = None
        self.folder: Path | None = None  # of the run that was started last

    @property
    def file(self) -> Path:
        """The file that holds the run."""
        return self.out / RUN_FILE

    @property
    def policy(self) -> Path | None:
        """The folder of the fine-tuned policy; None until there is one."""
        done = self.folder is not None and (self.folder / "policy").is_dir() and not self.is_running
        return self.folder / "policy" if done and self.folder is not None else None

    @property
    def is_running(self) -> bool:
        """Whether it trains now."""
        return self.process is not None and self.process.poll() is None

    def command(self) -> list[str]:
        """Return the command that fine-tunes, into a folder that no run has used."""
        return ["pilot", "train", f"{self.file}:{RUN}", "--out", str(self._next_folder())]

    def write(self) -> Path:
        """Write the run's file, if there is none: a changed one is the person's."""
        if self.file.exists():
            return self.file
        config = read_json(self.checkpoint / "config.json", remedy="name the folder of a checkpoint")
        self.out.mkdir(parents=True, exist_ok=True)
        text = TEMPLATE.format(
            command=shlex.join(self.command()),
            checkpoint=str(self.checkpoint.resolve()),
            recordings=str(self.recordings.resolve()),
            robot=self.robot,
            run=RUN,
            loc_stride=config.get("loc_stride", 1),
            objective=objective_of(config, has_fast=(self.checkpoint / "action_tokenizer").exists()),
        )
        self.file.write_text(text, encoding="utf-8")
        return self.file

    def start(self) -> None:
        """Train in a process of its own.

        Raises:
            ValueError: it trains already.
        """
        if self.is_running:
            raise ValueError("it is learning already")
        self.write()
        command = self.command()
        self.folder = Path(command[-1])
        self.folder.mkdir(parents=True)
        with self._log().open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command], stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )

    def stop(self) -> None:
        """End the process, if one runs."""
        if self.process is not None and self.is_running:
            self.process.terminate()
            self.process.wait()

    def describe(self) -> dict[str, Any]:
        """Return the command to copy, whether it runs, how it ended, and the last line that it printed."""
        code = None if self.process is None else self.process.poll()
        state = "ready" if self.process is None else "running" if code is None else "failed" if code else "done"
        return {
            "command": shlex.join(self.command()),
            "state": state,
            "line": self._last_line(),
            "policy": None if self.policy is None else str(self.policy),
        }

    def _next_folder(self) -> Path:
        names = [RUN_FOLDER.fullmatch(path.name) for path in self.out.glob("run-*") if path.is_dir()]
        return self.out / f"run-{max((int(name[1]) for name in names if name), default=0) + 1}"

    def _log(self) -> Path:
        assert self.folder is not None
        return self.folder.with_suffix(".log")

    def _last_line(self) -> str:
        if self.folder is None or not self._log().exists():
            return ""
        text = self._log().read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1][:LINE_LENGTH] if lines else ""


def objective_of(config: dict[str, Any], *, has_fast: bool) -> str:
    """Return the arguments of the objective that fits a checkpoint: only losses that its model has."""
    if config.get("kind", "pi") != "pi":
        return ""
    alpha = 10.0 if config["model"].get("action_expert") else 0.0
    return f"alpha={alpha}, fast_weight={1.0 if has_fast else 0.0}"
