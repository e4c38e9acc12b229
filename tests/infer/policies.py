"""Small policies that are not trained, what they are shown, and words put in their mouths."""

from pathlib import Path

import numpy as np
import torch

from infer.weights import model
from pilot.contracts import examples
from pilot.infer.engine.sampling import score
from pilot.infer.high_level import SUBTASK_TOKENS
from pilot.infer.policy import Policy
from pilot.models.bundle import Bundle, ordered_tokens, save_bundle
from pilot.models.pi import Pi, PiConfig, pi05
from pilot.models.trained_robots import one_robot
from pilot.robots.homes import ROBOT
from pilot.tokenizers.prompts import encode_target
from pilot.tokenizers.text import TextTokenizer, box_to_locs

BOX = box_to_locs((0.1, 0.2, 0.3, 0.4))
TOLD = BOX + "pick up the red cup"
LABELS = ("pick up the red cup", "pick up the blue cup", "done")


def bundle_of(model: Pi, text: TextTokenizer) -> Bundle:
    pipeline = examples.make_pipeline(ROBOT, model.config, with_fast=True)
    return Bundle(
        model=model, robots=one_robot(ROBOT, pipeline.norm_stats), text=text,
        action_tokenizer=pipeline.action_tokenizer, loc_stride=16,
    )  # fmt: skip


def policy_of(config: PiConfig) -> Policy:
    return Policy(bundle_of(model(config), TextTokenizer()))


def save_toy(path: Path) -> Path:
    """A policy folder with fresh weights of `pi05("debug")`."""
    text, config = TextTokenizer(), pi05("debug", max_tokens=80)
    fresh = Pi(config).initialize(torch.Generator().manual_seed(0), ordered_tokens=ordered_tokens(text))
    return save_bundle(bundle_of(fresh, text), path)


def observation(seed: int = 0, **changes) -> dict:
    rng = np.random.default_rng(seed)
    images = {camera: rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for camera in ROBOT.cameras}
    return {"images": images, "state": np.zeros(5, np.float32), "prompt": "put the red cup in the sink"} | changes


def says(policy: Policy, monkeypatch, *subtasks: str | None) -> list[int]:
    """What the model writes is read as these, one per decision, then as the last again; the list grows with each."""
    calls: list[int] = []

    def text(tokens):
        calls.append(1)
        return subtasks[min(len(calls), len(subtasks)) - 1]

    monkeypatch.setattr(policy.subtask_codec, "decode", text)
    return calls


def scores(policy: Policy, *subtasks: str, seed: int = 0) -> list[float]:
    """Log-probabilities of subtasks, for the observation of this seed."""
    prefilled = policy.engine.prefill(
        policy.make_observation(policy.make_sample(observation(seed))), max_new_tokens=SUBTASK_TOKENS
    )
    said = [(0, encode_target(policy.bundle.text, "subtask", text=subtask)) for subtask in subtasks]
    return score(policy.engine, prefilled, said, eos=policy.subtask_codec.end).tolist()
