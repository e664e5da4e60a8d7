"""The laboratory notes on learning, feedback, BM25 libraries and the demo's collection."""

import statistics
import sys

from rag_flywheel.bench.stdlib import Need, load_needs, stdlib_passages
from rag_flywheel.capture.answer_credit import EVEN, STEEPNESS
from rag_flywheel.capture.answer_votes import _LEAST as LEAST_CREDIT
from rag_flywheel.improve.likelihood import SHARPNESS
from rag_flywheel.rank.features import FEATURES
from rag_flywheel.rank.score import POOL
from stated.page import Page, printed
from stated.results import Json, named
from stated.settings import TRUST_PRIOR, WEIGHTS


def learning(page: Page) -> None:
    """docs/notes/learning-notes.md."""
    _ablation(page)
    _candidates(page)
    _reranking(page)
    page.says("it went to its limit, {:.0f}, in one refresh", SHARPNESS[1])


ORDER = ("feedbackqa", "squad11_dev", "metatool", "scifact")


def _ablation(page: Page) -> None:
    found = page.result("ablation")["collections"]
    rows = [named(found, collection=name) for name in ORDER]
    cells = " | ".join(["{} / {}"] * len(rows))
    for feature in FEATURES:
        values = [
            _change(1000 * (r["left_out"][feature][split] - r["left_out"]["nothing"][split]))
            for r in rows
            for split in ("test", "dev")
        ]
        page.says(f"| {feature} | {cells} |", *values)
    fitted = [r["left_out"]["nothing"][s] for r in rows for s in ("test", "dev")]
    shipped = [r["static"][s] for r in rows for s in ("test", "dev")]
    cells = " | ".join(["{:.3f} / {:.3f}"] * len(rows))
    page.says(f"| *fitted, all of them* | {cells} |", *fitted)
    page.says(f"| *shipped weights* | {cells} |", *shipped)


def _change(thousandths: float) -> str:
    text = printed(thousandths, "+.1f")
    return "0.0" if text in ("+0.0", "-0.0") else text


def _candidates(page: Page) -> None:
    found = page.result("candidate_recall")["collections"]
    rows = [named(found, collection=name) for name in ("metatool", "feedbackqa", "scifact")]
    rows.append(named(found, collection="squad11_dev"))
    cells = " | ".join(["{:.3f} → {:.3f}"] * len(rows))
    for label, n in (("10", "10"), ("25", "25"), ("50", "50"), ("100 (the default)", "100")):
        pairs = [r["by_candidates_of_each_kind"][n][k] for r in rows for k in ("without", "with")]
        page.says(f"| {label} | {cells} |", *pairs)
        page.lets("design", f"| {label} |")


SCALES = {
    "cosines": "cosine",
    "negated distances": "negated distance",
    "reciprocal ranks of cosines and BM25": "reciprocal ranks",
    "BM25, 0 to 40": "bm25",
    "one of three scales for each question": "mixed",
}


def _reranking(page: Page) -> None:
    page.says("the {} best of a retriever", POOL)
    names = ("scifact", "stackfaq", "xquad_de")
    files = [page.result(f"reranking-{name}")["runs"] for name in names]
    cells = " | ".join([" → ".join(["{:.3f}"] * 4)] * len(files))
    for label, scores in SCALES.items():
        rows = [named(runs, scores=scores) for runs in files]
        stages = ("before", "votes", "refresh", "second refresh")
        page.says(f"| {label} | {cells} |", *(row[stage] for row in rows for stage in stages))
        page.lets("design", f"| {label} |")


SENTENCES = {
    "word for word from a shown passage": "word for word",
    "with 7 in 10 of its words, and 3 of the question's": "7 in 10 words",
    "with 5 in 10 of its words, and 5 of the question's": "5 in 10 words",
    'from a passage that was not shown, of rank 9 to 40 ("none of them")': "of a passage near",
    'from any passage ("none of them")': "of any passage",
}


def feedback(page: Page) -> None:
    """docs/notes/feedback-notes.md."""
    page.says("Parts below {} are dropped", LEAST_CREDIT)
    page.lets("elsewhere", "on 24 answers made by hand")  # tests/capture/test_answer_credit.py
    _answer_credit(page)
    _answer_feedback(page)
    _gaps(page)
    _signals(page)


def _answer_credit(page: Page) -> None:
    credit = page.result("answer_credit")
    assert credit["used"] == [STEEPNESS, EVEN]
    page.says("The steepness, {:.0f}, and the even support, {},", STEEPNESS, EVEN)
    page.says("together {:.1f} and {:.3f} are likeliest", *credit["likeliest"])
    steep, even = zip(*credit["likeliest_by_collection"].values(), strict=True)
    page.says("each {:.1f} to {:.1f}", min(steep), max(steep))
    page.says("and {:.2f} to {:.2f}. The chance", min(even), max(even))
    for label, kind in SENTENCES.items():
        chances = [
            named(credit["sentences"], collection=name, kind=kind)["chance"]
            for name in ("metatool", "scifact", "feedbackqa", "squad11_dev")
        ]
        cells = [printed(chance, ".2f").removeprefix("0") for chance in chances]
        page.says(f"| {label} | {{}} | {{}} | {{}} | {{}} |", *cells)
    page.lets("design", "of rank 9 to 40")


