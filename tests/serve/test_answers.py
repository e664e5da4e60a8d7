"""What is recorded of an answer."""

import json

from rag_flywheel import Flywheel, Passage
from rag_flywheel.store.passages import query_hash


def test_a_record_says_what_was_shown_and_from_which_state(
    fw: Flywheel, help_desk: list[Passage]
) -> None:
    fw.add(help_desk)
    version = fw.refresh().version
    first = fw.retrieve("reset password", 2, where={"year": {"exists": False}})
    fw.feedback(first.id, first.hits[0].passage_id, "helpful")
    second = fw.retrieve("reset password", 3)
    fw.add([Passage("new", "a new passage")])
    with fw._database.reading() as conn:
        found = conn.execute(
            "SELECT id, kind, query, query_hash, k, filter, version, seen, user_id, answer, hits "
            "FROM retrievals ORDER BY rid"
        ).fetchall()
    states = [row[7] for row in found]
    assert states == [1, 2]  # after the passages were added; after the vote too
    for row, shown, k, where in zip(
        found, (first, second), (2, 3), ({"year": {"exists": False}}, None), strict=True
    ):
        assert row[:5] == (shown.id, "retrieve", "reset password", query_hash("reset password"), k)
        assert (row[5] and json.loads(row[5])) == where
        assert row[6] == version
        assert row[8:10] == (None, None)
        logged = [(name, score) for _, name, score, _ in json.loads(row[10])]
        assert logged == [(h.passage_id, h.score) for h in shown.hits]
