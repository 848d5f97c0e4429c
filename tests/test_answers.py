"""What a run was asked: kept beside it, printed as JSON, and shown on a page that is drawn anew;
and what a run would do before it does it.
"""

import hashlib
import json
import os
import re
import shutil
import webbrowser
from html import escape

import pandas as pd
import pytest
from running import cli

from cpvae.cli.commands import app
from cpvae.cli.refusing import GROUPS
from cpvae.profiles.simulate import simulate_profiles
from cpvae.run.answers import read_predictions
from cpvae.run.ask import Run
from cpvae.run.pipeline import run_pipeline
from cpvae.run.preset import RunConfig

A, B = "simulated mechanism 02", "simulated mechanism 04"
WORLD = dict(seed=0, n_mechanisms=4, n_pairs=3, n_features=20, n_maps=2)
CONFIG = RunConfig(
    models=("vanilla", "pca"), n_permutations=100, vae=dict(steps=40, hidden_layer_sizes=(8,))
)


@pytest.fixture(scope="module")
def made(tmp_path_factory, no_figures):
    "A small finished run; it may only be read."
    out = tmp_path_factory.mktemp("answers") / "run"
    return run_pipeline(simulate_profiles(**WORLD), out, CONFIG, jobs=1)


@pytest.fixture
def run(made, tmp_path):
    "A copy of it that may be asked."
    return shutil.copytree(made, tmp_path / "run")


def digests(folder, *without):
    "What every file of a folder holds."
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in without
    }


def strict(text):
    "A JSON document, which may hold no NaN."

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def asked(run, *more):
    code, out, err = cli("predict", run, "--a", A, "--b", B, *more)
    assert (code, err) == (0, ""), err
    return out


# ---- kept beside the run


def test_answers_are_kept_and_the_run_keeps_its_bytes(run):
    before = digests(run)
    for more in ((), ("--model", "vanilla"), ("--predictor", "shrunk"), ("--model", "pca")):
        asked(run, *more)
    assert cli("screen", run, "--quiet").exit_code == 0
    assert cli("screen", run, "--pairs", "--quiet", "--seed", 3).exit_code == 0
    assert digests(run, "predictions") == before
    found = read_predictions(run)
    assert len({one["name"] for one in found}) == 6
    assert [one["about"]["kind"] for one in found] == ["nearest"] * 4 + ["screen", "screen_pairs"]
    told = [(one["about"]["predictor"], one["about"]["model"]) for one in found[:4]]
    assert told[1:] == [("sum", "vanilla"), ("shrunk", None), ("sum", "pca")]
    assert found[-1]["about"]["seed"] == 3 and found[-1]["about"]["command"].startswith("cpvae ")
    # the whole answer, not only what is printed
    by_hand = Run(run).predict(A, B, n=None)
    tables = found[0]["tables"]
    assert {*tables} == {"nearest", "moved", "summary", "profile"}
    pd.testing.assert_frame_equal(
        tables["nearest"], by_hand.nearest.reset_index(drop=True), check_dtype=False
    )
    assert len(tables["moved"]) == len(tables["profile"]) == len(by_hand.state)
    assert found[0]["about"]["chosen"] and found[0]["about"]["why"] == by_hand.why


def test_the_page_takes_up_what_was_asked_and_leaves_out_what_no_longer_fits(run, no_figures):
    whole = (run / "report.html").read_text(encoding="utf-8")
    assert "Asked of this run" not in whole
    asked(run, "--model", "pca")
    assert cli("screen", run, "--pairs", "--quiet").exit_code == 0
    assert cli("report", run).exit_code == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    section = page.partition('<section id="asked"')[2].partition("</section>")[0]
    titles = re.findall("<summary>(.*?)</summary>", section)
    assert titles == ["Compounds that look like two mechanisms", f"{A} + {B}, sum in PCA"]
    nearest = Run(run).predict(A, B, model="pca").nearest["compound"].iloc[0]
    assert f">{nearest}</button>" in section.partition(titles[1])[2]
    for one in read_predictions(run):
        assert escape(one["about"]["command"]) in section
    stale = next((run / "predictions").glob("*pca*/prediction.json"))
    stale.write_text(stale.read_text().replace("pca", "pcb"))
    assert cli("report", run).exit_code == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Asked of this run" in page and titles[1] not in page


