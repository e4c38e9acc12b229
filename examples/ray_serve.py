"""Robots on a Ray cluster: each replica of `pilot serve`'s core batches its own robots onto its own model.

    pip install -e '.[serve,ray]'
    python examples/ray_serve.py checkpoints/nano --replicas 2            # a cluster on this machine, port 8000
    python examples/ray_serve.py checkpoints/nano --replicas 8 --gpus 1   # on the cluster of RAY_ADDRESS
    python examples/ray_serve.py checkpoints/nano --try 4                 # robots that ask a few times, then the end

Clients are those of `pilot serve`, openpi's among them: ws://HOST:PORT. A websocket stays with the replica that took
it, and so does the robot's session: who comes back to that replica under its name (`X-Pilot-Session`) goes on where it
was. Ray sends a new websocket to any replica, though: where robots must not begin anew, start clusters of one replica
behind a load balancer that sends a name to the same one every time (docs/serving.md).
"""

import argparse
import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import pilot
from pilot.serve.auth import ApiKeys, read_api_key
from pilot.serve.client import PolicyClient
from pilot.serve.hosted_policy import HostedPolicy, warm_up
from pilot.serve.http import RequestRefused, robot_kind, session_name
from pilot.serve.limits import Limits
from pilot.serve.server import REPLACED
from pilot.serve.sessions import RobotSession
from pilot.serve.state import ServerState
from pilot.serve.wire import OVER, pack

try:
    from fastapi import FastAPI, WebSocket, WebSocketDisconnect
    from ray import serve
except ImportError as error:
    raise ImportError("this needs Ray Serve: pip install 'pilot[ray]'") from error

app = FastAPI()


@serve.deployment
@serve.ingress(app)
class Robots:
    """One replica: one model, many robots."""

    def __init__(self, checkpoint: str, api_key: str | None) -> None:
        hosted = HostedPolicy("policy", pilot.load_policy(checkpoint))
        warm_up(hosted.policy, max_batch=hosted.batcher.max_batch)
        self.state = ServerState(policies={"policy": hosted}, keys=ApiKeys([api_key] if api_key else []))
        self.hosted, self.replica = hosted, serve.get_replica_context().replica_tag

    @app.websocket("/")
    async def converse(self, websocket: WebSocket) -> None:
        """What `pilot serve` does with a robot, over Ray's websocket."""
        headers = {name.lower(): value for name, value in websocket.headers.items()}
        try:
            owner = self.state.keys.owner(read_api_key(headers))
            session = session_name(headers, websocket.url.query)
            kind = robot_kind(self.hosted, headers, websocket.url.query)
        except (PermissionError, RequestRefused) as error:
            await websocket.close(code=4003, reason=str(error))
            return
        await websocket.accept()
        robot, code = await self.seat(websocket, owner, session, kind), None
        try:
            await websocket.send_bytes(pack({**robot.metadata, "replica": self.replica}))
            while True:
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    code = message.get("code")
                    break
                sent = message.get("bytes") or message.get("text") or b""
                reply = await self.state.handlers["policy"].answer(robot, sent)
                await (websocket.send_text(reply) if isinstance(reply, str) else websocket.send_bytes(reply))
        except WebSocketDisconnect as gone:
            code = gone.code
        finally:
            self.state.sessions.disconnect(robot, websocket, over=code == OVER)

    async def seat(self, websocket: WebSocket, owner: str, session: str | None, kind: str | None) -> RobotSession:
        """The robot's session; a connection that it had before, and that hangs, makes room."""
        robot = self.state.sessions.open(
            session,
            owner=owner,
            policy="policy",
            kind=kind,
            start_session=lambda: self.hosted.start_session(kind),
            metadata=self.hosted.describe(kind),
        )
        before, robot.connection, robot.disconnected = robot.connection, websocket, None
        if before is not None:
            with contextlib.suppress(RuntimeError):  # it has just ended by itself
                await before.close(REPLACED, "the robot came back on another connection")
        return robot


def drive(port: int, number: int) -> tuple[int, float, str]:
    """A robot that asks twenty times; how often it was answered, ms per answer, and by whom."""
    rng = np.random.default_rng(number)
    with PolicyClient(port=port, api_key=os.environ.get("PILOT_API_KEY"), wait_s=120, timeout_s=120) as policy:
        images = {c: rng.integers(0, 256, (64, 64, 3), np.uint8) for c in policy.metadata["cameras"]}
        state = np.zeros(len(policy.metadata["state_names"]), np.float32)
        start = time.perf_counter()
        answers = [policy.infer({"images": images, "state": state, "prompt": "tidy up"}) for _ in range(20)]
        return len(answers), 1e3 * (time.perf_counter() - start) / len(answers), policy.metadata["replica"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--gpus", type=float, default=0, help="of each replica (default: %(default)g)")
    parser.add_argument("--cpus", type=float, default=0.5, help="of each replica (default: %(default)g)")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 for robots elsewhere (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--try", dest="robots", type=int, metavar="ROBOTS", help="let these act, then stop")
    args = parser.parse_args()
    serve.start(http_options={"host": args.host, "port": args.port})
    placed = Robots.options(
        num_replicas=args.replicas,
        max_ongoing_requests=Limits().robots,
        ray_actor_options={"num_gpus": args.gpus, "num_cpus": args.cpus},
    )
    serve.run(placed.bind(os.path.abspath(args.checkpoint), os.environ.get("PILOT_API_KEY")), blocking=not args.robots)
    with ThreadPoolExecutor(args.robots) as pool:
        for answers, ms, replica in pool.map(lambda number: drive(args.port, number), range(args.robots)):
            print(f"{answers} answers of replica {replica}, {ms:.0f} ms each")
    serve.shutdown()


if __name__ == "__main__":
    main()
