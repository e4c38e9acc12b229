"""Looking closer at a picture with a question: a crop whose boxes follow, for rows that teach to see.

Small things in large pictures are learned slowly: a network that needs a minute to name things that fill its view
needs an hour for the same things at a tenth of the picture (`docs/log.md`, 2026-11-28). Crops show them at many sizes
and in many places, and make many pictures of one.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from pilot.data.transforms import pad_box, unpad_box
from pilot.tokenizers.text import box_to_locs, split_boxes

VISIBLE = 0.5  # the share of a box's area that a crop must show; other boxes are left out


def zoom_in(
    image: UInt8[np.ndarray, "h w 3"],
    question: str,
    answer: str,
    rng: np.random.Generator,
    *,
    smallest: float,
    loc_stride: int = 1,
) -> tuple[UInt8[np.ndarray, "h2 w2 3"], str, str]:
    """Return a crop of the picture with one of the boxes whole in it, and the question and answer that hold there.

    Its sides are the share `smallest` to 1 of the picture's, drawn evenly on a logarithmic scale. Parts of the answer
    of which less than half is in view are left out. The row comes back as it is where the words have no boxes, one
    that is none (y0 > y1, say), or where one of the question's or all of the answer's would be cut off.
    """
    (question_start, asked), (answer_start, told) = split_boxes(question), split_boxes(answer)
    boxes = [box for box, _ in asked + told if box is not None]
    if not boxes or len(boxes) < len(asked + told):
        return image, question, answer
    size = (image.shape[0], image.shape[1])
    boxes = [np.clip(unpad_box(box, size), 0.0, 1.0).tolist() for box in boxes]  # of the picture, without padding
    candidates = boxes[: len(asked)] or boxes
    window = _draw_window(size, candidates[int(rng.integers(len(candidates)))], rng, smallest)
    moved = [_move(box, window, size, loc_stride) for box in boxes]
    if None in moved[: len(asked)] or (told and not any(moved[len(asked) :])):
        return image, question, answer
    parts = [f"{locs}{words}" for locs, (_, words) in zip(moved, asked + told, strict=True) if locs is not None]
    if asked:
        question = question_start + "".join(parts[: len(asked)])
    if told:
        answer = answer_start + "".join(parts[len(asked) :]).rstrip(" ,;")
    y, x, height, width = window
    return image[y : y + height, x : x + width], question, answer


def _draw_window(
    size: tuple[int, int], box: Sequence[float], rng: np.random.Generator, smallest: float
) -> tuple[int, int, int, int]:
    """Draw a crop of whole pixels (y, x, height, width) in which the box lies; the whole picture where none can."""
    share = float(np.exp(rng.uniform(np.log(smallest), 0.0)))
    starts, lengths = [], []
    for side, low, high in zip(size, box[:2], box[2:], strict=True):
        length = max(1, round(share * side))
        first, last = max(0, int(np.ceil(high * side)) - length), min(side - length, int(low * side))
        if first > last:  # the box is larger than the crop
            return 0, 0, size[0], size[1]
        starts.append(int(rng.integers(first, last + 1)))
        lengths.append(length)
    return starts[0], starts[1], lengths[0], lengths[1]


def _move(
    box: Sequence[float], window: tuple[int, int, int, int], size: tuple[int, int], loc_stride: int
) -> str | None:
    """Write a box as the crop has it; None where less than `VISIBLE` of it is in view."""
    y, x, height, width = window
    scale, start = np.array([size[0] / height, size[1] / width] * 2), np.array([y / size[0], x / size[1]] * 2)
    moved = (np.array(box) - start) * scale
    inside = moved.clip(0.0, 1.0)
    # A box of no width still has its height.
    before, after = (np.maximum(b[2:] - b[:2], 1e-6).prod() for b in (moved, inside))
    return (
        box_to_locs(pad_box(inside.tolist(), (height, width)), stride=loc_stride) if after >= VISIBLE * before else None
    )
