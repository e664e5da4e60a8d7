"""Pages on agents: their limits, and how many words make a quote."""

import inspect

from rag_flywheel.curate.weights import WEIGHTS
from rag_flywheel.integrations import quotes, tools
from rag_flywheel.integrations.tools import KnowledgeTools
from stated.page import Page
from stated.results import named

COLLECTIONS = ("stackfaq", "feedbackqa", "squad11_dev", "scifact", "xquad_de", "xquad_zh")
LEAST = (4, 6, 8, 10, 12)


def agents(page: Page) -> None:
    """docs/how-to/agents.md."""
    k = inspect.signature(KnowledgeTools.search_knowledge).parameters["k"].default
    page.says("`search_knowledge(query, k={}, filters=None)`", k)
    page.says("{} hits, {:,} characters of each", tools.MOST_HITS, tools.TEXT_CHARS)
    page.says("a `VoteBudget`, of {} votes an hour", tools.VOTES_PER_HOUR)
    page.lets("example", "lambda user: 0.5 if", "else 1.0)")
    assert quotes.LEAST_WORDS == 8  # "eight", in words
    page.says(
        "in Chinese, Japanese or Thai, {:.0f} characters", quotes.LEAST_WORDS / quotes._CHAR_WORDS
    )
    page.says("share a weight of {}; a vote", WEIGHTS["adopted"])
    _measured(page)


def _measured(page: Page) -> None:
    found = page.result("quotes")
    for least in LEAST:
        false = [
            100 * named(found["collections"], collection=name, least_words=least)["false_in_all"]
            for name in COLLECTIONS
        ]
        right = 100 * named(found["all"], least_words=least)["right"]
        cells = " | ".join(["{:.2f}"] * len(false))
        page.says(f"| {{}} | {cells} | {{:.0f}} |", least, *false, right)


def mcp(page: Page) -> None:
    """docs/how-to/mcp.md."""
    page.lets("example", "--http 127.0.0.1:8001", "--http 0.0.0.0:8001")
    page.says("how much feedback one user may give: {}", tools.VOTES_PER_HOUR)
