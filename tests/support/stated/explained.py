"""Pages that explain: the model, the gate, relevance, tuning, exploration, voters."""

import math
import statistics

from rag_flywheel.config import Config
from rag_flywheel.evaluate import gate as gates
from rag_flywheel.improve import fit, informative, likelihood, raters, relevance, teach
from rag_flywheel.improve import kernel as grid
from rag_flywheel.rank import evidence, features, posterior, score
from rag_flywheel.rank.calibration import MOST_FARTHER, MOST_REACH
from rag_flywheel.rank.parameters import Kernel
from rag_flywheel.rank.relevance import _KNOWN as KNOWN
from rag_flywheel.refresh import next_version, past, unrelated
from rag_flywheel.refresh.raters import APART
from rag_flywheel.serve import explore
from stated.full import NAMES, OURS, curve, rule, runs
from stated.page import Page
from stated.results import Json, named
from stated.settings import least_for_new_weights

AFTER = "after a refresh"


def rounded_up(x: float, digits: int) -> float:
    """The least number of so many digits that x is not above: for "at most" and "never more than"."""
    return math.ceil(round(x * 10**digits, 9)) / 10**digits


def model(page: Page) -> None:
    """docs/explanation/how-votes-are-learned-from.md."""
    kernel = Kernel()
    page.says("The {} nearest past queries lend", kernel.neighbours)
    page.says(
        "rises from 0 at a cosine of {} to {} at {}",
        evidence._DUPLICATE[0],
        kernel.same,
        evidence._DUPLICATE[1],
    )
    _asked_again(page)
    _known_answers(page)
    _several(page)
    assert posterior.CORRECTION_WEIGHT == 2
    page.lets("choice", "odds / (odds + 49)", "1 / (odds + 49)")
    _refresh(page)
    _shipped_kernel(page)
    _several_on_stackfaq(page)
    _bad_votes(page)
    page.says("in the best {} words of the text", features._WINDOW)
    page.says("for the {} best candidates of the plain", score.POOL)
    _given(page)


def _asked_again(page: Page) -> None:
    found = page.result("asked_again")["runs"]
    page.says("asked each of {} questions", max(r["n"] for r in found))
    behind = max(r["again"]["bayes"] - r["again"]["ours"] for r in found)
    beside = [r["duplicates"] for r in found if r["n_duplicates"]]
    page.says("never more than {} of nDCG@10 below Bayes' rule", rounded_up(behind, 3))
    behind = max(d["bayes"] - d["ours"] for d in beside)
    page.says("on near-duplicates never more than {} below it", rounded_up(behind, 3))


def _known_answers(page: Page) -> None:
    kernel, least = Kernel(), posterior.LEAST_CHANCE
    sure = 1 - evidence._LEAST_CHANCE
    page.says("the last of them to {:.0f} times the chance", math.exp(score._CERTAIN))
    page.says("to a chance of {} at least", KNOWN)
    page.says("from {} to {}, by the formula of ρ above, with π = {}", least, sure, least)
    page.says("ρ up to {}, also once a refresh", kernel.same)
    page.says("a fit: {:.0f}, {} and {} are choices", math.exp(score._CERTAIN), least, sure)


def _several(page: Page) -> None:
    by, more = fit.SEVERAL_BY
    page.says("must be likelier by {:.0f}, and by {} more for each query", by, more)


def _several_on_stackfaq(page: Page) -> None:
    found = [
        run["parameters"]["answers"]
        for run in page.result("learning")["runs"]
        if run["collection"] == "stackfaq" and run["setting"] in ("main", "clean")
    ]
    page.says("({:.0f} to {:.0f} on stackfaq", min(found), max(found))
    page.lets("fact", "a collection with 5.7 right passages a question", "where 5.7 are")


