"""Fail unless every public name is documented and every page of the site converts.

A function or method needs a docstring, a comment on each parameter (one parameter a line; or
`help=` for a command line option) and one on what it returns; a class a docstring, and a comment on
each field; a constant a comment. Then the site's own filter runs over all notebooks, and each page
is converted to Markdown.
"""

import ast
import builtins
import io
import json
import os
import re
import symtable
import sys
import tokenize
from collections import Counter
from pathlib import Path

from project import ROOT, modules, notebooks, room


def comments(source: str) -> dict[int, str]:
    "The comment of each line that has one, nbdev's own cell headers left out."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = {
        t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT
    }
    return {line: text for line, text in found.items() if text and not text.startswith("%%")}


class Checker:
    "Collects what lacks documentation in one module."

    def __init__(self, source: str, name: str, helpful: set[str] = frozenset()):
        self.name, self.lines, self.comments = name, source.splitlines(), comments(source)
        self.missing: list[str] = []
        self.count = Counter()
        self.helpful = set(helpful)  # constants that carry `help=`, as command line options do

    def note(self, kind: str, what: str, documented: bool) -> None:
        "Count one thing that must be documented."
        self.count[kind] += 1
        if not documented:
            self.missing.append(f"{self.name}.{what}")

    def commented(self, line: int, taken: set[int] = frozenset()) -> bool:
        "Is there a comment on this line, or on lines of their own right above it?"
        above = line - 1
        own_line = (
            above in self.comments
            and above not in taken
            and self.lines[above - 1].lstrip().startswith("#")
        )
        return line in self.comments or own_line

    def helps(self, node: ast.AST) -> bool:
        "Does an annotation or default carry `help=`, or name a constant that does?"
        return any(
            (isinstance(n, ast.keyword) and n.arg == "help")
            or (isinstance(n, ast.Name) and n.id in self.helpful)
            for n in ast.walk(node)
        )

    def function(self, node: ast.FunctionDef, prefix: str = "", docstring: bool = True) -> None:
        "Check a function's docstring, parameters and return."
        name, spec = prefix + node.name, node.args
        if docstring:
            self.note("names", f"{name}: no docstring", bool(ast.get_docstring(node)))
        positional = spec.posonlyargs + spec.args
        defaults = dict(zip([a.arg for a in positional][::-1], spec.defaults[::-1], strict=False))
        defaults |= {a.arg: d for a, d in zip(spec.kwonlyargs, spec.kw_defaults, strict=True) if d}
        every = [
            *positional,
            *filter(None, [spec.vararg]),
            *spec.kwonlyargs,
            *filter(None, [spec.kwarg]),
        ]
        every = [a for a in every if a.arg not in ("self", "cls")]
        taken = {a.lineno for a in every}
        shared = {line for line, n in Counter(a.lineno for a in every).items() if n > 1}
        for arg in every:
            parts = [p for p in (arg.annotation, defaults.get(arg.arg)) if p is not None]
            has_help = any(self.helps(p) for p in parts)
            documented = has_help or (
                arg.lineno not in shared and self.commented(arg.lineno, taken)
            )
            self.note("parameters and returns", f"{name}: parameter {arg.arg}", documented)
        if node.name == "__init__" or (
            isinstance(node.returns, ast.Constant) and node.returns.value is None
        ):
            return
        if node.returns is not None:
            documented = self.commented(node.returns.lineno, taken)
        else:  # a type too heavy to import has no annotation, only a comment where it would stand
            end = node.body[0].lineno - 1
            documented = end in self.comments and self.lines[end - 1].startswith((")", "    )"))
        self.note("parameters and returns", f"{name}: return", documented)

    def klass(self, node: ast.ClassDef) -> None:
        "Check a class's docstring, fields and public methods."
        self.note("names", f"{node.name}: no docstring", bool(ast.get_docstring(node)))
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and not item.target.id.startswith("_"):
                self.note(
                    "parameters and returns",
                    f"{node.name}: field {item.target.id}",
                    self.commented(item.lineno),
                )
            elif isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
                if item.name in ("__init__", "__call__") or not item.name.startswith("_"):
                    self.function(item, f"{node.name}.", docstring=item.name != "__init__")

    def module(self, tree: ast.Module) -> None:
        "Check every public name of a module."
        for node in tree.body:
            if isinstance(
                node, (ast.FunctionDef, ast.AsyncFunctionDef)
            ) and not node.name.startswith("_"):
                self.function(node)
            elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                self.klass(node)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for name in [
                    n.id
                    for t in targets
                    for n in ast.walk(t)
                    if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
                ]:
                    if self.helps(node.value):
                        self.helpful.add(name)
                    elif not name.startswith("_"):
                        self.note(
                            "names",
                            f"{name}: constant without comment",
                            self.commented(node.lineno) or self.commented(node.end_lineno),
                        )


