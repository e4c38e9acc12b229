"""High levels outside of the model: nobody waits for them, and what they say is heard when it is there.

No thread decides what happens here: what would run in one is run when a test says so.
"""

import base64
import io
import pickle
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from chat_server import ChatServer, chat_server
from infer.policies import TOLD, observation, policy_of, says
from pilot.data.tools.vlm_endpoint import RetryLater, VlmEndpoint
from pilot.infer.high_level import Vlm, make_high_level
from pilot.infer.high_level.vlm import at_once, in_thread
from pilot.infer.policy import Policy
from pilot.models.pi import pi0


class Post:
    """Questions that wait until they are answered."""

    def __init__(self) -> None:
        self.open: list[Future] = []

    def __call__(self, job) -> Future:
        self.open.append(Future())
        return self.open[-1]

    def answer(self, words: str) -> None:
        self.open.pop(0).set_result(words)


@pytest.fixture
def post() -> Post:
    return Post()


def vlm(post: Post, **options) -> Vlm:
    return Vlm(endpoint=VlmEndpoint(url="http://127.0.0.1:9/v1", model="eye-1"), submit=post, **options)


def test_the_low_level_acts_on_until_the_answer_is_there(policy, monkeypatch, post):
    """With `as_prompt` its words are then what the model is prompted with, as if the person had said them."""
    says(policy, monkeypatch, TOLD)
    session, plain = policy.session(high_level=vlm(post, every=1e9, as_prompt=True)), policy.session()

    def both(prompt: str) -> None:
        advised, prompted = session.infer(observation()), plain.infer(observation(prompt=prompt))
        np.testing.assert_array_equal(advised["actions"], prompted["actions"])
        assert "trouble" not in advised

    both(observation()["prompt"])
    both(observation()["prompt"])
    assert len(post.open) == 1, "one question at a time"
    post.answer('  "Pick up the blue cup." \n')
    both("Pick up the blue cup")
    both("Pick up the blue cup")


def test_advice_is_the_subtask_and_the_model_decides_nothing(policy, monkeypatch, post):
    """Also before the first answer: what is outside takes the place of the model's own high level entirely."""
    calls = says(policy, monkeypatch, TOLD)
    session, plain = policy.session(high_level=vlm(post, every=1e9)), policy.session(high_level="none")
    before, without = session.infer(observation()), plain.infer(observation())
    np.testing.assert_array_equal(before["actions"], without["actions"])
    assert before["subtask"] is None and session.decider is None
    post.answer("pick up the blue cup")
    advised = session.infer(observation())
    assert advised["subtask"] == "pick up the blue cup" and advised["box"] is None and not calls
    assert [s.words for s in session.history] == ["pick up the blue cup"]


def test_it_is_asked_on_its_own_clock_and_when_something_happens(policy, post):
    session, asked = policy.session(high_level=vlm(post, every=0.5)), []

    def turn(**changes) -> int:
        before = len(post.open)
        session.infer(observation(**changes))
        return len(post.open) - before

    asked = [turn()]
    post.answer("a")
    asked += [turn(), turn(), turn()]  # 0.2, 0.4, 0.6 s
    assert asked == [1, 0, 0, 1]
    post.answer("b")
    assert turn(subtask_done=True) == 1
    assert turn(subtask_done=True) == 0, "the question before is still open"
    post.answer("c")
    assert turn() == 1, "and was asked too early: it is asked again"


def test_advice_for_one_prompt_is_not_heard_for_another(policy, post):
    session = policy.session(high_level=vlm(post, every=1e9))
    session.infer(observation())
    post.answer("pick up the red cup")
    assert session.infer(observation())["subtask"] == "pick up the red cup"
    assert session.infer(observation(prompt="tidy up"))["subtask"] is None
    assert session.infer(observation(prompt="wash up"))["subtask"] is None
    post.answer("tidy the table")  # what was to be done to tidy up
    assert session.infer(observation(prompt="wash up"))["subtask"] is None
    post.answer("take the sponge")
    assert session.infer(observation(prompt="wash up"))["subtask"] == "take the sponge"


