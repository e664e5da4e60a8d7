"""Hosts with folders of their own follow what is live in the database."""

from folders import QUERY
from hosts import Shared, come_to
from rag_flywheel import Flywheel, Passage


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
