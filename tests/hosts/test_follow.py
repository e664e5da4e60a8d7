"""Hosts with folders of their own follow what is live in the database."""

import threading
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from folders import PASSAGES, QUERY
from hosts import Shared, come_to
from on_postgres import url_of
from rag_flywheel import Flywheel, LockedError, Passage, UnknownIdError
from rag_flywheel.store.postgres import PostgresConnection


def order(fw: Flywheel) -> list[tuple[str, float]]:
    found = fw.retrieve(QUERY, k=8, record=False)
    return [(hit.passage_id, round(hit.score, 9)) for hit in found.hits]


def test_a_vote_on_one_host_is_seen_by_the_next_call_of_the_others(shared: Shared) -> None:
    one, two = shared.begun("one", "two")
    before = order(two)
    found = one.retrieve(QUERY, k=8, user_id="u")
    for user in ("u", "v", "w"):
        one.feedback(found.id, before[-1][0], "helpful", user_id=user)
    assert order(two) == order(one) != before


def test_a_refresh_on_one_host_is_followed_by_the_others(shared: Shared) -> None:
    one, two, three = shared.begun("one", "two", "three")
    live = one.status().version
    assert [fw.retrieve(QUERY, record=False).version for fw in (two, three)] == [live, live]
    two.add([Passage("more", "common word3 of another kind")])
    report = two.refresh()
    for fw in (one, three):
        assert fw.retrieve(QUERY, record=False).version in (live, report.version)
        come_to(fw, report.version)
        assert order(fw) == order(two)
        assert fw.status().version == fw.status().live_version == report.version
        assert fw.verify() == []
        assert [v.id for v in fw.versions()] == [report.version, live]
    assert {v.id: v.live for v in one.versions()} == {report.version: True, live: False}


def test_a_rollback_and_a_release_are_followed_at_once(shared: Shared) -> None:
    one, two = shared.begun("one", "two")
    first = one.status().version
    one.add([Passage("more", "common word3 of another kind")])
    second = one.refresh().version
    come_to(two, second)
    found = one.retrieve(QUERY, k=8, user_id="u")
    for user in ("u", "v", "w"):
        one.feedback(found.id, found.hits[-1].passage_id, "helpful", user_id=user)
    voted = order(two)
    assert one.rollback(hold=True) == first
    assert two.retrieve(QUERY, record=False).version == first
    assert order(two) == order(one) != voted
    assert two.status().held
    assert two.release()
    assert one.retrieve(QUERY, record=False).version == first
    assert not one.status().held
    assert order(two) == order(one)
    assert two.rollback(second) == second
    assert one.retrieve(QUERY, record=False).version == second


def test_a_rollback_to_a_version_that_the_folder_lacks_fetches_it(shared: Shared) -> None:
    (one,) = shared.begun("one")
    first = one.status().version
    one.add([Passage("more", "common word3 of another kind")])
    second = one.refresh().version
    late = shared.open("late")
    assert [v.id for v in late.versions()] == [second, first]
    assert late.status().n_versions == 2
    assert not (shared.root("late") / "versions" / str(first)).exists()
    assert late.explain_version(str(first)).id == first
    assert (shared.root("late") / "versions" / str(first)).exists()
    assert late.compare(str(first), str(second)).before == first
    later = shared.open("later")
    assert later.rollback() == first
    assert one.retrieve(QUERY, record=False).version == first
    with pytest.raises(UnknownIdError):
        later.rollback("20200101T000000Z-00000")


def test_a_host_that_slept_sees_the_newest_votes_and_then_the_newest_version(
    shared: Shared,
) -> None:
    one, two = shared.begun("one", "two")
    assert len(order(two)) == 8
    for n in range(4):
        one.add([Passage(f"more{n}", f"common word{n} of another kind")])
        newest = one.refresh().version
    found = one.retrieve(QUERY, k=8, user_id="u")
    for user in ("u", "v", "w"):
        one.feedback(found.id, found.hits[-1].passage_id, "helpful", user_id=user)
    expected = [hit.passage_id for hit in one.retrieve(QUERY, k=8, record=False).hits]
    asleep = two.retrieve(QUERY, k=8, record=False)
    assert found.hits[-1].passage_id in [hit.passage_id for hit in asleep.hits[:7]]
    come_to(two, newest)
    assert [hit.passage_id for hit in two.retrieve(QUERY, k=8, record=False).hits] == expected


