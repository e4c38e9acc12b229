"""What acts how fast, and what a late answer costs, on the shipped policy (real-time chunking, 2506.07339)."""

from pilot.eval.study.declare import Condition, Study, Trial

NANO = "checkpoints/nano"
EXECUTORS = {
    "open-loop": "stands still until the answer comes",
    "rtc": "goes on with the old chunk, which the new one joins",
    "ensemble": "acts on the mean of all chunks",
}

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
                name=f"{executor}, {late} ms",
                what=what,
                policy=NANO,
                latency_ms=late,
                executor=executor,
            )
            for late in (100, 300, 0, 200)
            for executor, what in EXECUTORS.items()
        ),
    ),
    trials=(Trial(suite="homes-l1", title="one move in unseen homes"),),
    measures=("success", "steps", "ms"),
    equal="weights, homes and starts",
    notes="One training, the shipped policy. With a latency the world goes on while the policy thinks; control ticks "
    "are 100 ms, begun ones counted as whole. Heads that have to be trained are in the study `heads`.",
)
