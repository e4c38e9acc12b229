"""The changes that `bench/mutants.py` makes to a source, one at a time."""

import ast
import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

OTHER_COMPARISON: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OTHER_OPERATOR: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One changed place of a file: its lines, what stood there and what stands there now, and the whole new tree."""

    line: int
    last_line: int
    code: str  # the whole first line as it was, and where in it the place begins
    column: int
    before: str
    after: str
    tree: ast.Module = field(repr=False, compare=False)  # of the source as it is
    place: tuple[ast.AST, str, int | None] = field(repr=False, compare=False)  # a parent, its field, where in a list
    nodes: tuple[ast.AST, ast.AST] = field(repr=False, compare=False)  # the old and the new

    @property
    def change(self) -> str:
        """What stands for what."""
        return f"{self.before}  ->  {self.after}"

    @property
    def key(self) -> tuple[str, int, str]:
        """Names it where lines have moved."""
        return self.code, self.column, self.change

    @contextmanager
    def planted(self) -> Iterator[ast.Module]:
        """Change the tree for as long as the block runs."""
        old, new = self.nodes
        _put(new, self.place)
        try:
            yield self.tree
        finally:
            _put(old, self.place)

    def __str__(self) -> str:
        return f"line {self.line}, {self.column}: {self.change}   in   {self.code}"


def mutate(source: str) -> list[Mutant]:
    """Return all mutants of a source, in the order of its lines."""
    tree, lines = ast.parse(source), source.splitlines()
    skipped = set(_untouched(tree))
    mutants = []
    for node, place in _places(tree):
        for changed in () if id(node) in skipped else _changes(node):
            line, last = getattr(node, "lineno", 1), getattr(node, "end_lineno", 1)
            code = lines[line - 1].strip()
            column = getattr(node, "col_offset", 0) - (len(lines[line - 1]) - len(lines[line - 1].lstrip()))
            new = ast.fix_missing_locations(ast.copy_location(changed, node))
            mutants.append(
                Mutant(
                    line=line, last_line=last, code=code, column=column, before=_short(node), after=_short(changed),
                    tree=tree, place=place, nodes=(node, new),
                )
            )  # fmt: skip
    return sorted(mutants, key=lambda mutant: (mutant.line, mutant.column))


def _places(tree: ast.Module) -> Iterator[tuple[ast.AST, tuple[ast.AST, str, int | None]]]:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if isinstance(value, ast.AST):
                yield value, (parent, name, None)
            elif isinstance(value, list):
                yield from ((one, (parent, name, i)) for i, one in enumerate(value) if isinstance(one, ast.AST))


def _put(node: ast.AST, place: tuple[ast.AST, str, int | None]) -> None:
    parent, name, number = place
    if number is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[number] = node


def _untouched(tree: ast.Module) -> Iterator[int]:
    """Yield what has no behaviour or only words: annotations, docstrings, raised errors, log messages, decorators."""
    for node in ast.walk(tree):
        words: list[ast.AST | None] = []
        if isinstance(node, ast.Raise | ast.Assert | ast.Import | ast.ImportFrom):
            words.append(node)
        elif isinstance(node, ast.ClassDef):
            words += node.decorator_list
        elif isinstance(node, ast.FunctionDef):
            words += [*node.decorator_list, node.returns, *(argument.annotation for argument in node.args.args)]
            words += [argument.annotation for argument in node.args.kwonlyargs]
        elif isinstance(node, ast.AnnAssign):
            words.append(node.annotation)
        elif _is_only_words(node):
            words.append(node)
        for word in words:
            if word is not None:
                yield from (id(part) for part in ast.walk(word))


def _is_only_words(node: ast.AST) -> bool:
    """Return whether a node is a docstring, a message to a log, or a name for a type."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Call):
        return ast.unparse(node.func).startswith(("log.", "warnings."))
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript)


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in place of a node."""
    if isinstance(node, ast.Compare):
        for number, operator in enumerate(node.ops):
            operators = [*node.ops]
            operators[number] = OTHER_COMPARISON[type(operator)]()
            yield ast.Compare(node.left, operators, node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in OTHER_OPERATOR:
        yield ast.BinOp(node.left, OTHER_OPERATOR[type(node.op)](), node.right)
    elif isinstance(node, ast.AugAssign):
        if type(node.op) in OTHER_OPERATOR:
            yield ast.AugAssign(node.target, OTHER_OPERATOR[type(node.op)](), node.value)
        yield ast.Pass()
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield copy.copy(node.operand)
    elif isinstance(node, ast.If | ast.IfExp) and not isinstance(node.test, ast.Compare | ast.BoolOp):
        changed = copy.copy(node)
        changed.test = ast.UnaryOp(ast.Not(), node.test)
        yield changed
    elif isinstance(node, ast.Constant):
        yield from _other_constants(node.value)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield ast.Pass()


def _other_constants(value: object) -> Iterator[ast.Constant]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
    elif isinstance(value, float):
        yield ast.Constant(value * 2 if value else 1.0)


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 60 else f"{text[:57]}…"
