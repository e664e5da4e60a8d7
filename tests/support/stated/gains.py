"""Where votes help and where not: when-votes-do-not-help.md, and the notes on the gate and on rules."""

import itertools
import statistics

from rag_flywheel.rank.posterior import NOISE_LIMIT
from stated.explained import gate_costs, rounded_up
from stated.full import MEASURE, NAMES, OURS, SAME_VOTES, curve, rule, runs, start
from stated.page import Page, printed
from stated.results import Json, named

LADER, ADAPTER = "LADER on hybrid", "query adapter + BM25"
SIGNIFICANT = 0.01


def _of(page: Page, collection: str, setting: str, result: str = "learning") -> list[Json]:
    found = page.result(result)["runs"]
    return [r for r in found if r["collection"] == collection and r["setting"] == setting]


def _learned(found: list[Json], measure: str = MEASURE) -> list[float]:
    return [r["learned"][measure] for r in found]


def when(page: Page) -> None:
    """docs/explanation/when-votes-do-not-help.md."""
    page.lets("design", "with at most 3,000 train questions", "3,000 train questions at the most")
    _learned_where(page)
    _slices(page)
    _few_questions(page)
    _without_a_gate(page)
    _recall(page)
    page.lets("fact", "(5.7 right passages a question)")
    _much_voted(page)
    page.says("share of wrong votes then exceeds {:.0f} %", 100 * NOISE_LIMIT)
    page.says("From {} voted questions on", _least_queries())
    _kinds_of_users(page)
    _without_words(page)


def _without_words(page: Page) -> None:
    found = page.result("hashed_questions")
    most = found["settings"]
    page.says("at most {:,} train and {} test", most["max_train"], most["max_test"])
    rows = ("test questions", "asked again")
    for run in found["runs"]:
        for kind, row in zip(("test", "again"), rows, strict=True):
            before, words = run["text"][kind]
            cells = (before, words, run["hash"][kind][1])
            page.says(f"| {run['collection']}, {row} | {{:.3f}} | {{:.3f}} | {{:.3f}} |", *cells)


def _without_a_gate(page: Page) -> None:
    gained = [_free_gain(page, collection, "wrong40") for collection in NAMES]
    page.says("they gained {:.3f} to {:.2f}", min(gained), max(gained))


def _free_gain(page: Page, collection: str, setting: str) -> float:
    found = _of(page, collection, setting, "learning_without_gate")
    return statistics.median(_learned(found)) - float(found[0]["static"][MEASURE])


def _recall(page: Page) -> None:
    rows = page.result("learning")["runs"]
    moved = max(abs(r["learned"]["R@75"] - r["static"]["R@75"]) for r in rows)
    page.says("Recall@75 moves by at most {:.3f}", rounded_up(moved, 3))


def _least_queries() -> int:
    from rag_flywheel.improve.fit import LEAST_QUERIES

    return LEAST_QUERIES


def _learned_where(page: Page) -> None:
    for label, collection, setting in (
        ("metatool | a fifth wrong", "metatool", "main"),
        ("stackfaq (5.7 right passages a question) | a fifth wrong", "stackfaq", "main"),
        ("squad11_dev | a fifth wrong", "squad11_dev", "main"),
        ("feedbackqa | a fifth wrong", "feedbackqa", "main"),
        ("scifact | a fifth wrong", "scifact", "main"),
        ("stackfaq | never wrong", "stackfaq", "clean"),
        ("metatool | two fifths wrong", "metatool", "wrong40"),
        ("stackfaq | two fifths wrong", "stackfaq", "wrong40"),
        ("scifact | two fifths wrong", "scifact", "wrong40"),
    ):
        found = _of(page, collection, setting)
        values = _learned(found)
        page.says(
            f"| {label} | {{:.3f}} | {{:.3f}} ({{:.3f}} to {{:.3f}}) |",
            found[0]["static"][MEASURE],
            statistics.median(values),
            min(values),
            max(values),
        )
    both = [_of(page, name, "wrong40") for name in ("squad11_dev", "feedbackqa")]
    page.says(
        "| squad11_dev, feedbackqa | two fifths wrong | {:.3f}, {:.3f} | {:.3f}, {:.3f} |",
        *(found[0]["static"][MEASURE] for found in both),
        *(statistics.median(_learned(found)) for found in both),
    )
    tosses = [r for r in page.result("learning")["runs"] if r["setting"] == "random votes"]
    page.says("| all five (three seeds) | coin tosses | | | nothing: not moved by a digit |")
    assert all(r["static"] == r["learned"] for r in tosses), "coins move something"
    assert sorted({r["seed"] for r in tosses}) == [0, 1, 2] and len(tosses) == 3 * 5