def test_the_same_question_is_kept_once(run):
    for words in ((A, B), (B, A), (A, B)):
        assert cli("predict", run, "--a", words[0], "--b", words[1]).exit_code == 0
    assert len(read_predictions(run)) == 1
    assert len([*(run / "predictions").iterdir()]) == 1  # no lock, and nothing half written


def test_a_run_in_its_place_brings_answers_along(run, capsys, no_figures):
    asked(run)
    cli("screen", run, "--quiet")
    before = digests(run / "predictions")
    world = simulate_profiles(**WORLD)
    run_pipeline(world, run, CONFIG, jobs=1, resume=True)  # finished
    run_pipeline(world, run, CONFIG, jobs=1, progress=True)  # the same again: the same bytes
    assert "predictions is kept" in capsys.readouterr().err
    assert len(read_predictions(run)) == 2 and digests(run / "predictions") == before
    other = RunConfig(models=("pca",), n_permutations=100, seed=5)
    run_pipeline(world, run, other, jobs=1)
    assert digests(run / "predictions") == before
    assert read_predictions(run) == []
    assert capsys.readouterr().err.count("is of an earlier run; ask again") == 2
    assert "screen" in {*map(str, os.listdir(run / "predictions"))}


def test_where_nothing_can_be_written_the_answer_is_printed(run):
    (run / "predictions").write_text("somebody's own")
    for command, says in (
        (["predict", run, "--a", A, "--b", B], "Nearest compounds"),
        (["screen", run, "--quiet"], "candidates"),
    ):
        code, out, err = cli(*command)
        assert (code, len(err.splitlines())) == (0, 1) and says in out, err
        assert "not kept" in err and "predictions" in err and "predictions" not in out
        code, out, err = cli(*command, "--json")
        assert code == 0 and strict(out)["saved"] is None
    assert (run / "predictions").read_text() == "somebody's own"


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (["predict", "--a", A, "--b", B, "--out", "x.csv"], "nearest.csv"),
        (["predict", "--a", A, "--b", B, "--state", "x.csv"], "profile.csv"),
        (["screen", "--out=x.csv"], "screen.csv"),
    ],
)
def test_an_option_that_is_gone_says_where_the_file_is(words, file, made):
    code, out, err = cli(words[0], made, *words[1:])
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert file in err and "RUN/predictions" in err and not (made / "predictions").exists()


# ---- as JSON


def test_predict_prints_one_document(run):
    text, whole = asked(run, "--top", 3), strict(asked(run, "--top", 3, "--json"))
    found = Run(run).predict(A, B, n=None)
    assert [len(whole[name]) for name in ("nearest", "moved")] == [3, 3]
    assert whole["nearest"][0]["compound"] == found.nearest["compound"].iloc[0]
    assert whole["nearest"][0]["cosine"] == found.nearest["cosine"].iloc[0]  # every digit
    assert (whole["length"], whole["why"]) == (found.length, found.why)
    assert whole["saved"] in text and all(row["compound"] in text for row in whole["nearest"])
    assert strict(asked(run, "--model", "pca", "--json"))["radius"] is None  # NaN
    assert len(strict(asked(run, "--json", "--top", 1000))["moved"]) == len(found.state)


def test_screen_prints_one_document(run):
    code, out, err = cli("screen", run, "--json", "--top", 2)
    whole = strict(out)
    assert code == 0 and "comparing" in err and len(whole["top"]) == 2
    code, text, _ = cli("screen", run, "--quiet", "--top", 2)
    first = text.splitlines()[0]
    assert first == (
        f"{whole['compounds']} compounds; {whole['candidates']} candidates,"
        f" {whole['below_05']} of them with q < .05"
    )
    new = Run(run).screen().query("not known")
    assert whole["top"][0]["compound"] == new["compound"].iloc[0]
    assert whole["top"][0]["q"] == new["q"].iloc[0] and whole["candidates"] == len(new)
    pairs = strict(cli("screen", run, "--json", "--pairs", "--quiet")[1])
    assert pairs["saved"].endswith("screen-pairs") and len(pairs["top"]) <= pairs["candidates"]


