"""What applications see of relevance: on hits, on retrievals, with a least one, and in gaps."""

from pathlib import Path

import pytest

from fakes import WordEncoder
from rag_flywheel import Candidate, Config, Flywheel, Passage
from rag_flywheel.errors import InputError

DESK = [
    Passage("password", "Open the settings to choose a new password"),
    Passage("refund", "Refunds are paid within thirty days of the order"),
    Passage("invoice", "An invoice comes by mail after each order", "Invoices"),
    *(Passage(f"other{i}", f"page{i} is about thing{i} and matter{i} alone") for i in range(30)),
]
QUERY = "choose a new password in the settings"
NONSENSE = "qwxv bnzz pltk"


def desk(folder: Path, passages: list[Passage], *, refresh: bool = True) -> Flywheel:
    config = Config(encoder="", show_copies=True)
    fw = Flywheel.open(folder, encoder=WordEncoder(dim=512), config=config)
    fw.add(passages)
    if refresh:
        fw.refresh()
    return fw


@pytest.mark.parametrize("refresh", [False, True])
def test_thirty_copies_have_the_relevance_of_the_single_one(tmp_path: Path, refresh: bool) -> None:
    copies = [Passage(f"copy{i}", DESK[0].text) for i in range(29)]
    with (
        desk(tmp_path / "one", DESK, refresh=refresh) as one,
        desk(tmp_path / "many", [*DESK, *copies], refresh=refresh) as many,
    ):
        for query in (QUERY, "is a refund paid", NONSENSE):
            single = one.retrieve(query, record=False)
            found = many.retrieve(query, k=40, record=False)
            relevance = {hit.passage_id: hit.relevance for hit in single.hits}
            assert found.answerable == pytest.approx(single.answerable, abs=1e-6)
            same = [h for h in found.hits if h.text == DESK[0].text]
            if "password" in relevance:
                assert len(same) == 30
                assert [h.relevance for h in same] == pytest.approx(
                    [relevance["password"]] * 30, abs=1e-6
                )


def test_a_passage_without_rivals_does_not_answer_everything(tmp_path: Path) -> None:
    with desk(tmp_path / "kb", DESK[:1]) as fw:
        nonsense, other = fw.retrieve(NONSENSE), fw.retrieve("when is dinner served")
        for found in (nonsense, other):
            assert len(found.hits) == 1
            assert found.hits[0].relevance < 0.2
            assert found.answerable < 0.3
        assert fw.retrieve(QUERY).hits[0].relevance > 0.5


def test_what_is_cached_of_relevance_follows_votes_hits_and_refreshes(tmp_path: Path) -> None:
    def shown(fw: Flywheel, k: int) -> tuple[float, list[tuple[str, float]]]:
        found = fw.retrieve(QUERY, k=k, record=False)
        return found.answerable, [(hit.passage_id, hit.relevance) for hit in found.hits]

    def anew(k: int) -> tuple[float, list[tuple[str, float]]]:
        with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(dim=512)) as other:
            return shown(other, k)

    with desk(tmp_path / "kb", DESK) as fw:
        first = shown(fw, 5)
        for k in (5, 12, 5):
            assert shown(fw, k) == shown(fw, k) == anew(k)
        seen = fw.retrieve(QUERY, k=12)
        for hit in seen.hits:
            fw.feedback(seen.id, hit.passage_id, "harmful" if hit.rank % 2 else "helpful")
            assert shown(fw, 5) == shown(fw, 5) == anew(5)
        assert shown(fw, 5) != first
        fw.refresh()
        assert shown(fw, 5) == shown(fw, 5) == anew(5)
        fw.add([Passage("new", "a new password in the settings")])
        assert shown(fw, 5) == shown(fw, 5) == anew(5)


