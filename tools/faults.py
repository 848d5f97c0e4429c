"""Small faults of a module, one at a time, for `make mutants`.

A fault is a comparison (< for <=, == for !=, in for not in), arithmetic (+ for -, * for /, & for
|), `and` for `or`, a `not` or ~ left out, a whole number one larger, another number doubled, True
for False, `if ...: raise` never taken, or the two parts of a returned or assigned pair changed.

None is made where none could matter: in messages (`raise`, f-strings, what `Stage`, `counted` and
`warn` say), annotations and decorators, numbers below a millionth (they guard a division), seeds,
`strict=` of zip, defaults of `progress` and of how much is drawn or worked on at once, and in
`plot_*` in numbers, True, False and the size of a `Figure`.
"""

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

OPPOSITE = {
    **{ast.Lt: ast.LtE, ast.Gt: ast.GtE, ast.Eq: ast.NotEq, ast.In: ast.NotIn, ast.Is: ast.IsNot},
    **{ast.Add: ast.Sub, ast.Mult: ast.Div, ast.BitAnd: ast.BitOr, ast.And: ast.Or},
}
OPPOSITE |= {b: a for a, b in OPPOSITE.items()} | {ast.Pow: ast.Mult, ast.FloorDiv: ast.Mult}
ANY = ("seed", "progress", "block", "n_draws", "n_permutations", "n_projections")


@dataclass(frozen=True, eq=False)
class Mutant:
    "One fault."

    file: str  # within the package, "lsa/space.py"
    line: int
    lines: range | None  # of which a test must run one; None: of any of the module
    function: str  # "Arithmetic.group_mean"; "" outside
    kind: str  # "comparison"
    before: str  # the first line of what is replaced
    after: str
    key: str  # what it is called among the verdicts; a hash, and so a random order
    place: tuple  # the tree, the node above, which part of that, and what is put there

    def source(self) -> str:
        "The faulty module."
        tree, above, field, i, new = self.place
        holder, at = (vars(above), field) if i is None else (getattr(above, field), i)
        old, holder[at] = holder[at], new
        text = ast.unparse(tree)
        holder[at] = old
        return text


def faults(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    "Kinds of faults, and the node that each puts in place of this one."
    made = lambda **fields: type(node)(**vars(node) | fields)
    match node:
        case ast.Compare(ops=[op, *rest]) if type(op) in OPPOSITE:
            yield "comparison", made(ops=[OPPOSITE[type(op)](), *rest])
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in OPPOSITE:
            yield "arithmetic", made(op=OPPOSITE[type(op)]())
        case ast.BoolOp(op=op):
            yield "boolean", made(op=OPPOSITE[type(op)]())
        case ast.UnaryOp(op=ast.Not() | ast.Invert()):
            yield "not", node.operand
        case ast.Constant(value=bool(value)):
            yield "truth", made(value=not value)
        case ast.Constant(value=int(value)):
            yield "number", made(value=value + 1)
        case ast.Constant(value=float(value)) if not 0 < value < 1e-6:
            yield "number", made(value=2 * value or 1.0)
        case ast.If(body=[ast.Raise()], orelse=[]):
            yield "guard", made(test=ast.Constant(False))
        case ast.Return(value=ast.Tuple(elts=[a, b])) | ast.Assign(value=ast.Tuple(elts=[a, b])):
            yield "swap", made(value=ast.Tuple([b, a], ast.Load()))


def cosmetic(field: str, node: ast.AST) -> bool:
    "Whether no fault in here could matter."
    if field in ("annotation", "returns", "decorator_list"):
        return True
    match node:
        case ast.Call(func=function):
            name = ast.unparse(function).rpartition(".")[2]
            return name in ("Stage", "counted", "warn", "Figure")
        case ast.keyword(arg=name):
            return name in ("strict", "seed", "random_state")
    return isinstance(node, ast.Raise | ast.JoinedStr)


def _any_would_do(node, field, i):  # the default of a parameter
    if not isinstance(node, ast.arguments) or field not in ("defaults", "kw_defaults"):
        return False
    names = node.kwonlyargs if field == "kw_defaults" else [*node.posonlyargs, *node.args]
    return names[i - len(getattr(node, field))].arg in ANY


def mutants_of(source: str, file: str, seed: int = 0) -> list[Mutant]:
    "Every fault of a module, in the order in which they are tried."
    tree, found, seen = ast.parse(source), [], Counter()

    def add(place, node, function, lines):
        plotting = function.startswith("plot_") and isinstance(node, ast.Constant)
        for kind, new in [] if plotting else faults(node):
            told = [" ".join(ast.unparse(n).split("\n")[0].split())[:150] for n in (node, new)]
            name = " ".join([str(seed), file, function, kind, *told])
            seen[name] += 1
            key = hashlib.sha256(f"{name} {seen[name]}".encode()).hexdigest()[:16]
            where = (file, node.lineno, lines, function)
            found.append(Mutant(*where, kind, *told, key, (tree, *place, new)))

    def visit(node, function, lines):
        inside = None
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            function = f"{function}.{node.name}".strip(".")
        if isinstance(node, ast.FunctionDef):
            inside = range(node.body[0].lineno, node.end_lineno + 1)
        for field, value in ast.iter_fields(node):
            within = inside if inside and field in ("body", "args") else lines
            for i, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if not isinstance(child, ast.AST) or cosmetic(field, child):
                    continue
                if _any_would_do(node, field, i):
                    continue
                at = within
                if within and isinstance(child, ast.stmt):
                    body = getattr(child, "body", None)
                    last = max(child.lineno, body[0].lineno - 1) if body else child.end_lineno
                    at = range(child.lineno, last + 1)
                add((node, field, i), child, function, at)
                visit(child, function, at)

    visit(tree, "", None)
    return sorted(found, key=lambda mutant: mutant.key)