def _answer_feedback(page: Page) -> None:
    found = page.result("answer_feedback")["runs"]
    page.lets("design", "from a right hit with probability 0.8")
    for label, collection in (("metatool", "metatool"), ("SQuAD dev", "squad11_dev")):
        gains = [
            named(found, collection=collection, setting=setting)["gain"]
            for setting in ("votes on passages", "cited", "text")
        ]
        page.says(f"| {label} | {{:.3f}} | {{:.3f}} | {{:.3f}} |", *gains)


def _gaps(page: Page) -> None:
    found = page.result("gaps")
    unlikely, planted = found["unlikely"], found["planted"]
    answered = unlikely["questions with an answer"]
    page.says("On the {:,} passages of SQuAD dev", unlikely["passages"])
    page.says("{:.0f} % of {:,} questions that", 100 * answered["share"], answered["n"])
    page.says("{:.0f} % of SQuAD's own", 100 * unlikely["SQuAD's questions without one"]["share"])
    claims = unlikely["science claims"]
    page.says("and {:.0f} % of {} science claims", 100 * claims["share"], claims["n"])
    page.lets("design", "unanswerable questions of 20 SQuAD articles", "Of the 20 largest gaps")
    main = [r for r in planted if (r["questions"], r["times"]) == (10, 100)]
    page.says("every article asked {} times", main[0]["times"])
    said = main[0]["said"]
    page.says("among {:,} questions that have an answer", said["asked"] - said["in_vain"])
    page.says("{:.0f} %, {:.0f} % and {:.0f} % are of", *(100 * r["precision"] for r in main))
    page.says("and {:.0f} %, {:.0f} % and {:.0f} % of", *(100 * r["recall"] for r in main))
    many = [r for r in planted if r["questions"] == 30]
    page.says("with {} different questions an article", many[0]["questions"])
    page.says("{:.0f} to {:.0f} % and {:.0f} to {:.0f} %; when each", *_ranges(many))
    rare = [r for r in planted if r["times"] == 50]
    page.says("asked {} times only", rare[0]["times"])
    page.says("only {:.0f} to {:.0f} % and {:.0f} to {:.0f} %.", *_ranges(rare))


def _ranges(rows: list[Json]) -> list[float]:
    return [100 * f(row[k] for row in rows) for k in ("precision", "recall") for f in (min, max)]


def _signals(page: Page) -> None:
    page.says("the {:.0f} comparisons that the prior of trust", TRUST_PRIOR)
    assert WEIGHTS["rephrased"] == 0.3
    from rag_flywheel.serve.server import _ALIKE

    page.says("and the {} for rephrasings", _ALIKE)
    page.lets("design", "with its 95 % interval")
    found = page.result("signals")["runs"]
    for label, collection in (("metatool", "metatool"), ("SQuAD dev", "squad11_dev")):
        rows = [
            named(found, collection=collection, setting=setting)
            for setting in ("signals", "nothing to tell")
        ]
        page.says(
            f"| {label} | {{:+.3f}} ({{:.3f}} to {{:.3f}}) | {{:.3f}} ({{:.3f}} to {{:.3f}}) |",
            *(x for row in rows for x in (row["gain"], *row["gain_interval"])),
        )


def libraries(page: Page) -> None:
    """docs/notes/bm25-libraries.md."""
    found = page.result("bm25_libraries")
    medians = found["medians"]
    ours, other = medians["bm25s"], medians["tantivy"]
    mapped, whole = medians["bm25s_mmap"], medians["bm25s_retrieve"]
    page.says("{:,} passages (aws_docs)", found["passages"])
    page.says("{} real queries and {} cut", *found["queries"].values())
    page.says("({} words). Medians", found["long_words"])
    page.lets("design", "60-word queries", "60 words, p50", "top 100,", "scores of 100 given")
    page.says("k1 {}, b {},", found["k1"], found["b"])
    page.says(
        "{:.1f} s (tokenise {:.1f}, index {:.1f}) | **{:.1f} s** |",
        ours["build_s"],
        ours["tokenise_s"],
        ours["index_s"],
        other["build_s"],
    )
    page.says("included | {:.1f} MiB | **{:.1f} MiB** |", ours["index_mib"], other["index_mib"])
    page.says("| open | {:.0f} ms | **{:.1f} ms** |", 1000 * ours["open_s"], 1000 * other["open_s"])
    page.says(
        "opened | {:.0f} MiB (mmap: {:.0f}) | **{:.0f} MiB** |",
        ours["rss_open_mib"],
        mapped["rss_open_mib"],
        other["rss_open_mib"],
    )
    page.says(
        "| {:.0f} MiB (mmap: {:.0f}, of which private {:.0f}) | **{:.0f} MiB** (private {:.0f}) |",
        ours["rss_used_mib"],
        mapped["rss_used_mib"],
        mapped["private_used_mib"],
        other["rss_used_mib"],
        round(other["private_used_mib"]),
    )
    page.says("after {} queries", sum(found["queries"].values()))
    three = "{:.2f} / {:.2f} / {:.2f} ms"
    for label, key in (("real queries", "top_100_real"), ("60-word queries", "top_100_long")):
        row = f"| top 100, {label}, p50 / p95 / p99 | **{three}** | {three} |"
        page.says(row, *(ms for side in (ours, other) for ms in side[key].values()))
    page.says(f"`retrieve`, real queries | {three} |", *whole["top_100_real"].values())
    two = "{:.2f} / {:.2f} ms"
    for label, key in (("real", "given_100_real"), ("60 words", "given_100_long")):
        row = f"| scores of 100 given passages, {label}, p50 / p95 | **{two}** | {two} |"
        pairs = [side[key][p] for side in (ours, other) for p in ("p50_ms", "p95_ms")]
        page.says(row, *pairs)
    _adding_and_quality(page, found)


