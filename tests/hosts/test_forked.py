"""A server that opens an index and then forks its workers, as one does that loads it only once."""

import os

import pytest

from folders import QUERY
from forked import in_fork
from hosts import Shared, come_to
from rag_flywheel import Passage

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def test_forked_workers_follow_what_other_hosts_make_live(shared: Shared) -> None:
    one, two = shared.begun("one", "two")  # which has fetched the version
    before = two.retrieve(QUERY, record=False).version

    def check() -> None:
        with shared.worker("three", "refresh") as worker:
            assert worker.said()[0] == "promoted"
        with shared.sql() as conn:
            (version,) = conn.execute("SELECT version FROM moves ORDER BY id DESC").fetchone()
        assert version != before
        come_to(two, version)
        assert two.verify() == []

    assert in_fork(check) == ""
    come_to(two, one.status().version)


def test_a_forked_worker_refreshes_rolls_back_and_forgets(shared: Shared) -> None:
    one, two = shared.begun("one", "two")
    first = two.retrieve(QUERY, record=False).version

    def check() -> None:
        two.add([Passage("more", "common word3 of another kind")])
        found = two.retrieve(QUERY, k=8, user_id="ann")
        two.feedback(found.id, found.hits[0].passage_id, "helpful", user_id="ann")
        assert two.refresh().outcome == "promoted"
        assert two.rollback() == first
        assert two.release()
        assert two.forget("ann").version is not None
        assert two.refresh().outcome in ("unchanged", "promoted")

    assert in_fork(check) == ""
    come_to(one, two.status().live_version)
    assert one.verify() == []
