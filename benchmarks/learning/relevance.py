"""Is relevance calibrated: of the hits with a relevance of 0.3, do three in ten answer the question?

    python benchmarks/learning/relevance.py --out benchmarks/results/relevance.json

RAG_FLYWHEEL_DATA holds the collections below. Measured is the expected calibration error (ECE) with 15
bins of equally many: of `hit.relevance` over the 8 hits of each test question, and of `answerable`
over the questions; answerable_by_chance, hits_by_chance: the ECE of as many questions or hits whose
chances are exactly right. answerable_debiased: the root of the mean square of the differences in those
bins, less what luck alone adds to it (Kumar, Liang and Ma, Verified Uncertainty Calibration, 2019).
"squad11_dev, half unanswerable" mixes its test questions half and half with
questions that SQuAD 2.0 says have no answer there, which were written to look as if they had.

Before any vote: coefficients fitted to train questions of all collections but the one that is measured
(with right and wrong passages as judged, no vote), and, for comparison, the shipped ones. Further
training data are, of each collection, questions of the others and off_topic_fit.txt, which have no
answer, and xquad_de.
After votes: five cycles of the protocol of the benchmark (a vote at rank r with probability 1/r, a fifth
of them wrong), half of their questions unanswerable in the mix; the coefficients that refreshes after
the first and the last cycle calibrated. --most-test, --most-asked: of each collection, how many test
questions are measured, and how many train questions asked in all cycles; --seed: which of them, in which
order, and who votes how; --collections: those after votes. off_topic.txt: noise and questions about
nothing in the collections; share with answerable below 0.2. They were not used for fitting.
off_topic_below_0.3 and answered_below_0.1: what the bounds of gaps were looked at by (see
`report/gaps.py`).

The shipped coefficients are printed at the end: those fitted to all of the collections.
"""

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from gain import surroundings
from rag_flywheel import Flywheel
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.cycles import SHOWN, asking
from rag_flywheel.bench.machine import commit
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.setup import Bench, prepare
from rag_flywheel.bench.users import Users
from rag_flywheel.formats.beir import Split, read_beir
from rag_flywheel.index.tokenizer import tokenize, tokenizer_of
from rag_flywheel.rank.calibration import (
    OF_ANSWER,
    OF_GIVEN,
    OF_INDEX,
    USUALLY_SAID,
    Calibration,
)
from rag_flywheel.rank.features import FEATURES, MEASURES
from rag_flywheel.rank.relevance import (
    distinct_hits,
    log_odds_of_any,
    log_shares,
    reach,
    terms_of_given,
    terms_of_index,
)
from rag_flywheel.serve.answers import Request
from rag_flywheel.serve.given import given_measures
from rag_flywheel.store.passages import encoded_text

TO_FIT = "off_topic_fit.txt"
NAMES = ("scifact", "metatool", "feedbackqa", "squad11_dev", "stackfaq")
MORE, MIXED = "xquad_de", "squad11_dev, half unanswerable"
MOST_TRAIN, MOST_TEST, OF_OTHERS, MOST_ASKED, N_CYCLES = 1_000, 1_000, 80, 3_000, 5
BINS, LOW = 15, 0.2
WEIGHTS = {"stackfaq": 0.3}  # of a collection, else 1: many right passages a question are rare
OF_OTHERS_HITS, OF_OTHERS_ANSWERS, OF_OFF = 0.3, 0.15, 0.3  # weights of questions without an answer
OF_UNANSWERABLE = 0.3, 0.03  # for hits and for answers
PENALTY = 1e-3
Floats = npt.NDArray[np.float64]
Json = dict[str, Any]
Asked = Sequence[tuple[str, Mapping[str, int]]]
"""Questions, each with the passages that answer it."""


@dataclass(frozen=True)
class Hits:
    """The 8 hits of n questions: terms (n, 8, 6) and (n, 8, 3) of given candidates, the reach of the
    nearest and what is beyond it (n, 2), the share of the words that any passage has (n,), how much each
    question says (n,), whether each hit is right (n, 8). Padded with the last hit, since copies change
    nothing."""

    terms: Floats
    given: Floats
    far: Floats
    known: Floats
    said: Floats
    right: Floats

    @property
    def answered(self) -> Floats:
        found: Floats = self.right.max(axis=1)
        return found


