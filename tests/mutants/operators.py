"""What may be changed in a module: one edit at a time, each found again by its name.

An edit is a small mistake that somebody could make in a rule: a limit off by one, a guard that is
not there, half of a condition, a call that is left out. What is only told (docstrings, messages of
errors, logs, `__repr__`), what only types need, and how much is kept in memory is left alone.
"""

import ast
import builtins
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

HEADER_CHARS_MAX: Final = 120  # A name shows its whole statement up to here, else the edit alone.
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_FLIPS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ORDERS: Final = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_SUMS: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_SWAPS: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}
_TOLD: Final = {"__repr__", "__str__", "__format__"}
# Nothing in them is a rule: imports, types, the text of an error, assertions of our own.
_CLOSED: Final = (ast.Import, ast.ImportFrom, ast.Assert, ast.JoinedStr, ast.pattern, ast.Raise)
_LITERALS: Final = (ast.List, ast.Tuple, ast.JoinedStr, ast.Dict)


@dataclass(frozen=True)
class Owner:
    """A function that the interpreter holds as an object: its code can be replaced."""

    qualname: str
    line: int


@dataclass(frozen=True)
class Edit:
    """One change of a tree, not made yet.

    Attributes:
        function: Its qualified name, empty at the level of the module.
        owner: The outermost function around it; none if it counts as the module is imported.
        texts: The statement, or the part of it that is changed, before and after: to be asked for
            while the tree is as it was.
        lines: First and last line of the statement's own text: who runs these may notice.
        make: Changes the tree.
    """

    function: str
    owner: Owner | None
    texts: Callable[[], tuple[str, str]]
    lines: range
    make: Callable[[], None]


@dataclass(frozen=True)
class _Slot:
    """The place of a node in its parent."""

    parent: ast.AST
    field: str
    index: int | None = None

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node

    @property
    def is_condition(self) -> bool:
        """Is it tested for truth by a statement, or part of what is?"""
        return self.field in ("test", "guard", "ifs") or isinstance(self.parent, ast.BoolOp)


@dataclass(frozen=True)
class _Where:
    names: tuple[str, ...] = ()
    owner: Owner | None = None
    returns: str = ""
    statement: ast.AST | None = None
    is_guard: bool = False

    @property
    def function(self) -> str:
        return ".".join(name for name in self.names if name != "<locals>")


def edits(tree: ast.Module) -> Iterator[Edit]:
    """Yield every edit of a tree, always in the same order; the tree is as it was after each."""
    yield from _in_children(tree, _Where())


def _in_children(node: ast.AST, where: _Where) -> Iterator[Edit]:
    for field, value in ast.iter_fields(node):
        if field in _unread(node):
            continue
        if isinstance(value, ast.AST):
            yield from _in_node(value, _Slot(node, field), where)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, ast.AST):
                    yield from _in_node(item, _Slot(node, field, index), where)


