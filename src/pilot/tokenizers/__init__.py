"""Text and actions as tokens: `text` and `prompts` for words, `fast` and `bins` for action chunks."""

from pathlib import Path

from pilot.tokenizers import bins, fast
from pilot.tokenizers.base import ActionTokenizer


def load_action_tokenizer(folder: str | Path) -> ActionTokenizer:
    """Whichever action tokenizer was saved in `folder`.

    Raises:
        FileNotFoundError: none was.
        ValueError: its files are damaged.
    """
    if (Path(folder) / fast.CONFIG_FILE).is_file():
        return fast.FastTokenizer.load(folder)
    if (Path(folder) / bins.CONFIG_FILE).is_file():
        return bins.BinsTokenizer.load(folder)
    raise FileNotFoundError(f"no action tokenizer in {folder}: neither {fast.CONFIG_FILE} nor {bins.CONFIG_FILE}")
