"""The report in a real browser: it answers, keeps to itself, and hostile names stay text.

Chromium is looked for where Debian's package puts it; `CPVAE_BROWSER` names another. Where the
continuous integration runs (`CI`), a browser that is missing is a failure.
"""

import csv
import io
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import expect, sync_playwright

from cpvae.lsa.space import average_wells
from cpvae.profiles.simulate import simulate_profiles
from cpvae.run.ask import Run
from cpvae.run.pipeline import run_pipeline
from cpvae.run.preset import RunConfig

BROWSER = os.environ.get("CPVAE_BROWSER") or shutil.which("chromium")
if not BROWSER and not os.environ.get("CI"):
    pytest.skip("no chromium; name a browser by CPVAE_BROWSER", allow_module_level=True)

HOSTILE = {
    "c0": "<script>window.hacked = 1</script>",
    "c1": '"><img src=x onerror="window.hacked = 1">',
    "c2": '=HYPERLINK("http://evil")',
    "c3": "x" * 10_000,
    "c4": 'a, "quoted" name\nin two lines',
    "c5": "</script><b>bold",
    "c6": "{{ 7 * 7 }}",
}


def world(**more):
    "Small simulated profiles: five mechanisms, three pairs."
    few = dict(n_mechanisms=5, n_pairs=3, per_mechanism=4, per_pair=2, n_features=40, n_maps=3)
    return simulate_profiles(seed=0, **(few | dict(n_controls=12) | more))


def made(folder: Path, profiles) -> Path:
    "A run with PCA alone, in seconds."
    config = RunConfig(models=("pca",), n_permutations=100, n_latent=4)
    return run_pipeline(profiles, folder, config, jobs=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    profiles = world()
    first = (
        profiles.obs["compound"] == profiles.obs["compound"][~profiles.obs["is_control"]].iloc[0]
    )
    profiles.obs["Metadata_InChIKey"] = np.where(first, "RCINICONZNJXQF-MZXODVADSA-N", "")
    return made(tmp_path_factory.mktemp("page") / "run", profiles)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--no-first-run"]
        flags += ["--disable-background-networking"]
        launched = playwright.chromium.launch(executable_path=BROWSER, args=flags)
        yield launched
        launched.close()


@pytest.fixture
def opened(browser):
    "Opens a page of a run; anything that the browser complains of fails the test."
    contexts, said = [], []

    def open_page(folder, width=1280, **more):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, accept_downloads=True, **more
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda r: said.append(r.url) if r.url.startswith("http") else None)
        page.goto((folder / "report.html").as_uri())
        if more.get("java_script_enabled", True):
            page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def downloaded(page, locator) -> bytes:
    with page.expect_download() as waiting:
        locator.click()
    return Path(waiting.value.path()).read_bytes()


MIDDLE = """() => {
    const points = [...document.querySelectorAll("#map-widget .trace")].pop()
        .querySelectorAll(".point");
    points[0].scrollIntoView({block: "center"});
    const box = points[0].getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
}"""  # of a point of the map


def shown_rows(page, name):
    return page.locator(f"table[data-name='{name}'] tbody tr")


