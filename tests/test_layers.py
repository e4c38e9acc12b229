"""The order of imports: a module takes only from layers at or below its own, and some never see torch."""

import ast
from functools import cache
from pathlib import Path

import pilot

ROOT = Path(pilot.__file__).parent
LAYERS = [
    {"types", "names", "memory", "extensions"},
    {"nn", "tokenizers"},
    {"data"},
    {"robots", "models", "datasets"},
    {"convert"},
    {"infer", "train"},
    {"sims", "serve"},
    {"eval"},
    {"configs"},
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
    "robots/",
    "sims/",
    "serve/wire",
    "serve/client",
    "serve/control",
    "infer/executor",
    "data/formats/lerobot",
    "data/stats",
    "data/storage/frame_cache",
    "eval/suites",
)


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


def test_torch_free_modules_name_no_torch():
    free = [path for path in module_files() if str(path.relative_to(ROOT)).startswith(TORCH_FREE)]
    wrong = [path.name for path in free if "torch" in {name.split(".")[0] for name in imported_names(path)}]
    assert not wrong, f"these run beside a simulator or a robot, without torch: {wrong}"
