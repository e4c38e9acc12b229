"""Text and actions as tokens: `text` and `prompts` for words; `fast`, `vq` and `bins` for action chunks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pilot.names import check_name
from pilot.tokenizers import bins, fast, vq
from pilot.tokenizers.base import ActionTokenizer

ACTION_TOKENIZERS: dict[str, tuple[str, Any]] = {
    "fast": (fast.CONFIG_FILE, fast.FastTokenizer),
    "vq": (vq.CONFIG_FILE, vq.VqTokenizer),
    "bins": (bins.CONFIG_FILE, bins.BinsTokenizer),
}
"""Every kind of action tokenizer: the file that marks its folder, and its class."""


def load_action_tokenizer(folder: str | Path) -> ActionTokenizer:
    """Load the action tokenizer that was saved in `folder`, of whatever kind.

    Raises:
        FileNotFoundError: there is none.
        ValueError: its files are damaged.
    """
    for marker, kind in ACTION_TOKENIZERS.values():
        if (Path(folder) / marker).is_file():
            return kind.load(folder)
    markers = ", ".join(marker for marker, _ in ACTION_TOKENIZERS.values())
    raise FileNotFoundError(
        f"no action tokenizer in {folder}: it has none of {markers}; make one with: pilot data tokenizer"
    )


def fit_action_tokenizer(
    kind: str, chunks: Float[np.ndarray, "n t d"], **options: "float | Sequence[np.ndarray]"
) -> ActionTokenizer:
    """Fit a new action tokenizer of one of `ACTION_TOKENIZERS`; `options` are those of its `fit`, such as `vocab_size`.

    Raises:
        ValueError: an unknown kind, or chunks that it cannot be fitted to.
    """
    return ACTION_TOKENIZERS[check_name("action tokenizer", kind, ACTION_TOKENIZERS)][1].fit(chunks, **options)
