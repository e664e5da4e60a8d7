"""Makes rows of training sets, as the libraries that read them name and order the columns."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, get_args

from rag_flywheel.export.allowed import Asked
from rag_flywheel.export.answers import (
    NO_ANSWER,
    CorrectedAnswer,
    JudgedAnswer,
    best_answers,
    corrected_answers,
    judged_answers,
)
from rag_flywheel.export.graded import split_of
from rag_flywheel.export.questions import (
    Behind,
    Counting,
    JudgedQuestion,
    JudgedText,
    Source,
    Text,
    judged_questions,
)
from rag_flywheel.formats.beir import query_id
from rag_flywheel.formats.row_files import Column, Row
from rag_flywheel.records import TrainingSet
from rag_flywheel.store import passages, retrievals
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.tenants import shows

KINDS: tuple[str, ...] = get_args(TrainingSet)
COLUMNS: Mapping[TrainingSet, tuple[Column, ...]] = {
    "pairs": (Column("anchor", "text"), Column("positive", "text")),
    "triplets": (Column("anchor", "text"), Column("positive", "text"), Column("negative", "text")),
    "labeled-pairs": (Column("query", "text"), Column("passage", "text"), Column("label", "whole")),
    "preferences": (Column("prompt", "text"), Column("chosen", "text"), Column("rejected", "text")),
    "kto": (Column("prompt", "text"), Column("completion", "text"), Column("label", "flag")),
    "dpo": (Column("prompt", "text"), Column("chosen", "text"), Column("rejected", "text")),
    "evaluation": (
        Column("user_input", "text"),
        Column("retrieved_contexts", "texts"),
        Column("retrieved_context_ids", "texts"),
        Column("reference_contexts", "texts"),
        Column("reference_context_ids", "texts"),
        Column("response", "text"),
        Column("reference", "text"),
    ),
}
"""Columns in the order in which a library takes them: sentence-transformers goes by it."""
PROVENANCE = (
    Column("row", "whole"),
    Column("question_id", "text"),
    Column("tenant", "text"),
    Column("retrieval_ids", "texts"),
    Column("first", "time"),
    Column("last", "time"),
    Column("people", "whole"),
    Column("versions", "texts"),
    Column("passage_ids", "texts"),
    Column("source", "text"),
)
MOST_NEGATIVES = 4
"""The most negatives beside one right passage, unless asked otherwise."""
REPEATED = "rows that were there already"
VOTED, REVIEWED, UNREVIEWED = "voted", "reviewed", "unreviewed"


@dataclass(frozen=True)
class Made:
    """A row of a training set, its split and where it comes from."""

    split: str
    values: Row
    provenance: Row


@dataclass(frozen=True)
class Recipe:
    """How rows are made: whose votes count, how many negatives there are beside one right passage, whether
    corrections count that nobody has reviewed."""

    counting: Counting
    most_negatives: int = MOST_NEGATIVES
    unreviewed: bool = False


def rows_of(
    conn: Connection,
    kind: TrainingSet,
    asked: Asked,
    recipe: Recipe,
    left_out: Counter[str],
) -> Iterator[Made]:
    """The rows of a training set, each once, in the order of the questions' digests, which is random."""
    seen: set[tuple[Any, ...]] = set()
    for made in _MAKERS[kind](conn, asked, recipe, left_out):
        values = made.values.values()
        name = tuple(v if isinstance(v, str | int | None) else tuple(v) for v in values)
        if name in seen:
            left_out[REPEATED] += 1
        else:
            seen.add(name)
            yield made


Maker: TypeAlias = Callable[[Connection, Asked, Recipe, Counter[str]], Iterable[Made]]


def _by_question(of: Callable[[JudgedQuestion, Recipe], Iterator[Made]]) -> Maker:
    """Makes the rows of each question by itself."""

    def made(
        conn: Connection, asked: Asked, recipe: Recipe, left_out: Counter[str]
    ) -> Iterator[Made]:
        for question in judged_questions(conn, asked, recipe.counting, left_out):
            yield from of(question, recipe)

    return made


def _pairs(question: JudgedQuestion, _: Recipe) -> Iterator[Made]:
    for right in question.right:
        values = {"anchor": question.words, "positive": right.text.words}
        yield _made(question, values, right.behind, (right.text.id,), VOTED)


def _triplets(question: JudgedQuestion, recipe: Recipe) -> Iterator[Made]:
    for right in question.right:
        for wrong, source, _ in _negatives(question, right, recipe):
            values = {
                "anchor": question.words,
                "positive": right.text.words,
                "negative": wrong.words,
            }
            yield _made(question, values, right.behind, (right.text.id, wrong.id), source)


def _labeled_pairs(question: JudgedQuestion, recipe: Recipe) -> Iterator[Made]:
    labeled = {each.text.name for each in (*question.right, *question.wrong)}
    for right in question.right:
        values = {"query": question.words, "passage": right.text.words, "label": 1}
        yield _made(question, values, right.behind, (right.text.id,), VOTED)
    for each in question.wrong:
        values = {"query": question.words, "passage": each.text.words, "label": 0}
        yield _made(question, values, each.behind, (each.text.id,), "voted_harmful")
    for right in question.right:
        for wrong, source, why in _negatives(question, right, recipe):
            if wrong.name not in labeled:
                labeled.add(wrong.name)
                values = {"query": question.words, "passage": wrong.words, "label": 0}
                yield _made(question, values, why, (wrong.id,), source)


