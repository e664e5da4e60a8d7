"""Which passages are ranked for a query, and what is known of them whatever votes say: the best of
dense search, of BM25, and fresh ones; and those that votes on similar queries bring in.

Features hang on the query and the corpus alone, so they are remembered while the corpus stands. It
must not know how passages are scored, nor what votes say.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.bm25 import LexicalScores
from rag_flywheel.index.lexical import tokenize
from rag_flywheel.rank.features import (
    CHEAP,
    Best,
    QueryWords,
    TextPieces,
    TextWords,
    cheap_features,
    rich_features,
    with_rich,
)
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.rank.score import POOL
from rag_flywheel.records import Features, Pids, Vectors
from rag_flywheel.serve.query_vectors import QueryVectors
from rag_flywheel.serve.scope import Scope, scope
from rag_flywheel.serve.state import State

_HYBRID = np.array([Parameters().weights[name] for name in CHEAP], dtype=np.float32)
_Positions = npt.NDArray[np.int64]
_LARGEST = 1_000  # candidates of a lookup that is remembered
_PART = 64  # scores


@dataclass(frozen=True)
class Question:
    """A query and its vector, float32 (dim,)."""

    text: str
    vector: Vectors


@dataclass(frozen=True)
class Lookup:
    """What the words and the vector of a query say of its candidates: pids ascending, features
    float32 (n, 9), read bool (n,): whose words were looked at, and what the best of those have;
    best_bm25: what the best of all texts has.

    more: features of further passages, by pid, as they are asked for.
    """

    pids: Pids
    features: Features
    read: npt.NDArray[np.bool_]
    best: Best
    best_bm25: float
    more: dict[int, Features] = field(default_factory=dict)


class Lookups:
    """The lookups of the queries asked last, while the corpus stays what it is, and their vectors,
    which no corpus changes; thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._corpus: int | None = None
        self._kept: OrderedDict[bytes, Lookup] = OrderedDict()
        self.vectors = QueryVectors(most)
        self._lock = threading.Lock()

    def find(self, corpus: int | None, query: Question, n: int) -> Lookup | None:
        """The lookup of n candidates of each kind in this corpus; None is a corpus of its own."""
        if corpus is None or not self._most:
            return None
        name = _name(query, n)
        with self._lock:
            found = self._kept.get(name) if corpus == self._corpus else None
            if found is not None:
                self._kept.move_to_end(name)
        return found

    def clear(self) -> None:
        """Forget them all, vectors too."""
        with self._lock:
            self._kept.clear()
        self.vectors.clear()

    def keep(self, corpus: int | None, query: Question, n: int, lookup: Lookup) -> None:
        """Remember a lookup, unless it is very large; those in another corpus are forgotten."""
        if corpus is None or not self._most or len(lookup.pids) > _LARGEST:
            return
        with self._lock:
            if corpus != self._corpus:
                self._kept.clear()
                self._corpus = corpus
            self._kept[_name(query, n)] = lookup
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)


def look_up(
    state: State,
    inside: Scope,
    queries: Sequence[Question],
    n: int,
    known: Lookups,
    *,
    keep: bool = True,
) -> list[Lookup]:
    """For each query the union of the dense top n, the BM25 top n, and fresh texts.

    The words of texts are looked at for the best 50 of the plain hybrid. keep: whether lookups
    that are not known yet are remembered.
    """
    corpus = state.corpus if inside.searchable is None else None
    found = [known.find(corpus, query, n) for query in queries]
    missing = [i for i, lookup in enumerate(found) if lookup is None]
    if missing:
        vectors = np.stack([queries[i].vector for i in missing])
        dense = state.version.dense.search(vectors, n, inside.searchable)
        for i, near in zip(missing, dense, strict=True):
            found[i] = made = _looked_up(state, inside, queries[i], near, n)
            if keep:
                known.keep(corpus, queries[i], n, made)
    return [lookup for lookup in found if lookup is not None]


def warm_up(state: State) -> None:
    """Ask a question, so that what an index makes at its first one is made."""
    version = state.version
    if len(version.pids):
        words = " ".join(islice(version.lexical.vocabulary, 3))
        question = Question(words, version.dense.at(np.zeros(1, dtype=np.int64))[0])
        look_up(state, scope(state, None), [question], POOL, Lookups(0))


