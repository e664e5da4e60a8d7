"""Decisions and what they rest on: docs/explanation/decisions.md."""

from rag_flywheel.config import Config
from rag_flywheel.encode import bert_encoder
from rag_flywheel.improve import fit, kernel, raters
from rag_flywheel.index import parts, short_codes
from rag_flywheel.rank import evidence
from rag_flywheel.rank.posterior import NOISE_LIMIT
from rag_flywheel.rank.score import POOL
from rag_flywheel.refresh import next_version
from rag_flywheel.serve import explore
from rag_flywheel.store import lineages
from stated.page import Page
from stated.results import Json, named


def decisions(page: Page) -> None:
    """The page; most of its measurements were made once, and it says so beside them."""
    page.says("A file of up to {:,} vectors never changes", parts.MOST_ROWS)
    page.says("Above {} on average nothing is learned", NOISE_LIMIT)
    assert fit.ONE_SIDED == 1 / 50 and kernel.NEW_NEEDS == 1 / 10
    page.says("of which two fifths are wrong of {},", raters.LEAST_ACCURACY)
    page.lets("example", "squeezed into [0.6, 1]")
    page.says("So {} questions are computed in float32 without torch", bert_encoder.FEW)
    _exploring(page)
    page.lets("elsewhere", "a kernel that is worth 0.01 of nDCG@10")  # learning-notes.md
    page.says("a vector for each of {} texts", POOL)
    _windows(page)
    page.says("when {:.0f} % of the words stay", 100 * Config().edit_keeps_votes)
    page.says("each text, {} rows a key", lineages._BUCKET)
    page.says(
        "checked by {} passages, one changed from the version before by {} and {} of the new ones, any "
        "other index by {}:",
        next_version._SAMPLE_LINKED,
        next_version._SAMPLE_LINKED,
        next_version._SAMPLE_NEW,
        next_version._SAMPLE,
    )
    opening = page.result("speed_opening")
    before = opening["medians"]["before"]
    page.says("Judging {:,} voted queries", opening["n_past"])
    page.says("took {:.0f} s of one core", before["cpu_first_query_s"])
    page.says("From {:,} on, each has a code", evidence.CODES_FROM)
    assert short_codes._BITS == 4 and short_codes._DIMS_PER_CODE == 4 and evidence._LIKELY == 8
    page.lets("elsewhere", "at least 99 % of the 32 nearest")  # tests/index/test_short_codes.py


def _exploring(page: Page) -> None:
    page.lets("design", "no more questions at 0.1, since")
    page.says("among all {} below", explore._DEEPEST)
    page.lets("example", "at ranks 9 to 12 one or two")
    up = [r for r in page.result("exploration")["runs"] if "thumbs up alone" in r["traffic"]]
    most = max(_at(r, 0.1) for r in up)
    page.says("{:+.2f} at most (`benchmarks/results/exploration.json`)", most)


def _at(run: Json, share: float) -> float:
    return float(named(run["shares"], explore=share)["against 0"]["reach"]["mean"])


def _windows(page: Page) -> None:
    found = page.result("windows")["collections"]
    feedbackqa, squad, stack = (found[n] for n in ("feedbackqa", "squad11_dev", "stackfaq"))
    page.lets("design", "95 % intervals", "Windows of 240 tokens", "longer than the 256 that")
    page.says(
        "gain {:.3f} ({:.3f} to {:.3f}) on feedbackqa, where {:.0f} % of passages are longer; on "
        "SQuAD ({:.0f} %) and stackfaq ({:.0f} %) the gains of {:.3f} and {:.3f}",
        *_gain(feedbackqa["windows"]),
        *(100 * c["longer_than_256_tokens"] for c in (feedbackqa, squad, stack)),
        *(c["windows"]["hybrid"]["gain"] for c in (squad, stack)),
    )
    lost, low, high = _gain(stack["sentences"])
    page.says(
        "Sentence parts gain {:.3f} ({:.3f} to {:.3f}) on feedbackqa and {:.3f} ({:.3f} to {:.3f}) "
        "on SQuAD",
        *_gain(feedbackqa["sentences"]),
        *_gain(squad["sentences"]),
    )
    page.says("lose {:.3f} ({:.3f} to {:.3f}) on stackfaq", -lost, -high, -low)
    page.says(
        "take {:.1f} times as many vectors and sentences {:.1f} times",
        *(
            (feedbackqa["passages"] + feedbackqa[kind]["parts"]) / feedbackqa["passages"]
            for kind in ("windows", "sentences")
        ),
    )


def _gain(found: Json) -> tuple[float, float, float]:
    hybrid = found["hybrid"]
    return hybrid["gain"], *hybrid["gain_interval"]