@pytest.mark.parametrize("width", [1280, 400])
def test_axe_finds_nothing_serious_and_nothing_scrolls_sideways(run, opened, width):
    from axe_playwright_python.sync_playwright import Axe

    page = opened(run, width, bypass_csp=True)
    found = Axe().run(page).response["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_tables_sort_filter_and_download(run, opened):
    page, table = opened(run), pd.read_csv(run / "tables" / "compounds.csv")
    heading = page.locator("table[data-name='compounds'] th", has_text="strength")
    heading.click()
    expect(heading).to_have_attribute("aria-sort", "ascending")
    least = table.sort_values("strength")["compound"].iloc[0]
    expect(shown_rows(page, "compounds").first.locator("th")).to_have_text(least)
    heading.locator("[role='button']").press("Enter")  # by keyboard too
    expect(heading).to_have_attribute("aria-sort", "descending")
    whole = page.locator("button[aria-label='Download compounds as CSV']")
    rows = [*csv.reader(io.StringIO(downloaded(page, whole).decode()))]
    assert len(rows) == 1 + len(table)  # all, not those on the page alone
    strengths = [float(row[rows[0].index("strength")]) for row in rows[1:]]
    np.testing.assert_allclose(strengths, table["strength"].sort_values(ascending=False), rtol=1e-5)
    box = page.locator("#visible .dt-search input").last
    box.fill(least)
    expect(shown_rows(page, "compounds").locator("th")).to_have_text([least])


def test_a_lasso_on_the_map_filters_the_tables(run, opened):
    page = opened(run)
    before = shown_rows(page, "candidates").count()
    x, y = page.evaluate(MIDDLE)
    left, right, top, low = x - 9, x + 9, y - 9, y + 9
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, low), (left, low), (left, top)):
        page.mouse.move(x, y, steps=5)
    page.mouse.up()
    note = page.locator(".chosen-note").first
    expect(note).to_contain_text("compounds")
    chosen = int(note.inner_text().split("the ")[1].split()[0])
    assert 0 < chosen < len(pd.read_csv(run / "tables" / "compounds.csv"))
    rows = shown_rows(page, "candidates")
    expect(rows).not_to_have_count(before)
    assert 0 < len({*rows.locator("th").all_inner_texts()}) <= chosen
    note.locator("button").click()
    expect(shown_rows(page, "candidates")).to_have_count(before)


def test_the_map_finds_names_colours_and_tells_what_is_under_the_pointer(run, opened):
    page = opened(run)
    name = pd.read_csv(run / "tables" / "compounds.csv")["compound"].iloc[0]
    page.fill("#map-search", name)
    expect(page.locator("#map-found")).to_have_text(re.compile(r" of 1 compound$"))
    page.check("#map-only")
    others = shown_rows(page, "candidates").locator("th", has_not_text=name)
    expect(others).to_have_count(0)
    expect(shown_rows(page, "candidates")).not_to_have_count(0)
    page.uncheck("#map-only")
    for way in ("compound", "plate", "split", "dose"):
        page.select_option("#map-colour", way)
    page.select_option("#map-where", "pca")
    page.select_option("#map-second", "2")
    page.fill("#map-search", name)
    at = page.evaluate(MIDDLE)
    page.mouse.move(at[0] - 1, at[1])
    page.mouse.move(*at)
    tip = page.locator(".tip")
    expect(tip).to_be_visible()
    expect(tip).to_have_text(re.compile(rf"^\s*{re.escape(name)}"))


def test_a_sum_in_the_page_is_that_of_predict(run, opened):
    "Cosines, distances and features of a pair that was seen, and of one that never was."
    page, asked = opened(run), Run(run)
    lsa = pd.read_csv(run / "tables" / "lsa.csv")
    pairs = [*lsa[["a", "b"]].drop_duplicates().itertuples(index=False, name=None)]
    moa = pd.read_csv(run / "tables" / "compounds.csv", keep_default_na=False)["moa"]
    names = sorted({m for m in moa if m and "|" not in m})
    seen = {frozenset(p) for p in pairs}
    unseen = next((a, b) for a in names for b in names if a < b and frozenset((a, b)) not in seen)
    for a, b in (pairs[0], unseen):
        for box, name in (("#try-a", a), ("#try-b", b)):
            option = page.locator(f"{box} option", has_text=name).first
            page.select_option(box, option.get_attribute("value"))
        told = asked.predict(a, b, predictor="calibrated_sum")
        rows = page.locator("#try-near tbody tr")
        expect(rows.first.locator("td").first).to_have_text(told.nearest["compound"].iloc[0])
        rows = rows.all()
        assert [row.locator("td").first.inner_text() for row in rows] == [
            *told.nearest["compound"][: len(rows)]
        ]
        for place, column in ((2, "cosine"), (3, "l2")):
            found = [float(r.locator("td").nth(place).get_attribute("data-order")) for r in rows]
            np.testing.assert_allclose(found, told.nearest[column][: len(rows)], atol=1e-4)
        moved = downloaded(page, page.locator("#try-moved button[aria-label$='CSV']"))
        table = pd.read_csv(io.BytesIO(moved), index_col=0).iloc[:, 0]
        change = told.moved.set_index("feature")["change"]
        np.testing.assert_allclose(table, change[table.index], atol=1e-4)
        assert [*table.index] == [*change.index[: len(table)]]
        command = page.locator("#try-command code").get_attribute("data-full")
        assert str(run) in command and f"'{a}'" in command


