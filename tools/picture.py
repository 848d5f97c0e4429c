"""The picture on the front page: the four answers of a report, as a browser draws them, twice as
sharp as they are shown. `python tools/picture.py results/u2os-small/report.html`

Chromium is looked for as the tests of the report do.
"""

import io
import os
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright
from project import ROOT

PICTURE = ROOT / "nbs" / "images" / "answer.png"
TEXT = PICTURE.with_suffix(".txt")


def main(page: str) -> None:
    "Draw the cards of a page, and write down what they say."
    browser = os.environ.get("CPVAE_BROWSER") or shutil.which("chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=browser, args=flags)
        view = launched.new_page(viewport={"width": 900, "height": 1200}, device_scale_factor=2)
        view.goto(Path(page).resolve().as_uri())
        view.wait_for_selector("html[data-ready]")
        PICTURE.parent.mkdir(exist_ok=True)
        drawn = Image.open(io.BytesIO(view.locator(".cards").screenshot()))
        drawn.convert("RGB").quantize(96).save(PICTURE, optimize=True)  # letters and few colours
        cards = view.locator(".card").all()
        said = [" ".join(one.inner_text().split()).removesuffix(" copy") for one in cards]
        TEXT.write_text("\n".join(said) + "\n", encoding="utf-8")
        launched.close()
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
