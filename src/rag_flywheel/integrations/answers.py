"""What the modules of this room share: who asks, candidates from documents, and what a hit says of itself."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from inspect import iscoroutinefunction
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from rag_flywheel.checks import as_number, is_list
from rag_flywheel.errors import InputError, quoted
from rag_flywheel.formats.framework_documents import (
    PASSAGE_ID,
    RANK,
    RETRIEVAL_ID,
    content_id,
    passage_of,
)
from rag_flywheel.records import Candidate, Hit, Passage, Retrieval

_SESSIONS = "session_id", "thread_id", "conversation_id"
_FIRST_RANK = (
    60  # of reciprocal ranks, so that the first few differ by little: Cormack et al., SIGIR 2009
)


def check_index(index: object) -> Any:
    """An open index that answers without `await`. Raises InputError."""
    retrieve = getattr(index, "retrieve", None)
    if not callable(retrieve) or iscoroutinefunction(retrieve):
        raise InputError(
            f"found {quoted(index)} as the index; expected an open Flywheel, or a Client of the service"
        )
    return index


class OnIndex:
    """A component that answers from an open index, a `Flywheel` or a `Client`, which its copies share."""

    flywheel: Any

    def __deepcopy__(self, memo: object = None) -> Any:
        """A copy that answers from the same open index."""
        return copy(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            f"{type(self).__name__} holds an open index, which cannot be pickled; open the index in each "
            "process, and make it there"
        )


class Asker(NamedTuple):
    """Who asks, as `retrieve` and `rerank` take it."""

    user_id: str | None = None
    session_id: str | None = None
    run_id: tuple[str, ...] = ()

    @classmethod
    def of(cls, metadata: Mapping[str, Any] | None) -> "Asker":
        """The user, session and runs that the metadata of a framework's run name: user_id; session_id, else
        thread_id or conversation_id; run_id, one or a list."""
        given = metadata or {}
        session = next((found for name in _SESSIONS if (found := _name(given.get(name)))), None)
        run: Any = given.get("run_id")
        runs = [_name(each) for each in run] if is_list(run) else [_name(run)]
        return cls(_name(given.get("user_id")), session, tuple(each for each in runs if each))


def _name(value: object) -> str | None:
    """An id as text; None for what is none, or blank."""
    text = "" if value is None else str(value)
    return text if text.strip() else None


def of_hit(found: Retrieval, hit: Hit) -> dict[str, Any]:
    """What a document's metadata say of its place in an answer."""
    return {RETRIEVAL_ID: found.id, PASSAGE_ID: hit.passage_id, RANK: hit.rank}


def metadata_of(found: Retrieval, hit: Hit) -> dict[str, Any]:
    """The metadata of the passage, its title, and its place in the answer."""
    title = {"title": hit.title} if hit.title else {}
    return {**title, **hit.metadata, **of_hit(found, hit)}


def falling_relevance(hits: Sequence[Hit]) -> list[float]:
    """The relevance of each hit, raised to that of the best one below it.

    Frameworks sort documents by their scores, which must not undo the order of the hits.
    """
    return list(accumulate((hit.relevance for hit in reversed(hits)), max))[::-1]


class Given(NamedTuple):
    """The documents of a framework as candidates; places: of each candidate's document, by passage id."""

    candidates: list[Candidate]
    places: dict[str, int]


def given(documents: Sequence[object], scores: Iterable[object]) -> Given:
    """Candidates from documents in the order that their retriever gave them, with its scores.

    A document without an id of its own is named by its source and text; so are those that share an id but
    not a text. Those without text, and copies, are left out. Scores count where all documents have one and
    they fall with the order; else the order alone does. Raises InputError.
    """
    passages: list[tuple[int, Passage]] = []
    for place, document in enumerate(documents):
        passage = passage_of(document, place + 1)
        if passage is not None:
            passages.append((place, replace(passage, id=_own_id(document) or passage.id)))
    n_texts = Counter(id_ for id_, _ in {(passage.id, passage.text) for _, passage in passages})
    numbers = _falling(list(scores))
    found = Given([], {})
    for place, passage in passages:
        id_ = passage.id
        if n_texts[id_] > 1:
            id_ = content_id(passage.text, {"source": id_})
        if id_ in found.places:
            continue
        score = 1.0 / (_FIRST_RANK + place + 1) if numbers is None else numbers[place]
        found.places[id_] = place
        found.candidates.append(
            Candidate(id_, passage.text, score, passage.title, passage.metadata)
        )
    return found


def _own_id(document: object) -> str | None:
    """The passage id that an answer of ours gave a document, whatever the framework did to its own."""
    metadata = getattr(document, "metadata", None) or getattr(document, "meta", None) or {}
    return _name(metadata.get(PASSAGE_ID)) if RETRIEVAL_ID in metadata else None


def _falling(scores: Sequence[object]) -> list[float] | None:
    """The scores as numbers; None unless all are finite and none is above the one before."""
    numbers = [as_number(score) for score in scores]
    found = [float(number) for number in numbers if number is not None]
    if len(found) < len(numbers) or any(abs(x) == float("inf") or x != x for x in found):
        return None
    if any(b > a for a, b in pairwise(found)) or len(set(found)) == 1:
        return None
    return found