def ece(chances: Floats, right: Floats) -> float:
    """Expected calibration error with BINS bins of equally many."""
    chances, right = chances.ravel(), right.ravel()
    bins = np.array_split(np.argsort(chances, kind="stable"), BINS)
    parts = [len(b) * abs(chances[b].mean() - right[b].mean()) for b in bins if len(b)]
    return float(sum(parts) / len(chances))


def ece_by_chance(chances: Floats) -> float:
    """The ECE that is expected when every chance is exactly right, from 100 draws: few questions in
    each bin differ from their chances by luck."""
    rng = np.random.default_rng(0)
    draws = [ece(chances, (rng.random(len(chances)) < chances).astype(float)) for _ in range(100)]
    return float(np.mean(draws))


def debiased(chances: Floats, right: Floats) -> float:
    """The debiased calibration error: the root mean square of the differences of BINS bins, less the
    variance that the shares of right ones have by luck."""
    total = 0.0
    for b in np.array_split(np.argsort(chances, kind="stable"), BINS):
        if len(b) > 1:
            share = right[b].mean()
            luck = share * (1.0 - share) / (len(b) - 1)
            total += len(b) * ((chances[b].mean() - share) ** 2 - luck)
    return float(np.sqrt(max(total / len(chances), 0.0)))


def sigmoid(log_odds: Floats) -> Floats:
    found: Floats = 1.0 / (1.0 + np.exp(-log_odds))
    return found


def off_topic(name: str = "off_topic.txt") -> list[str]:
    lines = Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def unanswerable() -> list[str]:
    with gzip.open(
        find_collection("squad11_dev") / "unanswerable.jsonl.gz", "rt", encoding="utf-8"
    ) as file:
        texts = [json.loads(line)["text"] for line in file]
    found: list[str] = np.random.default_rng(0).permutation(texts).tolist()
    return found


def asked_of(split: Split, n: int) -> Asked:
    """n questions of a split, drawn without seed but always the same."""
    some = np.random.default_rng(0).permutation(sorted(split.queries)).tolist()[:n]
    return [(split.queries[q], split.qrels[q]) for q in some]


def hits_of(fw: Flywheel, asked: Asked) -> Hits:
    """What relevance is computed from, of the hits of these questions before any vote."""
    fw.retrieve("warm up", record=False)
    server = fw._serving()
    state, parameters = server._live.state(), server._live.state().version.parameters
    texts = {p.id: p for p in fw.passages()}
    terms, given, far, known, said, right = [], [], [], [], [], []
    for start in range(0, len(asked), 256):
        part = asked[start : start + 256]
        queries = [text for text, _ in part]
        vectors = server._encoder(state).encode(queries)
        every = server._ranked(state, queries, vectors, Request(SHOWN, record=False))
        for (text, grades), ranked in zip(part, every, strict=True):
            best = list(ranked.best[:SHOWN])
            best = (best + best[-1:] * SHOWN)[:SHOWN]
            rows = ranked.features[best]
            shares = log_shares(ranked.scored.prior, parameters.prior_of_unrelated)[best]
            found, _ = server._standing(state, ranked, SHOWN)
            ids = [stored.passage.id for _, stored in found]
            ids = [*ids, *ids[-1:] * (SHOWN - len(ids))]
            dense, measured = rows[:, 0], rows[:, len(FEATURES) :]
            terms.append(terms_of_index(dense, shares, measured))
            words = [encoded_text(texts[i]) for i in ids]
            of_given = given_measures(tokenize(text), words, tokenizer_of("english"))
            given.append(terms_of_given(of_given))
            far.append(np.array(reach(parameters.relevance, dense.max())))
            known.append(measured[:, MEASURES.index("known")].max())
            said.append(measured[:, MEASURES.index("said")].max())
            right.append([float(grades.get(i, 0) > 0) for i in ids])
    return Hits(*(np.array(each) for each in (terms, given, far, known, said, right)))