def test_a_pair_is_shown_as_each_model_predicts_it(run, opened):
    "The change of each feature, and the nearest compounds, are those of `predict --model`."
    page, row = opened(run), pd.read_csv(run / "tables" / "lsa.csv").iloc[0]
    page.locator("#pairs tr[data-pair] th", has_text=f"{row['a']} + {row['b']}").click()
    page.select_option("#pair-by", "pca")
    expect(page.locator("#pair-says")).not_to_contain_text("of A + B)")  # of the calibrated sum
    told = Run(run).predict(row["a"], row["b"], model="pca", n=8)
    near = page.locator("#pair-near tbody tr td:first-child")
    expect(near).to_have_text([*told.nearest["compound"]])
    saved = downloaded(page, page.locator("#pair-features button[aria-label$='CSV']"))
    table = pd.read_csv(io.BytesIO(saved), index_col=0)["A − D + B in PCA"]
    control = average_wells(Run(run).open("pca")[2]).control
    change = told.state - pd.Series(control, told.state.index)
    np.testing.assert_allclose(table, change[table.index], atol=1e-4)


def test_a_pair_opens_a_compound_opens_and_links_lead_on(run, opened):
    page = opened(run)
    row = page.locator("#pairs tr[data-pair]").last
    row.click()
    first = row.locator("th").inner_text()
    expect(page.locator("#pair-title")).to_have_text(first)
    name = shown_rows(page, "candidates").nth(2).locator("th").inner_text()
    page.locator(f"#candidates button.name:text-is('{name}')").click()
    expect(page.locator("#card-title")).to_have_text(name)
    known = pd.read_csv(run / "tables" / "compounds.csv").dropna(subset="inchikey")["compound"]
    page.fill("#card-name", known.item())
    page.press("#card-name", "Enter")
    address = "https://pubchem.ncbi.nlm.nih.gov/#query=RCINICONZNJXQF-MZXODVADSA-N"
    expect(page.locator("#card-links a")).to_have_attribute("href", address)


def test_charts_are_downloaded_as_svg_png_and_csv(run, opened):
    page = opened(run)
    for box, name in (("#map-widget", "map"), ("#card-features", "compound-features")):
        files = {}
        for kind in ("SVG", "PNG", "CSV"):
            button = page.locator(f"{box} button[aria-label='Download {name} as {kind}']")
            files[kind] = downloaded(page, button)
        assert b"<svg" in files["SVG"][:200] and files["PNG"].startswith(b"\x89PNG")
        assert files["CSV"].count(b"\n") > 5


def test_the_page_adapts_to_the_dark_and_to_paper(run, opened):
    page = opened(run, color_scheme="dark")
    shade = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(shade)
    page.emulate_media(color_scheme="light")
    assert page.evaluate(shade) != dark
    closed = page.locator("details:not([open])").count()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    table = pd.read_csv(run / "tables" / "compounds.csv")
    expect(shown_rows(page, "compounds")).to_have_count(len(table))
    expect(page.locator("details:not([open])")).to_have_count(0)
    assert closed > 0
    page.emulate_media(media="print")
    for unread in ("nav", ".controls", ".buttons", ".command button"):
        assert not any(one.is_visible() for one in page.locator(unread).all())
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    expect(page.locator("details:not([open])")).to_have_count(closed)
    expect(shown_rows(page, "compounds")).to_have_count(25)  # a page of them again
    assert page.pdf().startswith(b"%PDF")


