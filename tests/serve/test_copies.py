"""Copies of a text: one voice, one place in an answer, and no way between tenants."""

from pathlib import Path

import pytest

from fakes import WordEncoder
from known import said
from rag_flywheel import Candidate, Config, Flywheel, Passage

TEXT = "to reset the device hold the side button for ten seconds until the light blinks"
OTHERS = [
    Passage("other", "if the light does not blink after a reset charge the device for one hour"),
    Passage("third", "a factory reset erases all pictures and settings from the device"),
]
QUERY = "how do i reset the device"


def copies(n: int, text: str = TEXT) -> list[Passage]:
    return [Passage(f"c{i:03d}", text, metadata={"page": i}) for i in range(n)]


def opened(path: Path, passages: list[Passage], **settings: object) -> Flywheel:
    fw = Flywheel.open(path, encoder=WordEncoder(), config=Config(**settings))  # type: ignore[arg-type]
    fw.add(passages)
    return fw


@pytest.mark.parametrize("refreshed", [False, True])
@pytest.mark.parametrize("n", [30, 300])
def test_copies_are_shown_once(tmp_path: Path, n: int, refreshed: bool) -> None:
    with opened(tmp_path / "kb", [*copies(n), *OTHERS]) as fw:
        if refreshed:
            fw.refresh()
        hits = fw.retrieve(QUERY, 8).hits
        assert [h.passage_id for h in hits if h.text == TEXT] == ["c000"]
        assert len(hits) == 3
        assert fw.rank_many([QUERY], 8)[0] == [h.passage_id for h in hits]
        assert fw.retrieve(QUERY, where={"page": 17}).hits[0].passage_id == "c017"
        assert fw.retrieve(QUERY, where={"page": {"gte": n}}).hits == ()
        fw.remove(["c000"])
        assert fw.retrieve(QUERY).hits[0].passage_id in {"c001", "other"}
        assert "c001" in {h.passage_id for h in fw.retrieve(QUERY).hits}


@pytest.mark.parametrize("refreshed", [False, True])
def test_thirty_copies_change_nothing_in_relevance(tmp_path: Path, refreshed: bool) -> None:
    found = []
    for n in (1, 30):
        with opened(tmp_path / f"kb{n}", [*copies(n), *OTHERS]) as fw:
            if refreshed:
                fw.refresh()
            answer = fw.retrieve(QUERY)
            found.append((answer.answerable, {h.text: h.relevance for h in answer.hits}))
    (alone, one), (among, many) = found
    # copies are counted where BM25 weighs words by how many texts have them
    assert among == pytest.approx(alone, abs=0.005)
    assert many == pytest.approx(one, abs=0.005)


def test_every_copy_is_shown_when_asked_for(tmp_path: Path) -> None:
    with opened(tmp_path / "kb", [*copies(12), *OTHERS], show_copies=True) as fw:
        for _ in range(2):
            assert len([h for h in fw.retrieve(QUERY, 20).hits if h.text == TEXT]) == 12
            fw.refresh()


@pytest.mark.parametrize("refreshed", [False, True])
@pytest.mark.parametrize("show_copies", [False, True])
def test_copies_share_votes(tmp_path: Path, show_copies: bool, refreshed: bool) -> None:
    with opened(tmp_path / "kb", [*copies(5), *OTHERS], show_copies=show_copies) as fw:
        said(fw, QUERY, "c000", "helpful", "ann", "bob")
        if refreshed:
            fw.refresh()
        for page in range(5):
            (hit,) = fw.retrieve(QUERY, where={"page": page}).hits
            assert hit.explanation.evidence > 0.0 and len(hit.explanation.votes) == 2
        fw.add([Passage("new", TEXT.upper(), metadata={"page": 9})])  # near-identical
        (hit,) = fw.retrieve(QUERY, where={"page": 9}).hits
        assert len(hit.explanation.votes) == 2
        fw.remove([f"c{i:03d}" for i in range(5)])
        first = next(h for h in fw.retrieve(QUERY).hits if h.passage_id == "new")
        assert len(first.explanation.votes) == 2


