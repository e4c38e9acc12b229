"""What files from elsewhere may do to this process: name files in their own folder, be large, but not too large.

Data sets and checkpoints come from strangers. A name in them must not lead out of their folder, a template must not ask
for a text of gigabytes, JSON must not exhaust the stack, and a small file must not unfold into a huge picture.
"""

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from string import Formatter
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

MAX_PIXELS = 2**25  # of a picture: 33 million, 100 MB decoded
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF")  # none that runs another program
MAX_PATH = 1000  # characters
_SPEC = re.compile(r"0?\d{0,2}d?")


def path_inside(folder: Path, name: Any, *, where: Path | str) -> Path:
    """Return the path of the file that a data set or a checkpoint calls `name`, which must lie in its folder.

    Links are followed. Those of Hugging Face's cache, from a snapshot to its blobs, are inside as well.

    Raises:
        ValueError: it leads elsewhere, or is no name of a file; the message begins with `where`.
    """
    if not isinstance(name, str) or not 0 < len(name) <= MAX_PATH or "\0" in name:
        raise ValueError(f"{where}: {name!r:.80} is not the name of a file; correct it, or fetch the file again")
    plain = PurePosixPath(name)
    if plain.is_absolute() or PureWindowsPath(name).anchor or ".." in plain.parts:
        raise ValueError(f"{where} names '{name}', which is not inside {folder}; name files relative to that folder")
    path = folder / name
    root, real = folder.resolve(), path.resolve()
    if not real.is_relative_to(root) and not real.is_relative_to(root.parent.parent / "blobs"):
        raise ValueError(f"{where} names '{name}', a link to {real} outside of {folder}; put the file itself there")
    return path


def fill_template(template: Any, names: Mapping[str, Any], *, where: Path | str) -> str:
    """Fill the template of a path, such as `data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet`.

    Raises:
        ValueError: it asks for something else than `names`, or for widths above 99.
    """
    try:
        parts = list(Formatter().parse(template))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {template!r:.80} is no template of a path ({error}); fetch it again") from error
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if name not in names or conversion or not (spec == "" or _SPEC.fullmatch(spec or "")):
            asked = "{" + name + (f":{spec}" if spec else "") + "}"
            raise ValueError(
                f"{where}: the template '{template:.200}' asks for {asked:.80}; it may ask for {', '.join(names)}, "
                "each with a width up to 99"
            )
    try:
        return template.format(**names)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: the template '{template:.200}' cannot be filled ({error}); correct it") from error


def parse_json(text: str | bytes, *, where: Path | str, remedy: str) -> Any:
    """Parse JSON from a file.

    Raises:
        ValueError: it is none, or nested too deep; the message begins with `where` and ends with the `remedy`.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{where} is nested too deep to be read; {remedy}") from error
    except ValueError as error:
        raise ValueError(f"{where} is not valid JSON ({error}); {remedy}") from error


def open_picture(content: bytes | memoryview, *, where: Path | str, remedy: str) -> Image.Image:
    """Open a picture from its file's bytes without decoding it; its size is known, and not too large.

    Raises:
        ValueError: it is damaged, of a format that is not read, or has more than `MAX_PIXELS`.
    """
    try:
        picture = Image.open(io.BytesIO(content), formats=PICTURE_FORMATS)
    except (OSError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{where}: the picture is damaged or unknown ({error}); {remedy}") from error
    if picture.width * picture.height > MAX_PIXELS:
        raise ValueError(
            f"{where}: the picture has {picture.width} × {picture.height} pixels, the limit is {MAX_PIXELS}; make it "
            "smaller"
        )
    return picture


def decode_picture(content: bytes | memoryview, *, where: Path | str, remedy: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decode a picture from its file's bytes.

    Raises:
        ValueError: as `open_picture`.
    """
    picture = open_picture(content, where=where, remedy=remedy)
    try:
        return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, MemoryError) as error:
        raise ValueError(f"{where}: the picture is damaged ({error}); {remedy}") from error


def has_half_character(text: str) -> bool:
    """Return whether a text holds half of a surrogate pair, which JSON may hold and UTF-8 may not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