def logistic(parts: Iterable[tuple[Floats, Floats, float]]) -> Floats:
    """Coefficients of (terms (n, d), right (n,), weight of all together), shrunk a little to 0."""
    every = [(t, y, np.full(len(y), w / len(y))) for t, y, w in parts if len(y)]
    terms, right, weights = (np.concatenate(each) for each in zip(*every, strict=True))
    mean, spread = terms.mean(axis=0), terms.std(axis=0) + 1e-9
    mean[0], spread[0] = 0.0, 1.0
    scaled, pull = (terms - mean) / spread, np.full(terms.shape[1], PENALTY * weights.sum())
    pull[0] = 0.0

    def loss(at: Floats) -> tuple[float, Floats]:
        z = scaled @ at
        value = float((weights * (np.logaddexp(0.0, z) - right * z)).sum() + 0.5 * pull @ at**2)
        return value, scaled.T @ (weights * (sigmoid(z) - right)) + pull * at

    at = minimize(loss, np.zeros(terms.shape[1]), jac=True, method="L-BFGS-B").x / spread
    at[0] -= float(at[1:] @ mean[1:])
    found: Floats = at
    return found


Fits = tuple[Floats, Floats, Floats]
"""The coefficients OF_INDEX, OF_GIVEN and OF_ANSWER."""


def answer_terms(hits: Hits, index: Floats) -> Floats:
    """What OF_ANSWER multiplies, (n, 7), where nothing was asked before."""
    before = (hits.terms @ index).tolist()
    likely = np.array([log_odds_of_any(row[i] for i in distinct_hits(row)) for row in before])
    one, asked = np.ones_like(likely), np.zeros_like(likely)
    near, farther = hits.far.T
    said = hits.said - USUALLY_SAID
    return np.stack([one, near, farther, likely, hits.known, said, asked], axis=-1)


def chances(hits: Hits, fits: Fits) -> tuple[Floats, Floats]:
    """The relevance of hits, (n, 8), and `answerable`, (n,)."""
    index, _, answer = fits
    answered = answer_terms(hits, index) @ answer
    return sigmoid(np.minimum(hits.terms @ index, answered[:, None])), sigmoid(answered)


def fitted(data: Mapping[str, Mapping[str, Hits]], left_out: str | None) -> Fits:
    """Coefficients fitted to all collections but one."""
    rows: list[tuple[Hits, float, float]] = []
    for name, kinds in data.items():
        if name == left_out:
            continue
        weight = WEIGHTS.get(name, 1.0)
        rows.append((kinds["train"], weight, weight if name != "stackfaq" else 1.0))
        rows.append((kinds["others"], OF_OTHERS_HITS, OF_OTHERS_ANSWERS))
        rows.append((kinds["off topic, to fit"], 0.0, OF_OFF))
        if "unanswerable, train" in kinds:
            rows.append((kinds["unanswerable, train"], *OF_UNANSWERABLE))
    flat = [(h, w) for h, w, _ in rows if w > 0]
    index = logistic((h.terms.reshape(-1, len(OF_INDEX)), h.right.ravel(), w) for h, w in flat)
    given = logistic((h.given.reshape(-1, 3), h.right.ravel(), w) for h, w in flat)
    answer = logistic((answer_terms(h, index), h.answered, w) for h, _, w in rows)
    return index, given, answer


def measured(hits: Hits, fits: Fits) -> Json:
    """ECE of hits, of given candidates and of answers, and means beside the true shares."""
    given, (relevance, answerable) = fits[1], chances(hits, fits)
    return {
        "hits": round(ece(relevance, hits.right), 4),
        "given": round(ece(sigmoid(hits.given @ given), hits.right), 4),
        "answerable": round(ece(answerable, hits.answered), 4),
        "answerable_by_chance": round(ece_by_chance(answerable), 4),
        "answerable_debiased": round(debiased(answerable, hits.answered), 4),
        "mean_relevance": round(float(relevance.mean()), 4),
        "share_right": round(float(hits.right.mean()), 4),
        "mean_answerable": round(float(answerable.mean()), 4),
        "share_answered": round(float(hits.answered.mean()), 4),
    }


