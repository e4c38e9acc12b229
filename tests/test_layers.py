"""The order of imports: a module takes only from layers at or below its own, never in a circle; some see no torch."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pilot

ROOT = Path(pilot.__file__).parent
LAYERS = [
    {"types", "names", "memory", "version", "extensions", "locks"},
    {"nn", "tokenizers"},
    {"data"},
    {"robots", "models", "datasets"},
    {"convert"},
    {"infer", "train"},
    {"sims", "serve"},
    {"eval"},
    {"configs", "play"},
    {"contracts"},
    {"cli"},
    {"__main__"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
TORCH_FREE = (
    "types",
    "names",
    "memory",
    "extensions",
    "locks",
    "robots",
    "sims",
    "serve.wire",
    "serve.client",
    "serve.control",
    "infer.executor",
    "data.formats.lerobot",
    "data.stats",
    "data.storage.frame_cache",
    "eval.suites",
    "configs",
    "cli.settings",
    "train.config",
    "train.early_checks",
    "models.registry",
)
"""What runs beside a simulator or a robot, and what reads a run's settings, so that a wrong one is answered at once:
these modules, and all under them where they are folders."""


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(path): path for path in sorted(ROOT.rglob("*.py"))}


def module_files() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*.py")) if path.parent != ROOT or path.stem in RANK]


@cache
def imported_names(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in the file it does so."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def upward_imports(path: Path) -> list[str]:
    own = layer_of(path)
    taken = {name.split(".")[1] for name in imported_names(path) if name.startswith("pilot.")}
    return [f"{path.relative_to(ROOT)} ({own}) imports {name}" for name in taken if RANK.get(name, -1) > RANK[own]]


def test_every_top_level_module_has_a_layer():
    unknown = {layer_of(path) for path in ROOT.rglob("*.py")} - set(RANK) - {"__init__"}
    assert not unknown, f"give {sorted(unknown)} a place in LAYERS"


def test_no_layer_imports_from_above():
    wrong = [line for path in module_files() for line in upward_imports(path)]
    assert not wrong, "\n".join(wrong)


def test_layers_of_one_rank_do_not_import_each_other_in_a_circle():
    imports = [(layer_of(path), name.split(".")) for path in module_files() for name in imported_names(path)]
    edges = {(own, parts[1]) for own, parts in imports if parts[0] == "pilot" and len(parts) > 1}
    both = {(a, b) for a, b in edges if a < b and (b, a) in edges}
    assert not both, f"these layers import each other: {sorted(both)}"


def torch_free_modules() -> list[str]:
    free = tuple(f"pilot.{name}" for name in TORCH_FREE)
    modules = [name for name in MODULES if name in free or name.startswith(tuple(f"{name}." for name in free))]
    return [name for name in modules if not name.endswith("__main__")]


def test_torch_free_modules_name_no_torch():
    wrong = [n for n in torch_free_modules() if "torch" in {i.split(".")[0] for i in imported_names(MODULES[n])}]
    assert not wrong, f"these run beside a simulator or a robot, without torch: {wrong}"


def test_torch_free_modules_load_without_torch():
    """In a fresh interpreter where torch cannot be imported: the environment of a robot or of a simulator."""
    code = "import sys, importlib; sys.modules['torch'] = None; [importlib.import_module(n) for n in sys.argv[1:]]"
    result = subprocess.run([sys.executable, "-c", code, *torch_free_modules()], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


def module_imports(path: Path) -> set[str]:
    """The modules of pilot that a file imports, in functions and under TYPE_CHECKING too."""
    names = imported_names(path)
    return {name if name in MODULES else name.rpartition(".")[0] for name in names} & set(MODULES)


def cycles(graph: dict[str, set[str]]) -> set[tuple[str, ...]]:
    """Groups of nodes from each of which every other can be reached: Tarjan's strongly connected components."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = set()

    def visit(node: str) -> None:
        number[node] = lowest[node] = len(number)
        stack.append(node)
        for other in graph[node]:
            if other not in number:
                visit(other)
            if other in stack:
                lowest[node] = min(lowest[node], lowest[other])
        if lowest[node] == number[node]:
            start = stack.index(node)
            if len(group := stack[start:]) > 1:
                found.add(tuple(sorted(group)))
            del stack[start:]

    for node in graph:
        if node not in number:
            visit(node)
    return found


def test_cycles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"f"}, "f": {"g"}, "g": {"e", "a"}}
    assert cycles(graph) == {("b", "c"), ("e", "f", "g")}


def test_no_modules_import_each_other_in_a_circle():
    """Module by module, imports inside of functions and under TYPE_CHECKING counted: nothing is hidden."""
    found = cycles({name: module_imports(path) - {name} for name, path in MODULES.items()})
    assert not found, f"these import each other in a circle: {sorted(found)}"


KNOW_HOMES = (
    "sims/homes/",
    "robots/homes.py",
    "datasets/homes.py",
    "configs/nano.py",
    "configs/baselines.py",
    "configs/study.py",
    "eval/studies/",
)


def code_words(path: Path) -> set[str]:
    """Strings in the code of a file, docstrings left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    statements = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    docstrings = {id(value) for value in statements if isinstance(value, ast.Constant)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings]
    return {node.value for node in constants if isinstance(node.value, str)}


def test_nothing_but_the_homes_themselves_knows_that_there_are_homes():
    """Everything else speaks to `sims/base.py`, so that another simulator is as good as ours."""
    others = [path for path in module_files() if not str(path.relative_to(ROOT)).startswith(KNOW_HOMES)]
    imports = [
        f"{path.relative_to(ROOT)} imports {n}" for path in others for n in imported_names(path) if ".homes" in n
    ]
    words = [
        f"{path.relative_to(ROOT)} names '{word}'"
        for path in others
        for word in code_words(path)
        if word == "homes" or (word.startswith("homes-") and " " not in word)
    ]
    assert not imports + words, "\n".join(imports + words)
