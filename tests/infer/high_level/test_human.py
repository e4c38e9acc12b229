"""A person at the keyboard."""

import numpy as np

from infer.policies import TOLD, observation, says
from pilot.infer.high_level import Human
from pilot.infer.high_level.human import Keyboard


def test_a_person_types_what_is_to_be_done_next(policy, monkeypatch):
    """It is the subtask; with nothing typed the low level acts on the prompt, and the model decides nothing."""
    calls, keyboard = says(policy, monkeypatch, TOLD), Keyboard(lines=[])
    session = policy.session(high_level=Human(keyboard=keyboard))
    for typed in (None, "grab the cup", None):
        keyboard.last = typed
        assert session.infer(observation())["subtask"] == typed and not calls


def test_as_the_prompt_the_model_decides_below(policy, monkeypatch):
    says(policy, monkeypatch, TOLD)
    keyboard = Keyboard(lines=[])
    human, plain = policy.session(high_level=Human(keyboard=keyboard, as_prompt=True)), policy.session()
    for typed, prompt in ((None, "put the red cup in the sink"), ("grab the cup", "grab the cup"), (None, "tidy")):
        keyboard.last = typed
        got = human.infer(observation(prompt=prompt if typed is None else "tidy"))
        np.testing.assert_array_equal(got["actions"], plain.infer(observation(prompt=prompt))["actions"])


def test_the_keyboard_is_read_in_the_background():
    for lines, last in ((["grab the cup\n"], "grab the cup"), (["grab the cup\n", " \n"], None), ([], None)):
        keyboard = Keyboard(lines)
        keyboard.start()
        keyboard.start()
        keyboard.thread.join(timeout=60)
        assert keyboard.last == last and not keyboard.thread.is_alive()
        assert "keyboard is closed" in Human(keyboard=keyboard).advisor().trouble