def low_share(hits: Hits, fits: Fits, low: float = LOW) -> float:
    """The share of questions with `answerable` below this."""
    return round(float((chances(hits, fits)[1] < low).mean()), 4)


def both(one: Hits, other: Hits) -> Hits:
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return Hits(*(np.concatenate(pair) for pair in pairs))


def gather(name: str, scratch: Path, most_test: int) -> dict[str, Hits]:
    """The hits of each kind of question of one collection."""
    bench = prepare(find_collection(name), Protocol(), scratch, None)
    others: list[tuple[str, Mapping[str, int]]] = []
    for other in NAMES:
        if other not in (name, "metatool"):  # whose tools are for questions of any kind
            train = read_beir(find_collection(other)).splits["train"]
            others += [(text, {}) for text, _ in asked_of(train, OF_OTHERS)]
    with bench.open(bench.base) as fw:
        kinds = {
            "train": hits_of(fw, asked_of(bench.train, MOST_TRAIN)),
            "test": hits_of(fw, asked_of(bench.test, most_test)),
            "others": hits_of(fw, others),
            "off topic": hits_of(fw, [(text, {}) for text in off_topic()]),
            "off topic, to fit": hits_of(fw, [(text, {}) for text in off_topic(TO_FIT)]),
        }
        if name == "squad11_dev":
            vain: Asked = [(text, {}) for text in unanswerable()]
            n = len(kinds["test"].right)
            kinds["unanswerable, test"] = hits_of(fw, vain[:n])
            kinds["unanswerable, train"] = hits_of(fw, vain[n : n + MOST_TRAIN])
    return kinds


def shipped() -> Fits:
    of = Calibration()
    return tuple(
        np.array([values[name] for name in names])
        for values, names in ((of.index, OF_INDEX), (of.given, OF_GIVEN), (of.answer, OF_ANSWER))
    )  # type: ignore[return-value]


def before_votes(most_test: int) -> Json:
    """ECE of each collection under coefficients fitted without it, and under the shipped ones."""
    data: dict[str, dict[str, Hits]] = {}
    for name in (*NAMES, MORE):
        with tempfile.TemporaryDirectory() as scratch:
            data[name] = gather(name, Path(scratch), most_test)
        print("gathered", name, flush=True)
    found: Json = {}
    for name in NAMES:
        found[name] = {}
        for how, fits in (("left out", fitted(data, name)), ("shipped", shipped())):
            row = measured(data[name]["test"], fits)
            row["off_topic_low"] = low_share(data[name]["off topic"], fits)
            row["off_topic_below_0.3"] = low_share(data[name]["off topic"], fits, 0.3)
            test = data[name]["test"]
            some = test.answered > 0
            answered = Hits(*(values[some] for values in vars(test).values()))
            row["answered_below_0.1"] = low_share(answered, fits, 0.1)
            found[name][how] = row
            if name == "squad11_dev":
                mixed = both(data[name]["test"], data[name]["unanswerable, test"])
                found.setdefault(MIXED, {})[how] = measured(mixed, fits)
    every = fitted(data, None)
    names = ("index", OF_INDEX), ("given", OF_GIVEN), ("answer", OF_ANSWER)
    found["coefficients"] = {
        kind: {n: round(float(w), 3) for n, w in zip(of, fit, strict=True)}
        for (kind, of), fit in zip(names, every, strict=True)
    }
    return found


def served(fw: Flywheel, asked: Asked) -> Json:
    """ECE of what the flywheel serves for these questions."""
    hits, right, answers, answered = [], [], [], []
    for start in range(0, len(asked), 128):
        part = asked[start : start + 128]
        seen = fw.retrieve_many([text for text, _ in part], SHOWN, record=False)
        for retrieval, (_, grades) in zip(seen, part, strict=True):
            helps = [grades.get(hit.passage_id, 0) > 0 for hit in retrieval.hits]
            hits += [hit.relevance for hit in retrieval.hits]
            right += helps
            answers.append(retrieval.answerable)
            answered.append(any(helps))
    chances, of_answers = np.array(hits), np.array(answers)
    return {
        "hits": round(ece(chances, np.array(right, float)), 4),
        "hits_by_chance": round(ece_by_chance(chances), 4),
        "answerable": round(ece(of_answers, np.array(answered, float)), 4),
        "answerable_by_chance": round(ece_by_chance(of_answers), 4),
        "answerable_debiased": round(debiased(of_answers, np.array(answered, float)), 4),
        "mean_relevance": round(float(chances.mean()), 4),
        "share_right": round(float(np.mean(right)), 4),
        "mean_answerable": round(float(of_answers.mean()), 4),
        "share_answered": round(float(np.mean(answered)), 4),
    }


