"""A policy is warm before robots come, and changes while they act."""

import asyncio
import gc
import threading
import weakref
from types import SimpleNamespace

import pytest

from pilot.serve.hosted_policy import HostedPolicy, dummy_observation, warm_up
from pilot.serve.limits import Limits
from pilot.serve.server import PolicyServer, serve_in_background
from pilot.serve.sessions import SessionStore
from pilot.serve.wire import unpack
from serve.policies import METADATA, OBSERVATION, CountingPolicy, get, robot


class WarmPolicy(CountingPolicy):
    """Says what it sees, and its number."""

    def __init__(self, number=1, *, state_names=("x",) * 5, go=None, waiting=None):
        super().__init__(go=go, waiting=waiting)
        self.number, self.asked = number, []
        self.metadata = {"robot": "homes", "cameras": ["room"], "state_names": list(state_names)}

    def session(self):
        return WarmSession(self)

    def infer_many(self, sessions, observations, *, errors="raise"):
        self.asked.append(len(sessions))
        return [session.infer(observation) for session, observation in zip(sessions, observations)]


class WarmSession:
    def __init__(self, policy):
        self.policy, self.seen = policy, 0

    def move_to(self, policy):
        self.policy = policy

    def infer(self, observation):
        self.seen += 1
        return {**self.policy.infer(observation), "number": self.policy.number, "seen": self.seen}


def test_a_policy_is_warm_before_it_is_ready():
    policy = WarmPolicy()

    async def start():
        server, ready = PolicyServer({"warm": policy}, max_batch=3), []
        await server.start("127.0.0.1", 0, on_listening=lambda port: ready.append(server.state.ready))
        ready.append(server.state.ready)
        await server.stop()
        return ready

    assert asyncio.run(start()) == [False, True]
    assert policy.seen == 4 and policy.asked == [3], "alone, then as many as a batch holds"


def test_a_policy_that_takes_one_robot_at_a_time_gets_no_batches():
    assert HostedPolicy("one", CountingPolicy()).batcher.max_batch == 1
    assert HostedPolicy("many", WarmPolicy(), max_batch=3).batcher.max_batch == 3


def test_a_policy_that_cannot_answer_does_not_get_to_serve():
    with pytest.raises(ValueError, match="declares 5"), serve_in_background(WarmPolicy(state_names=["x"])):
        pass


def test_made_up_observations_are_for_policies_that_say_what_they_see():
    observation = dummy_observation({"cameras": ["room"], "state_names": ["x", "y"]})
    assert observation["images"]["room"].shape == (224, 224, 3) and observation["state"].shape == (2,)
    assert dummy_observation({}) is None


class ManyPolicy(WarmPolicy):
    """Acts for robots of two kinds; its sessions know theirs."""

    def __init__(self, *robots, state_names=("x",) * 5):
        super().__init__(state_names=state_names)
        self.robots, self.kinds, self.metadata = robots, [], {"robots": list(robots)}
        self.state_names = list(state_names)

    def describe(self, robot):
        return {"robot": robot, "cameras": ["room"], "state_names": self.state_names}

    def session(self, *, robot):
        self.kinds.append(robot)
        return WarmSession(self)


def test_a_policy_of_many_robots_is_warm_for_each_and_for_all_together():
    policy = ManyPolicy("arm", "legs")
    warm_up(policy, max_batch=3)
    assert policy.kinds == ["arm", "legs", "arm", "legs", "arm"] and policy.asked == [3]


def test_a_client_is_for_one_of_the_policy_s_robots():
    many, one = HostedPolicy("many", ManyPolicy("arm", "legs")), HostedPolicy("one", ManyPolicy("arm"))
    silent, homes = HostedPolicy("silent", SimpleNamespace()), HostedPolicy("homes", WarmPolicy())
    assert many.choose_robot("legs") == "legs" and one.choose_robot(None) == "arm"
    assert unpack(many.greeting("legs"))["robot"] == "legs"
    assert silent.choose_robot("anything") is None and homes.choose_robot("homes") is None
    for hosted, name, message in (
        (many, None, r"is for robots arm, legs: say which you are, in the header X-Pilot-Robot or as \?robot=arm"),
        (many, "leg", r"unknown robot of policy 'many' 'leg'; did you mean 'legs'\?"),
        (one, "legs", "unknown robot of policy 'one' 'legs'; known: arm"),
        (homes, "arm", "policy 'homes' is for robot 'homes', not for 'arm'"),
    ):
        with pytest.raises(ValueError, match=message):
            hosted.choose_robot(name)
    for hosted in (many, one, silent, homes):
        hosted.batcher.close()


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (ManyPolicy("arm"), "the new one does not know robot 'legs'"),
        (ManyPolicy("arm", "legs", state_names=("y",) * 5), "state_names was"),
        (ManyPolicy("arm", "wings", "legs"), None),
    ],
)
def test_a_new_policy_knows_the_robots_of_the_old_one(new, message):
    hosted = HostedPolicy("many", ManyPolicy("arm", "legs"), load=lambda: new)
    if message is None:
        asyncio.run(hosted.reload())
        assert unpack(hosted.greeting("wings"))["robot"] == hosted.choose_robot("wings") == "wings"
    else:
        with pytest.raises(ValueError, match=message):
            asyncio.run(hosted.reload())
    hosted.batcher.close()