def test_processes_of_a_host_fetch_a_version_once_and_all_serve_it(shared: Shared) -> None:
    one, two = shared.begun("one", "two")
    again = shared.open("two")
    assert order(two) == order(again)
    one.add([Passage("more", "common word3 of another kind")])
    newest = one.refresh().version
    threads = [threading.Thread(target=come_to, args=(fw, newest)) for fw in (two, again)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order(two) == order(again) == order(one)


def test_a_state_is_of_one_version_and_one_timeline_while_it_follows(shared: Shared) -> None:
    """Every passage that a version lacks is fresh, and answers: none is missing or there twice."""
    one, two = shared.begun("one", "two")
    ended = threading.Event()
    wrong: list[object] = []

    def ask() -> None:
        while not ended.is_set():
            with two._database.reading() as conn:
                there = {
                    row[0] for row in conn.execute("SELECT id FROM passages WHERE ended IS NULL")
                }
            hits = [hit.passage_id for hit in two.retrieve("marker", k=100, record=False).hits]
            shown = {each for each in hits if each.startswith("m")}
            if len(hits) != len(set(hits)) or not {t for t in there if t.startswith("m")} <= shown:
                wrong.append((hits, there))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for n in range(6):
            one.add([Passage(f"m{n}", f"marker number{n}")])
            one.refresh()
    finally:
        ended.set()
        asking.join()
    assert wrong == []


def test_two_refreshes_at_once_are_one_and_then_the_other(shared: Shared) -> None:
    one, two = shared.begun("one", "two")
    one.add([Passage("more", "common word3 of another kind")])
    outcomes: list[object] = []

    def refresh(fw: Flywheel) -> None:
        try:
            outcomes.append(fw.refresh().outcome)
        except LockedError as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=refresh, args=(fw,)) for fw in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "promoted" in outcomes
    assert set(outcomes) <= {"promoted", "unchanged", LockedError}
    live = one.status().live_version
    for fw in (one, two):
        come_to(fw, live)
        assert fw.verify() == []


def test_a_plain_index_knows_nothing_of_it(tmp_path: Path) -> None:
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as fw:
        fw.add(PASSAGES)
        fw.refresh()
        found = fw.status()
    assert (found.objects, found.live_version, found.behind_since) == (None, None, None)
    assert not {"AGREED", "FOLLOWED", "follow.lock"} & {p.name for p in (tmp_path / "kb").iterdir()}


def test_a_question_takes_as_many_exchanges_as_with_one_folder(
    shared: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = shared.begun("one")
    alone = Flywheel.open(url_of("alone"), cache=tmp_path / "alone", encoder=WordEncoder())
    with alone:
        alone.add(PASSAGES)
        alone.refresh()
        counts, n, execute = [], [0], PostgresConnection.execute

        def counted(self: PostgresConnection, *values: Any) -> Any:
            n[0] += 1
            return execute(self, *values)

        monkeypatch.setattr(PostgresConnection, "execute", counted)
        for fw in (alone, one):
            order(fw)
            n[0] = 0
            fw.retrieve("word7 and word8", user_id="u", session_id="s")
            counts.append(n[0])
    assert counts[0] == counts[1] > 0


def test_a_database_that_was_restored_is_followed_though_its_numbers_are_the_same(
    shared: Shared,
) -> None:
    one, two = shared.begun("one", "two")
    first = one.status().version
    one.add([Passage("more", "common word3 of another kind")])
    second = one.refresh().version
    come_to(two, second)
    with shared.sql() as conn:  # as another state of it would have them
        conn.execute("ALTER TABLE moves DISABLE TRIGGER ALL")
        conn.execute("UPDATE moves SET version = %s", (first,))
        conn.execute("ALTER TABLE moves ENABLE TRIGGER ALL")
        conn.execute("UPDATE clock SET timeline = repeat('f', 32)")
    for fw in (one, two):
        assert fw.retrieve(QUERY, record=False).version == first
