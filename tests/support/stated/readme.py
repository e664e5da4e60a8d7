"""README.md, index.md, the tutorial and the glossary."""

from collections.abc import Iterator

from rag_flywheel.improve.fit import LEAST_QUERIES
from rag_flywheel.index.dense import GRAPH_FROM
from rag_flywheel.rank.parameters import Kernel
from rag_flywheel.rank.posterior import NOISE_LIMIT
from stated.full import NAMES, OURS, SAME_VOTES, Runs, best_other, curve, rule, runs
from stated.page import Page
from stated.results import Json
from stated.settings import least_for_new_weights

RULES = {
    "LADER on hybrid": "LADER",
    "query adapter + BM25": "query adapter",
    "hybrid, tuned": "tuned hybrid",
}


def readme(page: Page) -> None:
    """The front page."""
    demo = page.result("demo_seeds")
    gains = demo["median_gain_ndcg_at_10"]
    asked = demo["runs"][0]["curves"][0]
    assert asked["name"] == "asked again" and len(demo["runs"]) == 5
    page.says("each of {} questions; a fifth of their votes", asked["n_queries"])
    page.says("{:+.3f} when the same questions", gains["asked again"])
    page.says("({:.0f} % of what was ever shown)", 100 * demo["median_share_of_bound"])
    page.says("{:+.3f} for the same needs", gains["other words"])
    page.says("{:+.3f} for needs that nobody", gains["unrelated"])
    page.lets("rough", "some 20 minutes on two cores", "a quick one, of 90 seconds")
    page.says("The {} nearest past questions", Kernel().neighbours)
    _measured(page)
    page.says("once {} questions have votes", LEAST_QUERIES)
    page.says("from some {} on, since a third", least_for_new_weights())
    page.says("exact up to {:,} passages", GRAPH_FROM)


def _measured(page: Page) -> None:
    main = runs(page, "main")
    for collection, label in NAMES.items():
        best, value = best_other(main, collection)
        page.says(
            f"| {label} | {{:.3f}} | {{:.3f}} ({{}}) | {{:.3f}} | {{:.3f}} |",
            main.median(rule("hybrid"), collection),
            value,
            RULES[best],
            main.median(rule(SAME_VOTES), collection),
            main.median(rule(OURS), collection),
        )
    page.says("scifact, which has {} test questions", main.seeds[0]["scifact"]["n_test"])
    page.lets("design", "p < 0.01")
    _in_words(page, main)


def _in_words(page: Page, main: Runs) -> None:
    """What the page says of single seeds without a number."""
    page.says("On metatool and SQuAD it is ahead of every rule in every seed")
    page.says("on feedbackqa of every rule but the query adapter in one seed of three")
    page.says("It is significantly below none. Votes by coin toss move nothing")
    behind = {
        (c, r, i) for c, r, i, ahead in _differences(main) if not _clearly(ahead["mean"], ahead)
    }
    assert {c for c, _, _ in behind} == {"feedbackqa", "scifact"}
    assert {(r, i) for c, r, i in behind if c == "feedbackqa"} == {("query adapter + BM25", 1)}
    assert not any(_clearly(-ahead["mean"], ahead) for _, _, _, ahead in _differences(main))
    for seed in main.seeds:
        for c in seed.values():
            tossed = curve(c, "random votes")
            assert abs(tossed[-1] - tossed[0]) < 0.0001


def _clearly(mean: float, ahead: Json) -> bool:
    return mean > 0 and ahead["p"] < 0.01


def _differences(main: Runs) -> Iterator[tuple[str, str, int, Json]]:
    """(collection, rule, seed, by how much the flywheel is ahead) of every rule beside it."""
    for i, seed in enumerate(main.seeds):
        for name, c in seed.items():
            for ranking in c["rankings"]:
                if not ranking["name"].startswith((OURS, "oracle")):
                    yield name, ranking["name"], i, ranking["ahead"][OURS]


def tutorial(page: Page) -> None:
    """docs/tutorial.md; what its commands print is run by test_snippets.py."""
    page.says("once {} different questions have some", LEAST_QUERIES)
    page.says("from some {} on", least_for_new_weights())


def glossary(page: Page) -> None:
    """docs/glossary.md."""
    page.says("above {:.0f} % nothing is learned", 100 * NOISE_LIMIT)


def architecture(page: Page) -> None:
    """docs/architecture.md."""
    page.lets("elsewhere", "longer than 16 files")  # tests/test_architecture.py