def test_hits_below_the_least_relevance_are_left_out(tmp_path: Path) -> None:
    with desk(tmp_path / "kb", DESK) as fw:
        every = fw.retrieve(QUERY, k=20)
        least = 0.5 * (every.hits[0].relevance + every.hits[-1].relevance)
        wanted = [h.passage_id for h in every.hits if h.relevance >= least]
        assert 0 < len(wanted) < 20
        found = fw.retrieve(QUERY, k=20, min_relevance=least)
        assert [h.passage_id for h in found.hits] == wanted
        assert [h.rank for h in found.hits] == list(range(1, len(wanted) + 1))
        assert found.answerable == every.answerable
        (many,) = fw.retrieve_many([QUERY], 20, min_relevance=least)
        assert [h.passage_id for h in many.hits] == wanted
        assert fw.rank_many([QUERY], 20, min_relevance=least) == [wanted]
        nothing = fw.retrieve(QUERY, min_relevance=1.0)
        assert nothing.hits == ()
        with pytest.raises(InputError, match=r"not shown|did not show"):
            fw.feedback(nothing.id, "password", "helpful")


@pytest.mark.parametrize("least", [-0.1, 1.1, "0.5", float("nan"), True])
def test_a_least_relevance_is_a_chance(tmp_path: Path, least: object) -> None:
    with desk(tmp_path / "kb", DESK[:2], refresh=False) as fw:
        with pytest.raises(InputError, match="min_relevance is"):
            fw.retrieve(QUERY, min_relevance=least)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="min_relevance is"):
            fw.gaps(min_relevance=least)  # type: ignore[arg-type]


def test_votes_on_a_question_move_the_relevance_of_what_they_are_on(tmp_path: Path) -> None:
    with desk(tmp_path / "kb", DESK) as fw:
        before = {h.passage_id: h.relevance for h in fw.retrieve(QUERY).hits}
        shown = fw.retrieve(QUERY)
        for user in ("ann", "bob"):
            fw.feedback(shown.id, "password", "harmful", user_id=user)
        after = fw.retrieve(QUERY)
        moved = {h.passage_id: h.relevance for h in after.hits}
        odds = before["password"] / (1 - before["password"]) / 16
        assert moved["password"] == pytest.approx(odds / (1 + odds), abs=1e-6)
        others = before.keys() & moved.keys() - {"password"}
        same = pytest.approx({p: before[p] for p in others}, rel=1e-12, abs=0)
        assert {p: moved[p] for p in others} == same
        assert after.answerable < shown.answerable


def test_given_candidates_have_a_relevance_that_does_not_depend_on_their_scores(
    tmp_path: Path,
) -> None:
    with desk(tmp_path / "kb", DESK) as fw:
        given = [Candidate(p.id, p.text, 9.0 - i) for i, p in enumerate(DESK[:3])]
        turned = [Candidate(c.passage_id, c.text, -c.score) for c in given]
        found, other = fw.rerank(QUERY, given), fw.rerank(QUERY, turned)
        of = {h.passage_id: h.relevance for h in found.hits}
        assert of == {h.passage_id: h.relevance for h in other.hits}
        assert of["password"] > 0.5 > of["refund"]
        (alone,) = fw.rerank(QUERY, given[:1], record=False).hits
        assert alone.relevance == of["password"]
        kept = fw.rerank(QUERY, turned, min_relevance=0.5)
        assert [(h.passage_id, h.rank) for h in kept.hits] == [("password", 1)]


def test_the_gaps_are_questions_that_most_likely_have_no_answer(tmp_path: Path) -> None:
    with desk(tmp_path / "kb", DESK) as fw:
        sure, unsure = fw.retrieve(QUERY), fw.retrieve(NONSENSE)
        assert sure.answerable > 0.5 > 0.2 > unsure.answerable
        assert [g.examples for g in fw.gaps()] == [(NONSENSE,)]
        assert fw.gaps(min_relevance=0.0) == []
        assert {e for g in fw.gaps(min_relevance=1.0) for e in g.examples} == {QUERY, NONSENSE}
        fw.add([Passage("new", NONSENSE)])
        fw.retrieve(NONSENSE)  # the last answer decides
        assert fw.gaps() == []


def test_relevance_of_passages_far_down_is_computed_when_they_are_shown(tmp_path: Path) -> None:
    passages = [Passage(f"p{i}", f"settings of part{i} and more") for i in range(80)]
    with desk(tmp_path / "kb", passages) as fw:
        found = fw.retrieve("settings of part3", k=80, record=False)
        assert len(found.hits) == 80  # the words of 50 are read to rank them
        assert all(0.0 < hit.relevance < 1.0 for hit in found.hits)
        by_length = {hit.relevance for hit in found.hits if hit.rank > 1}
        assert max(by_length) < found.hits[0].relevance