@pytest.fixture
def numbered():
    """A server of a policy that is numbered 1, and 2, 3, … each time that it is loaded anew."""
    loaded = [1]

    def load():
        loaded[0] += 1
        return WarmPolicy(loaded[0], state_names=("x",) * (5 if loaded[0] != 3 else 4))

    return HostedPolicy("numbered", WarmPolicy(1), load=load)


def test_a_policy_is_loaded_anew_while_robots_act(numbered):
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    run = lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result()  # noqa: E731
    server = PolicyServer(numbered)
    try:
        with robot(run(server.start("127.0.0.1", 0))) as client:
            port = int(client.url.rsplit(":")[-1])
            assert client.infer(OBSERVATION)["number"] == 1
            run(server.reload())
            assert client.infer(OBSERVATION)["number"] == 2
            assert client.infer(OBSERVATION)["seen"] == 3, "the session goes on"
            run(server.reload())  # number 3 is for another robot
            assert client.infer(OBSERVATION)["number"] == 2
            assert 'pilot_reloads_total{policy="numbered",result="failed"} 1' in get(port, "/metrics")[1]
            run(server.reload())
            assert client.infer(OBSERVATION)["number"] == 4
    finally:
        run(server.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_silent_robot_does_not_keep_the_old_model_in_memory(numbered):
    async def change():
        server = PolicyServer(numbered)
        server.state.sessions.open("r1", owner="", policy="numbered", start_session=numbered.start_session, metadata={})
        old = weakref.ref(numbered.policy)
        await server.reload()
        gc.collect()
        assert numbered.policy.number == 2 and old() is None
        server.close()

    asyncio.run(change())


def test_a_robot_that_comes_while_the_policy_changes_is_brought_along(numbered):
    """Its session is of the old policy, and is known to be."""
    old = numbered.policy

    class Changing(WarmPolicy):
        def session(self):
            session = WarmSession(old)
            numbered._replace(WarmPolicy(2))  # in the other thread, at the worst moment
            return session

    numbered.policy = Changing()
    state, generation = numbered.start_session()
    robot = SimpleNamespace(state=state, generation=generation, kind=None)
    assert numbered._infer([robot], [OBSERVATION])[0]["number"] == 2
    numbered.batcher.close()


def test_a_robot_that_begins_anew_while_the_policy_changes_is_brought_along(numbered):
    """A session that a restart makes during a reload is of the old policy, and has to be moved to the new one too."""
    moving, restarted = threading.Event(), threading.Event()

    class Moved(WarmSession):
        def move_to(self, policy):
            moving.set()
            restarted.wait(0.2)
            super().move_to(policy)

    class Slow(WarmPolicy):
        def session(self):
            session = WarmSession(self)
            moving.wait(0.2)  # in which a reload could come between
            return session

    numbered.policy = Slow(1)
    robot = SimpleNamespace(state=Moved(numbered.policy), generation=0, kind=None)
    before = robot.state

    async def restart():
        await numbered.restart(robot, alone=True)
        restarted.set()

    thread = threading.Thread(target=lambda: asyncio.run(restart()))
    thread.start()
    asyncio.run(numbered.reload(lambda: [robot]))
    thread.join()
    assert robot.state is not before
    assert numbered._infer([robot], [OBSERVATION])[0] | {"actions": None} == {
        "actions": None, "number": 2, "seen": 1, "subtask": "done", "heard": OBSERVATION["prompt"],
    }  # fmt: skip
    numbered.batcher.close()


def test_who_connects_while_the_policy_changes_is_told_what_holds_then(numbered):
    """What the old policy says of itself may be written last, when the robot has been moved already."""
    robot = SimpleNamespace(state=WarmSession(numbered.policy), generation=1, kind=None, metadata={"limits": "old"})
    asyncio.run(numbered.reload(lambda: [robot]))
    assert robot.metadata == numbered.metadata
    numbered.batcher.close()


@pytest.mark.parametrize("failure", ["exit", "unsayable"])
def test_a_policy_that_cannot_be_loaded_changes_nothing(failure, caplog):
    def load():
        if failure == "exit":
            raise SystemExit("no such file")
        policy = CountingPolicy()
        policy.metadata = METADATA | {"object": object()}
        return policy

    old = CountingPolicy()
    server = PolicyServer(HostedPolicy("numbered", old, load=load))
    asyncio.run(server.reload())
    (hosted,) = server.state.policies.values()
    assert hosted.policy is old and hosted.generation == 0 and "the old policy stays" in caplog.text
    server.close()


def test_another_robots_policy_does_not_take_over(numbered):
    numbered.load()
    with pytest.raises(ValueError, match="cannot be replaced while it serves: state_names was"):
        asyncio.run(numbered.reload())
    numbered.batcher.close()


def test_after_a_reload_a_robot_is_kept_within_the_limits_of_the_new_policy():
    def limited(high):
        policy = WarmPolicy()
        policy.metadata |= {"control_hz": 10.0, "limits": {"high": [high]}}
        return policy

    hosted = HostedPolicy("limited", limited(9.0), load=lambda: limited(1.0))
    robots = SessionStore(Limits())
    robot = robots.open(
        "r1", owner="", policy="limited", metadata=hosted.describe(None),
        start_session=lambda: hosted.start_session(None),
    )  # fmt: skip
    asyncio.run(hosted.reload(lambda: list(robots)))
    assert robot.metadata["limits"] == {"high": [1.0]}
    hosted.batcher.close()