def with_unanswerable(bench: Bench, asked: Asked) -> tuple[Bench, Asked]:
    """The bench with half of the questions of each cycle unanswerable ones, and mixed test questions."""
    rng, texts = np.random.default_rng(1), unanswerable()
    vain, rest = texts[: len(asked)], texts[len(asked) :]
    queries, qrels, parts = dict(bench.train.queries), dict(bench.train.qrels), []
    for part in bench.parts:
        half = list(part[: len(part) // 2])
        new = {f"unanswerable-{len(queries) + i}": rest.pop() for i in range(len(half))}
        queries.update(new)
        qrels.update({query: {} for query in new})
        parts.append(tuple(rng.permutation([*half, *new]).tolist()))
    mixed = [*asked, *((text, {}) for text in vain)]
    return replace(bench, train=Split(queries, qrels), parts=tuple(parts)), mixed


def after_votes(name: str, most_test: int, most_asked: int, seed: int) -> Json:
    """ECE as served: before any vote, and after the first and the last of five cycles of votes, which
    end with a refresh."""
    began, rng, rows = time.monotonic(), np.random.default_rng(1 + seed), []
    with tempfile.TemporaryDirectory() as scratch:
        protocol = Protocol(n_cycles=N_CYCLES, max_train=most_asked, seed=seed)
        bench = prepare(find_collection(name.split(",")[0]), protocol, Path(scratch), None)
        asked = asked_of(bench.test, most_test)
        if name == MIXED:
            bench, asked = with_unanswerable(bench, asked)
        with bench.open(bench.base) as fw:
            n_votes, refresh_s = 0, 0.0
            for cycle in range(len(bench.parts) + 1):
                if cycle:
                    part = bench.parts[cycle - 1]
                    n_votes += asking(fw, bench.train, part, Users(), rng)()
                if 1 < cycle < len(bench.parts):
                    continue
                if cycle:
                    refresh_s = fw.refresh().seconds
                off = [r.answerable for r in fw.retrieve_many(off_topic(), SHOWN, record=False)]
                low = round(float(np.mean(np.array(off) < LOW)), 4)
                row = {"votes": n_votes, **served(fw, asked), "off_topic_low": low}
                rows.append({**row, "refresh_seconds": round(refresh_s, 2)})
            parameters = fw._serving()._live.state().version.parameters
    print(name, json.dumps(rows[0]), json.dumps(rows[-1]), flush=True)
    calibration = asdict(parameters.relevance)
    return {"cycles": rows, "calibration": calibration, "seconds": round(time.monotonic() - began)}


def main() -> None:
    """Run all and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/relevance.json"))
    parser.add_argument("--only", choices=("before", "after"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--collections", nargs="+", choices=(*NAMES, MIXED), metavar="NAME")
    parser.add_argument("--most-test", type=int, default=MOST_TEST)
    parser.add_argument("--most-asked", type=int, default=MOST_ASKED)
    asked = parser.parse_args()
    result: Json = {**surroundings(("numpy", "scipy", "torch")), "commit": commit()}
    result |= {"most_test": asked.most_test, "most_asked": asked.most_asked}
    result["seed"] = asked.seed
    if asked.only != "after":
        result["before"] = before_votes(asked.most_test)
        print(json.dumps(result["before"], indent=1), flush=True)
    if asked.only != "before":
        result["after"] = {}
        for name in asked.collections or (*NAMES, MIXED):
            result["after"][name] = after_votes(name, asked.most_test, asked.most_asked, asked.seed)
            asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