def _slices(page: Page) -> None:
    main = _of(page, "stackfaq", "main")
    before = main[0]["static"]
    page.says(
        "from {:.3f} to {:.3f} and from {:.3f} to {:.3f}.",
        before["P@8"],
        statistics.median(_learned(main, "P@8")),
        before["R@8"],
        statistics.median(_learned(main, "R@8")),
    )
    slices = [r["slices"]["answer no vote reached"] for r in _of(page, "scifact", "main")]
    gains = [s["learned"] - s["static"] for s in slices]
    page.says(
        "change by {:+.3f} to {:+.3f} on scifact ({} to {} such questions)",
        min(gains),
        max(gains),
        min(s["n"] for s in slices),
        max(s["n"] for s in slices),
    )


def _few_questions(page: Page) -> None:
    scifact = runs(page, "main").seeds[0]["scifact"]
    page.says("Its test split has {}, so", scifact["n_test"])
    page.says(
        "scifact has {} train questions, of which the benchmark uses {}.",
        scifact["n_train"] + scifact["n_dev"],
        scifact["n_voted"],
    )
    page.says("(scifact has {}), ", scifact["n_voted"])


def _much_voted(page: Page) -> None:
    found = {c["name"]: c for c in page.result("cycles-v2")["collections"]}
    traffic = page.result("cycles-v2")["protocol"]["traffic"]
    page.says("with {:,} questions asked", traffic["n_asked"])
    stack = found["stackfaq"]
    related = named(stack["slices"], name="related")
    page.says("asked, {} test questions whose need", related["n"])
    page.says("fall by {:.2f}: the memory", -related["difference"]["mean"])
    ndcg = rule
    page.says(
        "({:.3f} to {:.3f}), and votes on the static hits teach more than votes on our own ({:.3f})",
        ndcg("memory without a model, tuned")(stack),
        ndcg(OURS)(stack),
        ndcg(SAME_VOTES)(stack),
    )
    meta = found["metatool"]
    page.says(
        "ahead ({:.3f} to {:.3f}; {:.3f} before any vote)",
        ndcg("Rocchio, 5 past queries")(meta),
        ndcg(OURS)(meta),
        start(meta),
    )


USERS = {
    "look at every hit, never wrong": "perfect",
    "never wrong": "attention",
    "two fifths wrong": "wrong40",
    "a fifth wrong, and trust in rank 1": "trust",
    "a fifth wrong, and 5 % who toss coins": "random5",
    "a fifth wrong, and 5 % who invert": "inverted5",
    "a fifth wrong, and 5 % who push one passage": "collude5",
    "judge answers alone, a fifth wrong": "answers",
}


def _kinds_of_users(page: Page) -> None:
    for label, kind in USERS.items():
        found = runs(page, kind)
        assert {c["n_test"] for s in found.seeds for c in s.values()} <= {1000, 300}
        page.lets("design", f"| {label} |")
        pairs = [found.median(of, c) for c in NAMES for of in (start, rule(OURS))]
        cells = " | ".join(["{:.3f} → {:.3f}"] * len(NAMES))
        page.says(f"| {label} | {cells} |", *pairs)
    page.lets("design", "1,000 test questions, rules beside")
    lowest = min(
        curve(c)[-1] - curve(c)[0]
        for kind in ("main", *USERS.values())
        for seed in runs(page, kind).seeds
        for c in seed.values()
    )
    page.says("below where it began by more than {}", rounded_up(-lowest, 4))


