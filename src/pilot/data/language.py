"""From a frame of a demonstration to the words of a training sample.

Every frame with a subtask teaches both levels at once: the subtask (its box in front, as `<loc>` tokens) is a text
target, the actions are a flow target. Where a task has several wordings, any of them is the prompt. In episodes with
verbal instructions a person named each step out loud; half of the draws put those words in the prompt, so the policy
learns to be told what to do next. What a frame is used for is drawn anew each time it is read.
"""

from typing import Any

import numpy as np

from pilot.tokenizers.text import BOX_LOCS, box_to_locs, split_box
from pilot.types import Sample


def to_sample(
    frame: dict[str, Any],
    *,
    rng: np.random.Generator,
    loc_stride: int = 1,
    utterance_share: float = 0.5,
    with_subtask: bool = True,
    source: str = "",
) -> Sample:
    """Turn a frame of `EpisodeDataset.frame` into a training sample.

    `loc_stride` snaps boxes to every stride-th of the 1024 bins (16 for 64-pixel pictures). `utterance_share`: how
    often the prompt is what was last said, where something was said, instead of the task.
    """
    prompt = frame["utterance"]
    if prompt is None or rng.random() >= utterance_share:
        wordings = (frame["task"], *frame["rephrasings"])
        prompt = wordings[0] if len(wordings) == 1 else wordings[int(rng.integers(len(wordings)))]
    return Sample(
        images=frame["images"],
        prompt=prompt,
        state=frame["state"],
        actions=frame["actions"],
        action_is_pad=frame["action_is_pad"],
        subtask=format_subtask(frame["subtask"], frame["box"], loc_stride=loc_stride) if with_subtask else None,
        source=source,
    )


def format_subtask(subtask: str | None, box: tuple[float, ...] | None, *, loc_stride: int = 1) -> str | None:
    """Return `"<loc0123><loc0456><loc0200><loc0512>pick up the red cup"`; without a box, the bare words."""
    if subtask is None:
        return None
    return (box_to_locs(box, stride=loc_stride) if box is not None else "") + subtask


def snap_locs(text: str, *, stride: int) -> str:
    """Return `text` with each of its boxes snapped to every stride-th bin."""
    return BOX_LOCS.sub(lambda match: _snap(match[0], stride), text) if stride > 1 else text


def _snap(locs: str, stride: int) -> str:
    box, _ = split_box(locs)
    if box is None:
        raise ValueError(f"'{locs}' is not a box: the order is y0 x0 y1 x1, top left first")
    return box_to_locs(box, stride=stride)