def _unread(node: ast.AST) -> tuple[str, ...]:
    """Return the fields of a node that are no rules."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
            return ("decorator_list", "returns", "args")
        case ast.ClassDef():
            return ("decorator_list", "bases", "keywords")
        case ast.AnnAssign():
            return ("annotation", "target")
        case ast.Call(func=ast.Name(id="zip")):
            return ("keywords",)  # `strict` asserts what we made ourselves.
        case _:
            return ()


def _in_node(node: ast.AST, slot: _Slot, where: _Where) -> Iterator[Edit]:
    if _is_told(node):
        return
    if isinstance(node, (ast.stmt, ast.match_case)):
        where = replace(where, statement=node, is_guard=_is_guard(node))
    for new in _replacements(node, slot, where):
        yield _edit(node, new, slot, where)
    if isinstance(node, _CLOSED):
        return
    if isinstance(node, ast.For):
        yield from _shorter_lists(node, where)
    inner = where
    if isinstance(node, (_Function, ast.ClassDef)):
        inner = replace(where, names=(*where.names, node.name))
    if isinstance(node, _Function):
        defaults = [*node.args.defaults, *node.args.kw_defaults]
        for default in filter(None, defaults):
            yield from _in_default(node.args, default, where)
        returns = ast.unparse(node.returns) if node.returns else ""
        inner = replace(inner, returns=returns, owner=where.owner or _owner(node, where))
        yield from _emptied(node, inner)
        inner = replace(inner, names=(*inner.names, "<locals>"))
    yield from _in_children(node, inner)


def _in_default(args: ast.arguments, default: ast.expr, where: _Where) -> Iterator[Edit]:
    for field in ("defaults", "kw_defaults"):
        values = getattr(args, field)
        if default in values:
            yield from _in_node(default, _Slot(args, field, values.index(default)), where)


def _owner(node: _Function, where: _Where) -> Owner:
    first = node.decorator_list[0] if node.decorator_list else node
    return Owner(".".join((*where.names, node.name)), first.lineno)


def _is_told(node: ast.AST) -> bool:
    match node:
        case ast.FunctionDef(name=name):
            return name in _TOLD or name.startswith("describe")
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Call(func=ast.Name(id="assert_never")):
            return True
        case ast.Call(func=ast.Attribute(value=ast.Name(id="log"))):
            return True
        case ast.Call(func=ast.Attribute(value=ast.Call(func=ast.Name(id="super"))), args=[text]):
            return isinstance(text, ast.JoinedStr)  # What an error says.
        case ast.AnnAssign(target=ast.Name(id=name)):
            return name.endswith("_CACHED")  # What is not kept in memory is made again.
        case ast.Expr(value=value):
            return _is_told(value)
        case _:
            return False


def _is_guard(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise) and not node.orelse


def _edit(node: ast.AST, new: ast.AST, slot: _Slot, where: _Where) -> Edit:
    ast.copy_location(new, node)
    ast.fix_missing_locations(new)
    statement = where.statement or node

    def texts() -> tuple[str, str]:
        if isinstance(node, ast.stmt) or len(before := _header(statement)) > HEADER_CHARS_MAX:
            return ast.unparse(node), ast.unparse(new)
        slot.put(new)
        after = _header(statement)
        slot.put(node)
        return before, after

    return Edit(
        function=where.function,
        owner=where.owner,
        texts=texts,
        lines=_own_lines(statement, node),
        make=lambda: slot.put(new),
    )


def _header(statement: ast.AST) -> str:
    """Return the text of a statement without the block below it."""
    match statement:
        case ast.If(test=test):
            return f"if {ast.unparse(test)}"
        case ast.While(test=test):
            return f"while {ast.unparse(test)}"
        case ast.For(target=target, iter=items):
            return f"for {ast.unparse(target)} in {ast.unparse(items)}"
        case ast.match_case(pattern=pattern, guard=guard):
            return f"case {ast.unparse(pattern)} if {ast.unparse(guard) if guard else True}"
        case ast.Match(subject=subject):
            return f"match {ast.unparse(subject)}"
        case ast.With(items=items):
            return f"with {', '.join(map(ast.unparse, items))}"
        case _:
            return ast.unparse(statement)


def _own_lines(statement: ast.AST, node: ast.AST) -> range:
    first = getattr(statement, "lineno", getattr(node, "lineno", 1))
    if isinstance(statement, ast.match_case):
        first = statement.pattern.lineno
    return range(first, max(first, getattr(node, "end_lineno", first)) + 1)


def _emptied(node: _Function, where: _Where) -> Iterator[Edit]:
    """Yield the function that does nothing, if it gives nothing and does more than one thing."""
    has_docstring = ast.get_docstring(node, clean=False) is not None
    body = node.body[1:] if has_docstring else node.body
    if where.returns != "None" or len(body) < 2:
        return
    empty = ast.copy_location(ast.Return(), body[0])

    def make() -> None:
        node.body = [empty]

    lines = range(body[0].lineno, (body[-1].end_lineno or body[-1].lineno) + 1)
    texts = (f"def {node.name}: ...", "return")
    yield Edit(where.function, where.owner, lambda: texts, lines, make)


def _shorter_lists(node: ast.For, where: _Where) -> Iterator[Edit]:
    """Yield a loop over things that are written out, without one of them."""
    if not isinstance(node.iter, (ast.Tuple, ast.List)):
        return
    for index, element in enumerate(node.iter.elts):

        def make(items: ast.Tuple | ast.List = node.iter, index: int = index) -> None:
            del items.elts[index]

        def texts(element: ast.expr = element) -> tuple[str, str]:
            target = ast.unparse(node.target)
            return f"for {target} in {ast.unparse(element)}, ...", f"for {target} in ..."

        yield Edit(where.function, where.owner, texts, _own_lines(node, node.iter), make)


def _replacements(node: ast.AST, slot: _Slot, where: _Where) -> Iterator[ast.AST]:
    """Yield what may stand in the place of a node."""
    if slot.field in ("test", "guard", "ifs") and isinstance(node, ast.expr):
        yield from _conditions(node, slot, where)
    match node:
        case ast.Compare():
            yield from _comparisons(node, slot)
        case ast.BoolOp(op=op, values=values):
            for index, left_out in enumerate(values):
                if isinstance(op, ast.And) in _shown_by_parts(left_out):
                    continue
                rest = [value for at, value in enumerate(values) if at != index]
                yield rest[0] if len(rest) == 1 else ast.BoolOp(op, rest)
        case ast.UnaryOp(op=ast.Not(), operand=operand) if not slot.is_condition:
            yield operand
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            yield operand
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _SUMS:
            is_off_by_one = isinstance(op, (ast.Add, ast.Sub)) and any(
                map(_is_number, (left, right))
            )
            if not is_off_by_one and not any(map(_is_text, (left, right))):
                yield ast.BinOp(left, _SUMS[type(op)](), right)
        case ast.AugAssign(op=op, value=value, target=target) if type(op) in _SUMS:
            if not _is_text(value):
                yield ast.AugAssign(target, _SUMS[type(op)](), value)
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield from _numbers(value, slot, where)
        case ast.Call():
            yield from _calls(node)
        case ast.Expr(value=ast.Call() | ast.Await()):
            yield ast.Pass()
        case ast.Raise(exc=ast.Call(func=ast.Name(id="AssertionError"))):
            pass
        case ast.Raise() if not isinstance(slot.parent, ast.If) or not _is_guard(slot.parent):
            yield ast.Pass()
        case ast.Return(value=ast.expr() as value):
            yield from _returns(value, where.returns)
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()
        case _:
            pass


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, _LITERALS) or (
        isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))
    )


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int)


def _shown_by_parts(node: ast.expr) -> tuple[bool, ...]:
    """Return what a condition need not be replaced by: an edit of a part of it does so.

    Whoever notices that `<` became `<=` noticed a condition that held and must not; so that it
    always holds need not be tried. Likewise half of an `and` (always), half of an `or` (never).
    """
    match node:
        case ast.Compare(ops=[ast.Lt() | ast.Gt()]) | ast.BoolOp(op=ast.And()):
            return (True,)
        case ast.Compare(ops=[ast.LtE() | ast.GtE()]) | ast.BoolOp(op=ast.Or()):
            return (False,)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return tuple(not shown for shown in _shown_by_parts(operand))
        case ast.Constant():
            return (True, False)
        case _:
            return ()


def _conditions(node: ast.expr, slot: _Slot, where: _Where) -> Iterator[ast.expr]:
    shown = _shown_by_parts(node)
    if False not in shown:
        yield ast.Constant(value=False)
    # A guard that always raises is noticed by whatever runs; a loop without an end by time alone.
    is_guard = where.is_guard and slot.parent is where.statement
    if not (is_guard or True in shown or isinstance(slot.parent, ast.While)):
        yield ast.Constant(value=True)


def _comparisons(node: ast.Compare, slot: _Slot) -> Iterator[ast.expr]:
    # What is replaced by what always and what never holds need not be turned round.
    is_replaced = slot.is_condition or (
        slot.field == "value" and isinstance(slot.parent, ast.Return)
    )
    for index, op in enumerate(node.ops):
        if isinstance(op, _ORDERS) or not is_replaced or len(node.ops) > 1:
            ops = [*node.ops[:index], _FLIPS[type(op)](), *node.ops[index + 1 :]]
            yield ast.Compare(node.left, ops, node.comparators)


def _numbers(value: int, slot: _Slot, where: _Where) -> Iterator[ast.expr]:
    parent = slot.parent
    if isinstance(parent, ast.Compare) and isinstance(parent.ops[0], _ORDERS):
        return  # The same as the comparison, off by one.
    yield ast.Constant(value + 1)
    # A limit has a name, and two sides; a number in a formula is off, or it is not.
    if value >= 1 and where.owner is None:
        yield ast.Constant(value - 1)


def _calls(node: ast.Call) -> Iterator[ast.expr]:
    match node.func:
        case ast.Name(id=name) if hasattr(builtins, name):
            if name in _SWAPS:
                yield ast.Call(ast.Name(_SWAPS[name], ast.Load()), node.args, node.keywords)
            return
        case _:
            pass
    match node.args:
        case [ast.Name(id=one) as left, ast.Name(id=two) as right] if one != two:
            yield ast.Call(node.func, [right, left], node.keywords)
        case _:
            pass


def _returns(value: ast.expr, returns: str) -> Iterator[ast.stmt]:
    if isinstance(value, ast.Constant) or ast.unparse(value) in ("()", "NotImplemented"):
        return
    if returns == "bool":
        shown = _shown_by_parts(value)
        yield from (ast.Return(ast.Constant(value=it)) for it in (False, True) if it not in shown)
    if returns.startswith("tuple[") and returns.endswith("...]"):
        yield ast.Return(ast.Tuple([], ast.Load()))
    if returns.endswith("| None"):
        yield ast.Return(ast.Constant(value=None))