def _preferences(question: JudgedQuestion, _: Recipe) -> Iterator[Made]:
    """Pairs of which people said both sides."""
    for right in question.right:
        for wrong in question.wrong:
            values = {
                "prompt": question.words,
                "chosen": right.text.words,
                "rejected": wrong.text.words,
            }
            ids = (right.text.id, wrong.text.id)
            yield _made(question, values, _both(right.behind, wrong.behind), ids, VOTED)


def _negatives(
    question: JudgedQuestion, right: JudgedText, recipe: Recipe
) -> Iterator[tuple[Text, Source, Behind]]:
    """The texts to tell from a right one, with why they are wrong and what that rests on: those that votes
    call harmful first, then those passed over."""
    n = 0
    for wrong in question.wrong[: recipe.most_negatives]:
        n += 1
        yield wrong.text, "voted_harmful", wrong.behind
    for passed in question.passed_over.get(right.text.name, ())[: recipe.most_negatives - n]:
        yield passed.text, "shown_above", right.behind


def _both(one: Behind, other: Behind) -> Behind:
    return Behind(
        tuple(dict.fromkeys(one.retrieval_ids + other.retrieval_ids)),
        min(one.first, other.first),
        max(one.last, other.last),
        min(one.people, other.people),
        tuple(sorted({*one.versions, *other.versions})),
    )


def _kto(conn: Connection, asked: Asked, recipe: Recipe, left_out: Counter[str]) -> Iterator[Made]:
    for each in judged_answers(conn, asked, recipe.counting, left_out):
        values = {"prompt": each.words, "completion": each.answer, "label": each.right}
        yield _made(each, values, each.behind, (), VOTED)


def _dpo(conn: Connection, asked: Asked, recipe: Recipe, left_out: Counter[str]) -> Iterator[Made]:
    for each in corrected_answers(
        conn, asked, recipe.counting, left_out, unreviewed=recipe.unreviewed
    ):
        if each.given is None or each.given == each.better:
            left_out[NO_ANSWER] += 1
            continue
        values = {"prompt": each.words, "chosen": each.better, "rejected": each.given}
        source = REVIEWED if each.reviewed else UNREVIEWED
        yield _made(each, values, each.behind, (), source)


def _evaluation(
    conn: Connection, asked: Asked, recipe: Recipe, left_out: Counter[str]
) -> Iterator[Made]:
    """Questions with a right passage: what was retrieved for them last, and what should have been."""
    questions = [q for q in judged_questions(conn, asked, recipe.counting, left_out) if q.right]
    aside: Counter[str] = Counter()  # of answers, without which a question is still of use
    references = best_answers(
        judged_answers(conn, asked, recipe.counting, aside),
        corrected_answers(conn, asked, recipe.counting, aside, unreviewed=False),
    )
    hashes = sorted({q.key.query_hash for q in questions})
    last = retrievals.last_asked(conn, hashes, asked.scope, asked.period)
    for question in questions:
        newest = last.get(question.key)
        retrieved = [] if newest is None else _retrieved(conn, asked, newest.rid)
        right = [each.text for each in question.right]
        answer = None if newest is None else newest.answer
        values = {
            "user_input": question.words,
            "retrieved_contexts": [text.words for text in retrieved],
            "retrieved_context_ids": [text.id for text in retrieved],
            "reference_contexts": [text.words for text in right],
            "reference_context_ids": [text.id for text in right],
            "response": None if answer is None else asked.masked(answer),
            "reference": references.get(question.key),
        }
        why = question.right[0].behind
        for each in question.right[1:]:
            why = _both(why, each.behind)
        yield _made(question, values, why, tuple(text.id for text in right), VOTED)


def _retrieved(conn: Connection, asked: Asked, rid: int) -> list[Text]:
    """The texts of a retrieval that are in the index, in the order shown."""
    order = [lineage for lineage, _ in retrievals.logged_scores(conn, [rid])[rid]]
    heirs = passages.present_heirs(conn, order)
    there = (heirs[lineage] for lineage in dict.fromkeys(order) if lineage in heirs)
    return [Text.of(each) for each in there if shows(asked.scope, each.passage)]


def _made(
    of: JudgedQuestion | JudgedAnswer | CorrectedAnswer,
    values: Row,
    why: Behind,
    passage_ids: tuple[str, ...],
    source: str,
) -> Made:
    provenance = {
        **asdict(why),
        "question_id": query_id(of.digest, of.key.tenant),
        "tenant": of.key.tenant,
        "passage_ids": passage_ids,
        "source": source,
    }
    return Made(split_of(of.digest), values, provenance)


_MAKERS: Mapping[TrainingSet, Maker] = {
    "pairs": _by_question(_pairs),
    "triplets": _by_question(_triplets),
    "labeled-pairs": _by_question(_labeled_pairs),
    "preferences": _by_question(_preferences),
    "kto": _kto,
    "dpo": _dpo,
    "evaluation": _evaluation,
}