def test_a_persons_words_go_before_advice(policy, post):
    session = policy.session(high_level=vlm(post, every=1e9))
    session.infer(observation())
    post.answer("pick up the red cup")
    assert session.infer(observation(subtask=TOLD.replace("red", "blue")))["subtask"] == "pick up the blue cup"
    assert session.infer(observation())["subtask"] == "pick up the red cup"


def test_trouble_is_told_and_the_old_advice_stays(policy, post):
    session = policy.session(high_level=vlm(post, every=0.0))
    session.infer(observation())
    post.answer("pick up the red cup")
    for problem, message in (
        (ConnectionError("HTTP 401: no"), "HTTP 401"),
        (ValueError("no chat"), "no chat"),
        ("word " * 50, "no subtask of 1 to 100 characters"),
        (" \n ", "no subtask of 1"),
    ):
        assert "trouble" not in session.infer(observation())
        if isinstance(problem, str):
            post.answer(problem)
        else:
            post.open.pop(0).set_exception(problem)
        answer = session.infer(observation())
        assert answer["subtask"] == "pick up the red cup" and message in answer["trouble"] == session.trouble
        post.answer("pick up the red cup")
    session.reset()
    assert session.trouble is None


def test_a_server_that_asks_for_patience_is_left_alone(policy, post):
    session = policy.session(high_level=vlm(post, every=0.2))
    session.infer(observation())
    post.open.pop(0).set_exception(RetryLater("HTTP 429: slower", 0.7))
    asked = [session.infer(observation()) and len(post.open) for _ in range(5)]  # from 0.2 s on
    assert asked == [0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("said", "want"),
    [("Pick up the cup", "Pick up the cup"), ("\n**put it  in the sink**.\nBecause …", "put it in the sink")],
)
def test_answers_are_read_leniently(post, said, want):
    assert vlm(post).read(said) == want


def test_labels_are_the_only_answers(post):
    level = vlm(post, labels=("pick up the red cup", "done"))
    assert level.read("'Done.'") == "done"
    with pytest.raises(ValueError, match="'wave' is none of"):
        level.read("wave")


# --- over the network ------------------------------------------------------------------------------------------------


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    with chat_server() as server:
        yield server


def eye(chat: ChatServer) -> VlmEndpoint:
    return VlmEndpoint(url=chat.url, model="eye-1")


def size_of(part: dict) -> tuple[int, int]:
    _, _, content = part["image_url"]["url"].partition(",")
    return Image.open(io.BytesIO(base64.b64decode(content))).size


def test_a_question_and_its_answer(policy, chat):
    """In real threads, for whose end the test waits."""
    promises = []

    def submit(job):
        promises.append(in_thread(job))
        return promises[-1]

    level = Vlm(endpoint=eye(chat), every=0.0, labels=("take the cup", "done"), submit=submit)
    session = policy.session(high_level=level)
    chat.answers = [(200, "Take the cup."), (503, "busy"), (200, "done")]
    heard = []
    for turn in range(4):
        heard.append(session.infer(observation(turn)))
        if turn < 3:
            promises[-1].exception(timeout=60)
    assert [answer["subtask"] for answer in heard] == [None, "take the cup", "take the cup", "done"]
    assert "HTTP 503" in heard[2]["trouble"] and "trouble" not in heard[3]
    first, *later = [body["messages"][0]["content"] for _, _, body in chat.requests]
    assert 'told: "put the red cup in the sink"' in first[0]["text"] and "see now: room, wrist" in first[0]["text"]
    assert "Choose among: take the cup; done." in first[0]["text"] and "did this" not in first[0]["text"]
    assert "Until now it did this: take the cup." in later[-1][0]["text"]
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(part["image_url"]["url"].partition(",")[2]))) for part in first[1:]
    ]
    assert [picture.size for picture in pictures] == [(64, 64)] * 2


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ((200, None), "answers without words: None"),
        ((200, [{"type": "text", "text": "wave"}]), "answers without words"),
        ((200, "wave", {"Content-Length": "9999"}), "no answer .*more expected"),
    ],
    ids=["nothing", "parts", "half"],
)
def test_an_answer_without_words_is_trouble_and_nothing_to_do(policy, chat, answer, names):
    """What a server says that refuses, or ends while it speaks; the robot goes on."""
    chat.answers = [(200, "take the cup"), answer, (200, "done")]
    level = Vlm(endpoint=eye(chat), every=0.0, submit=post_at_once)
    session = policy.session(high_level=level)
    heard = [session.infer(observation()) for _ in range(3)]
    assert [answer["subtask"] for answer in heard] == [None, "take the cup", "take the cup"]
    assert re.search(names, heard[2]["trouble"])