def check(source: str, name: str, helpful: set[str] = frozenset()) -> Checker:
    """What the module `name` with this source documents, and what it does not; `helpful` are
    options that it may import.
    """
    checker = Checker(source, name, helpful)
    checker.module(ast.parse(source))
    return checker


def names(source: str) -> tuple[set[str], set[str], bool]:
    """What a cell's code binds, what it needs from elsewhere, and whether anything in it is
    imported.
    """
    source = re.sub(r"^\s*[%!].*", "", source, flags=re.MULTILINE)
    scopes = [top := symtable.symtable(source, "cell", "exec")]
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    needed = {s.get_name() for s in top.get_symbols() if s.is_referenced()}
    while scopes:
        scopes += (scope := scopes.pop()).get_children()
        needed |= {s.get_name() for s in scope.get_symbols() if s.is_global() and s.is_referenced()}
    return (
        bound,
        needed - bound,
        any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.walk(ast.parse(source))),
    )


def unready(sources: list[str]) -> list[str]:
    """Cells that the site's filter cannot run: the first line of each.

    To show signatures the filter runs exported cells and every cell with an import anywhere in it,
    and skips all others; an import beside code that needs a skipped cell stops it. So imports stand
    alone in their cell.
    """
    ready, wrong = set(dir(builtins)) | {"show_doc", "__file__"}, []
    for source in sources:
        bound, needed, imports = names(source)
        exported = re.match(r"(#\|.*\n)*#\|\s*export", source)
        if exported or imports:
            ready |= bound
        if imports and not exported and needed - ready:
            lines = [line for line in source.splitlines() if not line.startswith("#|")]
            wrong.append(f"{lines[0]!r} needs {', '.join(sorted(needed - ready))}")
    return wrong


def pages(root: Path = ROOT) -> list[str]:
    "Run the site's filter and convert each page; what went wrong."
    from nbconvert import MarkdownExporter
    from nbdev.quarto import nbdev_sidebar, refresh_quarto_yml
    from nbdev.serve import proc_nbs

    wrong = []
    for path in notebooks(root):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        found = unready(["".join(c["source"]) for c in cells if c["cell_type"] == "code"])
        wrong += [
            f"{path.name}: an import beside code; move it to a cell of its own: {what}"
            for what in found
        ]
    if wrong:
        return wrong
    refresh_quarto_yml()
    nbdev_sidebar.__wrapped__()
    # of import cells that also set up the figures
    os.environ["PYTHONWARNINGS"] = "ignore::UserWarning"
    try:
        cache = Path(proc_nbs(force=True))
    except Exception as error:
        return [f"the site's filter stopped: {error}"]
    for name in ["_quarto.yml", "nbdev.yml", "sidebar.yml", "styles.css", "references.bib"]:
        if not (cache / name).is_file() or (cache / name).is_symlink():
            wrong.append(f"{name} did not reach the site's folder")
    listed, exporter = (cache / "sidebar.yml").read_text(encoding="utf-8"), MarkdownExporter()
    for path in notebooks(root):
        name = path.relative_to(root / "nbs")
        if not (cache / name).exists():
            wrong.append(f"{name}: the site's filter left it out")
            continue
        if name.as_posix() not in listed:
            wrong.append(f"{name}: not in the sidebar")
        cells = json.loads((cache / name).read_text(encoding="utf-8"))["cells"]
        if any(out["output_type"] == "error" for cell in cells for out in cell.get("outputs", [])):
            wrong.append(f"{name}: an output is an error")
        if not exporter.from_filename(str(cache / name))[0].strip():
            wrong.append(f"{name}: the page is empty")
    return wrong


def main() -> None:
    "Run the gate on this project."
    os.chdir(ROOT)
    total, missing = Counter(), []
    sources = {room(p): p.read_text(encoding="utf-8") for p in modules() if p.name != "_modidx.py"}
    options = set().union(*(check(s, name).helpful for name, s in sources.items()))
    for name, source in sources.items():
        checker = check(source, name, options)
        total += checker.count
        missing += checker.missing
    if missing:
        sys.exit(
            f"docs: {len(missing)} of {sum(total.values())} undocumented:\n  "
            + "\n  ".join(missing)
        )
    if not total:
        sys.exit("docs: no exported name found")
    if wrong := pages():
        sys.exit("docs: the site does not build:\n  " + "\n  ".join(wrong))
    print(
        "docs: all documented: "
        + ", ".join(f"{n} {kind}" for kind, n in total.items())
        + f"; {len(notebooks())} pages convert"
    )


if __name__ == "__main__":
    main()
