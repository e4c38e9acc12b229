"""What acts how fast, and what a late answer costs, on the shipped policy (real-time chunking, 2506.07339)."""

from typing import Any

from pilot.eval.study.declare import Condition, Study, Trial

NANO = "checkpoints/nano"
LATE: dict[str, tuple[str, Any, Any]] = {
    "open loop": ("stands still until the answer comes", "open-loop", None),
    "rtc, guided": ("goes on with the old chunk, pulled towards it while it denoises", "rtc", "guided"),
    "rtc, prefix": ("goes on with the old chunk, whose next actions are held", "rtc", "prefix"),
    "ensemble": ("acts on the mean of all chunks", "ensemble", None),
}
"""What the robot does while it waits: in words, the executor, and how that joins chunks."""

STUDY = Study(
    question="How little may the policy think, and how late may it answer?",
    source="π0, appendix D; real-time chunking (2506.07339), figures 5 and 6; ACT (2304.13705)",
    conditions=(
        Condition(name="as it is", what="10 flow steps, 2 of 10 actions, the world waits", policy=NANO),
        *(
            Condition(name=f"{steps} flow step{'s' if steps > 1 else ''}", policy=NANO, num_steps=steps)
            for steps in (1, 2, 5)
        ),
        *(Condition(name=f"{replan} of 10 actions", policy=NANO, replan_steps=replan) for replan in (1, 5, 10)),
        *(
            Condition(
                name=f"{name}, {late} ms", what=what, policy=NANO, latency_ms=late, executor=executor, joining=joining
            )
            for late in (100, 300, 0, 200)
            for name, (what, executor, joining) in LATE.items()
        ),
        Condition(name="rtc, trained", needs="a policy that learned to continue chunks: model.rtc_max_delay=4"),
    ),
    trials=(Trial(suite="homes-l1", title="one move in unseen homes"),),
    measures=("success", "steps", "ms"),
    equal="weights, homes and starts",
    notes="One training, the shipped policy. With a latency the world goes on while the policy thinks; control ticks "
    "are 100 ms, begun ones counted as whole. Heads that have to be trained are in the study `heads`.",
)
