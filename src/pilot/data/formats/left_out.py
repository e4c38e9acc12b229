"""What `skip_bad` leaves out, in words: nobody should learn from half a set without being told."""

import warnings
from collections.abc import Sequence
from pathlib import Path

LISTED = 100


def report_left_out(path: Path, what: str, reasons: Sequence[str]) -> str:
    """Return how many `what` of the set at `path` were left out, and the first of the reasons; empty when none were."""
    if not reasons:
        return ""
    more = [f"  … and {len(reasons) - LISTED} more"] * (len(reasons) > LISTED)
    lines = [f"  {reason}" for reason in reasons[:LISTED]]
    return "\n".join([f"{path}: {len(reasons)} {what} skipped", *lines, *more])


def warn_of_left_out(path: Path, what: str, count: int, *, last: str) -> None:
    """Warn that `count` of `what` were left out while the set was read: of the first one, and whenever they have
    doubled."""
    if count & (count - 1) == 0:
        warnings.warn(f"{path}: {count} {what} skipped while reading; the last: {last}", stacklevel=3)
