"""One question to a vision-language model behind an OpenAI-compatible endpoint: vLLM, Ollama, or a service.

A question is words and pictures; these travel inside the request, as JPEG. The key is read from the environment and
stored nowhere.
"""

import base64
import io
import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

KEY = "OPENAI_API_KEY"
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, kw_only=True)
class VlmEndpoint:
    """The address of a model, and how often it may be asked.

    `url` ends before `/chat/completions`, such as `http://localhost:8000/v1`. `per_minute`: most requests per minute.
    `attempts`: per question, for lack of an answer and for answers that are none.
    """

    url: str
    model: str
    per_minute: float = 60.0
    attempts: int = 5
    timeout_s: float = 120.0


class RetryLater(Exception):
    """No answer this time; ask again, after `seconds` if the server says so."""

    def __init__(self, reason: str, seconds: float | None) -> None:
        super().__init__(reason)
        self.seconds = seconds


def ask_vlm(endpoint: VlmEndpoint, content: Sequence[dict[str, Any]]) -> str:
    """Return the model's answer to `content`, parts made by `text_part` and `image_part`. Asks once.

    Raises:
        RetryLater: no answer, but another time there may be one.
        ConnectionError: asking again is no use.
        ValueError: the answer is not one of a chat.
    """
    request = {
        "model": endpoint.model, "temperature": 0, "messages": [{"role": "user", "content": list(content)}],
    }  # fmt: skip
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {key}"
    address = endpoint.url.rstrip("/") + "/chat/completions"
    try:
        message = urllib.request.Request(address, json.dumps(request).encode(), headers)
        with urllib.request.urlopen(message, timeout=endpoint.timeout_s) as answer:
            said = json.load(answer)["choices"][0]["message"]["content"]
    except urllib.error.HTTPError as error:
        said = error.read(300).decode("utf-8", errors="replace")
        if error.code in AGAIN:
            raise RetryLater(f"HTTP {error.code}: {said}", _seconds(error.headers.get("Retry-After"))) from error
        hint = f"; is the key in ${KEY} right?" if error.code in (401, 403) else ""
        raise ConnectionError(f"{address} answers HTTP {error.code}: {said}{hint}") from error
    except (OSError, HTTPException) as error:
        raise RetryLater(f"no answer ({error})", None) from error
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"the answer has no {error}; is this a chat endpoint?") from error
    if not isinstance(said, str):
        raise ValueError(f"the model answers without words: {said!r}")
    return said


def text_part(text: str) -> dict[str, Any]:
    """Return a text as part of a chat message."""
    return {"type": "text", "text": text}


def image_part(pixels: UInt8[np.ndarray, "h w 3"], *, size: int) -> dict[str, Any]:
    """Return a picture for a question, its longer side at most `size`."""
    image = Image.fromarray(pixels)
    image.thumbnail((size, size))
    buffer = io.BytesIO()
    image.save(buffer, format="jpeg", quality=85)
    address = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"type": "image_url", "image_url": {"url": address}}


def _seconds(header: str | None) -> float | None:
    """Return a `Retry-After` in seconds; dates are not read."""
    return float(header) if header and header.strip().isdigit() else None
