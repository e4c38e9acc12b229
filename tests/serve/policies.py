"""Policies that answer at once, and a way to wait for what a server does in its own time."""

import threading
import time
import urllib.request

import numpy as np

from pilot.serve.client import PolicyClient

OBSERVATION = {
    "images": {"room": np.full((64, 64, 3), 7, np.uint8), "wrist": np.zeros((64, 64, 3), np.uint8)},
    "state": np.arange(5, dtype=np.float32),
    "prompt": "put the red cup in the sink",
}
METADATA = {"robot": "homes", "action_horizon": 3}


class CountingPolicy:
    """Answers with the state, and with how many observations this session has seen.

    The prompt "wait" is answered once `go` is set; `waiting` is set when that begins.
    """

    def __init__(self, *, go=None, waiting=None):
        self.metadata = METADATA
        self.seen = 0
        self.go, self.waiting = go or threading.Event(), waiting or threading.Event()

    def session(self):
        return CountingPolicy(go=self.go, waiting=self.waiting)

    def infer(self, observation):
        self.seen += 1
        if observation["prompt"] == "crash":
            raise RuntimeError("out of luck")
        if observation["prompt"] == "wait":
            self.waiting.set()
            assert self.go.wait(60)
        if observation["state"].shape != (5,):
            raise ValueError(f"state has {observation['state'].size} dims, robot 'homes' declares 5")
        if observation["prompt"] == "large":
            return {"actions": np.zeros((200_000, 5), np.float32)}
        actions = np.tile(observation["state"], (3, 1))
        return {"actions": actions, "subtask": "done", "seen": self.seen, "heard": observation["prompt"]}


def robot(port, **options):
    """A client that waits for an answer as long as a busy machine may take."""
    return PolicyClient(port=port, **{"timeout_s": 300.0, **options})


def get(port, path, **headers):
    """Status and text."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def gauge(port, name):
    """A number of /metrics."""
    lines = get(port, "/metrics")[1].splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == name)


def eventually(holds, *, seconds=300.0):
    """Wait until it holds; how long that takes is nobody's business here."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.005)
