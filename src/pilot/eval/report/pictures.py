"""Pictures of a report as text: frames, filmstrips and attention maps, encoded into `data:` addresses.

A film is a *sprite*: all its frames in one picture, laid out as a grid that the page steps through. Unlike an animated
picture it can be paused, and it shares one clock with the subtitles.

Axes: `n` frames, `h w` picture height and width, `gh gw` grid of patches.
"""

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

# Dark to bright, the middle of matplotlib's "inferno" family in spirit: reads the same to colour-blind eyes.
HEAT = np.array([(20, 8, 50), (105, 25, 105), (200, 60, 70), (248, 150, 40), (252, 250, 170)], dtype=float)


def data_uri(picture: np.ndarray) -> str:
    """Encode a uint8 [h w 3] or [h w 4] picture as WebP: lossless where that is cheap, as it is for drawn scenes."""
    check_picture(picture)
    exact, close = encode_webp(picture, lossless=True), encode_webp(picture, lossless=False)
    data = exact if len(exact) <= 1.5 * len(close) else close
    return "data:image/webp;base64," + base64.b64encode(data).decode("ascii")


def shrink(picture: np.ndarray, *, size: int) -> np.ndarray:
    """Scale a picture down so that neither side is longer than `size`."""
    height, width = picture.shape[:2]
    ratio = size / max(height, width)
    if ratio >= 1:
        return picture
    shape = max(round(width * ratio), 1), max(round(height * ratio), 1)
    return np.asarray(Image.fromarray(picture).resize(shape, Image.Resampling.BILINEAR))


def encode_webp(picture: np.ndarray, *, lossless: bool) -> bytes:
    """Encode a picture as WebP."""
    if lossless:  # where quality means effort: the most is 17 times slower, a quarter smaller
        return _save_webp(picture, quality=0, method=0, lossless=True)
    try:
        return _save_webp(picture, quality=90, method=1)
    except ValueError:  # a large film, with more detail than the format has room for at this quality
        return _save_webp(picture, quality=60, method=4)


def _save_webp(picture: np.ndarray, *, quality: int, method: int, lossless: bool = False) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", lossless=lossless, quality=quality, method=method)
    return buffer.getvalue()


def check_picture(picture: np.ndarray) -> None:
    """Check that a picture is one.

    Raises:
        ValueError: another dtype or shape.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (3, 4):
        raise ValueError(f"a picture is uint8 [h w 3], got {picture.dtype} {list(picture.shape)}")


def sprite(frames: Sequence[np.ndarray], *, hold: int) -> tuple[np.ndarray, int, int]:
    """Lay out all frames in one picture, row by row, the last one repeated at least `hold` times.

    Returns the picture, its columns and its rows.

    Raises:
        ValueError: No frames, or frames of different shapes.
    """
    if not frames:
        raise ValueError("a film needs at least one frame")
    for frame in frames:
        check_picture(frame)
        if frame.shape != frames[0].shape:
            raise ValueError(f"frames of one film differ in shape: {list(frames[0].shape)} and {list(frame.shape)}")
    total = len(frames) + hold
    columns = max(2, math.ceil(math.sqrt(total)))
    rows = max(2, math.ceil(total / columns))
    padded = list(frames) + [frames[-1]] * (columns * rows - len(frames))
    lines = [np.concatenate(padded[row * columns : (row + 1) * columns], axis=1) for row in range(rows)]
    return np.concatenate(lines, axis=0), columns, rows


def attention_overlay(picture: np.ndarray, weights: np.ndarray, *, size: int = 384) -> tuple[np.ndarray, np.ndarray]:
    """Enlarge a picture, and again with `weights` [gh gw] glowing on it; both uint8 [size size·w/h 3]."""
    check_picture(picture)
    height, width = size, round(size * picture.shape[1] / picture.shape[0])
    base = np.asarray(Image.fromarray(picture[..., :3]).resize((width, height), Image.Resampling.NEAREST))
    glow = upsample(scale_weights(weights), height=height, width=width)[..., None]
    grey = base.mean(-1, keepdims=True) * 0.55
    strength = np.clip(glow * 1.15, 0, 0.85)
    return base, (grey * (1 - strength) + heat(glow[..., 0]) * strength).round().astype(np.uint8)


def scale_weights(weights: np.ndarray) -> np.ndarray:
    """Scale attention weights to 0…1. The top is a high quantile, so that one hot patch does not hide the rest."""
    if weights.ndim != 2 or not np.isfinite(weights).all() or weights.min() < 0:
        raise ValueError(f"attention weights are [gh gw], finite and not negative, got {list(weights.shape)}")
    low, high = weights.min(), np.quantile(weights, 0.98)
    return np.clip((weights - low) / max(high - low, 1e-12), 0, 1)


def upsample(values: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """Enlarge values [gh gw] smoothly to [h w]."""
    picture = Image.fromarray(values.astype(np.float32), mode=None)
    return np.clip(np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)), 0, 1)


def heat(values: np.ndarray) -> np.ndarray:
    """Return the colours [... 3] of values in 0…1."""
    position = values * (len(HEAT) - 1)
    return np.stack([np.interp(position, np.arange(len(HEAT)), HEAT[:, c]) for c in range(3)], axis=-1)
