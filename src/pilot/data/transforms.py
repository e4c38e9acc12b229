"""What happens to pictures, states and actions between a robot and a model, each step beside its inverse.

Axes: `h w` pixels, `ah` action horizon, `ad` action dims, `sd` state dims, `d` dims of a vector.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from pilot.types import NormStats

NormKind = Literal["quantile", "zscore"]


def picture(image: Any) -> UInt8[np.ndarray, "h w 3"]:
    """Return a camera's picture as uint8 [h w 3], from uint8 or from floats in 0 to 1, channels last or first.

    Floats are cut to the level below, as openpi does.

    Raises:
        ValueError: anything else.
    """
    image = np.asarray(image)
    if image.ndim == 3 and image.shape[2] != 3 and image.shape[0] == 3:
        image = image.transpose(1, 2, 0)
    if np.issubdtype(image.dtype, np.floating) and image.size and image.min() >= 0 and image.max() <= 1:
        image = (image * 255).astype(np.uint8)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(
            f"a picture is uint8 [h w 3] in RGB (or floats in 0 to 1), got {image.dtype} {list(image.shape)}"
        )
    return image


def resize_with_pad(image: UInt8[np.ndarray, "h w 3"], size: int | tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """Scale to fit (height, width), antialiased, and pad with black: nothing is cut off, nothing distorted.

    Within one level of what openpi trains on (JAX) and of what its clients send (PIL).
    """
    height, width = (size, size) if isinstance(size, int) else size
    if image.shape[:2] == (height, width):
        return image
    ratio = max(image.shape[1] / width, image.shape[0] / height)
    rows, columns = int(image.shape[0] / ratio), int(image.shape[1] / ratio)
    if not rows or not columns:
        raise ValueError(f"a picture of {list(image.shape)} is too long and thin to fit {height} x {width}")
    resized = Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR)
    out = np.zeros((height, width, 3), np.uint8)
    top, left = (height - rows) // 2, (width - columns) // 2
    out[top : top + rows, left : left + columns] = np.asarray(resized)
    return out


def pad_box(box: Sequence[float], size: tuple[int, int]) -> tuple[float, ...]:
    """Return a box (y0, x0, y1, x1), in [0, 1] of a picture of (height, width) `size`, as one in [0, 1] of the square
    that `resize_with_pad` makes of it."""
    side = max(size)
    return tuple(edge * (own / side) + (side - own) / (2 * side) for edge, own in zip(box, size * 2, strict=True))


def unpad_box(box: Sequence[float], size: tuple[int, int]) -> tuple[float, ...]:
    """Return the box of which `pad_box` makes this one; in the padding its edges are outside of [0, 1]."""
    side = max(size)
    return tuple(edge * (side / own) - (side - own) / (2 * own) for edge, own in zip(box, size * 2, strict=True))


def normalize(x: Float[np.ndarray, "*t d"], stats: NormStats, kind: NormKind = "quantile") -> Float[np.ndarray, "*t d"]:
    """Normalise so that quantiles q01 and q99 go to −1 and 1 (π0.5, FAST), or to z-scores (π0). `stats` may have more
    dims.

    Nothing is clipped but the dims that `stats.clip` names.
    """
    d = x.shape[-1]
    if kind == "zscore":
        out = (x - stats.mean[:d]) / (stats.std[:d] + 1e-6)
    else:
        out = (x - stats.q01[:d]) / (stats.q99[:d] - stats.q01[:d] + 1e-6) * 2 - 1
    if stats.clip is not None:
        out = np.clip(out, -stats.clip[:d], stats.clip[:d])
    return out.astype(np.float32)


def unnormalize(
    x: Float[np.ndarray, "*t d"], stats: NormStats, kind: NormKind = "quantile"
) -> Float[np.ndarray, "*t d"]:
    """Undo `normalize`."""
    d = x.shape[-1]
    if kind == "zscore":
        return (x * (stats.std[:d] + 1e-6) + stats.mean[:d]).astype(np.float32)
    return ((x + 1) / 2 * (stats.q99[:d] - stats.q01[:d] + 1e-6) + stats.q01[:d]).astype(np.float32)


def to_delta(
    actions: Float[np.ndarray, "*t ad"], state: Float[np.ndarray, "*b sd"], mask: tuple[bool, ...]
) -> Float[np.ndarray, "*t ad"]:
    """Make actions relative to the state at the start of the chunk, in the dims that `mask` names."""
    return actions - _base(actions, state, mask)


def to_absolute(
    actions: Float[np.ndarray, "*t ad"], state: Float[np.ndarray, "*b sd"], mask: tuple[bool, ...]
) -> Float[np.ndarray, "*t ad"]:
    """Undo `to_delta`."""
    return actions + _base(actions, state, mask)


def _base(actions: np.ndarray, state: np.ndarray, mask: tuple[bool, ...]) -> np.ndarray:
    base = np.zeros((*state.shape[:-1], actions.shape[-1]), actions.dtype)
    dims = np.flatnonzero(mask)
    base[..., dims] = state[..., dims]
    return base[..., None, :] if actions.ndim > state.ndim else base


def take_every(actions: Float[np.ndarray, "*n t ad"], stride: int) -> Float[np.ndarray, "*n ah ad"]:
    """Return the first of each `stride` actions."""
    return actions[..., ::stride, :]


def interpolate(actions: Float[np.ndarray, "ah ad"], stride: int) -> Float[np.ndarray, "t ad"]:
    """Undo `take_every`: straight lines from each action to the next one; the last one is held."""
    at = np.minimum(np.arange(stride * len(actions)) / stride, len(actions) - 1)
    before = np.floor(at).astype(int)
    after, share = np.minimum(before + 1, len(actions) - 1), (at - before)[:, None]
    return ((1 - share) * actions[before] + share * actions[after]).astype(np.float32)


def pad_dims(x: Float[np.ndarray, "*t d"], dims: int) -> Float[np.ndarray, "*t e"]:
    """Append zeros to the last dim, up to the model's `dims`.

    Raises:
        ValueError: more dims than the model has.
    """
    if x.shape[-1] > dims:
        raise ValueError(
            f"a vector of {x.shape[-1]} dims does not fit a model of {dims}; raise action_dim in its config"
        )
    out = np.zeros((*x.shape[:-1], dims), np.float32)
    out[..., : x.shape[-1]] = x
    return out
