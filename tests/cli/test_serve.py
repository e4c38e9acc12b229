"""`pilot serve`: from its words to a server."""

import pytest
from data.hub_server import instead_of_the_real_one

import pilot
from pilot.cli import main
from pilot.cli.serve import policies_by_name
from pilot.data.storage.remote import CHECKPOINT_FILES, fetch
from pilot.serve import server


class FetchedPolicy:
    """Where a policy was loaded from."""

    def __init__(self, address, **options):
        self.folder, self.options = fetch(address, only=CHECKPOINT_FILES), options

    def infer(self, observation):
        return {}


@pytest.fixture
def served(monkeypatch):
    """What `serve` was called with: hosted policies, then options."""
    calls = []
    monkeypatch.setattr(pilot, "load_policy", FetchedPolicy, raising=False)
    monkeypatch.setattr(server, "serve", lambda policies, **options: calls.append((policies, options)))
    yield calls
    for policies, _ in calls:
        for hosted in policies:
            hosted.batcher.close()


def test_a_checkpoint_on_the_hub_is_asked_for_once_and_again_at_a_reload(served, tmp_path, monkeypatch):
    with instead_of_the_real_one(tmp_path, monkeypatch) as hub:
        first = hub.commit("desk/pi", {"config.json": b"{}"})
        assert main.main(["serve", "hf://desk/pi", "--workers", "1"]) == 0
        ((hosted,), _) = served[0]
        questions = [path for _, path in hub.asked if path.startswith("/api/")]
        assert len(questions) == 1 and hosted.name == "pi" and first in str(hosted.policy.folder)
        second = hub.commit("desk/pi", {"config.json": b"[]"})
        assert second in str(hosted.load().folder)


def test_options_reach_policy_and_server(served, tmp_path):
    command = f"serve {tmp_path} --workers 2 --replan-steps 5 --device cpu --max-mib 1 --max-robots 3 --log json"
    assert main.main([*command.split(), "--verify"]) == 0
    ((hosted,), options) = served[0]
    assert hosted.policy.options == {"device": "cpu", "replan_steps": 5, "verify": True}
    assert hosted.batcher.workers == 2
    assert options["limits"].largest_message(4) == 2**20 and options["limits"].robots == 3
    assert options["log_format"] == "json" and hosted.folder == tmp_path


def test_policies_are_named_by_their_folders_or_as_said():
    assert policies_by_name(["outputs/a", "mine=outputs/b/policy"]) == {"a": "outputs/a", "mine": "outputs/b/policy"}
    assert policies_by_name(["outputs/lr=3e-4", "b=lr=3e-4"]) == {"lr=3e-4": "outputs/lr=3e-4", "b": "lr=3e-4"}
    with pytest.raises(ValueError, match="two policies are named 'a'; give each its own name: NAME=FOLDER"):
        policies_by_name(["outputs/a", "a=elsewhere"])
