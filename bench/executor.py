"""An hour of control under a jittering policy, in simulated time: what the robot is sent, and what a tick costs.

    python bench/executor.py [--hours 1] [--hz 50] [--horizon 50] [--max-delay-ms 300] [--lost 0.0] [--seed 0]

Every request is answered after 0 to `--max-delay-ms` (evenly drawn), or with probability `--lost` never. Actions carry
the tick that they are meant for and that of their observation, so a stale one is seen. A tick is *missed* if nothing
was sent, *stale* if the action was meant for another tick or a newer chunk had come, *held* if the last command was
sent again. `age` is how old the observation behind an action is; `call` is what `Executor.next` costs on this machine,
wall time. Open loop and temporal ensemble stand beside real-time chunking; an ensemble's actions mix observations, so
its age has no meaning, and open loop stands while it waits and starts each chunk late, which is not counted here.
Target for real-time chunking: 0 stale, 0 missed, 0 held.
"""

import argparse
import time

import numpy as np

from pilot.infer.executor import ChunkRequest, Executor, OpenLoop, TemporalEnsemble


def chunk(request: ChunkRequest, *, horizon: int) -> np.ndarray:
    """[ah 2]: the tick an action is meant for, that of its observation."""
    ticks = np.arange(request.tick, request.tick + horizon)
    return np.stack((ticks, np.full(horizon, request.tick)), axis=1).astype(np.float64)


def control(executor: Executor, args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Of each tick: the status, the action, the observation of the newest chunk there was, and what the call cost."""
    rng = np.random.default_rng(args.seed)
    ticks = round(args.hours * 3600 * args.hz)
    flying: list[tuple[float, ChunkRequest]] = []
    newest = -1
    log: dict[str, list] = {"tick": [], "status": [], "action": [], "newest": [], "call": []}
    for now in range(ticks):
        for due, request in sorted((f for f in flying if f[0] <= now), key=lambda f: f[0]):
            flying.remove((due, request))
            if executor.deliver(request, chunk(request, horizon=args.horizon)):
                newest = request.tick
        if (request := executor.request()) is not None and rng.random() >= args.lost:
            flying.append((now + rng.uniform(0, args.max_delay_ms / 1e3 * args.hz), request))
        start = time.perf_counter()
        command = executor.next()
        log["call"].append(time.perf_counter() - start)
        action = (np.nan, np.nan) if command.action is None else command.action
        for name, value in (("tick", command.tick), ("status", command.status), ("action", action), ("newest", newest)):
            log[name].append(value)
    return {name: np.array(values) for name, values in log.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--hz", type=float, default=50.0)
    parser.add_argument("--horizon", type=int, default=50)
    parser.add_argument("--replan-steps", type=int, default=10)
    parser.add_argument("--max-delay-ms", type=float, default=300.0)
    parser.add_argument("--lost", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    columns = ("ticks", "missed", "stale", "held", "chunks")
    print(f"{'executor':<18}{''.join(f'{c:>8}' for c in columns)}{'age p50/max':>14}{'call p50/p99':>18}")
    for kind in (Executor, TemporalEnsemble, OpenLoop):
        executor = kind(replan_steps=args.replan_steps)
        log = control(executor, args)
        run = log["status"] == "run"
        action, tick = log["action"][run], log["tick"][run]
        stale = np.abs(action[:, 0] - tick) > 0.01 if kind is not OpenLoop else np.zeros(len(tick), bool)
        if kind is Executor:
            stale |= action[:, 1] != log["newest"][run]
        missed = int((np.diff(log["tick"]) != 1).sum()) + executor.counts.missed
        held = executor.counts.hold + executor.counts.stop
        age = (tick - action[:, 1]) / args.hz * 1e3
        ages = f"{np.median(age):.0f}/{age.max():.0f} ms" if kind is not TemporalEnsemble else "-"
        call = np.percentile(log["call"], [50, 99]) * 1e6
        print(
            f"{kind.__name__:<18}{len(log['tick']):>8}{missed:>8}{int(stale.sum()):>8}{held:>8}"
            f"{executor.counts.chunks:>8}{ages:>14}{f'{call[0]:.1f}/{call[1]:.1f} us':>18}"
        )


if __name__ == "__main__":
    main()
