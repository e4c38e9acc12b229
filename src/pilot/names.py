"""Names in messages: for a wrong one the nearest known name, and the whole list where it is short."""

import difflib
from collections.abc import Iterable
from typing import Any

FEW = 12  # names that are worth listing beside the nearest
NEAR = 0.5  # names less alike than this (1 is equal) are not what was meant


def check_name(what: str, name: str, known: Iterable[str], *, note: str = "") -> str:
    """Return `name` if it is known; `note` is added to the message if it is not.

    Raises:
        ValueError: the name is unknown; the message has the nearest and, where they are few, all.
    """
    known = list(known)
    if name in known:
        return name
    raise ValueError(f"unknown {what} '{name}'; {suggest_names(name, known)}{note}")


def suggest_names(name: str, known: Iterable[str], *, listed: str = "known:") -> str:
    """Write what helps with an unknown name: "did you mean 'homes'?", "known: aloha, homes"."""
    known = list(known)
    lower = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=NEAR)
    question = f"did you mean '{lower[near[0]]}'?" if near else ""
    full_list = f"{listed} {', '.join(known) or 'none'}" if not near or 1 < len(known) <= FEW else ""
    return " ".join(part for part in (question, full_list) if part)


def shorten(names: Iterable[Any], *, limit: int = 12) -> str:
    """Write names or numbers for a message: all of them, or the first few and how many more there are."""
    words = [str(name) for name in sorted(names)]
    more = f" and {len(words) - limit} more" if len(words) > limit else ""
    return f"{', '.join(words[:limit]) or 'no files'}{more}"
