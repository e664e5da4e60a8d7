"""Gaps: what users ask that the index has no good answer to, by topic, with its trend.

Whether users' words mean that, is weighed by Bayes' rule as votes are. It reads events and
judgments; it must not know how questions are clustered.
"""

import math
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rag_flywheel.curate.chances import completed, with_named
from rag_flywheel.curate.source import Source
from rag_flywheel.errors import InputError
from rag_flywheel.rank.posterior import NAMING, vote_log_odds
from rag_flywheel.records import Judgment, QueryKey, Vectors
from rag_flywheel.report.topics import clusters
from rag_flywheel.store import notes, passages, retrievals, votes
from rag_flywheel.store.database import Database
from rag_flywheel.store.embedding import vectors_of
from rag_flywheel.store.retrievals import AskedQuery, asked_since

LOW_CHANCE = 0.10  # of the best hit; where it comes from is in docs/how-to/feedback.md
UNANSWERED = 0.1  # share of questions that are taken to have no answer, before anybody speaks
QUIET = 0.05  # log-odds by which each time that one is asked speaks for an answer
MOST_QUESTIONS = 2_000  # that are clustered: those asked most
_EXAMPLES = 3
_FARTHEST = 50.0  # log-odds
_DAY_S = 86_400.0


@dataclass(frozen=True)
class Gap:
    """Questions of one topic without a good answer.

    examples: those asked most; n: how often the topic was asked in the period, n_before: in the one
    before it. missing, harmful, unlikely: for how many of its questions a user said that the answer
    is missing, there are votes, but rather against what was shown, and the best hit was unlikely.
    """

    examples: tuple[str, ...]
    n: int
    n_before: int
    missing: int
    harmful: int
    unlikely: int


def gaps(database: Database, source: Source, *, days: float, noise: float) -> list[Gap]:
    """The gaps of the last so many days: those that users' words tell, then those that only look
    like one, of either those asked most first. noise: the share of votes that are wrong.

    Raises InputError.
    """
    if type(days) not in {int, float} or not 0 < days < 1e5:
        raise InputError(f"days is {days!r}; expected a number above 0")
    now = time.time()
    with database.snapshot() as conn:
        recent = asked_since(conn, now - 2 * days * _DAY_S)
        whys = _whys(recent, _signs(conn, recent, source), noise)
        counts = _counts([a for a in recent if a.question in whys], now - days * _DAY_S)
        kept = sorted(
            counts, key=lambda q: (-counts[q][0], -counts[q][1], q.query_hash, q.tenant or "")
        )
        kept = kept[:MOST_QUESTIONS]
    texts = {a.question: a.query for a in recent}
    found = []
    for told in (True, False):
        some = [q for q in kept if (whys[q] != {"unlikely"}) == told]
        with database.reading() as conn:
            vectors = vectors_of(conn, {q.query_hash: texts[q] for q in some}, source.queries)
        topics = _topics(some, vectors)
        each = [_gap(topic, texts, counts, whys) for topic in topics]
        found += sorted(each, key=lambda g: (-g.n, -g.n_before, g.examples))
    return found


@dataclass(frozen=True)
class Signs:
    """What users said of a question that was asked n times: who said that its answer is missing;
    helpful less harmful votes on passages, by lineage; and the chance of each that was shown to be
    its answer before that."""

    n: int
    missing: frozenset[str | None]
    net: Mapping[int, float]
    before: Mapping[int, float]

    def chance_of_none(self, noise: float) -> float:
        """The chance that no passage is its answer, by Bayes' rule.

        A tenth of questions has none, and of the chance that the answer is none of those shown, half
        means that there is none. Votes are wrong with probability `noise`, then as well; to say that
        it is missing counts as naming a passage does, once among few who ask more than among many.
        """
        per_vote = vote_log_odds(noise)
        unseen = 0.5 * max(0.0, 1.0 - sum(self.before.values()))
        moved = (min(per_vote * self.net.get(p, 0.0), _FARTHEST) for p in self.before)
        shown = sum(c * math.exp(m) for c, m in zip(self.before.values(), moved, strict=True))
        some = (1.0 - UNANSWERED) * (unseen + shown)
        none = UNANSWERED + (1.0 - UNANSWERED) * unseen
        none *= math.exp(min(per_vote * NAMING * len(self.missing), _FARTHEST) - QUIET * self.n)
        return none / (none + some)