def gate_notes(page: Page) -> None:
    """docs/notes/gate-notes.md."""
    found = page.result("gate_simulation")
    (fit,) = found["fits"]
    page.says("shares of {:,} refreshes that replaced", fit["refreshes"])
    page.says("by the last third: {:.1f}% replaced", 100 * fit["replaced"])
    rows = found["differences"]
    spreads = sorted({row["spread"] for row in rows})
    page.says("({} to {} is the spread", spreads[0], spreads[-1])
    for spread in spreads:
        for n in (300, 1000):
            held = [r for r in rows if r["spread"] == spread and r["n_queries"] == n]
            values = [
                named(held, gain=gain, skewed=skewed)["replaced"]
                for gain, skewed in (
                    (-0.02, False),
                    (0.0, False),
                    (0.0, True),
                    (0.02, False),
                    (0.02, True),
                )
            ]
            cells = " | ".join(["{:.3f}"] * 5)
            page.says(f"| {spread} | {n:,} | {cells} |", *values)
            page.lets("design", f"| {spread} | {n:,} |")
    losing = max(r["replaced"] for r in rows if r["gain"] < 0)
    page.says("A loss is let in once in {:,.0f} at worst", 1 / losing)
    page.lets(
        "design",
        "| loss of 0.02 | none | none, skewed | gain of 0.02 |",
        "A real gain of 0.02 is seen with 300 judged",
        "takes 1,000 where they are large",
    )
    forgets = found["forgets"]
    page.says("which others give anew. {:,} families", forgets["families"])
    for name, row in (
        ("without", "nobody is forgotten"),
        ("again", "looks and votes outlast the users; weights are learned again while they gain"),
        ("restarted", "forgetting counts looks from one, and takes one (as it was)"),
    ):
        looks, ever = forgets["looks_taken"][name], 100 * forgets["ever"][name]
        page.says(f"| {row} | {{:.0f}} | {{:.1f}}% |", looks, ever)
    families = found["families"]
    page.says(
        "{:.1f}% of {:,} such families let something in within 10 looks, {:.1f}% within {} ({:.2f}% "
        "of looks)",
        100 * families["ever_in_10"],
        families["families"],
        100 * families["ever_in_20"],
        families["looks"],
        100 * families["per_look"],
    )
    for collection, label in NAMES.items():
        if collection != "scifact":
            cells = gate_costs(page, collection)
            page.says(f"| {label} | {{:.3f}} | {{:.3f}} | {{:.3f}} |", *cells)
    free = _learned(_of(page, "scifact", "main", "learning_without_gate"))
    gated = runs(page, "main").each(rule(OURS), "scifact")
    page.says(
        "| scifact | {:.3f} | {:.3f} ({:.3f} to {:.3f}) | {:.3f} ({:.3f} to {:.3f}) |",
        gate_costs(page, "scifact")[0],
        *(f(values) for values in (free, gated) for f in (statistics.median, min, max)),
    )
    for label, setting, kind in (
        ("two fifths wrong", "wrong40", "wrong40"),
        ("no vote wrong", "clean", "attention"),
    ):
        page.says(
            f"| scifact, {label} | {{:.3f}} | {{:.3f}} | {{:.3f}} |",
            gate_costs(page, "scifact")[0],
            statistics.median(_learned(_of(page, "scifact", setting, "learning_without_gate"))),
            runs(page, kind).median(rule(OURS), "scifact"),
        )
    page.says(
        "within the noise of {} test questions", runs(page, "main").seeds[0]["scifact"]["n_test"]
    )


# where a rule is significantly ahead: (kind, collection, rule, whose votes), in the order of the page
AHEAD = (
    ("(by {:.3f}, one seed of three), the query", "wrong40", "metatool", "LADER on hybrid", OURS),
    ("on feedbackqa ({:.3f}, two seeds)", "wrong40", "feedbackqa", ADAPTER, OURS),
    ("rules there ({:.3f}, one seed)", "wrong40", "feedbackqa", "±1 unbounded", OURS),
    ("chosen on dev on SQuAD ({:.3f}, one seed)", "wrong40", "squad11_dev", "hybrid, tuned", OURS),
    ("on feedbackqa ({:.3f} and {:.3f}, two seeds)", "trust", "feedbackqa", ADAPTER, OURS),
    ("tuned hybrid on SQuAD ({:.3f}, one);", "trust", "squad11_dev", "hybrid, tuned", OURS),
    ("adapter on feedbackqa ({:.3f}, one seed)", "collude5", "feedbackqa", ADAPTER, OURS),
    ("({:.3f} to {:.3f}, every seed; Rocchio in one", "answers", "metatool", LADER, OURS),
    ("Rocchio in one, {:.3f})", "answers", "metatool", "Rocchio, 5 past queries", OURS),
    ("on scifact ({:.3f}, one seed)", "answers", "scifact", LADER, OURS),
    ("on feedbackqa ({:.3f}, two seeds). Rules", "answers", "feedbackqa", ADAPTER, OURS),
    ("rank 1 ({:.3f} and {:.3f}, two seeds;", "trust", "metatool", LADER, SAME_VOTES),
    ("who invert ({:.3f}, one seed)", "inverted5", "metatool", LADER, SAME_VOTES),
    ("alone ({:.3f} to {:.3f}, every seed); the", "answers", "metatool", LADER, SAME_VOTES),
    ("toss coins ({:.3f}, one seed)", "random5", "feedbackqa", ADAPTER, SAME_VOTES),
)


