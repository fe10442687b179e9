"""The page of a report in a browser: headless Chromium, where the machine has one."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lit_pi.cli import LitPiCLI
from lit_pi.report import report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """A report of two runs; the tiny model's weights are so large that strategies differ."""
    folder = tmp_path_factory.mktemp("page")
    words = [word for word in tiny if not word.startswith("--model.position")]
    words = [
        word.replace("max_position_embeddings", "initializer_range: 0.3, max_position_embeddings") for word in words
    ]
    for name in ("Extrapolate", "PRoPE"):
        LitPiCLI(["test", *words, f"--model.position={name}", f"--trainer.default_root_dir={folder / name}"])
    report([folder / "Extrapolate", folder / "PRoPE"], folder / "report")
    return folder / "report" / "report.html"


@pytest.fixture(params=[1280, 390])
def opened(request: pytest.FixtureRequest, page: Path) -> Iterator[Any]:
    """The page in a window of a desk and of a telephone; errors and requests fail the test."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": request.param, "height": 900}, color_scheme="light")
        wrong: list[str] = []
        tab.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda asked: None if asked.url == page.as_uri() else wrong.append(asked.url))
        tab.goto(page.as_uri())
        yield tab
        browser.close()
    assert not [each for each in wrong if not each.startswith("data:")]


def test_the_page_is_drawn_and_answers(opened: Any) -> None:
    plots = opened.locator(".plot").count()
    assert plots == 3  # differences, curves, loss by position
    assert opened.locator(".plot .main-svg:first-child").count() == plots
    assert opened.evaluate("document.documentElement.scrollWidth") == opened.viewport_size["width"]
    curves = opened.locator("section", has=opened.locator("h2", has_text="Perplexity by context length"))
    curves.locator(".legend button").first.scroll_into_view_if_needed()
    box = curves.locator(".scatterlayer .trace").first.locator(".point").first.bounding_box()
    opened.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    hover = curves.locator(".hoverlayer .hovertext").first
    hover.wait_for()
    assert re.search(r"95 % interval [\d.]+ to [\d.]+", hover.text_content())
    assert curves.locator(".scatterlayer .trace").count() == 2
    curves.locator(".legend button").first.click()
    assert curves.locator(".scatterlayer .trace").count() == 1
    assert curves.locator(".legend button").first.get_attribute("aria-pressed") == "false"
    curves.locator(".legend button").first.click()
    assert curves.locator(".scatterlayer .trace").count() == 2


def test_figures_follow_the_readers_colours_and_fit_on_paper(opened: Any, tmp_path: Path) -> None:
    tick = opened.locator(".xtick text").first
    light = tick.evaluate("node => getComputedStyle(node).fill")
    opened.emulate_media(color_scheme="dark")
    opened.wait_for_timeout(200)
    dark = tick.evaluate("node => getComputedStyle(node).fill")
    assert light != dark
    widths: list[float] = []
    opened.expose_function("told", lambda width: widths.append(width))
    opened.evaluate("""addEventListener("beforeprint", () => document.querySelectorAll(".main-svg").forEach(
        (figure) => told(Number(figure.getAttribute("width")))))""")
    opened.pdf(path=str(tmp_path / "page.pdf"), format="A4", prefer_css_page_size=True)
    opened.wait_for_timeout(500)
    assert widths and max(widths) <= 680
    assert opened.evaluate("document.documentElement.scrollWidth") == opened.viewport_size["width"]
