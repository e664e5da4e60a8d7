"""Thumbs in a real browser: what is pressed is what is recorded, once, also when the page is left at once."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rag_flywheel.client import Client
from served import Served, served
from service_client import make_index

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
UP, DOWN = "Helpful", "Not helpful"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if CHROMIUM is None:
        pytest.skip("needs the browser chromium")
    with served(make_index(tmp_path_factory.mktemp("thumbs") / "kb")) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as started:
        made = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def client(service: Served) -> Iterator[Client]:
    with Client(service.url) as made:
        yield made


@pytest.fixture
def page(browser: Any, service: Served) -> Iterator[Any]:
    """The demo, with the answer to a question, and nothing wrong on its console."""
    context = browser.new_context()
    made, wrong = context.new_page(), list[str]()
    made.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    made.on("pageerror", lambda e: wrong.append(str(e)))
    made.goto(f"{service.url}/v1/thumbs-demo")
    made.get_by_label("Question").fill("how do I get a new password")
    made.keyboard.press("Enter")
    made.locator("article").first.wait_for()
    yield made
    context.close()
    expected = ("favicon", "net::ERR_FAILED")  # the second one where a test makes it so
    assert [each for each in wrong if not any(e in each for e in expected)] == []


@contextmanager
def recorded(client: Client, n: int) -> Iterator[list[tuple[str, str, str | None]]]:
    """The kind, verdict and passage of the n records that a block makes, in their order."""
    before = {vote.number for vote in client.votes(1_000)}
    found: list[tuple[str, str, str | None]] = []
    yield found

    def new() -> list[Any]:
        return [vote for vote in client.votes(1_000) if vote.number not in before]

    wait_until(lambda: len(new()) >= n)
    time.sleep(0.3)  # for one too many
    found += [(vote.kind, vote.verdict, vote.passage_id) for vote in reversed(new())]


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def thumbs(page: Any, passage: str) -> Any:
    return page.locator(f'[data-passage="{passage}"]')


def test_a_press_is_a_vote_and_a_second_one_takes_it_back(page: Any, client: Client) -> None:
    group = thumbs(page, "reset")
    up, down = (
        group.get_by_role("button", name=UP, exact=True),
        group.get_by_role("button", name=DOWN),
    )
    with recorded(client, 1) as votes:
        up.click()
        assert up.get_attribute("aria-pressed") == "true"
        assert group.get_by_role("status").inner_text() == "Thank you"
    assert votes == [("vote", "helpful", "reset")]
    with recorded(client, 1) as votes:
        up.click()
        assert up.get_attribute("aria-pressed") == "false"
        assert group.get_by_role("status").inner_text() == "Taken back"
    assert votes == [("vote", "retract", "reset")]
    with recorded(client, 1) as votes:
        up.click()
        down.click()
    assert votes == [("vote", "harmful", "reset")]
    assert up.get_attribute("aria-pressed") == "false"


def test_what_is_taken_back_at_once_is_never_sent(page: Any, client: Client) -> None:
    with recorded(client, 0) as votes:
        for _ in range(2):
            thumbs(page, "refund").get_by_role("button", name=UP, exact=True).click()
        page.wait_for_timeout(1_500)
    assert votes == []


def test_it_is_used_with_the_keyboard_alone(page: Any, client: Client) -> None:
    up = thumbs(page, "reset").get_by_role("button", name=UP, exact=True)
    page.get_by_role("button", name="Ask").focus()
    with recorded(client, 1) as votes:
        for _ in range(12):
            page.keyboard.press("Tab")
            if up.evaluate("b => b === document.activeElement"):
                break
        page.keyboard.press("Space")
    assert votes == [("vote", "helpful", "reset")]
    assert up.evaluate("b => b === document.activeElement")


def test_a_press_is_sent_when_the_page_is_left_before(page: Any, client: Client) -> None:
    with recorded(client, 1) as votes:
        thumbs(page, "hours").get_by_role("button", name=DOWN).click()
        page.goto("about:blank")
    assert votes == [("vote", "harmful", "hours")]


def test_the_whole_answer_gets_a_verdict(page: Any, client: Client) -> None:
    with recorded(client, 1) as votes:
        page.get_by_role("group", name="Was the whole answer helpful?").get_by_label(
            UP, exact=True
        ).click()
    assert votes == [("answer", "helpful", None)]


def test_a_copy_is_told_once_and_of_the_nearest_answer(page: Any, client: Client) -> None:
    with recorded(client, 1) as votes:
        text = page.locator("article p").first
        text.select_text()
        for _ in range(2):
            page.keyboard.press("Control+c")
    passage = page.locator("article [data-passage]").first.get_attribute("data-passage")
    assert votes == [("copied", "helpful", passage)]


def test_what_cannot_be_sent_is_said_and_not_shown_as_pressed(page: Any, client: Client) -> None:
    group = thumbs(page, "reset")
    up = group.get_by_role("button", name=UP, exact=True)
    page.route("**/browser/**", lambda route: route.abort())
    with recorded(client, 0) as votes:
        up.click()
        group.get_by_text("Not sent").wait_for()
    assert votes == []
    assert up.get_attribute("aria-pressed") == "false"
    page.unroute("**/browser/**")
    page.evaluate("console.clear()")


def test_thumbs_leave_no_cookies_and_nothing_in_the_stores_of_the_page(page: Any) -> None:
    thumbs(page, "reset").get_by_role("button", name=DOWN).click()
    assert page.context.cookies() == []
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [
        0,
        0,
        "",
    ]


def test_axe_finds_nothing_serious(page: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    thumbs(page, "reset").get_by_role("button", name=UP, exact=True).click()
    found = axe.run(page).response["violations"]
    serious = [v["id"] for v in found if v["impact"] in ("serious", "critical")]
    assert serious == []
