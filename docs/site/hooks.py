"""What the site adds to the pages while mkdocs builds it: two references, links, formulas and drawings.

- `cli.md` is made from the argument parsers, `api/PACKAGE.md` from the names of the modules (mkdocstrings reads them).
- A path in backticks becomes a link: `docs/serving.md` to the page, `models/flow.py` to its place in the reference.
- `$…$` becomes MathML, which browsers draw themselves, so that no script and no font is loaded from elsewhere.
- Drawings are put into the page, so that the page's own switch between light and dark reaches them.
"""

import argparse
import html
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "pilot"

PACKAGES = {
    "pilot": "Top level",
    "models": "Models",
    "nn": "Layers",
    "tokenizers": "Tokenizers",
    "data": "Data",
    "robots": "Robots",
    "datasets": "Data sets",
    "infer": "Acting",
    "train": "Training",
    "configs": "Runs",
    "serve": "Serving",
    "sims": "Simulators",
    "eval": "Evaluation",
    "convert": "Conversion",
    "contracts": "Contracts",
    "cli": "Command line",
}
MODULES: dict[str, str] = {}  # of a file below src/pilot, such as models/flow.py: its page and place in the reference


# --- pages that are made ----------------------------------------------------------------------------------------------


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the references to the files, and pages that the navigation does not name to the navigation."""
    files.append(File.generated(config, "cli.md", content=command_line_page()))
    reference = []
    for package, title in PACKAGES.items():
        files.append(File.generated(config, f"api/{package}.md", content=package_page(package, title)))
        reference.append({title: f"api/{package}.md"})
    named = set(paths_in(config.nav))
    more = [
        f.src_uri for f in files.documentation_pages() if f.src_uri not in named and not f.src_uri.startswith("api/")
    ]
    config.nav[-1]["Reference"].append({"API": reference})
    if more:
        config.nav.insert(-1, {"More": sorted(more)})
    return files


def paths_in(nav: Any) -> list[str]:
    """Return the pages that a part of the navigation names."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [path for part in parts for path in paths_in(part)]


def package_page(package: str, title: str) -> str:
    """Return the page of a package's modules, for mkdocstrings, and remember where each module is."""
    files = SOURCE.glob("*.py") if package == "pilot" else (SOURCE / package).rglob("*.py")
    lines = [f"# {title}", ""]
    for file in sorted(files, key=lambda path: (path.parent, path.name)):
        if file.stem.startswith("__") and file.stem != "__init__":
            continue
        relative = file.relative_to(SOURCE)
        name = ".".join(["pilot", *relative.with_suffix("").parts]).removesuffix(".__init__")
        if package != "pilot" or relative.name != "__init__.py":
            MODULES[relative.as_posix()] = f"api/{package}.md#{name}"
        lines += [f"::: {name}", ""]
    return "\n".join(lines)


def command_line_page() -> str:
    """Return every verb with its options, from the parsers themselves."""
    sys.path.insert(0, str(SOURCE.parent))
    from pilot.cli.main import build_parser

    lines = ["# Command line", "", "Made from the program itself; `pilot VERB --help` prints the same.", ""]
    for name, parser in parsers_of(build_parser(), "pilot"):
        lines += [f"{'###' if name.startswith('pilot data ') else '##'} {name}", "", *describe(parser), ""]
    return "\n".join(lines)


def parsers_of(parser: argparse.ArgumentParser, name: str) -> list[tuple[str, argparse.ArgumentParser]]:
    """Return the parsers below a parser, each with the words that lead to it."""
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, child in action.choices.items():
                if fill := getattr(child, "fill", None):  # a verb declares its options when it is parsed
                    child.fill = None
                    fill(child)
                found += [(f"{name} {word}", child), *parsers_of(child, f"{name} {word}")]
    return found


def describe(parser: argparse.ArgumentParser) -> list[str]:
    """Return what a parser says of itself, as markdown."""
    lines = [plain(parser.description or ""), ""]
    rows = [row for group in parser._action_groups for row in rows_of(parser, group)]
    if rows:
        lines += ["| option | what it does |", "|---|---|", *rows, ""]
    for line in (parser.epilog or "").splitlines():
        if line.startswith("Example: "):
            lines += ["```", line.removeprefix("Example: "), "```"]
    return lines


def rows_of(parser: argparse.ArgumentParser, group: argparse._ArgumentGroup) -> list[str]:
    """Return the options of one group as rows of a table."""
    rows = []
    for action in group._group_actions:
        if action.dest in ("help", "verb", "word") or isinstance(action, argparse._SubParsersAction):
            continue
        words = action.option_strings or [str(action.metavar or action.dest)]
        shape = parser._get_formatter()._format_args(action, str(action.metavar or action.dest.upper()))
        value = f" {shape}" if action.option_strings and action.nargs != 0 else ""
        told = parser._get_formatter()._expand_help(action) if action.help else ""
        rows.append(f"| `{', '.join(words)}{value}` | {plain(told)} |".replace("\n", " "))
    return rows


def plain(words: str) -> str:
    """Return text of the terminal as markdown: nothing in it is markup, except what stands in backticks."""
    pieces = words.split("`")
    pieces[::2] = [re.sub(r"([|_*\[\]])", r"\\\1", html.escape(piece, quote=False)) for piece in pieces[::2]]
    return "`".join(pieces)


# --- links, formulas, drawings ----------------------------------------------------------------------------------------


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn paths in backticks into links, outside of code blocks."""
    up = "../" * page.file.src_uri.count("/")
    pieces = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    pieces[::2] = [re.sub(r"(?<!\[)`([\w./]+\.(?:py|md))`(?!\])", lambda m: link(m[1], up), p) for p in pieces[::2]]
    return "".join(pieces)


def link(path: str, up: str) -> str:
    """Return a path as a link, if there is something to link to."""
    module = MODULES.get(path.removeprefix("src/pilot/"))
    if module:
        return f"[`{path}`]({up}{module})"
    if path.startswith("docs/") and (ROOT / path).exists():
        return f"[`{path}`]({up}{path.removeprefix('docs/')})"
    return f"`{path}`"


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Draw formulas, and put drawings into the page."""
    content = re.sub(r'<span class="arithmatex">\\\((.*?)\\\)</span>', lambda m: formula(m[1], "inline"), content)
    content = re.sub(
        r'<div class="arithmatex">\\\[(.*?)\\\]</div>', lambda m: formula(m[1], "block"), content, flags=re.DOTALL
    )
    return re.sub(r'<img alt="([^"]*)" src="[./]*images/([\w-]+)\.svg"[^>]*>', inline_drawing, content)


def formula(tex: str, display: str) -> str:
    """Return a formula as MathML."""
    return convert(html.unescape(tex.strip()), display=display)


def inline_drawing(found: re.Match[str]) -> str:
    """Return the drawing itself in place of an image."""
    return (ROOT / "docs" / "images" / f"{found[2]}.svg").read_text(encoding="utf-8")
