"""Small policies that are not trained, what they are shown, and words put in their mouths."""

import numpy as np
from contracts import examples

from infer.weights import model
from pilot.infer.policy import Policy
from pilot.models.bundle import Bundle
from pilot.models.pi import PiConfig
from pilot.robots.homes import ROBOT
from pilot.tokenizers.text import TextTokenizer, box_to_locs

BOX = box_to_locs((0.1, 0.2, 0.3, 0.4))
TOLD = BOX + "pick up the red cup"


def policy_of(config: PiConfig) -> Policy:
    text = TextTokenizer()
    pipeline = examples.pipeline(ROBOT, config, says_actions=True)
    bundle = Bundle(
        model=model(config), robot=ROBOT, norm_stats=pipeline.norm_stats, text=text,
        action_tokenizer=pipeline.action_tokenizer, loc_stride=16,
    )  # fmt: skip
    return Policy(bundle)


def observation(seed: int = 0, **changes) -> dict:
    rng = np.random.default_rng(seed)
    images = {camera: rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for camera in ROBOT.cameras}
    return {"images": images, "state": np.zeros(5, np.float32), "prompt": "put the red cup in the sink"} | changes


def says(policy: Policy, monkeypatch, *subtasks: str | None) -> list[int]:
    """What the model says is heard as these, one per decision, then as the last again; the list grows with each."""
    calls: list[int] = []

    def text(tokens):
        calls.append(1)
        return subtasks[min(len(calls), len(subtasks)) - 1]

    monkeypatch.setattr(policy, "subtask_text", text)
    return calls
