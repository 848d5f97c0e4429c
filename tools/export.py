"""Export every notebook into the package, and write what docments say into docstrings: `python
tools/export.py`.

A notebook documents a parameter by a comment beside it, which `help()` and editors do not see. So
each public function, method and class of the exported modules gets sections Parameters and Returns
in its docstring, in numpy's form. Commands keep theirs: their options carry `help=`, and their
docstring is what `--help` shows. A module that has been through this comes out as it went in.
"""

import ast
import io
import re
import sys
import textwrap
import tokenize
from pathlib import Path

from project import ROOT, modules, room, run, tool

WIDTH = 100


def comments(source: str) -> dict[int, str]:
    """The comment of each line that has one, without its sign; of lines of their own also the
    indent.
    """
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("#").strip() for t in tokens if t.type == tokenize.COMMENT}


def beside(line: int, said: dict[int, str], lines: list[str]) -> str:
    "What a docment says: the comment on a line, or on lines of their own right above it."
    if line in said:
        return said[line]
    above, found = line - 1, []
    # above a cell's first line stands nbdev's own
    while above in said and re.match(r"\s*#(?! %%)", lines[above - 1]):
        found.append(said[above])
        above -= 1
    return " ".join(reversed(found))


def entry(name: str, kind: str, text: str) -> list[str]:
    "Lines of one parameter."
    head = f"{name} : {kind}" if name and kind else name or kind
    indent = "    " if head else ""
    wrapped = textwrap.wrap(
        text, WIDTH - 12, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return [*filter(None, [head]), *wrapped]


def shown(annotation: ast.AST | None, default: ast.AST | None = None) -> str:
    "A type, and its default."
    kind = "" if annotation is None else ast.unparse(annotation)
    return ", ".join(
        filter(None, [kind, "" if default is None else f"default {ast.unparse(default)}"])
    )


def parameters(node: ast.FunctionDef, said: dict[int, str], lines: list[str]) -> list[str]:
    "Entries of a function's parameters."
    spec = node.args
    positional = spec.posonlyargs + spec.args
    defaults = dict(zip([a.arg for a in positional][::-1], spec.defaults[::-1], strict=False))
    defaults |= {a.arg: d for a, d in zip(spec.kwonlyargs, spec.kw_defaults, strict=True) if d}
    every = [("", a) for a in positional] + [("*", a) for a in filter(None, [spec.vararg])]
    every += [("", a) for a in spec.kwonlyargs] + [("**", a) for a in filter(None, [spec.kwarg])]
    return [
        line
        for star, a in every
        if a.arg not in ("self", "cls")
        for line in entry(
            star + a.arg, shown(a.annotation, defaults.get(a.arg)), beside(a.lineno, said, lines)
        )
    ]


def of_function(node: ast.FunctionDef, said: dict[int, str], lines: list[str]) -> list[str]:
    "The sections of a function."
    end = node.returns.lineno if node.returns is not None else node.body[0].lineno - 1
    nothing = isinstance(node.returns, ast.Constant) and node.returns.value is None
    text = (
        ""
        if nothing
        else beside(end, said, lines)
        if node.returns is not None
        else said.get(end, "")
    )
    back = entry("", shown(node.returns), text) if text else []
    return section("Parameters", parameters(node, said, lines)) + section("Returns", back)


def fields(node: ast.ClassDef, said: dict[int, str], lines: list[str]) -> list[str]:
    "Entries of a record's fields."
    return [
        line
        for item in node.body
        if isinstance(item, ast.AnnAssign) and not item.target.id.startswith("_")
        for line in entry(
            item.target.id, shown(item.annotation, item.value), beside(item.lineno, said, lines)
        )
    ]


def section(title: str, entries: list[str]) -> list[str]:
    "A section, or nothing."
    return ["", title, "-" * len(title), *entries] if entries else []


def lengthened(source: str, node: ast.AST, extra: list[str]) -> tuple[int, int, list[str]] | None:
    """The lines of a docstring, and what to put there;
    None if there is nothing to add, or it has been done.
    """
    first = node.body[0] if node.body else None
    if not extra or not (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        return None
    if re.search(r"\n\s*-{4}", first.value.value):
        return None
    text = ast.get_source_segment(source, first)
    inner = text.strip('"') if not text.startswith('"""') else text[3:-3]
    inner = inner.rstrip()
    indent = " " * first.col_offset
    body = [
        f'{indent}"""{inner}',
        *(indent + line.replace("\\", "\\\\") if line else "" for line in extra),
        f'{indent}"""',
    ]
    return first.lineno, first.end_lineno, body


def documented(source: str, records: dict[str, list[str]]) -> str:
    """A module's source with docments in its docstrings; `records` are the entries of every class
    of the package.
    """
    lines, said, edits = source.splitlines(), comments(source), []
    tree = ast.parse(source)
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and not n.level]
    foreign = {alias.asname or alias.name for node in imports for alias in node.names}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            edits.append(lengthened(source, node, of_function(node, said, lines)))
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
            ours = [base for base in bases if base not in foreign]  # typing has a Protocol, too
            inherited = [line for base in ours for line in records.get(base, [])]
            made = [
                item
                for item in node.body
                if isinstance(item, ast.FunctionDef) and item.name == "__init__"
            ]
            own = fields(node, said, lines) + [
                line for init in made for line in parameters(init, said, lines)
            ]
            edits.append(lengthened(source, node, section("Parameters", inherited + own)))
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and not item.name.startswith("_"):
                    edits.append(lengthened(source, item, of_function(item, said, lines)))
    for start, end, body in sorted(filter(None, edits), reverse=True):
        lines[start - 1 : end] = body
    return "\n".join(lines) + "\n"


def document(root: Path = ROOT) -> None:
    "Write docments into the docstrings of all modules but the commands'."
    sources = {
        p: p.read_text(encoding="utf-8")
        for p in modules(root)
        if p.name != "_modidx.py" and "cli" not in room(p, root).split(".")
    }
    records = {
        node.name: fields(node, comments(source), source.splitlines())
        for source in sources.values()
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef)
    }
    for path, source in sources.items():
        if (told := documented(source, records)) != source:
            path.write_text(told, encoding="utf-8")


def export(root: Path = ROOT) -> None:
    """Export into a package without generated modules, so that the module of a renamed notebook
    does not live on; put them back if that fails.
    """
    kept = {path: path.read_bytes() for path in modules(root)}
    for path in kept:
        path.unlink()
    if run(tool("nbdev_export"), cwd=root).returncode:
        for path, content in kept.items():
            path.write_bytes(content)
        sys.exit("export: nbdev_export failed; the package is as it was")
    document(root)


if __name__ == "__main__":
    export()