def _behind(page: Page, kind: str, collection: str, other: str, ours: str) -> list[float]:
    """By how much a rule is ahead of the flywheel, in the seeds where it is so significantly."""
    found = []
    for seed in runs(page, kind).seeds:
        ahead = named(seed[collection]["rankings"], name=other)["ahead"][ours]
        if ahead["p"] < SIGNIFICANT and ahead["mean"] < 0:
            found.append(-ahead["mean"])
    return sorted(found)


def _falls(page: Page, kind: str, seed: int, collection: str, run: str) -> list[float]:
    return curve(runs(page, kind).seeds[seed][collection], run)


def comparison(page: Page) -> None:
    """docs/notes/comparison-notes.md."""
    every = [
        (c, run)
        for kind in ("main", *USERS.values())
        for seed in runs(page, kind).seeds
        for c in seed.values()
        for run in ("votes", "fixed exposure")
    ]
    worst = min(curve(c, run)[-1] - start(c) for c, run in every)
    page.says("below where it began by more than {}", rounded_up(-worst, 4))
    page.lets(
        "design",
        "(p < 0.01)",
        "(5 % who push one passage, seed 1)",
        "- 5 % who push one passage:",
        "with 5 % who invert",
        "with 5 % who toss coins",
    )
    pushed = _falls(page, "collude5", 1, "scifact", "votes")
    page.says("on scifact from {:.3f} to {:.3f} (5 %", *_fall(pushed))
    clean = _falls(page, "perfect", 2, "scifact", "fixed exposure")
    page.says("from {:.3f} to {:.3f} (never wrong, static hits, seed 2)", clean[0], min(clean))
    static = _falls(page, "answers", 2, "metatool", "fixed exposure")
    own = _falls(page, "answers", 2, "metatool", "votes")
    page.says("on metatool, answers alone, by {:.3f}", _largest(own))
    page.says("on the static hits by {:.3f} (seed 2)", _largest(static))
    main = [c for seed in runs(page, "main").seeds for c in seed.values()]
    largest = max(
        before - after
        for c in main
        for run in ("votes", "fixed exposure")
        for before, after in itertools.pairwise(curve(c, run))
    )
    page.says("from one refresh to the next is {:.3f}", largest)
    _coins(page)
    for template, kind, collection, other, ours in AHEAD:
        found = _behind(page, kind, collection, other, ours)
        n = template.count("{")
        page.says(template, *([found[0], found[-1]] if n == 2 else found[-1:]))
    rules = ("±1 unbounded", "±1 multiplier")
    unbounded = [
        d
        for kind in ("random5", "wrong40")
        for other in rules
        for d in _behind(page, kind, "feedbackqa", other, SAME_VOTES)
    ]
    page.says("rules there ({:.3f} to {:.3f}); the", min(unbounded), max(unbounded))
    tuned = [
        d
        for kind in ("wrong40", "inverted5", "collude5")
        for d in _behind(page, kind, "squad11_dev", "hybrid, tuned", SAME_VOTES)
    ]
    page.says("SQuAD ({:.3f} to {:.3f}, one seed each)", min(tuned), max(tuned))
    names = [r["name"] for r in runs(page, "answers").seeds[0]["scifact"]["rankings"]]
    others = [n for n in names if not n.startswith(OURS) and n not in ("oracle", "hybrid", "dense")]
    on_answers = [
        d for name in others for d in _behind(page, "answers", "scifact", name, SAME_VOTES)
    ]
    page.says("on answers alone ({:.3f} to {:.3f}).", min(on_answers), max(on_answers))
    wrong = runs(page, "wrong40")
    page.says(
        "({:.3f} and {:.3f} at the median)",
        wrong.median(rule(OURS), "metatool"),
        wrong.median(rule(SAME_VOTES), "metatool"),
    )
    _answers_again(page)
    better_memory(page)


