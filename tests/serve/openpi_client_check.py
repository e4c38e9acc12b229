"""openpi's public client, unmodified, against our server: `python openpi_client_check.py PORT`.

Runs in an environment that has only `openpi-client` (it pins numpy below 2); the server runs in ours. To run it:

    python3.11 -m venv /tmp/openpi-client && /tmp/openpi-client/bin/pip install openpi-client typing_extensions
    PILOT_OPENPI_CLIENT_PYTHON=/tmp/openpi-client/bin/python pytest tests/serve
"""

import sys

import numpy as np

METADATA = {"robot": "echo", "action_horizon": 4}


class EchoPolicy:
    """What the client below expects to talk to."""

    def __init__(self):
        self.metadata = METADATA

    def infer(self, observation):
        if "state" not in observation:
            raise ValueError("the observation has no 'state'")
        sums = {camera: np.int64(image.sum()) for camera, image in observation["images"].items()}
        actions = np.tile(observation["state"], (4, 1))
        return {"actions": actions, "sums": sums, "prompt": observation["prompt"], "subtask": None}


def check(port: int) -> None:
    from openpi_client.websocket_client_policy import WebsocketClientPolicy

    client = WebsocketClientPolicy("127.0.0.1", port)
    assert client.get_server_metadata() == METADATA
    rng = np.random.default_rng(0)
    for step in range(20):
        images = {name: rng.integers(0, 256, (224, 224, 3), dtype=np.uint8) for name in ("base", "left", "right")}
        state = rng.normal(size=14).astype(np.float32)
        reply = client.infer({"images": images, "state": state, "prompt": f"step {step}"})
        np.testing.assert_array_equal(reply["actions"], np.tile(state, (4, 1)))
        assert reply["actions"].dtype == np.float32 and reply["actions"].shape == (4, 14)
        assert reply["sums"] == {name: image.sum() for name, image in images.items()}
        assert reply["prompt"] == f"step {step}" and reply["subtask"] is None
        assert reply["server_timing"]["infer_ms"] >= 0
    _check_errors(client)
    print("openpi's client: 20 observations, 1 error, and on")


def _check_errors(client) -> None:
    try:
        client.infer({"images": {}, "prompt": "no state"})
    except RuntimeError as error:
        assert "no 'state'" in str(error), error
    else:
        raise AssertionError("an observation without a state was not refused")
    assert client.infer({"images": {}, "state": np.zeros(2), "prompt": "on"})["actions"].shape == (4, 2)


if __name__ == "__main__":
    check(int(sys.argv[1]))