def _adding_and_quality(page: Page, found: Json) -> None:
    medians, quality = found["medians"], found["scifact_ndcg_10"]
    ours, other = medians["bm25s"]["fresh"], medians["tantivy"]["fresh"]
    page.says(
        "| {:.0f} ms in a side array (below) | {:.0f} ms, saved on disk |",
        1000 * ours["add_1000_s"],
        1000 * other["add_1000_s"],
    )
    page.lets("design", "| 1,000 new passages until")
    page.says("| not measured | {:.1f} ms |", 1000 * other["add_1_s"])
    stemmed = "stop words and stemming"
    page.says(
        "{:.3f} (k1 1.5: **{:.3f}**) | {:.3f} (k1 fixed at 1.2) |",
        quality[f"bm25s k1=1.2 {stemmed}"],
        quality[f"bm25s k1=1.5 {stemmed}"],
        quality[f"tantivy k1=1.2 {stemmed}"],
    )
    page.says(
        "neither | {:.3f} (k1 1.5: {:.3f}) | {:.3f} |",
        quality["bm25s k1=1.2 plain"],
        quality["bm25s k1=1.5 plain"],
        quality["tantivy k1=1.2 plain"],
    )
    page.lets("design", "(k1 1.5:", "(k1 fixed at 1.2)")
    page.says(
        "p95 went from {:.2f} to {:.2f} ms",
        other["query_before"]["p95_ms"],
        other["query_after"]["p95_ms"],
    )
    page.says(
        "({:.0f} ms to tokenise, {:.0f} ms to build)",
        1000 * ours["tokenise_1000_s"],
        1000 * ours["side_array_s"],
    )
    side = ours["side_query"]
    page.says("{:.2f} ms more per query at p50, {:.2f} ms at p95", side["p50_ms"], side["p95_ms"])
    page.says(
        "{:.1f} s with the library, {:.2f} s with",
        medians["bm25s"]["index_s"],
        ours["scipy_rebuild_s"],
    )
    assert ours["scipy_rebuild_max_difference"] <= 1e-6
    faster = [
        medians["tantivy"][key]["p50_ms"] / medians["bm25s"][key]["p50_ms"]
        for key in ("given_100_real", "given_100_long")
    ]
    page.says("{} to {:.0f} times faster at p50", int(min(faster)), max(faster))
    page.lets("design", "a passage of 1 MB")
    page.lets("choice", "in 20 lines of scipy")


def demo(page: Page) -> None:
    """docs/notes/demo-collection.md."""
    from rag_flywheel.bench import stdlib

    page.lets("fact", "3.13 lacks two of the answers")
    page.says("before {:,} characters", stdlib._LONGEST)
    needs = load_needs()
    phrasings = [p for need in needs for p in need.phrasings]
    page.says("| needs / phrasings | {} / {} |", len(needs), len(phrasings))
    words = [len(p.split()) for p in phrasings]
    page.says("| {} to {}, mean {:.1f} |", min(words), max(words), statistics.fmean(words))
    answers = [len(need.answers) for need in needs]
    page.says(
        "mean {:.1f}, median {:.0f}; {} needs have one, {} have more than four",
        statistics.fmean(answers),
        statistics.median(answers),
        answers.count(1),
        sum(n > 4 for n in answers),
    )
    page.says("some need | {} |", len({a for need in needs for a in need.answers}))
    _docstrings(page, needs)


def _docstrings(page: Page, needs: list[Need]) -> None:
    of_them = f"of {sum(len(need.phrasings) for need in needs)}"
    page.lets("elsewhere", f"304 {of_them}", f"44 {of_them}")
    row = "2,197 (1,048 functions, 608 methods, 434 classes, 107 modules)"
    length = "median 142, at most 1,993"
    if sys.version_info[:3] != (3, 11, 7):  # docstrings are those of the interpreter
        page.lets("elsewhere", row, length)
        return
    passages = stdlib_passages()
    kinds = [p.metadata["kind"] for p in passages]
    counts = [kinds.count(kind) for kind in ("function", "method", "class", "module")]
    page.says("{:,} ({:,} functions, {} methods, {} classes, {} modules)", len(passages), *counts)
    lengths = [len(p.text) for p in passages]
    page.says("median {:.0f}, at most {:,}", statistics.median(lengths), max(lengths))
