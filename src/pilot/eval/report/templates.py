"""HTML by Jinja's templates, which escape everything that does not say that it is HTML already (`Markup`).

The templates lie in `templates/`: the page, and macros for its parts. `macros("parts.html").figure(…)`
returns `Markup`.
"""

import re
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from pilot.eval.report.charts import number


def rich(text: str) -> Markup:
    """Return text with `code` and **bold** as HTML, the rest of it escaped."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", marked))


ENVIRONMENT = Environment(
    loader=PackageLoader("pilot.eval.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters |= {"rich": rich, "number": number, "share": "{:.2%}".format}


@cache
def macros(template: str) -> Any:
    """Return the macros of a template, as attributes."""
    return ENVIRONMENT.get_template(template).module


def render_page(values: dict[str, Any]) -> str:
    """Return the whole page."""
    return ENVIRONMENT.get_template("page.html").render(values)