def with_evident(
    state: State, inside: Scope, query: Question, lookup: Lookup, evident: Sequence[int]
) -> tuple[Pids, Features]:
    """Candidates and their features (n, 9), with the passages of these lineages among them.

    Their words are looked at, and are compared with the best of the other candidates.
    """
    if not len(evident):
        return lookup.pids, lookup.features
    wanted = np.unique(np.array([state.heirs.get(p, p) for p in evident], dtype=np.int64))
    wanted = wanted[_standing(state, inside, wanted)]
    at, there = _find(wanted, lookup.pids)
    there[there] = lookup.read[at[there]]
    new = wanted[~there]
    if not len(new):
        return lookup.pids, lookup.features
    missing = np.array([p for p in new.tolist() if p not in lookup.more], dtype=np.int64)
    if len(missing):
        lookup.more.update(_read(state, query, lookup, missing))
    rows = np.stack([lookup.more[p] for p in new.tolist()])
    at, there = _find(new, lookup.pids)
    features = lookup.features.copy()
    features[at[there]] = rows[there]
    return np.concatenate([lookup.pids, new[~there]]), np.concatenate([features, rows[~there]])


def plain_worth(features: Features) -> npt.NDArray[np.float32]:
    """The plain hybrid of candidates, (n,): cosine and BM25 under the shipped weights."""
    worth: npt.NDArray[np.float32] = features[:, : len(CHEAP)] @ _HYBRID
    return worth


def _looked_up(state: State, inside: Scope, query: Question, dense: Pids, n: int) -> Lookup:
    words = tokenize(query.text)
    bm25, fresh_bm25 = _bm25(state, inside, words)
    pids = _union(dense, state.version.pids[highest(bm25, n)])
    indexed = np.searchsorted(state.version.pids, pids)
    fresh = _best_fresh(state.fresh.vectors @ query.vector, fresh_bm25, inside, n)
    best_bm25 = float(max(scores.max(initial=0.0) for scores in (bm25, fresh_bm25)))
    scores = np.concatenate([bm25[indexed], fresh_bm25[fresh]])
    cheap = _cheap(state, query, scores, best_bm25, indexed, fresh)
    pool = _best(plain_worth(cheap))
    n_indexed = len(indexed)
    of_index, of_fresh = indexed[pool[pool < n_indexed]], fresh[pool[pool >= n_indexed] - n_indexed]
    rich, best = _rich(state, words, of_index, of_fresh)
    read = np.zeros(len(cheap), dtype=bool)
    read[pool] = True
    found = np.concatenate([pids, state.fresh.pids[fresh]])
    order = np.argsort(found)
    features = with_rich(cheap, pool, rich)
    return Lookup(found[order], features[order], read[order], best, best_bm25)


def _read(state: State, query: Question, lookup: Lookup, pids: Pids) -> dict[int, Features]:
    """Features float32 (9,) of these passages, which stand and are in scope, by pid."""
    words = tokenize(query.text)
    at, there = _find(pids, state.version.pids)
    indexed = at[there]
    fresh, _ = _find(pids[~there], state.fresh.pids)
    fresh_bm25 = state.fresh.lexical_scores(words, state.statistics)[fresh]
    bm25 = np.concatenate([state.version.lexical.scores_at(words, indexed), fresh_bm25])
    cheap = _cheap(state, query, bm25, lookup.best_bm25, indexed, fresh)
    rich, _ = _rich(state, words, indexed, fresh, lookup.best)
    rows = np.concatenate([cheap, rich], axis=1)
    return dict(zip([*pids[there].tolist(), *pids[~there].tolist()], rows, strict=True))


def _bm25(state: State, inside: Scope, words: Sequence[str]) -> tuple[LexicalScores, LexicalScores]:
    """BM25 of every text of the version and of every fresh text; 0 for those out of scope."""
    indexed = state.version.lexical.scores(words)
    if inside.searchable is not None:
        indexed *= inside.indexed
    return indexed, state.fresh.lexical_scores(words, state.statistics) * inside.fresh


def _cheap(
    state: State,
    query: Question,
    bm25: LexicalScores,
    best_bm25: float,
    indexed: _Positions,
    fresh: _Positions,
) -> Features:
    """Cheap features of texts of the version and of fresh ones, at these positions; bm25: theirs."""
    vectors = [state.version.dense.at(indexed), state.fresh.vectors[fresh]]
    cosines = np.concatenate([part @ query.vector for part in vectors])
    return cheap_features(cosines, bm25, best_bm25, state.typical_cosine)


