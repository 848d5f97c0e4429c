"""What a message, a note or a page tells the user to type is there to be typed: commands, their
options, and the words these take.
"""

import ast
import inspect
import re

import nbformat
import pytest
from project import ROOT, modules, notebooks, room
from sklearn.base import BaseEstimator
from test_settings import HERE, OPTIONS, public

from cpvae.cli.refusing import _GONE
from cpvae import errors
from cpvae.errors import as_typed
from cpvae.model.settings import VAESettings
from cpvae.run.preset import RunConfig

OPTION = re.compile(r"(?<![\w-])--(?:[a-z]|\{\})[a-z-]*(?:\{\}[a-z-]*)*")  # "--seed", "--{}-column"
COMMAND = re.compile(r"`cpvae ([a-z]+(?:-[a-z]+)?)\b([^`]*)`")
SETTING = re.compile("`[a-z_]+=[^`]*`")  # as a message names it
OTHERS = re.compile("`(aws|gsutil|curl) [^`]*`")  # another program's options
EVERYWHERE = {"--help", "--version"}
GONE = {gone.split()[1] for gone in _GONE}  # a user who types them is told where to look
COMPLETION = {"--install-completion", "--show-completion"}  # of the command itself
NAMES = EVERYWHERE | GONE | COMPLETION | {option.name for option in OPTIONS}
CHOICES = {
    option.name: option.info.metavar.split("|")
    for option in OPTIONS
    if "|" in (option.info.metavar or "")
}
OF = {
    command: EVERYWHERE | {option.name for option in OPTIONS if option.command == command}
    for command in HERE
}


