"""Writes retrievals and votes as queries and events of User Behavior Insights 1.3.0, one a line.

https://github.com/o19s/ubi. What it has no word for is written as further fields, which it allows.
"""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from rag_flywheel.export.allowed import Asked
from rag_flywheel.export.graded import WITHOUT_WORDS
from rag_flywheel.export.log_files import OF_THE_MUTED, OF_THOSE_WHO_OPTED_OUT, Written, told
from rag_flywheel.formats.beir import write_lines
from rag_flywheel.records import Progress, RecordedRetrieval
from rag_flywheel.store import log, retrievals
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.log import LoggedVote

APPLICATION = "rag-flywheel"
ID_FIELD = "passage_id"
FILES = ("ubi_queries.ndjson", "ubi_events.ndjson")
ACTIONS = {"helpful": "thumbs_up", "harmful": "thumbs_down", "retract": "retract"}
"""The action of a vote on a passage, or on a whole answer; that of a signal is its kind."""
NOT_SHOWN = "corrections that name a passage which was not shown"
_MOST_MESSAGE = 1_024  # characters
_AT_ONCE = 500  # votes whose retrievals are read together
Document = dict[str, Any]


def write_ubi(conn: Connection, asked: Asked, folder: Path, progress: Progress | None) -> Written:
    """Write ubi_queries.ndjson and ubi_events.ndjson into a folder, the oldest first."""
    left_out: Counter[str] = Counter()
    written: Counter[str] = Counter()
    n = log.count_retrievals(conn, asked.scope, asked.period)

    def queries() -> Iterator[Document]:
        for each in log.every_retrieval(conn, asked.scope, asked.period):
            words = asked.masked(each.query)
            what = "queries" if words.strip() else WITHOUT_WORDS
            (written if words.strip() else left_out)[what] += 1
            if words.strip():
                yield _query(each, words)

    def events() -> Iterator[Document]:
        for each, position in _with_positions(conn, asked):
            if each.vote.passage_id is not None and position is None:
                left_out[NOT_SHOWN] += 1
                continue
            written["events"] += 1
            yield _event(each, position, asked)

    of_queries, of_events = (folder / name for name in FILES)
    write_lines(of_queries, told(queries(), "writing queries", n, progress))
    n_votes = log.count_votes(conn, asked.scope, asked.period)
    write_lines(of_events, told(events(), "writing events", n_votes["all"], progress))
    left_out[OF_THOSE_WHO_OPTED_OUT] += n_votes["opted out"]
    left_out[OF_THE_MUTED] += n_votes["muted"]
    return {"queries": written["queries"], "events": written["events"]}, dict(+left_out)


def _query(found: RecordedRetrieval, words: str) -> Document:
    attributes = {
        "kind": found.kind,
        "k": found.k,
        "version": found.version,
        "filter": found.where,
        "tenant": None if found.tenant is None else json.loads(found.tenant),
        "answerable": found.answerable,
    }
    return {
        "application": APPLICATION,
        "query_id": found.id,
        **_whose(found.user, found.session),
        "user_query": words,
        "timestamp": found.at,
        "object_id_field": ID_FIELD,
        "query_response_id": found.id,
        "query_response_hit_ids": [hit.passage_id for hit in found.hits],
        "query_attributes": {key: value for key, value in attributes.items() if value is not None},
    }


def _event(each: LoggedVote, position: int | None, asked: Asked) -> Document:
    vote = each.vote
    said = vote.kind in {"vote", "answer"}
    document: Document = {
        "application": APPLICATION,
        "action_name": ACTIONS[vote.verdict] if said else vote.kind,
        "query_id": vote.retrieval_id,
        **_whose(vote.user, each.session),
        "timestamp": vote.at,
        "kind": vote.kind,
        "verdict": vote.verdict,
        "trust": vote.trust,
    }
    if each.shares:
        document["shares"] = each.shares
    if vote.reason:
        document["message"] = asked.masked(vote.reason)[:_MOST_MESSAGE]
    if vote.passage_id is not None:
        document["event_attributes"] = {
            "object": {"object_id": vote.passage_id, "object_id_field": ID_FIELD},
            "position": {"ordinal": position},
        }
    return document


def _whose(user: str | None, session: str | None) -> Document:
    """Who it was; client_id: the user, or else the session."""
    found = {"client_id": user or session, "user_id": user, "session_id": session}
    return {key: value for key, value in found.items() if value is not None}


def _with_positions(conn: Connection, asked: Asked) -> Iterator[tuple[LoggedVote, int | None]]:
    """Each vote with the rank, from 1, at which its passage was shown; None: it was not."""
    found = log.every_vote(conn, asked.scope, asked.period)
    while some := list(islice(found, _AT_ONCE)):
        shown = retrievals.shown_hits(conn, sorted({each.vote.retrieval_id for each in some}))
        for each in some:
            _, hits = shown[each.vote.retrieval_id]
            ranks = {id_: rank for rank, id_ in enumerate(hits, 1)}
            yield each, ranks.get(each.vote.passage_id or "")