def test_info_prints_one_document_of_a_run_and_of_a_table(run, tmp_path):
    whole = strict(cli("info", run, "--json")[1])
    held = Run(run).open()[2]
    assert (whole["profiles"], whole["features"]) == held.shape
    assert whole["models"] == {"vanilla": "vanilla", "pca": "pca"}
    alone = held.obs[held.obs["moa"] == A]["compound"].nunique()
    assert whole["mechanisms"][A]["alone"] == alone and len(whole["pairs_scored"]) == 3
    assert whole["report"] == str(run / "report.html")
    (tmp_path / "t.csv").write_text(
        "Metadata_compound,Metadata_moa,Metadata_conc_uM,Cells_AreaShape_Area,Cells_AreaShape_Extent\n"
        "x,a,1,1.5,2\ny,b,2,3,1\nz,a|b,3,1,1\n"
    )
    code, out, err = cli("info", tmp_path / "t.csv", "--json")
    whole = strict(out)
    assert (code, err, whole["profiles"], whole["compounds"]) == (0, "", 3, 3)
    assert whole["columns"]["dose"] == "Metadata_conc_uM"
    assert any("will refuse" in note and "--zero-control" in note for note in whole["notes"])
    assert all(name == name.lower() and " " not in name for name in whole)


def test_a_refusal_prints_no_document(run):
    for command in (["predict", run, "--a", A, "--b", "nothing"], ["info", run / "nowhere.csv"]):
        code, out, err = cli(*command, "--json")
        assert (code, out, len(err.splitlines())) == (2, "", 1)


# ---- the page, drawn anew


def test_report_draws_the_page_and_touches_nothing_else(run, monkeypatch):
    (run / "report.html").unlink()
    before, opened = digests(run, "report.html", "figures"), []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    assert cli("report", run) == (0, f"report: {run / 'report.html'}\n", "")
    first = (run / "report.html").read_bytes()
    assert cli("report", run, "--open").exit_code == 0
    assert opened == [(run / "report.html").as_uri()]
    assert digests(run, "report.html", "figures") == before
    assert (run / "report.html").read_bytes() == first
    (run / "tables" / "lsa.csv").write_text("changed")
    code, out, err = cli("report", run)
    assert (code, out, len(err.splitlines())) == (2, "", 1) and "lsa.csv" in err


@pytest.mark.parametrize("how", ["nobody", "error"])
def test_report_without_a_browser(how, run, monkeypatch):
    def nowhere(address):
        if how == "error":
            raise webbrowser.Error("could not locate runnable browser")
        return False

    monkeypatch.setattr(webbrowser, "open", nowhere)
    code, out, err = cli("report", run, "--open")
    assert (code, out) == (0, f"report: {run / 'report.html'}\n")
    assert len(err.splitlines()) == 1 and "no browser" in err


# ---- before a run


def test_a_dry_run_says_what_a_run_would_do_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.json").write_text('{"models": {"vanilla": {"steps": 30}}}')
    before = digests(tmp_path)
    words = ["run", "korkut", "--params", "one.json", "--seed", 3]
    code, out, err = cli(*words, "--dry-run")
    assert (code, err) == (0, ""), err
    assert digests(tmp_path) == before and os.listdir(tmp_path) == ["one.json"]
    facts = {line.split("  ")[0]: line[14:].strip() for line in out.splitlines()}
    assert (facts["profiles"], facts["features"]) == ("89", "87 of 87")
    assert facts["split"] == "62 train, 9 valid, 18 test"
    assert facts["pairs"].startswith("66, 66") and "vanilla VAE, PCA" in facts["models"]
    assert "results/korkut" in facts["written to"].replace(os.sep, "/")
    assert facts["time"].startswith("about ") and "GiB" in facts["memory"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious")
    code, out, err = cli(*words, "--dry-run", "--out", "thesis")
    assert (code, out, len(err.splitlines())) == (2, "", 1) and "not a run" in err


# ---- help


def test_help_has_every_command_in_a_group_and_examples():
    out = cli("--help")[1]
    places = [out.index(f"\n{title}:\n") for title in GROUPS]
    assert places == sorted(places) and out.index("Examples:") > places[-1]
    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        assert command.rich_help_panel in GROUPS and out.count(f"\n  {name} ") == 1, name


@pytest.mark.parametrize(
    "name",
    "run info predict screen report score benchmark rank-pairs transform".split(),
)
def test_each_command_has_an_example_with_options_of_its_own(name):
    "What stands under its help is of this command, with options that it has."
    out = cli(name, "--help")[1]
    shown = [line.strip() for line in out.split("Examples:")[1].splitlines() if line.strip()]
    assert shown and all(line.startswith(f"cpvae {name} ") for line in shown)
    known = {word for word in out.split() if word.startswith("-")}
    for line in shown:
        assert {w for w in line.split() if w.startswith("-")} <= known, line
