"""The house style that a machine can check: short functions, short files, modules that say what they are."""

import ast
import re
import statistics
from pathlib import Path

import pilot

ROOT = Path(pilot.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
MAX_FUNCTION, MAX_FILE, MAX_MEDIAN = 80, 500, 14


def functions(path: Path) -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    found = [node for node in ast.walk(TREES[path]) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node) for node in found]


def length(node: ast.AST) -> int:
    return node.end_lineno - node.lineno + 1


ALL_FUNCTIONS = [item for path in FILES for item in functions(path)]


def test_functions_are_short():
    long = [f"{where}: {length(node)} lines" for where, node in ALL_FUNCTIONS if length(node) > MAX_FUNCTION]
    assert not long, "\n".join(long)
    assert statistics.median(length(node) for _, node in ALL_FUNCTIONS) <= MAX_MEDIAN


def test_files_are_short():
    long = {str(path.relative_to(ROOT)): n for path in FILES if (n := len(path.read_text().splitlines())) > MAX_FILE}
    assert not long, f"split by idea, not by size: {long}"


def options(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Positional arguments that are not arrays: `attend(q, k, v, mask)` reads well without names."""
    args = [a for a in node.args.posonlyargs + node.args.args if a.arg not in ("self", "cls")]
    return [a.arg for a in args if not (a.annotation and re.search("Tensor|ndarray", ast.unparse(a.annotation)))]


def test_public_functions_take_few_positional_options():
    allowed = {"forward", "backward", "__init__", "__exit__", "__aexit__"}  # their callers are torch and Python
    public = [item for item in ALL_FUNCTIONS if not item[1].name.startswith("_") and item[1].name not in allowed]
    wrong = [f"{where}({', '.join(options(node))})" for where, node in public if len(options(node)) > 3]
    assert not wrong, "keyword-only after the second, please:\n" + "\n".join(wrong)


def test_no_module_is_a_drawer():
    assert not [path for path in FILES if path.stem in ("utils", "helpers", "misc", "common")]


def test_open_ended_keywords_say_what_they_hold():
    """`**kwargs: Any` handed on hides a signature; `**changes: object` of a dataclass's `replace` is checked there."""
    open_ended = [(where, node.args.kwarg.annotation) for where, node in ALL_FUNCTIONS if node.args.kwarg]
    wrong = [where for where, note in open_ended if note is None or ast.unparse(note) == "Any"]
    assert not wrong, wrong


def test_every_module_says_what_it_is():
    silent = [str(path.relative_to(ROOT)) for path, tree in TREES.items() if tree.body and not ast.get_docstring(tree)]
    assert not silent, f"no module docstring: {silent}"


def test_no_future_annotations():
    """jaxtyping needs real annotations."""
    assert not [path for path in FILES if "from __future__ import annotations" in path.read_text()]


def test_class_names_are_distinct():
    """A reader who searches for a class finds one."""
    places: dict[str, list[str]] = {}
    for path, tree in TREES.items():
        for node in (node for node in tree.body if isinstance(node, ast.ClassDef)):
            places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert not twice, f"give these names of their own: {twice}"


CLASSES = {node.name: node for tree in TREES.values() for node in tree.body if isinstance(node, ast.ClassDef)}


def methods(node: ast.ClassDef) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    return {m.name: m for m in node.body if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef)}


def parents(node: ast.ClassDef) -> list[ast.ClassDef]:
    """The bases of a class among ours, and theirs."""
    names = [re.sub(r"\[.*|.*\.", "", ast.unparse(base)) for base in node.bases]
    own = [CLASSES[name] for name in names if name in CLASSES and name != node.name]
    return own + [base for parent in own for base in parents(parent)]


def is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return "property" in map(ast.unparse, node.decorator_list)


PROTOCOLS = [
    (node, {name for name, method in methods(node).items() if not is_property(method)})
    for node in CLASSES.values()
    if "Protocol" in map(ast.unparse, node.bases)
]


def protocols(node: ast.ClassDef) -> list[ast.ClassDef]:
    """The Protocols whose methods a class has, without naming them."""
    own = methods(node).keys()
    return [protocol for protocol, calls in PROTOCOLS if protocol is not node and calls and calls <= own]


def test_public_names_have_a_sentence():
    """An override may leave it to its base, or to the Protocol that its class implements."""
    silent = []
    for path, tree in TREES.items():
        named = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)]
        items = [(node.name, node, []) for node in named]
        for node in (node for node in named if isinstance(node, ast.ClassDef) and not node.name.startswith("_")):
            above = parents(node) + protocols(node)
            items += [(f"{node.name}.{name}", m, above) for name, m in methods(node).items()]
        for name, node, above in items:
            decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
            inherited = any(node.name in methods(base) for base in above)
            public = not (node.name.startswith("_") or inherited or decorators & {"overload", "setter"})
            if public and not re.match(r"[^a-z\s].*?[.:](\s|$)", ast.get_docstring(node) or "", re.DOTALL):
                silent.append(f"{path.relative_to(ROOT)}:{node.lineno} {name}")
    assert not silent, "begin the docstring with a sentence:\n" + "\n".join(silent)