def test_one_user_who_votes_on_two_copies_is_one_voice(tmp_path: Path) -> None:
    def after(votes: list[str]) -> float:
        with opened(tmp_path / str(len(votes)), [*copies(3), *OTHERS], show_copies=True) as fw:
            for id_ in votes:
                said(fw, QUERY, id_, "helpful", "ann")
            return fw.retrieve(QUERY, where={"page": 2}).hits[0].relevance

    assert after(["c000", "c001"]) == pytest.approx(after(["c000"]))


def test_a_vote_on_an_answer_with_copies_counts_for_the_text(tmp_path: Path) -> None:
    with opened(tmp_path / "kb", [*copies(3), *OTHERS], show_copies=True) as fw:
        shown = fw.retrieve(QUERY, 8)
        fw.answer_feedback(shown.id, "helpful", cited=["c001"], user_id="ann")
        for hit in fw.retrieve(QUERY, 8).hits:
            assert (hit.text == TEXT) == (hit.explanation.evidence > 0.0)


def test_copies_of_two_tenants_have_nothing_in_common(tmp_path: Path) -> None:
    passages = [
        Passage(f"{tenant}{i}", TEXT, metadata={"team": tenant})
        for tenant in "ab"
        for i in range(2)
    ]
    with opened(
        tmp_path / "kb", [*passages, *OTHERS], tenant_key="team", tenant_required=False
    ) as fw:
        of_a = {"team": "a"}
        shown = fw.retrieve(QUERY, where=of_a)
        assert [h.passage_id for h in shown.hits] == ["a0"]
        fw.feedback(shown.id, "a0", "helpful", user_id="ann")
        fw.pin(QUERY, "a1", where=of_a)
        assert fw.retrieve(QUERY, where=of_a).hits[0].explanation.votes
        (hit,) = fw.retrieve(QUERY, where={"team": "b"}).hits
        assert hit.passage_id == "b0"
        assert not hit.explanation.votes and not hit.explanation.known
        assert {h.passage_id for h in fw.retrieve(QUERY).hits} >= {"a0", "b0"}
        fw.remove(["a0", "a1"])
        fw.add([Passage("b2", TEXT, metadata={"team": "b"})])
        assert not fw.retrieve(QUERY, where={"team": "b"}).hits[0].explanation.votes
        assert fw.golden.items() == []
        fw.add([Passage("b0", TEXT, metadata={"team": "a"})])  # to the other team: away from b1, b2
        assert [h.passage_id for h in fw.retrieve(QUERY, where=of_a).hits] == ["b0"]
        assert fw.retrieve(QUERY, where=of_a).hits[0].explanation.votes
        assert [set(item.answers) for item in fw.golden.items()] == [{"b0"}]


def test_given_candidates_that_are_copies_are_one(tmp_path: Path) -> None:
    given = [Candidate(f"x{i}", TEXT, 0.5 + i / 100) for i in range(5)]
    given.append(Candidate("y", OTHERS[0].text, 0.4))
    with opened(tmp_path / "kb", OTHERS) as fw:
        shown = fw.rerank(QUERY, given)
        assert [h.passage_id for h in shown.hits] == ["x4", "y"]
        fw.feedback(shown.id, "x4", "harmful", user_id="ann")
        again = fw.rerank(QUERY, [Candidate("z", TEXT, 0.9), given[-1]], record=False)
        (hit,) = (h for h in again.hits if h.passage_id == "z")
        assert hit.explanation.votes
        fw.add([Passage("in the index", TEXT)])  # the votes come with the text
        found = next(h for h in fw.retrieve(QUERY).hits if h.text == TEXT)
        assert found.explanation.votes
    with opened(tmp_path / "all", OTHERS, show_copies=True) as fw:
        assert len(fw.rerank(QUERY, given).hits) == 6


def test_a_copy_that_was_added_later_takes_over(tmp_path: Path) -> None:
    with opened(tmp_path / "kb", [*copies(1), *OTHERS]) as fw:
        said(fw, QUERY, "c000", "helpful", "ann")
        fw.pin(QUERY, "c000")
        fw.refresh()
        fw.add(copies(2))
        fw.remove(["c000"])
        hit = fw.retrieve(QUERY).hits[0]
        assert hit.passage_id == "c001" and hit.explanation.votes and hit.explanation.known
        assert fw.unpin(QUERY, "c001")
        assert not fw.retrieve(QUERY).hits[0].explanation.known