def test_the_page_opens_at_the_best_candidate_and_says_how_much_it_shows(run, opened):
    page, table = opened(run), pd.read_csv(run / "tables" / "candidates.csv")
    assert not (table["q"] < 0.05).any()  # else one that leaves cells would come first
    terms = table.fillna({"moa": ""}).groupby("compound")["moa"].first().str.split("|").map(set)
    own, nearest = (table[c].map(terms) for c in ("compound", "nearest"))
    new = [not known and not (a & b) - {""} for known, a, b in zip(table["known"], own, nearest)]
    best = table[new].sort_values(["p", "share"], ascending=[True, False]).iloc[0]
    expect(page.locator("#card-title")).to_have_text(best["compound"])
    drawn = len(pd.read_csv(run / "tables" / "map.csv"))
    assert page.inner_text("#map-widget > .note:last-child").startswith(f"{drawn:,} of ")


def test_a_column_says_what_it_holds(run, opened):
    page = opened(run)
    heading = page.locator("table[data-name='compounds'] th", has_text="strength").first
    said = "distance of its mean from the control, scaled units"
    assert heading.get_attribute("title") == said
    page.locator("summary", has_text="What was run").click()
    page.locator("summary", has_text="every column").click()
    page.locator("#methods .dt-search input").last.fill('"distance of its mean"')
    expect(shown_rows(page, "dictionary")).to_have_count(1)
    expect(shown_rows(page, "dictionary").first).to_contain_text(said)


def test_without_scripts_text_tables_and_figures_remain(run, opened):
    page = opened(run, java_script_enabled=False)
    assert page.locator(".card .verdict").count() == 4
    table = pd.read_csv(run / "tables" / "compounds.csv")
    assert shown_rows(page, "compounds").count() == len(table)
    assert page.locator("noscript p").first.is_visible()
    assert page.locator("figure img").count() > 2


def test_hostile_names_stay_text(tmp_path, opened):
    profiles = world()
    names = [*dict.fromkeys(profiles.obs["compound"][~profiles.obs["is_control"]])]
    sly = dict(zip(names, HOSTILE.values()))
    profiles.obs["compound"] = profiles.obs["compound"].astype(str).replace(sly)
    mechanisms = [*dict.fromkeys(profiles.obs["moa"][profiles.obs["moa"] != ""])]
    single = next(m for m in mechanisms if "|" not in m)
    profiles.obs["moa"] = profiles.obs["moa"].str.replace(single, "<b>a'b\"c</b>", regex=False)
    page = opened(made(tmp_path / "<i>run", profiles))
    assert page.evaluate("window.hacked") is None
    page.evaluate("dispatchEvent(new Event('beforeprint'))")  # all rows, not one page of them
    whole = pd.read_csv(tmp_path / "<i>run" / "tables" / "compounds.csv")
    expect(shown_rows(page, "compounds")).to_have_count(len(whole))
    told = page.locator("table[data-name='compounds'] button.name").all_inner_texts()
    plain = lambda text: " ".join(text.split())
    assert {*map(plain, HOSTILE.values())} <= {*map(plain, told)}
    for name in HOSTILE.values():
        page.fill("#card-name", name[:200].replace("\n", " "))
        page.press("#card-name", "Enter")
    page.locator("table[data-name='compounds'] button.name").first.click()
    whole = page.locator("button[aria-label='Download compounds as CSV']")
    rows = [*csv.reader(io.StringIO(downloaded(page, whole).decode()))]
    assert any(row[0].startswith("'=HYPERLINK") for row in rows)
    assert page.evaluate("window.hacked") is None
    assert page.locator("main b, main script, main img[src='x']").count() == 0
