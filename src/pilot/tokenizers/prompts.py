"""Prompts, byte exact: one table of the family's formats, and the state as numbers in them.

| format    | bidirectional prefix (after `<bos>`)                  | said by the model        | source            |
|-----------|-------------------------------------------------------|--------------------------|-------------------|
| `pi0`     | `{text}`, then `\\n` tokenised by itself               |                          | openpi            |
| `pi05`    | `Task: {text}, State: {bins};\\nAction: `              |                          | openpi            |
| `pi0_fast`| `Task: {text}, State: {bins};\\n`, in lower case       | `Action: `, FAST, `\\|<eos>` | FAST, openpi   |
| `openvla` | `In: What action should the robot take to {text}?\\nOut:`, lower | `Action: `, bins, `\\|<eos>`| OpenVLA |
| `subtask` | `Task: {text}, State: {bins};\\nSubtask: `             | `{subtask};\\n`           | pilot, after π0.5 |
| `subtask_stateless` | `Task: {text};\\nSubtask: `                  | `{subtask};\\n`           | pilot             |
| `web`     | `Question: {text}\\nAnswer: `                          | `{answer}<eos>`          | pilot             |

The released weights saw the first three exactly so, and a prompt cut off at the token budget; there a cut is a
warning. A model of pilot's own reads the end of its prompt to know what to say next; there it is an error. They also
saw "-1" for a state below -1 (`clips_state`); ours reads 0 there.
"""

import warnings
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from jaxtyping import Float, Int

from pilot.names import check_name
from pilot.tokenizers.base import ActionTokenizer, DecodeResult, mirror_into_vocab
from pilot.tokenizers.text import Ids, TextTokenizer

STATE_BINS = 256
ACTION_START, ACTION_END = "Action: ", "|"
SUBTASK_END = ";\n"

_EDGES = np.linspace(-1, 1, STATE_BINS + 1)[:-1]
FAR = 2.0  # half a range beyond q01 or q99


@dataclass(frozen=True, kw_only=True)
class PromptFormat:
    """`parts` are tokenised one by one and joined; `target` is the text that the model is to say.

    `clips_state`: which rule of `state_bins` the weights were trained with.
    """

    parts: tuple[str, ...]
    target: str | None = None
    target_eos: bool = False
    lower: bool = False
    keep_newlines: bool = False
    truncates: bool = False
    clips_state: bool = True

    @property
    def reads_state(self) -> bool:
        return any("{bins}" in part for part in self.parts)


FORMATS = {
    "pi0": PromptFormat(parts=("{text}", "\n"), truncates=True),
    "pi05": PromptFormat(parts=("Task: {text}, State: {bins};\nAction: ",), truncates=True, clips_state=False),
    "pi0_fast": PromptFormat(
        parts=("Task: {text}, State: {bins};\n",), lower=True, keep_newlines=True, truncates=True, clips_state=False
    ),
    "openvla": PromptFormat(parts=("In: What action should the robot take to {text}?\nOut:",), lower=True),
    "subtask": PromptFormat(parts=("Task: {text}, State: {bins};\nSubtask: ",), target="{text}" + SUBTASK_END),
    "subtask_stateless": PromptFormat(parts=("Task: {text};\nSubtask: ",), target="{text}" + SUBTASK_END),
    "web": PromptFormat(parts=("Question: {text}\nAnswer: ",), target="{text}", target_eos=True),
}


def format_prompt(name: str, text: str, *, bins: Ids | None = None) -> str:
    """The prompt as people read it.

    Raises:
        ValueError: unknown format, empty text, or state bins given or missing against the format.
    """
    return "".join(_filled_parts(name, text, bins))


def encode_prompt(
    tokenizer: TextTokenizer, name: str, *, text: str, bins: Ids | None = None, max_tokens: int | None = None
) -> list[int]:
    """`<bos>` and the prompt's tokens, at most `max_tokens`.

    Raises:
        ValueError: as `format_prompt`; or over the budget where the format does not truncate (else a warning).
    """
    ids = [i for n, part in enumerate(_filled_parts(name, text, bins)) for i in tokenizer.encode(part, add_bos=n == 0)]
    if max_tokens is None or len(ids) <= max_tokens:
        return ids
    message = f"the prompt has {len(ids)} tokens and the budget is {max_tokens}"
    if not FORMATS[name].truncates:
        raise ValueError(f"{message}; shorten {text!r} or raise the budget")
    warnings.warn(f"{message}; cut off: {tokenizer.decode(ids[max_tokens:])!r}", stacklevel=2)
    return ids[:max_tokens]


