"""What is left out is said: how much of it, and of what there is too much only the beginning."""

import warnings
from pathlib import Path

from pilot.data.formats.left_out import LISTED, report_left_out, warn_of_left_out


def test_a_report_counts_all_and_lists_the_first():
    assert report_left_out(Path("set"), "rows", []) == ""
    assert report_left_out(Path("set"), "rows", ["a", "b"]) == "set: 2 rows skipped\n  a\n  b"
    lines = report_left_out(Path("set"), "rows", [f"row {i}" for i in range(LISTED + 7)]).splitlines()
    assert len(lines) == LISTED + 2 and lines[0] == f"set: {LISTED + 7} rows skipped" and lines[-1] == "  … and 7 more"


def test_a_set_that_is_all_bad_does_not_flood_the_log():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for count in range(1, 1001):
            warn_of_left_out(Path("set"), "rows", count, last=f"row {count}")
    assert [int(str(one.message).split()[1]) for one in seen] == [2**i for i in range(10)]
    assert str(seen[2].message) == "set: 4 rows skipped while reading; the last: row 4"
