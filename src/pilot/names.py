"""Names in messages: a wrong one is answered with the nearest, and with all where they are few; many are shortened."""

import difflib
from collections.abc import Iterable
from typing import Any

FEW = 12  # names that are worth listing beside the nearest
NEAR = 0.5  # of 1, which is equal: less alike than this is not what was meant


def check_name(what: str, name: str, known: Iterable[str], *, note: str = "") -> str:
    """`name`, if it is known; `note` is what else to say if it is not.

    Raises:
        ValueError: it is not; the message says what is.
    """
    known = list(known)
    if name in known:
        return name
    raise ValueError(f"unknown {what} '{name}'; {suggest_names(name, known)}{note}")


def suggest_names(name: str, known: Iterable[str], *, listed: str = "known:") -> str:
    """What to say to a person who gave a `name` that is not `known`: "did you mean 'homes'?", "known: aloha, homes"."""
    known = list(known)
    lower = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=NEAR)
    meant = f"did you mean '{lower[near[0]]}'?" if near else ""
    every = f"{listed} {', '.join(known) or 'none'}" if not near or 1 < len(known) <= FEW else ""
    return " ".join(part for part in (meant, every) if part)


def shorten(names: Iterable[Any], *, limit: int = 12) -> str:
    """Names or numbers for a message: all of them, or the first few and how many more."""
    words = [str(name) for name in sorted(names)]
    more = f" and {len(words) - limit} more" if len(words) > limit else ""
    return f"{', '.join(words[:limit]) or 'no files'}{more}"
