"""Prompts, byte exact: one table of the family's formats, and the state as numbers in them.

| format    | bidirectional prefix (after `<bos>`)                  | written by the model     | source            |
|-----------|-------------------------------------------------------|--------------------------|-------------------|
| `pi0`     | `{text}`, then `\\n` tokenised by itself               |                          | openpi            |
| `pi05`    | `Task: {text}, State: {bins};\\nAction: `              |                          | openpi            |
| `pi0_fast`| `Task: {text}, State: {bins};\\n`, in lower case       | `Action: `, FAST, `\\|<eos>` | FAST, openpi   |
| `openvla` | `In: What action should the robot take to {text}?\\nOut:`, lower | `Action: `, bins, `\\|<eos>`| OpenVLA |
| `subtask` | `Task: {text}, State: {bins};\\nSubtask: `             | `{subtask};\\n`           | pilot, after π0.5 |
| `subtask_stateless` | `Task: {text};\\nSubtask: `                  | `{subtask};\\n`           | pilot             |
| `web`     | `Question: {text}\\nAnswer: `                          | `{answer}<eos>`          | pilot             |

Where a robot has a control mode (`Robot.control_mode`), the formats of π0.5 say it behind the text, as the paper does
(2504.16054): `fold the shirt <control mode> end effector <control mode>`.

The released weights were trained on exactly the first three, and on prompts cut off at the token budget: there a cut is
a warning. A model of pilot's own learns from the end of its prompt what to write next: there a cut is an error. The
released weights were also trained on "-1" for a state below -1 (`clips_state`); in pilot's own formats it is 0.
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
FAR = 2.0  # a normalised state this far out is half a range beyond q01 or q99


@dataclass(frozen=True, kw_only=True)
class PromptFormat:
    """A way to write a prompt, and what the model writes behind it."""

    parts: tuple[str, ...]  # tokenised one by one and joined
    target: str | None = None  # the text that the model is to write
    target_eos: bool = False  # whether `<eos>` ends it
    lower: bool = False
    keep_newlines: bool = False
    truncates: bool = False  # at the token budget, with a warning
    clips_state: bool = True  # the rule of `state_bins` that the weights were trained with
    says_control_mode: bool = False  # behind the text, where the robot has one

    @property
    def reads_state(self) -> bool:
        """Whether the prompt has the state in it."""
        return any("{bins}" in part for part in self.parts)


FORMATS = {
    "pi0": PromptFormat(parts=("{text}", "\n"), truncates=True),
    "pi05": PromptFormat(
        parts=("Task: {text}, State: {bins};\nAction: ",), truncates=True, clips_state=False, says_control_mode=True
    ),
    "pi0_fast": PromptFormat(
        parts=("Task: {text}, State: {bins};\n",), lower=True, keep_newlines=True, truncates=True, clips_state=False
    ),
    "openvla": PromptFormat(parts=("In: What action should the robot take to {text}?\nOut:",), lower=True),
    "subtask": PromptFormat(
        parts=("Task: {text}, State: {bins};\nSubtask: ",), target="{text}" + SUBTASK_END, says_control_mode=True
    ),
    "subtask_stateless": PromptFormat(
        parts=("Task: {text};\nSubtask: ",), target="{text}" + SUBTASK_END, says_control_mode=True
    ),
    "web": PromptFormat(parts=("Question: {text}\nAnswer: ",), target="{text}", target_eos=True),
}


def format_prompt(name: str, text: str, *, bins: Ids | None = None, control_mode: str = "") -> str:
    """Return the prompt as people read it; formats that say no control mode ignore it.

    Raises:
        ValueError: unknown format, empty text, or state bins given or missing against the format.
    """
    return "".join(_fill_parts(name, text, bins, control_mode))


def encode_prompt(
    tokenizer: TextTokenizer,
    name: str,
    *,
    text: str,
    bins: Ids | None = None,
    control_mode: str = "",
    max_tokens: int | None = None,
) -> list[int]:
    """Return `<bos>` and the prompt's tokens, at most `max_tokens`.

    Raises:
        ValueError: as in `format_prompt`; or over the budget, where the format does not truncate with a warning.
    """
    parts = _fill_parts(name, text, bins, control_mode)
    ids = [i for n, part in enumerate(parts) for i in tokenizer.encode(part, add_bos=n == 0)]
    if max_tokens is None or len(ids) <= max_tokens:
        return ids
    message = f"the prompt has {len(ids)} tokens and the budget is {max_tokens}"
    if not FORMATS[name].truncates:
        raise ValueError(f"{message}; shorten {text!r} or raise the budget")
    warnings.warn(f"{message}; cut off: {tokenizer.decode(ids[max_tokens:])!r}", stacklevel=2)
    return ids[:max_tokens]


def encode_target(tokenizer: TextTokenizer, name: str, *, text: str) -> list[int]:
    """Return the tokens that a model is trained to write after prompt `name`: a subtask or an answer, with its end.

    Raises:
        ValueError: unknown format, one without a target, or empty text.
    """
    prompt_format = _format(name)
    if prompt_format.target is None:
        raise ValueError(f"prompt format '{name}' has no target text; those that have one: {_names_with_target()}")
    if not text.strip():
        raise ValueError(f"empty text as the target of prompt format '{name}'")
    return tokenizer.encode(prompt_format.target.format(text=text), add_eos=prompt_format.target_eos)


def encode_actions(tokenizer: TextTokenizer, action_ids: Ids, *, vocab_size: int, offset: int = 0) -> list[int]:
    """Return `Action: `, the action ids mapped into a model vocabulary of `vocab_size`, `|` and `<eos>`."""
    mirrored = mirror_into_vocab(np.array([int(i) for i in action_ids], np.int64), vocab_size, offset=offset).tolist()
    return tokenizer.encode(ACTION_START) + mirrored + tokenizer.encode(ACTION_END, add_eos=True)


def decode_actions(
    tokenizer: TextTokenizer,
    generated: Ids,
    *,
    actions: ActionTokenizer,
    horizon: int,
    dim: int,
    vocab_size: int,
    offset: int = 0,
) -> DecodeResult:
    """Return the chunk that a model wrote, or its error; positions count from the first token after `Action: `."""
    ids = extract_action_ids(tokenizer, generated, vocab_size=vocab_size, offset=offset)
    if ids is None:
        return DecodeResult(error=f"there is no '{ACTION_START}' among the tokens")
    return actions.decode(ids, horizon, dim)


def extract_action_ids(tokenizer: TextTokenizer, tokens: Ids, *, vocab_size: int, offset: int = 0) -> list[int] | None:
    """Return the action ids between `Action: ` and `|` (or the end); None where no `Action: ` was generated."""
    start, (end, *_) = tokenizer.encode(ACTION_START), tokenizer.encode(ACTION_END)
    ids = [int(token) for token in tokens]
    starts = [i for i in range(len(ids) - len(start) + 1) if ids[i : i + len(start)] == start]
    if not starts:
        return None
    inside = list(takewhile(lambda token: token not in (end, tokenizer.eos_id), ids[starts[0] + len(start) :]))
    return mirror_into_vocab(np.array(inside, np.int64), vocab_size, offset=offset).tolist()


def state_bins(state: Float[np.ndarray, " d"], *, clip: bool = True) -> Int[np.ndarray, " d"]:
    """Return the bin of each dim of a normalised state: one of 256 over [-1, 1].

    By the meaning of q01 and q99 one state in fifty lies outside, which needs no warning. A dim that is `FAR` outside
    does not fit these statistics, and is warned of once per dim and side.

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
            f"state dim {dim} is far {side} what it was in training and becomes bin {bins[dim]}: "
            "are these the robot's units, and the right norm_stats?",
            stacklevel=2,
        )
    return bins