def _rich(
    state: State,
    words: Sequence[str],
    indexed: _Positions,
    fresh: _Positions,
    best: Best | None = None,
) -> tuple[Features, Best]:
    """Rich features of texts of the version and of fresh ones, at these positions."""
    lexical, statistics = state.version.lexical, state.statistics
    query = QueryWords.of(
        words, [statistics.idf(w) for w in words], [w in statistics.vocabulary for w in words]
    )
    idf = statistics.pieces.of_query(words)
    places, lengths = lexical.words_at(query.words, indexed)
    titles = lexical.titles[indexed].astype(np.int64)
    if lexical is statistics:
        counts, totals = lexical.pieces_at(list(idf), indexed)
    else:
        counts, totals = np.zeros((0, len(idf))), np.zeros(0, dtype=np.int64)
    if len(fresh):
        more_places, more_lengths = state.fresh.words_at(query.words, fresh)
        places = np.concatenate([places, more_places])
        lengths = np.concatenate([lengths, more_lengths])
        titles = np.concatenate([titles, state.fresh.title_lengths(fresh)])
        more_counts, more_totals = state.fresh.pieces_at(list(idf), fresh)
        counts = np.concatenate([counts, more_counts])
        totals = np.concatenate([totals, more_totals])
    return rich_features(
        query,
        TextWords(
            places, lengths, titles, statistics.average_length, statistics.average_title_length
        ),
        TextPieces(counts, np.array(list(idf.values())), totals, statistics.average_pieces),
        best,
    )


def _standing(state: State, inside: Scope, pids: Pids) -> npt.NDArray[np.bool_]:
    """Which of these texts stand and are in scope."""
    standing = np.zeros(len(pids), dtype=bool)
    for known, mask in ((state.version.pids, inside.indexed), (state.fresh.pids, inside.fresh)):
        at, there = _find(pids, known)
        standing[there] |= mask[at[there]]
    return standing


def _union(some: Pids, others: Pids) -> Pids:
    """The pids of both, ascending; np.union1d takes five times as long for so few."""
    both = np.sort(np.concatenate([some, others]))
    union: Pids = both[np.append(True, np.diff(both) > 0)[: len(both)]]
    return union


def _find(wanted: Pids, pids: Pids) -> tuple[_Positions, npt.NDArray[np.bool_]]:
    """Where wanted pids are among ascending `pids`, and which of them are there at all."""
    at = np.searchsorted(pids, wanted)
    if not len(pids):
        return at, np.zeros(len(wanted), dtype=bool)
    there: npt.NDArray[np.bool_] = pids[np.minimum(at, len(pids) - 1)] == wanted
    return at, there


def _best(worth: npt.NDArray[np.float32]) -> _Positions:
    """Positions of the POOL best, ascending."""
    if len(worth) <= POOL:
        return np.arange(len(worth))
    return np.sort(np.argpartition(-worth, POOL - 1)[:POOL])


def _best_fresh(
    cosines: npt.NDArray[np.float32], bm25: LexicalScores, inside: Scope, n: int
) -> _Positions:
    """Positions of fresh texts: all while they are few, else the best n of either score."""
    standing = np.flatnonzero(inside.fresh)
    if len(standing) <= 2 * n:
        return standing
    return standing[np.union1d(highest(cosines[standing] + 2.0, n), highest(bm25[standing], n))]


def highest(scores: npt.NDArray[np.float32], n: int) -> _Positions:
    """Positions of the n highest scores above 0, in no order."""
    least = _reached(scores, n)
    found = np.flatnonzero(scores >= least if least > 0 else scores > 0)
    if len(found) <= n:
        return found
    return found[np.argpartition(-scores[found], n - 1)[:n]]


def _reached(scores: npt.NDArray[np.float32], n: int) -> float:
    """A score that at least n of them reach, and little more than n; 0.0 when they are few.

    It is the n-th highest of the maxima of parts: each is a score of its own.
    """
    width = len(scores) // _PART
    if width < 4 * n:
        return 0.0
    highest = scores[: width * _PART].reshape(_PART, width).max(axis=0)
    return float(np.partition(highest, -n)[-n])


def _name(query: Question, n: int) -> bytes:
    whole = hashlib.blake2b(query.vector.tobytes(), digest_size=16)
    whole.update(f"{n} {query.text}".encode("utf-8", "surrogatepass"))
    return whole.digest()