def _signs(
    conn: sqlite3.Connection, recent: Sequence[AskedQuery], source: Source
) -> dict[QueryKey, Signs]:
    asked = Counter(a.question for a in recent)
    said: dict[QueryKey, list[Judgment]] = defaultdict(list)
    for judgment in source.judge(votes.votes_until(conn, passages.read_clock(conn))):
        said[QueryKey(judgment.query, judgment.tenant)].append(judgment)
    missing: dict[QueryKey, set[str | None]] = defaultdict(set)
    for note in notes.all_notes(conn):
        if note.kind == "missing" and note.decision != "reject":
            missing[QueryKey(note.query_hash, note.tenant)].add(note.user_id)
    spoken = asked.keys() & (said.keys() | missing.keys())
    first = retrievals.first_retrievals(conn, spoken)
    rows = {q: sorted({first[q], *(j.retrieval for j in said[q])}) for q in spoken}
    logged = retrievals.logged_scores(conn, sorted({row for some in rows.values() for row in some}))
    return {
        q: Signs(
            asked[q],
            frozenset(missing[q]),
            {j.lineage: j.helpful - j.harmful for j in said[q]},
            with_named(completed({}, [logged[row] for row in rows[q]]), said[q]),
        )
        for q in spoken
    }


def _whys(
    recent: Sequence[AskedQuery], spoken: Mapping[QueryKey, Signs], noise: float
) -> dict[QueryKey, set[str]]:
    """Why each question has no good answer; questions that may have one are left out."""
    found: dict[QueryKey, set[str]] = defaultdict(set)
    for question, said in spoken.items():
        if said.chance_of_none(noise) > 0.5:
            found[question] |= {"missing"} if said.missing else set()
            found[question] |= {"harmful"} if any(n < 0 for n in said.net.values()) else set()
    for asked in recent:
        helped = asked.question in spoken and any(
            net > 0 for net in spoken[asked.question].net.values()
        )
        if not helped and asked.best < math.log(LOW_CHANCE):
            found[asked.question].add("unlikely")
    return dict(found)


def _counts(recent: Sequence[AskedQuery], since: float) -> dict[QueryKey, tuple[int, int]]:
    """How often each question was asked since then, and before."""
    now = Counter(a.question for a in recent if a.at >= since)
    before = Counter(a.question for a in recent if a.at < since)
    return {question: (now[question], before[question]) for question in now.keys() | before}


def _topics(kept: Sequence[QueryKey], vectors: Mapping[bytes, Vectors]) -> list[list[QueryKey]]:
    """Clusters of the questions under each tenant, which are never mixed."""
    found: dict[tuple[str | None, int], list[QueryKey]] = defaultdict(list)
    for tenant in {q.tenant for q in kept}:
        own = [question for question in kept if question.tenant == tenant]
        rows = np.stack([vectors[question.query_hash] for question in own])
        for question, cluster in zip(own, clusters(rows).tolist(), strict=True):
            found[(tenant, cluster)].append(question)
    return list(found.values())


def _gap(
    topic: Sequence[QueryKey],
    texts: dict[QueryKey, str],
    counts: dict[QueryKey, tuple[int, int]],
    whys: dict[QueryKey, set[str]],
) -> Gap:
    kinds = Counter(why for question in topic for why in whys[question])
    return Gap(
        tuple(texts[question] for question in topic[:_EXAMPLES]),
        sum(counts[question][0] for question in topic),
        sum(counts[question][1] for question in topic),
        kinds["missing"],
        kinds["harmful"],
        kinds["unlikely"],
    )
