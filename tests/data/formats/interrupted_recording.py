"""A process that records three episodes and is stuck in the middle of writing the fourth; its test kills it there."""

import sys
import time

import numpy as np
from data.recordings import ROBOT, episode

from pilot.data.formats.writer import LeRobotWriter


class Endless:
    """Pictures of which the last never come."""

    shape, dtype = (8, 8, 8, 3), np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, number: int) -> np.ndarray:
        return np.full(self.shape[1:], number, np.uint8)

    def __iter__(self):
        yield from (self[number] for number in range(5))
        print("in the middle", flush=True)
        time.sleep(600)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    writer = LeRobotWriter(sys.argv[1], ROBOT, 10, image_format="video")
    for _ in range(3):
        writer.add_episode(episode(rng, 8), task="kept")
    frames = episode(rng, 8)
    writer.add_episode(frames | {"observation.images.wrist": Endless()}, task="lost")
