"""Finds gaps: topics that users ask about without a good answer in the index, and their trend.

Feedback is weighed by Bayes' rule, as votes are in ranking. It reads events and judgments; it must
not know how questions are clustered.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rag_flywheel.checks import check_days
from rag_flywheel.curate.chances import completed, with_named
from rag_flywheel.curate.source import Source
from rag_flywheel.rank.posterior import CORRECTION_WEIGHT, Rates
from rag_flywheel.records import ALL_TENANTS, Judgment, QueryKey, TenantScope, Vectors
from rag_flywheel.report.topics import clusters
from rag_flywheel.store import notes, passages, retrievals, votes, wall_clock
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database
from rag_flywheel.store.embedding import vectors_of
from rag_flywheel.store.retrievals import AskedQuery, asked_since

UNLIKELY = 0.5  # of an answer to hold a right passage
PEOPLE = 4  # who ask about a topic from whom on UNLIKELY holds; docs/how-to/feedback.md: both
UNANSWERED = 0.1  # prior probability that a question has no answer
QUIET = 0.05  # log-odds that each time a question is asked add in favour of an answer
MOST_QUESTIONS = 2_000  # the most that are clustered: those asked most often
_EXAMPLES = 3
_DAY_S = 86_400.0


@dataclass(frozen=True)
class Gap:
    """Questions of one topic without a good answer.

    examples: the questions asked most, of those whose words are stored.
    n, n_before: how often the topic was asked in the period, and in the period before it.
    missing: questions whose answer a user reported as missing.
    harmful: questions with more votes against a hit than for it.
    unlikely: questions whose answer, when last asked, most likely held no passage that answers them.
        The fewer people ask about the topic, the less likely it has to be.
    tenant: as JSON, None: the questions were asked under none.
    """

    examples: tuple[str, ...]
    n: int
    n_before: int
    missing: int
    harmful: int
    unlikely: int
    tenant: str | None = None


def gaps(
    database: Database,
    source: Source,
    *,
    days: float,
    rates: Rates,
    weights: Mapping[str, float],
    least: float = UNLIKELY,
    scope: TenantScope = ALL_TENANTS,
) -> list[Gap]:
    """The gaps of the last days: first those that users reported, then those that are only likely.

    Both are sorted by how often they were asked. rates: how often votes are wrong; weights: of the
    users who cast them, by their hashes. least: a question is unlikely to have an answer where
    `answerable` is below it, or where so are its odds times 64 while one person asked about the topic,
    times 8 for two. Without a user's id, each time counts as another person. scope: whose questions.
    Raises InputError.
    """
    days = check_days(days)
    now = wall_clock.now()
    with database.snapshot() as conn:
        every = asked_since(conn, now - 2 * days * _DAY_S)
        recent = [asked for asked in every if scope.holds(asked.question.tenant)]
        whys = _whys(recent, _signs(conn, recent, source, weights), rates, least)
        counts = _counts([a for a in recent if a.question in whys], now - days * _DAY_S)
    texts: dict[QueryKey, str] = {}
    for a in recent:
        texts[a.question] = a.query or texts.get(a.question, "")
    questions = sorted(
        counts, key=lambda q: (-counts[q][0], -counts[q][1], texts[q], q.tenant or "")
    )[:MOST_QUESTIONS]
    found = []
    for reported in (True, False):
        some = [q for q in questions if (whys[q] != {"unlikely"}) == reported]
        with database.reading() as conn:
            vectors = vectors_of(conn, {q.query_hash: texts[q] for q in some}, source.queries)
        topics = _topics(some, vectors)
        if not reported:
            asked = defaultdict(list)
            for each_time in recent:
                asked[each_time.question].append(each_time)
            surely = (_surely({q: asked[q] for q in topic}, least) for topic in topics)
            topics = [kept for kept in surely if kept]
        each = [_gap(topic, texts, counts, whys) for topic in topics]
        found += sorted(each, key=lambda g: (-g.n, -g.n_before, g.examples))
    return found


@dataclass(frozen=True)
class Signs:
    """The feedback on a question.

    n: how often it was asked.
    missing: the users who reported that its answer is missing.
    votes: helpful and harmful votes on passages, by lineage.
    before: the chance of each passage that was shown to be the answer, before the feedback.
    """

    n: int
    missing: frozenset[str | None]
    votes: Mapping[int, tuple[float, float]]
    before: Mapping[int, float]

    @property
    def verdicts(self) -> set[int]:
        """1 with a passage that has more helpful votes, -1 with one that has more harmful ones."""
        return {1 if h > n else -1 for h, n in self.votes.values() if h != n}

    def chance_of_none(self, rates: Rates) -> float:
        """The posterior probability that no passage is the answer, by Bayes' rule.

        A tenth of questions have no answer; half of the probability that the answer was not shown
        also counts as no answer. Votes are wrong at the same rates in either case. A report
        that the answer is missing counts as much as naming a passage, and less the more often the
        question was asked.
        """
        unseen = 0.5 * max(0.0, 1.0 - sum(self.before.values()))
        shown = sum(
            chance * math.exp(rates.of_votes(*self.votes.get(lineage, (0.0, 0.0))))
            for lineage, chance in self.before.items()
        )
        some = (1.0 - UNANSWERED) * (unseen + shown)
        none = UNANSWERED + (1.0 - UNANSWERED) * unseen
        missing = rates.of_votes(CORRECTION_WEIGHT * len(self.missing), 0.0)
        none *= math.exp(missing - QUIET * self.n)
        return none / (none + some)


def _signs(
    conn: Connection,
    recent: Sequence[AskedQuery],
    source: Source,
    weights: Mapping[str, float],
) -> dict[QueryKey, Signs]:
    asked = Counter(a.question for a in recent)
    said: dict[QueryKey, list[Judgment]] = defaultdict(list)
    every = votes.votes_until(conn, passages.read_clock(conn))
    for judgment in source.judge(every, weights, of_few=True):
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
            {j.lineage: (j.helpful, j.harmful) for j in said[q]},
            # one answer is enough: with several right ones these are their shares
            with_named(completed({}, [logged[row] for row in rows[q]], None), said[q]),
        )
        for q in spoken
    }


def _whys(
    recent: Sequence[AskedQuery], signs: Mapping[QueryKey, Signs], rates: Rates, least: float
) -> dict[QueryKey, set[str]]:
    """Why each question has no good answer; questions that may have one are left out."""
    found: dict[QueryKey, set[str]] = defaultdict(set)
    for question, sign in signs.items():
        if sign.chance_of_none(rates) > 0.5:
            found[question] |= {"missing"} if sign.missing else set()
            found[question] |= {"harmful"} if -1 in sign.verdicts else set()
    helped = {q for q, sign in signs.items() if 1 in sign.verdicts}
    last = {asked.question: asked.answerable for asked in recent}
    for question, answerable in last.items():
        if question not in helped and answerable is not None and answerable < least:
            found[question].add("unlikely")
    return dict(found)


def _surely(topic: Mapping[QueryKey, Sequence[AskedQuery]], least: float) -> list[QueryKey]:
    """The questions of a topic that are unlikely enough to have an answer for so few people asking.

    topic: its questions, and each time that they were asked, the last time at the end.
    """
    users = [asked.user_id for each in topic.values() for asked in each]
    n = len({user for user in users if user is not None}) + users.count(None)
    share, last = (
        min(n / PEOPLE, 1.0) ** 3,
        {q: each[-1].answerable or 0.0 for q, each in topic.items()},
    )
    # odds below share · least / (1 − least), without a division by 0
    return [q for q, p in last.items() if p * (1.0 - least) < share * least * (1.0 - p)]


def _counts(recent: Sequence[AskedQuery], since: float) -> dict[QueryKey, tuple[int, int]]:
    """How often each question was asked since then, and before."""
    now = Counter(a.question for a in recent if a.at >= since)
    before = Counter(a.question for a in recent if a.at < since)
    return {question: (now[question], before[question]) for question in now.keys() | before}


def _topics(
    questions: Sequence[QueryKey], vectors: Mapping[bytes, Vectors]
) -> list[list[QueryKey]]:
    """Clusters of questions; those of different tenants are never in one cluster."""
    found: dict[tuple[str | None, int], list[QueryKey]] = defaultdict(list)
    for tenant in {q.tenant for q in questions}:
        own = [question for question in questions if question.tenant == tenant]
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
        tuple([text for question in topic if (text := texts[question])][:_EXAMPLES]),
        sum(counts[question][0] for question in topic),
        sum(counts[question][1] for question in topic),
        kinds["missing"],
        kinds["harmful"],
        kinds["unlikely"],
        topic[0].tenant,
    )
