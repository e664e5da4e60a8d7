"""The dashboard in a real browser: asking, voting, reviewing, rolling back, and what axe-core finds.

RAG_FLYWHEEL_PICTURES names a folder to write pictures of the screens into; RAG_FLYWHEEL_PICTURED an index
to take them of, in place of the small one of the test.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import dashboards

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
SUPPORT = Path(__file__).parents[1] / "support"
THEMES = ("light", "dark")
PICTURED = {"ask": 640, "overview": 800, "review": 640}
"""The height of the picture of each screen, in pixels."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
    # the browser's own loop is closed when the interpreter ends
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on loopback, of an index with something on every screen."""
    folder = tmp_path_factory.mktemp("browser") / "kb"
    dashboards.make(folder)
    yield from served(folder)


def served(folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        sys.executable,
        "-m",
        "rag_flywheel",
        "serve",
        "--index",
        str(folder),
        "--port",
        str(port),
    ]
    paths = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        words, env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            assert process.poll() is None, "the server ended"
            try:
                urllib.request.urlopen(address + "/v1/openapi.json", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(params=THEMES)
def themed(request: pytest.FixtureRequest, browser: "Browser") -> Iterator["Page"]:
    yield from pages(browser, request.param)


@pytest.fixture
def page(browser: "Browser") -> Iterator["Page"]:
    yield from pages(browser, "light")


def pages(browser: "Browser", theme: str) -> Iterator["Page"]:
    """A page of a new visitor, on which whatever the policy blocks, or a script raises, is an error."""
    context = browser.new_context(
        color_scheme=theme,  # type: ignore[arg-type]
        viewport={"width": 1180, "height": 820},
    )
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    yield opened
    context.close()
    assert [w for w in wrong if "404" not in w and "422" not in w] == []


def settled(page: "Page") -> None:
    """Wait until nothing on the page is still being computed."""
    page.locator("[data-again]").first.wait_for(state="detached", timeout=60_000)


def first_hit(page: "Page") -> str:
    return str(page.locator(".column").first.locator(".hit").first.get_attribute("data-passage"))


def test_ask_vote_review_and_roll_back(page: "Page", address: str) -> None:
    page.goto(address)
    page.fill("#query", "which parcels are sent back")
    page.fill("#other", "sending back parcels")
    page.fill("#user", "ann")
    page.keyboard.press("Enter")
    first = first_hit(page)
    assert page.locator(".column").count() == 2
    for person in ("ann", "bob", "cid"):
        page.fill("#user", person)
        hit = page.locator(".column").first.locator(f'.hit[data-passage="{first}"]')
        if hit.count():
            hit.get_by_role("button", name="not helpful").click()
        else:  # it sank below what is shown
            break
    assert page.get_by_role("heading", name="Asked again").is_visible()
    assert first_hit(page) != first
    shown = page.locator(".column").first
    assert shown.locator(".move.up").count() + shown.locator(".move.new").count() > 0

    page.get_by_role("link", name="Review", exact=True).click()
    settled(page)
    n = page.locator(".item").count()
    assert n > 0
    page.locator("body").press("j")
    assert page.evaluate("document.activeElement.className") == "item"
    page.keyboard.press("a")
    page.wait_for_selector(".notice >> text=Accepted")
    settled(page)
    assert page.locator(".item").count() == n - 1
    page.locator("body").press("u")
    page.wait_for_selector(".notice >> text=Undone")
    settled(page)
    assert page.locator(".item").count() == n
    page.locator("body").press("r")
    page.wait_for_selector(".notice >> text=Rejected")

    page.get_by_role("link", name="Versions", exact=True).click()
    settled(page)
    row = page.locator("tr", has=page.get_by_role("link", name="Roll back")).first
    version = row.locator("th a").inner_text()
    row.get_by_role("link", name="Roll back").click()
    page.click("#confirm")
    page.wait_for_selector(f".notice >> text=Rolled back: {version} is live")
    settled(page)
    page.click("#release")
    page.wait_for_selector(".notice >> text=Released")
    page.click("#refresh")
    page.wait_for_selector("#progress >> text=Outcome", timeout=120_000)


def test_the_switch_of_colours_lasts(page: "Page", address: str) -> None:
    page.goto(address)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("#theme")
    dark = page.evaluate(ground)
    assert dark != light
    page.goto(address + "/passages")
    assert page.evaluate(ground) == dark
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_axe_finds_no_serious_fault(themed: "Page", address: str) -> None:
    found: dict[str, Any] = {}
    for path in every_screen(themed, address):
        themed.goto(address + path)
        settled(themed)
        open_all(themed)
        found |= faults(themed, path)
    themed.goto(address)
    themed.fill("#query", "parcels sent")
    themed.fill("#other", "when do parcels leave")
    themed.click("#go")
    open_all(themed)
    themed.locator(".column").first.get_by_role("button", name="not helpful").first.click()
    open_all(themed)
    found |= faults(themed, "answers")
    assert found == {}


def every_screen(page: "Page", address: str) -> list[str]:
    """The addresses of all screens, those of one passage, version, item and voter too."""
    found = [*dashboards.SCREENS, "/sign-in", "/passages/one?id=send", "/passages/one?id=nowhere"]
    for path, link in (
        ("/versions", "/versions/one"),
        ("/versions", "/versions/compare"),
        ("/versions", "/versions/rollback"),
        ("/voters", "/voters/mute"),
        ("/versions", "/versions/job"),
    ):
        page.goto(address + path)
        settled(page)
        links = page.locator(f'a[href^="{link}"]')
        if links.count():
            found.append(str(links.first.get_attribute("href")))
    return found


def open_all(page: "Page") -> None:
    page.evaluate(
        "document.querySelectorAll('main details').forEach(each => { each.open = true; })"
    )


def faults(page: "Page", name: str) -> dict[str, Any]:
    """The serious and critical faults of a page, by rule."""
    violations = axe.Axe().run(page).response["violations"]
    return {
        f"{name}: {each['id']}": [node["html"][:200] for node in each["nodes"]]
        for each in violations
        if each["impact"] in ("serious", "critical")
    }


@pytest.mark.skipif("RAG_FLYWHEEL_PICTURES" not in os.environ, reason="no pictures are asked for")
def test_pictures(browser: "Browser", address: str, tmp_path: Path) -> None:
    folder = Path(os.environ["RAG_FLYWHEEL_PICTURES"])
    given = os.environ.get("RAG_FLYWHEEL_PICTURED")
    servers = served(Path(given)) if given else iter([address])
    at = next(servers)
    try:
        for page in pages(browser, "light"):
            page.goto(at)
            page.fill("#query", os.environ.get("RAG_FLYWHEEL_PICTURED_QUERY", dashboards.QUERY))
            page.fill("#other", os.environ.get("RAG_FLYWHEEL_PICTURED_OTHER", "parcels leave"))
            for person in ("ann", "bob", "cid"):
                page.fill("#user", person)
                if person == "ann":
                    page.click("#go")
                    first = first_hit(page)
                hit = page.locator(".column").first.locator(f'.hit[data-passage="{first}"]')
                if hit.count():
                    hit.get_by_role("button", name="not helpful").click()
            page.locator("h1").click()
            picture(page, folder, "ask")
            for name in ("overview", "review"):
                page.goto(f"{at}/{name}")
                settled(page)
                picture(page, folder, name)
    finally:
        servers.close() if given else None  # type: ignore[attr-defined]


def picture(page: "Page", folder: Path, name: str) -> None:
    clip = {"x": 0, "y": 0, "width": 1180, "height": PICTURED[name]}
    page.screenshot(path=folder / f"dashboard-{name}.png", clip=clip)  # type: ignore[arg-type]