def _refresh(page: Page) -> None:
    page.says("at most the {:,} voted on last: the {} best", past.MOST_PAST_QUERIES, score.POOL)
    page.says("near-duplicates (cosine {}) together", _near_duplicate())
    page.says("(at most {:,} queries): the likeliest", fit.MOST_QUERIES)
    page.says("(strength {:.0f}, in units", fit.STRENGTH)
    page.says("(the newest {:,}). First the rates", fit.MOST_QUERIES)
    page.says("a Cauchy ({} wide)", likelihood._BALANCE_SPREAD)
    page.says("log-normal around 1 ({} in its logarithm)", likelihood._SHARPNESS_SPREAD)
    page.says("from {} to {}, γ from", min(grid.QUANTILES), max(grid.QUANTILES))
    page.says("n0 from {} to {:.0f})", min(grid.STRENGTHS), max(grid.STRENGTHS))
    page.says("counts as {} of a vote by the prior", grid.UNSHOWN)
    page.says("shipped n0 ({} in log n0)", grid.N0_SPREAD)
    page.says("is above {:.0f} %, nothing is learned", 100 * posterior.NOISE_LIMIT)
    page.lets("literature", "(Pearl 1988)")
    page.says("With fewer than {} past queries everything", fit.LEAST_QUERIES)
    shipped = Kernel()
    page.says("θ {}, γ {:.0f}, n0 {:.0f}.", shipped.theta, shipped.gamma, shipped.n0)
    page.says(
        "New weights take more: {} queries that are not held out, and {} that are, some {} in all",
        fit.LEAST_QUERIES,
        gates.LEAST_JUDGED,
        least_for_new_weights(),
    )


def _near_duplicate() -> float:
    from rag_flywheel.curate.groups import NEAR_DUPLICATE

    return NEAR_DUPLICATE


def _shipped_kernel(page: Page) -> None:
    found = page.result("shipped_kernel")
    gains = [named(run["on"], kernel=found["chosen"])["gain"] for run in found["runs"]]
    kernel = Kernel()
    assert found["chosen"] == [kernel.theta_quantile, kernel.gamma, kernel.n0]
    page.says(
        "at the {:.0f} % quantile of random pairs instead of {} this gains {:.3f} on average",
        100 * found["chosen"][0],
        kernel.theta,
        statistics.fmean(gains),
    )
    page.says("loses nowhere more than {}", rounded_up(-min(gains), 3))


def _bad_votes(page: Page) -> None:
    page.says("clearly below {}, nothing is learned", informative.LEAST_SLOPE)


def _given(page: Page) -> None:
    page.says("So with at least {} voted questions a refresh", fit.LEAST_QUERIES)
    page.lets("example", "a cosine of 0.7 means the same")
    page.says("while fewer than {} voted questions have", fit.LEAST_QUERIES)
    page.says("that it was given: the {} best", score.POOL)
    times = [run["rerank_ms"] for run in page.result("reranking-scifact")["runs"]]
    page.says(
        "with {} abstracts it then takes {:.0f} ms instead of {:.1f}",
        score.POOL,
        statistics.median(after for _, after in times),
        statistics.median(before for before, _ in times),
    )


def gate(page: Page) -> None:
    """docs/explanation/the-gate.md."""
    page.says(
        "and {} sampled passages find themselves (at most {} where the index of the version before was "
        "changed, {} where no passage did)",
        next_version._SAMPLE,
        next_version._SAMPLE_LINKED + next_version._SAMPLE_NEW,
        next_version._SAMPLE_LINKED,
    )
    page.says("Above {:.0f} % [noise]", 100 * posterior.NOISE_LIMIT)
    page.says(
        "With fewer than {} held-out queries that have votes, golden queries decide, if there are "
        "{}.",
        gates.LEAST_JUDGED,
        gates.LEAST_JUDGED,
    )
    page.says("loses by more than {} at p < {} refuses", gates.MARGIN, gates.VETO_ALPHA)
    page.says("must gain, if there are {},", gates.LEAST_JUDGED)
    page.says("with a chance of {} / k", gates.ALPHA)
    page.says("spends its own {} / k", gates.ALPHA)
    page.says("but each spends {} / k", gates.ALPHA)
    page.says("with at least {} queries to judge by", gates.LEAST_JUDGED)
    page.says("or fewer than {} queries are left", gates.LEAST_JUDGED)
    page.says("start at {} either", gates.ALPHA)
    simulation = page.result("gate_simulation")
    forgets = simulation["forgets"]
    page.says(
        "let in by {:.1f} % of {:,} simulated families",
        100 * forgets["ever"]["again"],
        forgets["families"],
    )
    page.says("it was {:.1f} %", 100 * forgets["ever"]["restarted"])
    none = [d["replaced"] for d in simulation["differences"] if d["gain"] == 0]
    page.says(
        "Of {:,} simulated first looks at weights that were no better, {:.0f} to {:.0f} % let",
        simulation["fits"][0]["refreshes"],
        100 * min(none),
        100 * max(none),
    )
    losing = max(d["replaced"] for d in simulation["differences"] if d["gain"] < 0)
    page.says("were let in once in {:,.0f} at worst", 1 / losing)
    page.lets("design", "lose 0.02 nDCG@10", "A real gain of 0.02 is seen with 300", "takes 1,000")
    costs = [gate_costs(page, name)[1] - gate_costs(page, name)[2] for name in NAMES]
    page.says("the gate cost {:.3f} to {:.3f} of nDCG@10", min(costs), max(costs))