def encode_target(tokenizer: TextTokenizer, name: str, *, text: str) -> list[int]:
    """The tokens that a model is trained to say after prompt `name`: a subtask or an answer, with its end.

    Raises:
        ValueError: unknown format, one that says nothing, or empty text.
    """
    prompt_format = _find(name)
    if prompt_format.target is None:
        raise ValueError(f"prompt format '{name}' has no text to say; those that do: {_names_with_target()}")
    if not text.strip():
        raise ValueError(f"empty text as the target of prompt format '{name}'")
    return tokenizer.encode(prompt_format.target.format(text=text), add_eos=prompt_format.target_eos)


def encode_actions(tokenizer: TextTokenizer, action_ids: Ids, *, vocab_size: int, offset: int = 0) -> list[int]:
    """`Action: `, the action ids placed in a model vocabulary of `vocab_size`, `|` and `<eos>`."""
    mirrored = mirror_into_vocab(np.array([int(i) for i in action_ids], np.int64), vocab_size, offset=offset).tolist()
    return tokenizer.encode(ACTION_START) + mirrored + tokenizer.encode(ACTION_END, add_eos=True)


def decode_actions(
    tokenizer: TextTokenizer,
    said: Ids,
    *,
    actions: ActionTokenizer,
    horizon: int,
    dim: int,
    vocab_size: int,
    offset: int = 0,
) -> DecodeResult:
    """The chunk that a model said, or what is wrong; positions count from the first token after `Action: `."""
    ids = find_actions(tokenizer, said, vocab_size=vocab_size, offset=offset)
    if ids is None:
        return DecodeResult(error=f"no '{ACTION_START}' was said")
    return actions.decode(ids, horizon, dim)


def find_actions(tokenizer: TextTokenizer, said: Ids, *, vocab_size: int, offset: int = 0) -> list[int] | None:
    """The action ids between `Action: ` and `|` (or the end) of what a model said; None if it said no `Action: `."""
    start, (end, *_) = tokenizer.encode(ACTION_START), tokenizer.encode(ACTION_END)
    tokens = [int(token) for token in said]
    found = [i for i in range(len(tokens) - len(start) + 1) if tokens[i : i + len(start)] == start]
    if not found:
        return None
    inside = list(takewhile(lambda token: token not in (end, tokenizer.eos_id), tokens[found[0] + len(start) :]))
    return mirror_into_vocab(np.array(inside, np.int64), vocab_size, offset=offset).tolist()


def state_bins(state: Float[np.ndarray, " d"], *, clip: bool = True) -> Int[np.ndarray, " d"]:
    """Normalised state → bin of 256 per dim over [-1, 1].

    One state in fifty lies outside by the meaning of q01 and q99, which goes unsaid; a dim that is `FAR` outside does
    not belong to these statistics, and is warned of once per dim and side.

    `clip=False` is openpi's rule, for its weights: anything below -1 is bin -1. Above 1 both rules give 255.

    Raises:
        ValueError: NaN or infinity.
    """
    if not np.isfinite(state).all():
        raise ValueError(f"the state holds NaN or infinity: {state}; look at the robot's reading before the policy")
    bins = np.digitize(np.asarray(state, np.float64), _EDGES) - 1
    bins = np.maximum(bins, 0) if clip else bins
    for dim in np.flatnonzero(np.abs(state) > FAR):  # no values in the text, or every row would warn anew
        side = "above" if state[dim] > 1 else "below"
        warnings.warn(
            f"state dim {dim} is far {side} what it was in training and reads as bin {bins[dim]}: "
            "are these the robot's units, and the right norm_stats?",
            stacklevel=2,
        )
    return bins


def _filled_parts(name: str, text: str, bins: Ids | None) -> list[str]:
    prompt_format = _find(name)
    if prompt_format.reads_state != (bins is not None):
        wish = "needs" if prompt_format.reads_state else "takes no"
        raise ValueError(f"prompt format '{name}' {wish} state bins")
    numbers = " ".join(str(int(b)) for b in bins) if bins is not None else ""
    clean = _clean(prompt_format, text)
    return [part.format(text=clean, bins=numbers) for part in prompt_format.parts]


def _clean(prompt_format: PromptFormat, text: str) -> str:
    clean = text.strip().replace("_", " ")
    if not clean.strip():
        raise ValueError(f"empty prompt {text!r}; say what the robot is to do, such as 'put the red cup in the sink'")
    clean = clean if prompt_format.keep_newlines else clean.replace("\n", " ")
    return clean.lower() if prompt_format.lower else clean


def _find(name: str) -> PromptFormat:
    return FORMATS[check_name("prompt format", name, FORMATS)]


def _names_with_target() -> str:
    return ", ".join(name for name, prompt_format in FORMATS.items() if prompt_format.target)
