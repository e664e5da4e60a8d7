"""Past questions with the texts that votes call right or wrong, and those that were passed over.

Votes count as in the live version: each person's last one, by the person's weight, and only on questions
that enough people spoke of. How the texts become rows of a training set is not known here.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from rag_flywheel.curate.certain import certain_texts
from rag_flywheel.curate.judgments import judgments
from rag_flywheel.curate.people import of_enough_people
from rag_flywheel.export.allowed import Asked, allowed_votes
from rag_flywheel.export.graded import LEAST, WITHOUT_WORDS, words_of
from rag_flywheel.records import Judgment, QueryKey
from rag_flywheel.store import passages, retrievals
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.event_types import ONE_TIME, VoteEvent
from rag_flywheel.store.passages import StoredPassage, body_hash, encoded_text
from rag_flywheel.store.tenants import shows

Source: TypeAlias = Literal["voted_harmful", "shown_above"]
"""Why a text is wrong: votes say so; or it was shown above a right one, and nobody called it helpful."""
NOT_THERE = "judgments of texts that are in the index no more"
DISAGREE = "texts on which tenants disagree"
OVERRULED = "judgments that a known answer or a reviewer contradicts"
TOO_FEW = "judgments of too few people"


@dataclass(frozen=True)
class Behind:
    """What a judgment rests on.

    retrieval_ids: of the retrievals that were voted on. first, last: when (UTC). people: how many, at
    least, whose votes stand; those without an id are one, and language models none. versions: of the
    index, that answered.
    """

    retrieval_ids: tuple[str, ...]
    first: str
    last: str
    people: int
    versions: tuple[str, ...]


@dataclass(frozen=True)
class Text:
    """A passage of the index; words: what an encoder is given for it; name: the same for the same words."""

    id: str
    words: str
    name: bytes

    @classmethod
    def of(cls, stored: StoredPassage) -> "Text":
        """The text of a stored passage."""
        words = encoded_text(stored.passage)
        return cls(stored.passage.id, words, body_hash(words))


@dataclass(frozen=True)
class JudgedText:
    """A text that votes judge; net: the weight of the votes for it less that against it."""

    text: Text
    net: float
    behind: Behind


@dataclass(frozen=True)
class PassedOver:
    """A text that was shown above a right one, and that nobody called helpful."""

    text: Text
    retrieval_ids: tuple[str, ...]


@dataclass(frozen=True)
class JudgedQuestion:
    """A past question; digest: of its words alone. passed_over: by the name of the right text, those from
    the top first."""

    key: QueryKey
    words: str
    digest: bytes
    right: tuple[JudgedText, ...]
    wrong: tuple[JudgedText, ...]
    passed_over: Mapping[bytes, tuple[PassedOver, ...]]


@dataclass(frozen=True)
class Counting:
    """Whose votes count: weights of users by their hashes, those of others are 1; least: how many people
    have to speak of a question before votes on it count, and min_people: agree on a text before it is
    taken."""

    weights: Mapping[str, float]
    least: int = 1
    min_people: int = 1


def judged_questions(
    conn: Connection, asked: Asked, counting: Counting, left_out: Counter[str]
) -> list[JudgedQuestion]:
    """The questions with a text that votes call right or wrong, in the order of their digests.

    left_out: gets the counts of what was left out, by why.
    """
    cast = list(allowed_votes(conn, asked))
    heard = of_enough_people(cast, counting.least, counting.weights)
    found = [j for j in judgments(heard, counting.weights) if abs(j.helpful - j.harmful) >= LEAST]
    certain = certain_texts(conn, asked.until(conn))
    agreed = [j for j in found if certain.get((_key(j), j.lineage), _is_right(j)) == _is_right(j)]
    left_out[OVERRULED] += len(found) - len(agreed)
    words = words_of(conn, asked, map(_key, agreed))
    left_out[WITHOUT_WORDS] += len({_key(j) for j in agreed} - words.keys())
    agreed = [j for j in agreed if _key(j) in words]
    behind = _Reasons(conn, cast).of(agreed)
    by_people = [j for j in agreed if behind[_place(j)].people >= counting.min_people]
    left_out[TOO_FEW] += len(agreed) - len(by_people)
    shown = _shown(conn, cast, by_people)
    texts = _texts(conn, asked, {j.lineage for j in by_people}, shown)
    there = [j for j in by_people if j.lineage in texts]
    left_out[NOT_THERE] += len(by_people) - len(there)
    of_question: dict[QueryKey, list[Judgment]] = defaultdict(list)
    for judgment in there:
        of_question[_key(judgment)].append(judgment)
    liked = {(_key(j), j.lineage) for j in judgments(cast) if j.helpful > 0.0}
    liked |= {place for place, is_right in certain.items() if is_right}
    questions = [
        _question(key, words[key], some, texts, behind, shown, liked)
        for key, some in of_question.items()
    ]
    questions = _without_disputes(questions, left_out)
    return sorted(questions, key=lambda q: (q.digest, q.key.tenant or ""))


_Place = tuple[QueryKey, int]
_Shown = Mapping[_Place, Sequence[tuple[str, Sequence[int]]]]
"""By question and right lineage: (retrieval id, the lineages above it, from the top) of each retrieval whose
votes called it right."""


def _key(judgment: Judgment) -> QueryKey:
    return QueryKey(judgment.query, judgment.tenant)


def _place(judgment: Judgment) -> _Place:
    return _key(judgment), judgment.lineage


def _is_right(judgment: Judgment) -> bool:
    return judgment.helpful > judgment.harmful


class _Reasons:
    """Looks up what judgments rest on, of these votes."""

    def __init__(self, conn: Connection, cast: Sequence[VoteEvent]) -> None:
        self._conn = conn
        self._events = {(vote.seq, vote.lineage): vote for vote in cast}

    def of(self, judged: Iterable[Judgment]) -> dict[_Place, Behind]:
        """What each judgment rests on: the votes for what it says."""
        events = {
            _place(j): [
                self._events[seq, j.lineage]
                for seq in j.votes
                if (self._events[seq, j.lineage].verdict == "helpful") == _is_right(j)
            ]
            for j in judged
        }
        rids = sorted({event.retrieval for some in events.values() for event in some})
        answered = retrievals.answered_by(self._conn, rids)
        return {place: behind(some, answered) for place, some in events.items()}


def behind(events: Sequence[VoteEvent], answered: Mapping[int, retrievals.AnsweredBy]) -> Behind:
    """What these votes, one at least, are as the reason of a row; answered: by row of a retrieval."""
    by = [answered[event.retrieval] for event in events]
    of_people = [event for event in events if event.kind != "judge"]  # not of language models
    users = {
        event.user_id
        for event in of_people
        if event.user_id is not None and not event.user_id.startswith(ONE_TIME)
    }
    return Behind(
        tuple(dict.fromkeys(each.id for each in by)),
        _utc(min(event.at for event in events)),
        _utc(max(event.at for event in events)),
        max(len(users), min(len(of_people), 1)),
        tuple(sorted({each.version for each in by if each.version is not None})),
    )


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _shown(conn: Connection, cast: Sequence[VoteEvent], judged: Iterable[Judgment]) -> _Shown:
    right = {_place(j): set(j.votes) for j in judged if _is_right(j)}
    voted_on: dict[_Place, dict[int, None]] = defaultdict(dict)
    for vote in cast:
        place = QueryKey(vote.query, vote.tenant), vote.lineage
        if vote.verdict == "helpful" and vote.seq in right.get(place, ()):
            voted_on[place][vote.retrieval] = None
    rids = sorted({rid for some in voted_on.values() for rid in some})
    order = {
        rid: [lineage for lineage, _ in scored]
        for rid, scored in retrievals.logged_scores(conn, rids).items()
    }
    names = retrievals.answered_by(conn, rids)
    return {
        place: [
            (names[rid].id, order[rid][: order[rid].index(place[1])])
            for rid in some
            if place[1] in order[rid]  # a correction may name a text that was not shown
        ]
        for place, some in voted_on.items()
    }


def _texts(
    conn: Connection, asked: Asked, lineages: Collection[int], shown: _Shown
) -> dict[int, Text]:
    """The texts of the index, and of the scope, by lineage."""
    above = {lineage for some in shown.values() for _, each in some for lineage in each}
    heirs = passages.present_heirs(conn, sorted(above | set(lineages)))
    return {
        lineage: Text.of(stored)
        for lineage, stored in heirs.items()
        if shows(asked.scope, stored.passage)
    }


def _question(
    key: QueryKey,
    words: str,
    judged: Sequence[Judgment],
    texts: Mapping[int, Text],
    behind: Mapping[_Place, Behind],
    shown: _Shown,
    liked: Collection[_Place],
) -> JudgedQuestion:
    order = sorted(judged, key=lambda j: (-abs(j.helpful - j.harmful), texts[j.lineage].id))
    right, wrong = (
        tuple(
            JudgedText(texts[j.lineage], j.helpful - j.harmful, behind[_place(j)])
            for j in order
            if _is_right(j) == side
        )
        for side in (True, False)
    )
    judged_names = {each.text.name for each in (*right, *wrong)}
    passed_over = {}
    for judgment in (j for j in order if _is_right(j)):
        by_lineage: dict[int, list[str]] = defaultdict(list)
        for retrieval_id, above in shown.get((key, judgment.lineage), ()):
            for lineage in above:
                if lineage in texts and (key, lineage) not in liked:
                    by_lineage[lineage].append(retrieval_id)
        passed_over[texts[judgment.lineage].name] = tuple(
            PassedOver(texts[lineage], tuple(dict.fromkeys(ids)))
            for lineage, ids in by_lineage.items()
            if texts[lineage].name not in judged_names
        )
    return JudgedQuestion(key, words, passages.query_digest(words), right, wrong, passed_over)


def _without_disputes(
    questions: Sequence[JudgedQuestion], left_out: Counter[str]
) -> list[JudgedQuestion]:
    """The questions without texts that are right for one tenant, and wrong for another who asks the same
    in a text of the same words."""
    right, wrong = (
        {(q.digest, each.text.name) for q in questions for each in getattr(q, side)}
        for side in ("right", "wrong")
    )
    disputed = right & wrong
    left_out[DISAGREE] += len(disputed)
    return [
        replace(
            q,
            right=tuple(x for x in q.right if (q.digest, x.text.name) not in disputed),
            wrong=tuple(x for x in q.wrong if (q.digest, x.text.name) not in disputed),
            passed_over={
                name: tuple(x for x in some if (q.digest, x.text.name) not in right | wrong)
                for name, some in q.passed_over.items()
            },
        )
        for q in questions
    ]