def gate_costs(page: Page, collection: str) -> tuple[float, float, float]:
    """Medians of nDCG@10: before any vote, learned without a gate, and with it."""
    free = [
        run
        for run in page.result("learning_without_gate")["runs"]
        if run["collection"] == collection and run["setting"] == "main"
    ]
    gated = runs(page, "main").median(rule(OURS), collection)
    learned = statistics.median(run["learned"]["nDCG@10"] for run in free)
    return free[0]["static"]["nDCG@10"], learned, gated


def tuning(page: Page) -> None:
    """docs/explanation/tuning.md."""
    page.says("at most {:,} past questions", teach.MOST_QUERIES)
    page.says("No more than {:,} questions teach", teach.MOST_QUERIES)
    page.says("question's {} best candidates", score.POOL)
    page.says("batches of {}, temperature {}", teach.BATCH, teach.TEMPERATURE)
    assert teach.RATE == 3e-5 and teach.EPOCHS == 2
    page.says("at least {} questions, and {} held-out", teach.LEAST_QUERIES, gates.LEAST_JUDGED)
    cost = page.result("tuning_cost")
    page.says("with {:,} questions with votes (metatool, {:,} votes)", *_sizes(cost))
    tuned, plain = cost["tuned"], cost["plain"]
    page.says("took {:.0f} seconds on two cores", tuned["seconds"])
    page.says("and {:.1f} GB of memory at most", tuned["peak_mib"] / 1000)
    page.says("one that does not took {:.0f} seconds", plain["seconds"])
    page.says("The taught weights ({:.0f} MB", _taught_bytes() / 1e6)
    main = runs(page, "main")
    rows = page.result("tuning")["runs"]
    for collection, label in NAMES.items():
        held = sorted(
            (r for r in rows if r["collection"] == collection), key=lambda r: int(r["seed"])
        )
        seeds = [r["seed"] for r in held]
        ndcg = [curve(main.seeds[s][collection])[-1] for s in seeds]
        recall = [_recall(main.seeds[s][collection]) for s in seeds]
        cells = [
            ", ".join(map(str, seeds)),
            ", ".join(f"{x:.3f}" for x in ndcg),
            ", ".join(f"{r['learned']['nDCG@10']:.3f}" for r in held),
            ", ".join(f"{x:.3f}" for x in recall),
            ", ".join(f"{r['learned']['R@75']:.3f}" for r in held),
            ", ".join(str(sum(t["encoder"] == "new" for t in r["tunings"])) for r in held),
        ]
        page.says(f"| {label} | {{}} | {{}} | {{}} | {{}} | {{}} | {{}} of 3 |", *cells)


def _recall(collection: Json) -> float:
    cycles = named(collection["runs"], name="votes")["cycles"]
    return float(cycles[-1]["values"]["R@75"])


def _sizes(cost: Json) -> tuple[int, int]:
    return cost["n_questions"], cost["n_votes"]


def _taught_bytes() -> int:
    """Float32 weights of the last three layers of all-MiniLM-L6-v2: width 384, inner 1,536."""
    width, inner = 384, 1_536
    attention = 4 * (width * width + width) + 2 * width
    feed_forward = 2 * width * inner + inner + width + 2 * width
    return 4 * 3 * (attention + feed_forward)


def exploration(page: Page) -> None:
    """docs/explanation/exploration.md."""
    found = page.result("exploration")["runs"]
    page.says("of the next {} whose verdict", explore._DEEPEST)
    page.lets("literature", "(Lindley, 1956)")
    from rag_flywheel.serve.server import _NEWEST

    page.says("in the {} newest retrievals", _NEWEST)
    page.says("whose chance is at least {}", explore._CLEAR)
    page.says("the {} with the highest scores", score.POOL)
    page.says("spends all that there is, at most {};", explore._MOST)
    page.lets(
        "example",
        "Each recorded answer adds 0.1",
        "So it is 0.1 where every answer",
        "add up to more than 0.1 times",
        "asking with `explore = 0.1` is looked at in its last place with 0.1 · 1/8: at most 1.25",
        "a share of 0.1 would give away",
    )
    page.lets(
        "design",
        "ask 300 train questions (150 where each comes ten times",
        "(two for 1,500 questions",
        "intervals of 95 %",
        "reach at 0.1 | reach at 0.5 | test nDCG@10 at 0.1 | shown nDCG@8 at 0.1 |",
        "cycles-v2, 1,500 asked",
        "asked 10 times",
        "asked 30 times",
    )
    for run in found:
        none, tenth, half = (named(run["shares"], explore=share) for share in (0.0, 0.1, 0.5))
        reach = [_interval(s["against 0"]["reach"]) for s in (tenth, half)]
        rest = [_interval(tenth["against 0"][m]) for m in ("nDCG@10", "shown nDCG@8")]
        page.says(
            f"| {run['traffic']} | {run['collection']} | {{:.3f}} | {{}} | {{}} | {{}} | {{}} |",
            none["reach"],
            *reach,
            *rest,
        )
    _what_exploration_finds(page, found)


