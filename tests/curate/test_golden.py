"""Known answers: where they come from, and which queries count as one."""

from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from known import QUERY, TURNED, corrected, imported, known, said, table
from rag_flywheel import Candidate, Config, Flywheel, Passage
from rag_flywheel.curate.golden import golden_items
from rag_flywheel.curate.source import Source
from rag_flywheel.errors import InputError, UnknownIdError
from rag_flywheel.records import AddReport
from rag_flywheel.store.passages import query_digest

FIRST = min(QUERY, TURNED, key=query_digest)  # represents the two


@pytest.fixture
def desk(fw: Flywheel, help_desk: list[Passage]) -> Flywheel:
    fw.add(help_desk)
    return fw


@pytest.mark.parametrize(
    ("helpful", "harmful", "is_known"),
    [
        (2, 0, False),
        (3, 0, True),
        (3, 1, False),  # a quarter
        (4, 1, False),  # a fifth is not fewer than a fifth
        (5, 1, True),
        (8, 2, False),
        (9, 2, True),
    ],
)
def test_users_agree(desk: Flywheel, helpful: int, harmful: int, is_known: bool) -> None:
    said(desk, QUERY, "secret", "helpful", *(f"a{i}" for i in range(helpful)))
    said(desk, QUERY, "secret", "harmful", *(f"b{i}" for i in range(harmful)))
    assert known(desk) == ({QUERY: ({"secret": 1}, ("agreement",))} if is_known else {})


def test_agreement_takes_three_users_over_all_spellings(desk: Flywheel) -> None:
    said(desk, QUERY, "secret", "helpful", "ann", "ann", "bob", None, None, None)
    said(desk, TURNED, "secret", "helpful", "ann", "bob")
    said(desk, "kittens", "secret", "helpful", "cid", "dan")  # another question
    assert known(desk) == {}
    said(desk, TURNED, "secret", "helpful", "cid")
    assert known(desk) == {FIRST: ({"secret": 1}, ("agreement",))}
    said(desk, QUERY, "secret", "harmful", "cid")  # the last vote of a user counts
    assert known(desk) == {}
    said(
        desk, QUERY, "secret", "retract", "cid"
    )  # of that word: the one on the other spelling stands
    assert known(desk) == {FIRST: ({"secret": 1}, ("agreement",))}
    said(desk, QUERY, "secret", "helpful", "cid")
    assert list(known(desk)) == [FIRST]


def test_a_correction_is_known_until_another_contradicts_it(desk: Flywheel) -> None:
    asked = corrected(desk, QUERY, "cats")  # which no search shows among one
    assert known(desk) == {QUERY: ({"cats": 1}, ("correction",))}
    desk.correct(asked, "secret", user_id="ann")  # her last on this retrieval
    assert known(desk) == {QUERY: ({"secret": 1}, ("correction",))}
    corrected(desk, TURNED, "secret", "bob")  # says the same
    assert known(desk) == {FIRST: ({"secret": 1}, ("correction",))}
    asked = corrected(desk, TURNED, "cats", "cid")
    assert known(desk) == {}
    desk.correct(asked, "secret", user_id="cid")
    assert known(desk) == {FIRST: ({"secret": 1}, ("correction",))}
    corrected(desk, QUERY, "cats", "dan")
    desk.remove(["cats"])  # what is gone contradicts nothing
    assert known(desk) == {FIRST: ({"secret": 1}, ("correction",))}


def test_what_a_correction_may_name(desk: Flywheel, tmp_path: Path) -> None:
    given = [Candidate("own", "words of another index", 1.0)]
    shown = desk.rerank("another index", given)
    desk.correct(shown.id, "own", user_id="ann")  # shown, though not in the index
    assert known(desk) == {}
    desk.add([Passage("own", "words of another index")])
    assert known(desk) == {"another index": ({"own": 1}, ("correction",))}


def test_a_correction_of_nobody_is_stored_and_makes_nothing_known(desk: Flywheel) -> None:
    corrected(desk, QUERY, "cats", None)
    assert known(desk) == {}
    corrected(desk, QUERY, "secret", "ann")
    assert known(desk) == {QUERY: ({"secret": 1}, ("correction",))}  # uncontradicted
    assert desk.review.items() == []


@pytest.mark.parametrize("tenant_key", ["team", None])
def test_a_passage_that_was_not_shown_must_pass_the_filter(
    tmp_path: Path, encoder: WordEncoder, tenant_key: str | None
) -> None:
    config = Config(encoder="", tenant_key=tenant_key, tenant_required=False)
    with Flywheel.open(tmp_path / "teams", encoder=encoder, config=config) as fw:
        ours = [Passage(f"our{i}", f"word{i} alpha", metadata={"team": "ours"}) for i in range(3)]
        fw.add([*ours, Passage("their0", "word0 beta", metadata={"team": "theirs"})])
        shown = fw.retrieve("word0", k=1, where={"team": "ours"})
        assert [hit.passage_id for hit in shown.hits] == ["our0"]
        for _ in range(2):
            with pytest.raises(UnknownIdError, match=r"'their0'.*passes the filter.*add it first"):
                fw.correct(shown.id, "their0", user_id="ann")
            assert known(fw) == {}
            fw.refresh()  # nor after it
        fw.correct(shown.id, "our2", user_id="ann")
        assert known(fw) == {"word0": ({"our2": 1}, ("correction",))}


