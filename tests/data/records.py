"""A few TFRecord files of RLDS episodes, for the tests of everything that reads them.

`tiny_arm/` was written by TensorFlow Datasets 4.9.10: three episodes of 5, 1 and 4 steps, the second a failure, whose
pictures and states carry the number of the step in the whole set. What is written here follows it.
"""

import shutil
import struct
from pathlib import Path

import numpy as np

from pilot.data.formats.rlds import EpisodeFeatures, RldsLayout, RobotColumns
from pilot.data.formats.tfrecord import FOOTER, HEADER, RecordFile, masked_crc

TINY_ARM = Path(__file__).parent / "tiny_arm"
RECORDS = "tiny_arm-train.tfrecord-00000-of-00001"


def columns(features: EpisodeFeatures) -> RobotColumns | None:
    """As the sets in `pilot.datasets` do: failures are left out, the gripper goes last."""
    if "success" not in features.metadata("file_path"):
        return None
    gripper = features["action/open_gripper"].astype(np.float32)
    return RobotColumns(
        state=features["observation/state"],
        actions=np.concatenate([features["action/world_vector"], gripper[:, None]], axis=1),
    )


LAYOUT = RldsLayout(
    fps=5.0,
    cameras={"image": "observation/image", "wrist": "observation/wrist"},
    instruction=("language_instruction",),
    columns=columns,
)


def copy_tiny_arm(folder: Path) -> Path:
    """A copy to break; its record file is `RECORDS`."""
    return Path(shutil.copytree(TINY_ARM, folder / "1.0.0"))


def messages(file: Path) -> list[bytes]:
    """The messages of a record file."""
    records = RecordFile(file)
    return [bytes(records.read(int(at), int(size), check=True)) for at, size in records.places()]


def write_records(file: Path, contents: list[bytes]) -> None:
    """A record file of these messages."""
    parts = []
    for content in contents:
        length = struct.pack("<Q", len(content))
        parts += [length, struct.pack("<I", masked_crc(length)), content, struct.pack("<I", masked_crc(content))]
    file.write_bytes(b"".join(parts))


def open_remote(file: Path, number: int) -> slice:
    """Where a record lies in its file, check sums included."""
    at, size = RecordFile(file).places()[number].tolist()
    return slice(at - HEADER, at + size + FOOTER)
