"""The page at a server's address: what `serve/live.py` says, to look at, and words for the robots.

Three files as they are written, without a build: `index.html`, `dashboard.css`, `dashboard.js`, and the colours that
all pages of pilot share. Nothing is loaded from elsewhere, and a browser is told to refuse it: what robots and people
send is shown as text by a page that could not run it.
"""

from importlib import resources
from typing import NamedTuple

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""To be sent with every file."""

_FILES = {
    "/": ("serve/dashboard/index.html", "text/html; charset=utf-8"),
    "/dashboard.css": ("serve/dashboard/dashboard.css", "text/css; charset=utf-8"),
    "/dashboard.js": ("serve/dashboard/dashboard.js", "text/javascript; charset=utf-8"),
    "/palette.css": ("palette.css", "text/css; charset=utf-8"),
}


class File(NamedTuple):
    content: bytes
    content_type: str


def file(path: str) -> File | None:
    """What belongs to the page at that path of the server, if anything does."""
    if path not in _FILES:
        return None
    name, content_type = _FILES[path]
    return File(resources.files("pilot").joinpath(name).read_bytes(), content_type)