def post_at_once(job: Callable[[], str]) -> "Future[str]":
    """Whatever becomes of it, as a thread would promise it."""
    promise: Future[str] = Future()
    try:
        promise.set_result(job())
    except Exception as error:
        promise.set_exception(error)
    return promise


def test_an_evaluation_waits_for_answers_and_stops_without(policy, chat):
    level = Vlm(endpoint=eye(chat), every=1e9, submit=at_once)
    session = policy.session(high_level=level)
    chat.answers = [(200, "Take the cup.")]
    assert [session.infer(observation())["subtask"] for _ in range(2)] == [None, "Take the cup"]
    slept: list[float] = []
    tries = iter([RetryLater("busy", None), RetryLater("busy", 7.0), "done"])

    def job() -> str:
        if isinstance(said := next(tries), str):
            return said
        raise said

    assert at_once(job, sleep=slept.append).result() == "done" and slept == [1.0, 7.0]
    tries = iter([RetryLater("gone", None)] * 3)
    with pytest.raises(ConnectionError, match="does not answer: gone"):
        at_once(job, sleep=slept.append)
    chat.answers = [(200, "word " * 50)]
    session.infer(observation(subtask_done=True))
    assert "no subtask of 1 to 100" in session.infer(observation())["trouble"], "an answer that is none is no end"


def test_pictures_of_the_cameras_that_are_there_and_asked_for(post):
    shown = {"room": np.zeros((100, 200, 3), np.uint8)}
    text, picture = vlm(post, size=50).question("tidy", shown, history=())
    assert size_of(picture) == (50, 25) and "see now: room." in text["text"]


def test_the_cameras_of_a_question(policy, post):
    asked = []
    level = replace(vlm(post, cameras=("wrist",)), submit=lambda job: (asked.append(job), post(job))[1])
    seen = {}
    object.__setattr__(level, "question", lambda prompt, pictures, history: seen.update(pictures) or 1 / 0)
    policy.session(high_level=level).infer(observation())
    with pytest.raises(ZeroDivisionError):
        asked[0]()
    assert list(seen) == ["wrist"]


def test_it_travels_to_other_processes():
    level = make_high_level("vlm", url="http://localhost:8000/v1", model="eye-1", labels=["a"])
    assert pickle.loads(pickle.dumps(level)) == level and level.endpoint.model == "eye-1"


@pytest.mark.parametrize("as_prompt", [False, True])
def test_a_model_that_acts_on_its_prompt_alone_hears_advice_as_that(post, as_prompt):
    flat = policy_of(pi0("debug", prompt="pi0"))
    session = flat.session(high_level=vlm(post, every=1e9, as_prompt=as_prompt))
    session.infer(observation())
    post.answer("grab the cup")
    advised = session.infer(observation())
    assert advised["subtask"] is None
    np.testing.assert_array_equal(advised["actions"], second(flat, observation(prompt="grab the cup")))


def second(policy: Policy, shown: dict) -> np.ndarray:
    """The actions of a session's second turn, whose noise is the second draw."""
    session = policy.session()
    session.infer(shown)
    return session.infer(shown)["actions"]
