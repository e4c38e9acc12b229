"""Runs a study: what fits the budget, in the order of its plan, from where it was stopped."""

import time
from pathlib import Path

from pilot.eval.study.page import write_page
from pilot.eval.study.plan import StudyPlan, hours


def run_study(plan: StudyPlan, *, budget: float | None, workers: int, out: Path) -> Path:
    """Run the parts that are not done, until the next one would go over the budget [s]; return the study's page.

    The page is written after every condition, from all that is done.

    Raises:
        KeyboardInterrupt: stopped; the same study goes on from there.
    """
    start = time.monotonic()
    page = write_page(plan, out)
    for repetition in plan.repetitions:
        for part in repetition.parts_left:
            left = plan.seconds_left(part)
            spent = time.monotonic() - start
            if budget is not None and spent + left > budget:
                rest = hours(max(0.0, budget - spent))
                print(f"{repetition.name}: its next part takes {hours(left)}, and {rest} are left.")
                print("The same command with another budget goes on from here.")
                return page
            print(f"{repetition.name}: {part.kind} {part.key}, about {hours(left)}", flush=True)
            try:
                part.run(workers=workers)
            except KeyboardInterrupt as stopped:
                raise KeyboardInterrupt("stopped; the same command goes on from there") from stopped
        page = write_page(plan, out)
    return page