def _interval(d: Json) -> str:
    from stated.page import printed

    mean, low, high = (printed(float(d[k]), "+.3f") for k in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def _what_exploration_finds(page: Page, found: list[Json]) -> None:
    once = {r["collection"]: r for r in found if r["traffic"] == "asked once"}
    read = named(found, traffic="asked once, all hits read", collection="scifact")
    page.says(
        "Of scifact's questions {:.0f} % have their first right passage at ranks 9 to 50 before any "
        "vote, of stackfaq's {:.0f} %",
        100 * once["scifact"]["headroom"],
        100 * once["stackfaq"]["headroom"],
    )
    page.lets("design", "at ranks 9 to 50 before any vote")
    page.says(
        "on scifact {:.0f} % of the right passages are among the 8 shown, and {:.2f} of the "
        "questions are reached; {:.2f} where users read every hit",
        100 * once["scifact"]["shares"][0]["shown R@8"],
        once["scifact"]["shares"][0]["reach"],
        read["shares"][0]["reach"],
    )
    ten = named(found, traffic="asked 10 times, all hits read", collection="scifact")
    page.says("read all hits reach {:.2f} on scifact", ten["shares"][0]["reach"])
    up10 = named(
        found, traffic="asked 10 times, all hits read, thumbs up alone", collection="scifact"
    )
    up30 = named(
        found, traffic="asked 30 times, all hits read, thumbs up alone", collection="scifact"
    )
    after_ten = named(up10["shares"], explore=0.5)["against 0"]["reach"]["mean"]
    after_thirty = [
        named(up30["shares"], explore=share)["against 0"]["reach"]["mean"] for share in (0.1, 0.5)
    ]
    assert f"{after_ten:.2f}" == f"{after_thirty[0]:.2f}"
    page.says("{:+.2f} on scifact, at 0.5 after ten users and at 0.1 after", after_ten)
    page.says("{:+.2f} at 0.5 after thirty", after_thirty[1])
    page.lets("design", "at 0.5 after ten users and at 0.1 after", "at 0.5 after thirty")
    both_ways = [r for r in found if "thumbs up" not in r["traffic"]]
    shown = [
        named(r["shares"], explore=0.1)["against 0"]["shown nDCG@8"]["mean"] for r in both_ways
    ]
    page.says("within {} nDCG@8 of what users are shown at 0.1", rounded_up(-min(shown), 3))
    page.lets("design", "of what users are shown at 0.1")
    most = max(named(r["shares"], explore=0.5)["against 0"]["reach"]["mean"] for r in both_ways)
    page.says("at most {:.3f} more is found where users vote both", most)


def relevances(page: Page) -> None:
    """docs/explanation/relevance.md."""
    page.says("fewer than {} are filled up to {}.", score.POOL, score.POOL)
    page.says(
        "up to {:.0f} spreads, and how far beyond that, up to {:.0f} more", MOST_REACH, MOST_FARTHER
    )
    page.says("Each refresh asks {} questions", len(unrelated.UNRELATED))
    page.says("once {} questions of the index have some", relevance.LEAST_QUERIES)
    page.says("the {} above count as {} times", len(unrelated.UNRELATED), relevance.UNRELATED_SHARE)
    page.lets("design", "(ECE, 15 bins", "with `answerable` below 0.2, after")
    found = page.result("relevance")
    page.says("on at most {:,} questions, with refreshes", found["most_asked"])
    page.lets("elsewhere", "the share of 134 questions about nothing")
    for collection, before in found["before"].items():
        if collection == "coefficients":
            continue
        last = found["after"][collection]["cycles"][-1]
        left_out = before["left out"]
        page.says(
            f"| {collection} |" + " {:.3f} |" * 6 + " {:.0f} % |",
            left_out["hits"],
            last["hits"],
            left_out["answerable"],
            last["answerable"],
            last["answerable_by_chance"],
            last["answerable_debiased"],
            100 * last["off_topic_low"],
        )
    page.lets("fact", "scifact has 300 test questions and 809 that are asked")
    page.lets("literature", "Kumar, Liang and Ma, 2019")
    metatool = found["before"]["metatool"]["left out"]
    page.says(
        "{:.2f} on average there, where {:.2f} are answered",
        metatool["mean_answerable"],
        metatool["share_answered"],
    )
    topics = page.result("gap_topics")
    for label, key in (
        ("Python's standard library (the demo), {} passages", "python"),
        ("FastAPI's documentation, {} passages", "fastapi"),
        ("Prometheus' documentation, {} passages", "prometheus"),
    ):
        row = topics[key]
        missing = row["missing"]
        page.says(
            f"| {label} | {{}} of {{}} | {{}} of {{}} | {{}} of {{}} |",
            row["passages"],
            row["ordinary"]["listed"],
            row["ordinary"]["asked"],
            missing["listed"],
            missing["asked"],
            missing["by_four"],
            missing["asked"],
        )


def voters(page: Page) -> None:
    """docs/how-to/voters.md."""
    page.lets("fact", "count within 24 hours")
    config = Config()
    page.says("({:,} unless set)", config.votes_per_day)
    page.says("named passages ({}).", config.corrections_per_day)
    page.lets("literature", "Dawid and Skene, 1979")
    page.says("**At least {}** for those", raters.KNOWN_FLOOR)
    page.says("right about at least {:.0f} % of the known", 100 * raters._KNOWN_RIGHT)
    assert raters._KNOWN_ENOUGH == 4 and APART == 0.6 and raters.LEAST_VOTERS == 5
    found = page.result("attacks")
    page.says("vote on up to {:,} questions", found["max_train"])
    for label, attack in (
        ("5 % invert", "inverting 5 %"),
        ("10 % invert", "inverting 10 %"),
        ("20 % invert", "inverting 20 %"),
        ("5 % push one passage", "pushing 5 %"),
        ("10 % call everything helpful", "helpful 10 %"),
    ):
        page.lets("design", f"| {label} |")
        cells, left = "{:.0f}, {:.0f}, {:.0f} % | {:.0f} %", list[float]()
        for name in ("stackfaq", "metatool"):
            seeds = [100 * _left(found["runs"], name, attack, seed) for seed in range(3)]
            left += [*seeds, statistics.median(seeds)]
        page.says(f"| {label} | {cells} | {cells} |", *left)
    silent = 100 * _left(found["runs"], "stackfaq", "silent 5 %", 0)
    page.says("| 5 % vote on nothing | {:.0f} % (the first seed)", silent)
    page.lets("design", "| 5 % vote on nothing |")
    attacked = [r for r in found["runs"] if "attackers" in r["raters"]]
    weights = [r["raters"]["attackers"]["mean"] for r in attacked]
    page.says("of a run weigh {:.3f} of a vote at most", max(weights))
    minorities = [r for r in page.result("minorities")["runs"] if r["weighed"]]
    for kind, text in (
        ("wording", "keep {:.0f} % of what they gain"),
        ("tenant", "and {:.0f} % when they are a tenant"),
    ):
        kept = [r["kept"]["asked"] for r in minorities if r["kind"] == kind]
        assert len(kept) == 3
        page.says(text, 100 * statistics.median(kept))
    one = page.result("one_attacker")
    lost = [r["topic"]["before"] - r["topic"][w] for r in one["runs"] for w in ("at once", AFTER)]
    page.says("costs the topic up to {:.3f}", max(lost))
    junk = {
        name: [
            100 * r["junk"]
            for r in found["runs"]
            if (r["collection"], r["attack"]) == (name, "pushing 5 %")
        ]
        for name in ("stackfaq", "metatool")
    }
    page.says("{:.1f} % of the questions at most on stackfaq", max(junk["stackfaq"]))
    page.says("on metatool of {:.1f}, {:.1f} and {:.1f} %", *junk["metatool"])
    attacks = {r["attack"] for r in attacked}
    third = [
        100 * _left(found["runs"], "feedbackqa", attack, 2) for attack in attacks - {"silent 5 %"}
    ]
    page.says("the attacks leave {:.0f} to {:.0f} % of it", min(third), max(third))


def _left(rows: list[Json], collection: str, attack: str, seed: int) -> float:
    """The share of the lift that is left under an attack."""
    with_it = named(rows, collection=collection, attack=attack, seed=seed)
    without = named(rows, collection=collection, attack="none", seed=seed)
    return float(with_it["lift"]) / float(without["lift"])