def _fall(values: list[float]) -> tuple[float, float]:
    """From where to where the largest fall from one refresh to the next goes."""
    at = max(range(len(values) - 1), key=lambda i: values[i] - values[i + 1])
    return values[at], values[at + 1]


def _largest(values: list[float]) -> float:
    """The most that it lies below where it was at some refresh before."""
    highest = itertools.accumulate(values, max)
    return max(before - now for before, now in zip(highest, values, strict=True))


def _coins(page: Page) -> None:
    moved = {}
    for kind in ("main", *USERS.values()):
        for i, seed in enumerate(runs(page, kind).seeds):
            for name, c in seed.items():
                tossed = curve(c, "random votes")
                if abs(tossed[-1] - tossed[0]) > 0.0001:
                    moved[kind, name, i] = (tossed[0], tossed[-1])
    assert list(moved) == [("answers", "metatool", 2)]
    page.lets("design", "moved one control by more than 0.0001")
    page.says(
        "seed 2, from {:.3f} to {:.3f}, since the first look", *moved["answers", "metatool", 2]
    )


def _answers_again(page: Page) -> None:
    again = [page.result(f"answers-metatool-{seed}")["collections"][0] for seed in (0, 1)]
    own = [rule(OURS)(c) for c in again]
    page.says("the flywheel then reaches {}, {}", *(bare(x) for x in own))
    before = runs(page, "answers").each(rule(OURS), "metatool")
    page.says("it was {}, {} and {})", *(bare(x) for x in before))
    lader = runs(page, "answers").each(rule(LADER), "metatool")
    page.says("LADER {}, {} and {}:", *(bare(x) for x in lader))
    first, second = (named(c["rankings"], name=LADER)["ahead"][OURS] for c in again)
    page.lets("design", "(95 % interval")
    page.says("by {:.3f} (95 % interval {:.3f} to {:.3f})", *_of_interval(first))
    second = {"mean": -second["mean"], "low": -second["high"], "high": -second["low"]}
    page.says("behind by {:.3f} ({:.3f} to {:.3f})", *_of_interval(second))
    same = [rule(SAME_VOTES)(c) for c in again]
    page.says("hits it ends at {} and {} (seeds 0 and 1", *(bare(x) for x in same))
    ahead = named(again[0]["rankings"], name=LADER)["ahead"][SAME_VOTES]["mean"]
    page.says("`benchmarks/results/answers-metatool-*.json`), ahead by {:.3f} and level", ahead)


def bare(x: float) -> str:
    """Three figures without the zero in front, as the notes write them."""
    return printed(x, ".3f").removeprefix("0")


def _of_interval(d: Json) -> tuple[float, float, float]:
    return d["mean"], d["low"], d["high"]


def better_memory(page: Page) -> None:
    """What a memory that knew which questions share an answer could reach."""
    bound = page.result("memory_bound")
    middle = bound["median"]["scifact"]
    page.says(
        "reach {:.3f} (median of three seeds; the flywheel {:.3f})",
        middle["bound"],
        middle["learned"],
    )
    near = [_from_cosine(run, ("0.7 to 0.8", "0.8 to 0.9", "0.9 to 1")) for run in bound["runs"]]
    far = [_from_cosine(run, ("-1 to 0.5", "0.5 to 0.7")) for run in bound["runs"]]
    page.lets("design", "from cosine 0.7 on")
    page.says("has {:.2f}, {:.2f}, {:.2f} of its", *(learned for learned, _, _ in near))
    page.says("of its {:.2f}, {:.2f}, {:.2f}. Most", *(best for _, best, _ in near))
    page.says("some {:.0f} questions", round(statistics.fmean(n for _, _, n in far), -1))
    page.says(
        "({:.2f}, {:.2f}, {:.2f} of {:.2f}, {:.2f}, {:.2f};",
        *(learned for learned, _, _ in far),
        *(best for _, best, _ in far),
    )


def _from_cosine(run: Json, parts: tuple[str, ...]) -> tuple[float, float, int]:
    """The means over some parts of the test questions: learned, and the bound; how many they are."""
    rows = [named(run["by_nearest_question_with_an_answer_of_it"], cosine=c) for c in parts]
    n = sum(row["n"] for row in rows)
    learned, best = (sum(row["n"] * row[k] for row in rows) / n for k in ("learned", "bound"))
    return learned, best, n