def sentences(tree):
    "Every string of a module but docstrings, with {} for what is filled in."
    said = {
        id(n.body[0].value)
        for n in ast.walk(tree)
        if isinstance(n, (ast.Module, ast.FunctionDef, ast.ClassDef))
        and n.body
        and isinstance(n.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            said |= {id(part) for part in node.values}
            yield "".join(
                part.value if isinstance(part, ast.Constant) else "{}" for part in node.values
            )
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.value


def what_is_wrong(text):
    "Options, words of options and commands in a text that are not there."
    text = as_typed(text)
    if "--" not in text and "`cpvae" not in text:
        return []
    text = OTHERS.sub("", text)
    there = lambda asked: any(re.fullmatch(asked.replace("{}", "[a-z]+"), name) for name in NAMES)
    wrong = [f"no command has {asked}" for asked in OPTION.findall(text) if not there(asked)]
    for command, rest in COMMAND.findall(text):
        if command in OF:
            wrong += [
                f"cpvae {command} has no {asked}"
                for asked in OPTION.findall(rest)
                if asked not in OF[command]
            ]
        else:
            wrong.append(f"there is no cpvae {command}")
    for option, words in CHOICES.items():
        wrong += [
            f"{option} takes no {word}"
            for word in re.findall(rf"{option}[ =]([a-z]+_[a-z_]+)", text)
            if word not in words
        ]
    return wrong


def test_a_wrong_advice_would_be_seen():
    for wrong in (
        "ask for more with --sedes",
        "`cpvae tune x.csv --seeds 3`",
        "`cpvae tone x.csv`",
        "name it with --{}-colum",
        "say --normalize mad_robustise to do it",
        "ask for more with `sedes=`",
        "say `normalize='mad_robustise'` to do it",
    ):
        assert len(what_is_wrong(wrong)) == 1, wrong
    for right in (
        "ask for more with --seeds",
        "`cpvae tune x.csv --trials 3`",
        "name it with --{}-column",
        "say --normalize mad_robustize to do it",
        "ask for more with `seeds=`",
        "say `normalize='mad_robustize'` to do it",
        "a--b",
        "--",
    ):
        assert what_is_wrong(right) == [], right


@pytest.mark.parametrize("path", [p for p in modules() if p.name != "_modidx.py"], ids=room)
def test_messages_name_options_that_are_there(path):
    found = [
        (text, wrong)
        for text in sentences(ast.parse(path.read_text(encoding="utf-8")))
        if (wrong := what_is_wrong(text))
    ]
    assert found == []


@pytest.mark.parametrize(
    "path",
    # the cards of a report end in commands to copy, which the test above reads
    [p for p in modules() if "cli" not in p.parts and p.name not in ("_modidx.py", "answer.py")],
    ids=room,
)
def test_only_the_command_line_speaks_of_options(path):
    told = [OTHERS.sub("", t) for t in sentences(ast.parse(path.read_text(encoding="utf-8")))]
    assert [text for text in told if OPTION.search(text)] == []
    passed = [name for text in told for name in re.findall("`([a-z_]+)=[^`]*`", text)]
    assert set(passed) <= ARGUMENTS | set(inspect.signature(RunConfig).parameters)


def test_pages_name_commands_and_options_that_are_there():
    pages = {
        p.name: p.read_text(encoding="utf-8")
        for p in (
            ROOT / "README.md",
            ROOT / "CHANGELOG.md",
            ROOT / "CONTRIBUTING.md",
            ROOT / "nbs" / "llms.txt",
            ROOT / "nbs" / "gallery.qmd",
        )
    }
    pages |= {
        p.name: "\n\n".join(
            c.source for c in nbformat.read(p, as_version=4).cells if c.cell_type == "markdown"
        )
        for p in notebooks()
    }
    found, seen = [], 0
    for name, text in pages.items():
        for span in re.findall(r"(?<!`)`[^`\n]+`(?!`)|^ *(?:\$ )?cpvae .+$", text, re.MULTILINE):
            span = span if span.startswith("`") else f"`{span.strip().removeprefix('$ ')}`"
            if span.startswith(("`cpvae ", "`--")):
                seen += 1
                found += [
                    (name, span, wrong) for wrong in what_is_wrong(re.sub(r"\s+#.*`$", "`", span))
                ]
    assert found == [] and seen > 30


# What only a caller from Python can meet, and so may be told in Python's words.
OF_PYTHON = ("n_latent is said twice", "spherize needs", "valid={} and test={} must")
ARGUMENTS = {
    name
    for _, thing in public()
    if not (inspect.isclass(thing) and issubclass(thing, (BaseEstimator, Exception)))
    for name in inspect.signature(thing).parameters
}
# these are typed, in a file of settings
ARGUMENTS -= set(inspect.signature(VAESettings).parameters)


# Classes of errors that a user is told of in a line.
TOLD = {
    name
    for name, thing in vars(errors).items()
    if isinstance(thing, type) and issubclass(thing, errors.CpvaeError)
}


def ours(raised):
    "Whether what is raised is told to the user in a line."
    return isinstance(raised, ast.Call) and getattr(raised.func, "id", "") in TOLD


def in_python(text):
    "Arguments of functions that a text names as such."
    text = SETTING.sub("", text)  # which a command tells as its option
    named = re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", text) + re.findall(r"\b(\w+)=(?=['\"\w{])", text)
    return [] if text.startswith(OF_PYTHON) else [name for name in named if name in ARGUMENTS]


@pytest.mark.parametrize("path", [p for p in modules() if p.name != "_modidx.py"], ids=room)
def test_a_user_of_the_command_line_is_not_told_to_pass_an_argument(path):
    assert (
        in_python("Ask for fewer with min_compounds.")
        and in_python("use another method, or by='table'")
        and not in_python("say `drop_na=True`")
    )
    for function in (
        n
        for n in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(n, ast.FunctionDef)
    ):
        for error in (
            n for n in ast.walk(function) if isinstance(n, ast.Raise) and n.exc and ours(n.exc)
        ):
            told = [text for text in sentences(error) if in_python(text)]
            assert told == [], f"{function.name} of cpvae.{path.stem}, which raises it"


# What is advised -> the option that does it, which a message must name.
DONE_BY = {
    r"\bsplit by (rows|compound)\b": "`preset=",
    r"\bnormalise (them|by|it)\b": "`normalize=",
    r"table of mechanisms": "`moa_table=",
    r"name another pair": "`leave_out=",
    r"the zero vector the control": "`zero_control=",
    r"leave (it|them) out with": "`drop_na=",
}


def without_option(text):
    "What a text advises without the option that does it."
    return [
        advice
        for advice, option in DONE_BY.items()
        if re.search(advice, text) and option not in text and not text.startswith(OF_PYTHON)
    ]


@pytest.mark.parametrize("path", [p for p in modules() if p.name != "_modidx.py"], ids=room)
def test_what_a_message_advises_it_names_the_option_of(path):
    assert (
        without_option("add compounds, or split by rows")
        and without_option("so normalise them first")
        and without_option("join a table of mechanisms")
    )
    assert not without_option("or split by rows with `preset='chow2022'`") and not without_option(
        "split before the consensus"
    )
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.Raise)
        and n.exc
        or isinstance(n, ast.Call)
        and getattr(n.func, "id", "") == "_sizes"
    ]
    found = [
        (text, wrong)
        for call in calls
        if isinstance(call, ast.Call) or ours(call.exc)
        for text in sentences(call)
        if (wrong := without_option(text))
    ]
    assert found == []
