"""Chooses the passages to rank for a query: the best of dense search, of BM25 and of fresh texts, and
those for which similar past queries are evidence.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import islice

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.bm25 import LexicalScores
from rag_flywheel.index.engine import Found, Positions, Question
from rag_flywheel.index.in_memory import highest
from rag_flywheel.index.positions import find_pids
from rag_flywheel.index.tokenizer import is_character, is_one_name
from rag_flywheel.rank.features import CHEAP, FEATURES, MEASURES, RICH, with_rich
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.rank.score import POOL
from rag_flywheel.records import EmbeddedText, Features, Pids
from rag_flywheel.serve.features import cheap_of, read_features, rich_of
from rag_flywheel.serve.lookups import Lookup, Lookups
from rag_flywheel.serve.state import Scope, State, scope

_BM25 = CHEAP.index("bm25")
_MOST_NAMED = 32  # texts that have a name
_AHEAD = 0.1  # of the plain hybrid


def look_up(
    state: State,
    inside: Scope,
    queries: Sequence[EmbeddedText],
    n: int,
    cache: Lookups,
    *,
    keep: bool = True,
) -> list[Lookup]:
    """For each query the union of the dense top n, the BM25 top n, and fresh texts.

    The words of texts are read for the best 50 of the plain hybrid. keep: whether new lookups are
    put into the cache.
    """
    corpus = state.corpus if inside.whole else None
    found = [cache.find(corpus, query, n) for query in queries]
    missing = [i for i, lookup in enumerate(found) if lookup is None]
    if missing:
        questions = [_question(state, queries[i]) for i in missing]
        every = state.version.engine.find(questions, n, inside.searchable)
        for i, question, texts in zip(missing, questions, every, strict=True):
            found[i] = made = _looked_up(state, inside, queries[i], question, texts, n)
            if keep:
                cache.keep(corpus, queries[i], n, made)
    return [lookup for lookup in found if lookup is not None]


def warm_up(state: State) -> None:
    """Look up one query, so that what an index computes at its first query is computed."""
    version = state.version
    if len(version.pids):
        words = " ".join(islice(version.engine.vocabulary, 3))
        question = EmbeddedText(words, version.engine.vectors(version.pids[:1])[0])
        look_up(state, scope(state, None), [question], POOL, Lookups(0))


def with_evident(
    state: State, inside: Scope, query: EmbeddedText, lookup: Lookup, evident: Sequence[int]
) -> tuple[Pids, Features]:
    """Candidates with their features and measures (n, 14), with the passages of these lineages among them.

    The words of those passages are read, and are compared with the best of the other candidates.
    """
    if not len(evident):
        return lookup.pids, lookup.features
    heirs = [inside.heirs.get(p) or state.heirs.get(p, p) for p in evident]
    wanted = np.unique(np.array(heirs, dtype=np.int64))
    wanted = wanted[_standing(state, inside, wanted)]
    at, there = find_pids(wanted, lookup.pids)
    there[there] = lookup.read[at[there]]
    new = wanted[~there]
    if not len(new):
        return lookup.pids, lookup.features
    missing = np.array([p for p in new.tolist() if p not in lookup.more], dtype=np.int64)
    if len(missing):
        lookup.more.update(read_features(state, query, lookup, missing))
    rows = np.stack([lookup.more[p] for p in new.tolist()])
    at, there = find_pids(new, lookup.pids)
    features = lookup.features.copy()
    features[at[there]] = rows[there]
    return np.concatenate([lookup.pids, new[~there]]), np.concatenate([features, rows[~there]])


def plain_worth(features: Features, trust: float) -> npt.NDArray[np.float32]:
    """The plain hybrid of candidates, (n,): cosine and BM25 under the weights before any vote."""
    worth: npt.NDArray[np.float32] = features[:, : len(CHEAP)] @ _plain_weights(trust)
    return worth


@lru_cache(maxsize=64)
def _plain_weights(trust: float) -> npt.NDArray[np.float32]:
    weights = Parameters.starting(trust).weights
    return np.array([weights[name] for name in CHEAP], dtype=np.float32)


def _question(state: State, query: EmbeddedText) -> Question:
    return Question(query.vector, state.statistics.query_words(query.text))


def _looked_up(
    state: State, inside: Scope, query: EmbeddedText, question: Question, found: Found, n: int
) -> Lookup:
    """The lookup of a query, of which `found` has the texts of the version."""
    words, indexed = question.words, found.positions
    fresh_bm25 = np.zeros(0, dtype=np.float32)
    if len(inside.fresh):
        fresh_bm25 = state.fresh.lexical_scores(words, state.statistics) * inside.fresh
    fresh = _best_fresh(state.fresh.cosines(question.vector), fresh_bm25, inside, n)
    best_bm25 = float(max(found.scores.bm25.max(initial=0.0), fresh_bm25.max(initial=0.0)))
    cheap = cheap_of(state, question, found.scores, fresh, fresh_bm25, best_bm25)
    if is_one_name(query.text):
        named = _named(state, words, indexed, fresh)
        cheap[:, _BM25] += _lift(plain_worth(cheap, state.version.parameters.trust), named)
    pool = _best(plain_worth(cheap, state.version.parameters.trust))
    n_indexed = len(indexed)
    of_index, of_fresh = indexed[pool[pool < n_indexed]], fresh[pool[pool >= n_indexed] - n_indexed]
    rich, best = rich_of(state, words, of_index, of_fresh)
    read = np.zeros(len(cheap), dtype=bool)
    read[pool] = True
    features = _with_measures(cheap, pool, rich)
    pids = state.version.pids[indexed]
    if not len(fresh):
        return Lookup(pids, features, read, best, best_bm25)
    every = np.concatenate([pids, state.fresh.pids[fresh]])
    order = np.argsort(every)
    return Lookup(every[order], features[order], read[order], best, best_bm25)


def _named(state: State, words: Sequence[str], indexed: Positions, fresh: Positions) -> Positions:
    """Places, among these texts of the version and fresh ones, of those that have the name that a query is:
    joined, else all its parts; none when they are many, which makes it no name."""
    whole = [] if not words or is_character(words[0][0]) else [words[:1], words, words[1:]]
    for wanted in whole or [words]:
        of_version = state.version.engine.having_all(wanted, _MOST_NAMED)
        every = [of_version, state.fresh.having_all(wanted)]
        if sum(map(len, every)) > _MOST_NAMED:
            break
        there = [np.isin(of, having) for of, having in zip((indexed, fresh), every, strict=True)]
        if (named := np.flatnonzero(np.concatenate(there))).size:
            return named
    return np.empty(0, dtype=np.int64)


def _lift(worth: npt.NDArray[np.float32], named: Positions) -> npt.NDArray[np.float32]:
    """How much BM25 must say more of what has the name that was asked for, to come before what has not."""
    lift = np.zeros(len(worth), dtype=np.float32)
    others = np.delete(worth, named)
    if len(named) and len(others):
        behind = float(others.max()) + _AHEAD - float(worth[named].min())
        lift[named] = max(behind, 0.0) / Parameters().weights["bm25"]
    return lift


def _with_measures(cheap: Features, pool: Positions, read: Features) -> Features:
    """float32 (n, 14): features and measures, of which `read` has those of the candidates at `pool`.

    The measures of the other candidates are nan.
    """
    full = np.empty((len(cheap), len(FEATURES) + len(MEASURES)), dtype=np.float32)
    with_rich(cheap, pool, read[:, : len(RICH)], full)
    full[:, len(FEATURES) :] = np.nan
    full[pool, len(FEATURES) :] = read[:, len(RICH) :]
    return full


def _standing(state: State, inside: Scope, pids: Pids) -> npt.NDArray[np.bool_]:
    """Which of these texts are present and in scope."""
    standing = np.zeros(len(pids), dtype=bool)
    for known, mask in ((state.version.pids, inside.indexed), (state.fresh.pids, inside.fresh)):
        at, there = find_pids(pids, known)
        standing[there] |= mask[at[there]]
    return standing


def _best(worth: npt.NDArray[np.float32]) -> Positions:
    """Positions of the POOL best, ascending."""
    if len(worth) <= POOL:
        return np.arange(len(worth))
    return np.sort(np.argpartition(-worth, POOL - 1)[:POOL])


def _best_fresh(
    cosines: npt.NDArray[np.float32], bm25: LexicalScores, inside: Scope, n: int
) -> Positions:
    """Positions of fresh texts: all while they are few, else the best n of either score."""
    standing = np.flatnonzero(inside.fresh)
    if len(standing) <= 2 * n:
        return standing
    return standing[np.union1d(highest(cosines[standing] + 2.0, n), highest(bm25[standing], n))]