BAD_CORRECTIONS: dict[str, tuple[Any, Any, Any, type[Exception], str]] = {
    "not recorded": (None, "a", None, InputError, "retrieval_id is None; expected a string"),
    "retrieval 3": (3, "a", None, InputError, "retrieval_id is 3; expected a string"),
    "unknown retrieval": ("x", "a", None, UnknownIdError, "no retrieval 'x' is recorded"),
    "no passage": ("r", None, None, InputError, "passage_id is None; expected a string"),
    "half a passage": ("r", "\ud83d", None, InputError, "half a surrogate pair"),
    "unknown passage": ("r", "zzz", None, UnknownIdError, "no passage 'zzz' is in this index"),
    "user 3": ("r", "reset", 3, InputError, "user_id is 3; expected a string or None"),
}


@pytest.mark.parametrize("name", BAD_CORRECTIONS)
def test_a_bad_correction_says_what_is_wrong(desk: Flywheel, name: str) -> None:
    retrieval, passage, user, error, words = BAD_CORRECTIONS[name]
    asked = desk.retrieve(QUERY, k=1).id
    with pytest.raises(error, match=words):
        desk.correct(asked if retrieval == "r" else retrieval, passage, user_id=user)
    assert known(desk) == {}


def test_imports_are_idempotent_and_the_newest_grade_counts(desk: Flywheel, tmp_path: Path) -> None:
    rows = {(QUERY, "reset"): 2, (QUERY, "cats"): 0, ("money back", "refund"): 1}
    assert imported(desk, tmp_path, table(rows)) == AddReport(3, 0, 0)
    expected = {
        QUERY: ({"reset": 2, "cats": 0}, ("imported",)),
        "money back": ({"refund": 1}, ("imported",)),
    }
    assert known(desk) == expected
    assert imported(desk, tmp_path, table(rows)) == AddReport(0, 0, 3)
    assert imported(desk, tmp_path, "query,passage_id\nmoney back,refund\n") == AddReport(0, 0, 1)
    assert known(desk) == expected
    changed = {(QUERY, "reset"): 1, (QUERY, "secret"): 1}
    assert imported(desk, tmp_path, table(changed)) == AddReport(1, 1, 0)
    assert known(desk)[QUERY][0] == {"reset": 1, "secret": 1, "cats": 0}
    nothing = {(QUERY, "reset"): 0, (QUERY, "secret"): 0}
    imported(desk, tmp_path, table(nothing))
    assert list(known(desk)) == ["money back"]  # a query of zeros alone has no answer


def test_near_duplicates_are_one_item_with_the_union_of_answers(
    desk: Flywheel, encoder: WordEncoder, tmp_path: Path
) -> None:
    rows = {(QUERY, "reset"): 1, (TURNED, "reset"): 3, (TURNED, "cats"): 0, ("kittens", "cats"): 1}
    imported(desk, tmp_path, table(rows))
    said(desk, QUERY, "secret", "helpful", "ann", "bob", "cid")
    n = encoder.n_encoded
    items = {item.query: item for item in desk.golden.items()}
    assert set(items) == {FIRST, "kittens"}
    one = items[FIRST]
    assert (one.digest, one.tenant) == (query_digest(FIRST), None)
    assert one.answers == {"reset": 3, "cats": 0, "secret": 1}
    assert sorted(one.lineages.values()) == [0, 1, 3]
    assert one.sources == ("agreement", "imported")
    assert encoder.n_encoded == n  # they got their vectors when they were imported or asked
    desk.golden.items()
    assert encoder.n_encoded == n


def test_edits_and_removals(desk: Flywheel, tmp_path: Path) -> None:
    long = " ".join(f"word{i}" for i in range(40))
    desk.add([Passage("long", long)])
    rows = {("word1", "long"): 1, (QUERY, "reset"): 1, (QUERY, "secret"): 1, ("cat", "cats"): 1}
    imported(desk, tmp_path, table(rows))
    lineages = {i.query: i.lineages for i in desk.golden.items()}
    desk.add([Passage("long", f"{long} more"), Passage("reset", "other words altogether")])
    desk.remove(["cats"])
    assert {q: a for q, (a, _) in known(desk).items()} == {
        "word1": {"long": 1},
        QUERY: {"secret": 1},
    }
    assert {i.query: i.lineages for i in desk.golden.items()}["word1"] == lineages["word1"]


def test_events_up_to_a_number(desk: Flywheel, encoder: WordEncoder, tmp_path: Path) -> None:
    imported(desk, tmp_path, table({("money", "refund"): 1}))  # event 2, after the passages
    corrected(desk, QUERY, "secret")  # event 3

    def queries(until: int | None) -> set[str]:
        found = golden_items(desk._database, Source(encoder, Config()), until=until)
        return {item.query for item in found}

    counts = [queries(until) for until in (1, 2, 3, None)]
    assert counts == [set(), {"money"}, {"money", QUERY}, {"money", QUERY}]