def _fill_parts(name: str, text: str, bins: Ids | None, control_mode: str) -> list[str]:
    prompt_format = _format(name)
    if prompt_format.reads_state != (bins is not None):
        verb = "needs" if prompt_format.reads_state else "takes no"
        raise ValueError(f"prompt format '{name}' {verb} state bins")
    numbers = " ".join(str(int(b)) for b in bins) if bins is not None else ""
    clean = _clean(prompt_format, text)
    if control_mode and prompt_format.says_control_mode:
        clean += f" <control mode> {control_mode.replace('_', ' ')} <control mode>"
    return [part.format(text=clean, bins=numbers) for part in prompt_format.parts]


def _clean(prompt_format: PromptFormat, text: str) -> str:
    clean = text.strip().replace("_", " ")
    if not clean.strip():
        raise ValueError(f"empty prompt {text!r}; tell the robot what to do, such as 'put the red cup in the sink'")
    clean = clean if prompt_format.keep_newlines else clean.replace("\n", " ")
    return clean.lower() if prompt_format.lower else clean


def _format(name: str) -> PromptFormat:
    return FORMATS[check_name("prompt format", name, FORMATS)]


def _names_with_target() -> str:
    return ", ".join(name for name, prompt_format in FORMATS.items() if prompt_format.target)
