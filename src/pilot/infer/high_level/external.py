"""What high levels outside of the model share: their advice is the subtask, or with `as_prompt` an instruction.

By default such a high level takes the place of the model's own entirely: its words are the subtask that is acted on.
With `as_prompt` its words take the place of the prompt, as if the person had said them, and the model's own high level
decides on the subtask below, with its box. A model that acts on its prompt alone always hears them as the prompt.
"""

from dataclasses import dataclass

from pilot.infer.high_level.base import HighLevel
from pilot.infer.high_level.model import ModelHighLevel
from pilot.infer.high_level.subtasks import SubtaskCodec


@dataclass(frozen=True, kw_only=True)
class ExternalHighLevel(HighLevel):
    """A high level outside of the model."""

    as_prompt: bool = False

    def advises_subtasks(self, codec: SubtaskCodec | None) -> bool:
        return codec is not None and not self.as_prompt

    def decider(self, codec: SubtaskCodec | None) -> HighLevel | None:
        return ModelHighLevel() if codec is not None and self.as_prompt else None
