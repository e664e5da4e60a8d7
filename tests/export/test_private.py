"""In no export, of no kind, is anything of people who opted out, were forgotten or are muted."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from exported import EXPORTS, IN_PARQUET
from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage

LEAVING, STAYING = "leaving", "staying"


def asks(fw: Flywheel, who: str, spelling: str, *, of: str | None = None) -> None:
    """One user's question in their own spelling, with every kind of feedback by them, or `of` another."""
    by = of or who
    shown = fw.retrieve(f"{spelling} password", user_id=who, session_id=f"session-{who}")
    assert shown.id is not None
    fw.answer(shown.id, f"an answer to {who}, secretof{who}")
    right, wrong = shown.hits[1].passage_id, shown.hits[0].passage_id
    fw.feedback(shown.id, right, "helpful", user_id=by, reason=f"secretof{by}")
    fw.feedback(shown.id, wrong, "harmful", user_id=by, reason=f"secretof{by}")
    fw.answer_feedback(shown.id, "helpful", user_id=by)
    fw.correct(shown.id, text=f"written by {by}, secretof{by}", user_id=by)
    fw.missing(shown.id, f"secretof{by}", user_id=by)


@pytest.fixture
def desk(tmp_path: Path, help_desk: list[Passage]) -> Iterator[Flywheel]:
    """Both ask the same question, spelt differently, and one that nobody else asks."""
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as fw:
        fw.add(help_desk)
        for n in range(8):  # questions in every split
            asks(fw, LEAVING, f"MY    SECRETOFLEAVING {n}")
            asks(fw, STAYING, f"my own question {n}")
        asks(fw, LEAVING, "THE SAME   Question")
        asks(fw, STAYING, "the same question")
        asks(fw, STAYING, "staying asks", of=LEAVING)
        asks(fw, LEAVING, "secretofleaving asks", of=STAYING)
        for item in fw.review.items():
            if (
                not item.passage_id
                and LEAVING not in item.text + item.query
                and "written" in item.text
            ):
                fw.review.accept(item.id)
        yield fw


def text_of(folder: Path) -> str:
    found = ""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if path.suffix == ".parquet":
            import pyarrow.parquet as parquet

            found += str(parquet.read_table(path).to_pylist())
        else:
            found += path.read_text(encoding="utf-8")
    return found


def ids_of(fw: Flywheel) -> dict[str, set[str]]:
    """By user: the ids of their retrievals, and the hashes of their ids."""
    found: dict[str, set[str]] = {}
    for who in (LEAVING, STAYING):
        hashed = str(fw.hashed_user(who))
        own = [r for r in fw.retrievals(1000) if r.user == hashed]
        found[who] = {hashed, *(r.id for r in own), *(str(r.session) for r in own)}
    return found


@pytest.mark.parametrize("how", ["opt_out", "forget"])
@pytest.mark.parametrize("name", [*EXPORTS, *IN_PARQUET])
def test_nothing_of_who_left_is_in_it(desk: Flywheel, name: str, how: str, tmp_path: Path) -> None:
    if name in IN_PARQUET:
        pytest.importorskip("pyarrow", reason="needs the extra parquet")
    write = (EXPORTS | IN_PARQUET)[name]
    write(desk, tmp_path / "before")
    ids = ids_of(desk)
    getattr(desk, how)(LEAVING)
    write(desk, tmp_path / "after")
    before, after = text_of(tmp_path / "before").casefold(), text_of(tmp_path / "after").casefold()
    assert "staying" in after or "my own question" in after or "reset" in after
    for secret in ("secretofleaving", "the same   question", *ids[LEAVING]):
        assert secret.casefold() not in after, secret
    assert "secretofleaving" in before or any(id_ in before for id_ in ids[LEAVING])


@pytest.mark.parametrize("name", [*EXPORTS])
def test_who_comes_back_is_in_it_again(desk: Flywheel, name: str, tmp_path: Path) -> None:
    desk.opt_out(LEAVING)
    desk.opt_out(LEAVING, out=False)
    EXPORTS[name](desk, tmp_path / "out")
    found = text_of(tmp_path / "out").casefold()
    assert "secretofleaving" in found or any(i in found for i in ids_of(desk)[LEAVING])


@pytest.mark.parametrize(
    "name", [n for n in EXPORTS if n not in {"retrievals.jsonl", "retrievals.csv"}]
)
def test_no_vote_of_who_is_muted_is_in_it(desk: Flywheel, name: str, tmp_path: Path) -> None:
    """What they asked is, and what others said of it."""
    for who in (STAYING, LEAVING):
        desk.mute(who)
    report = EXPORTS[name](desk, tmp_path / "out")
    if name == "ubi":
        assert report.written["events"] == 0
    elif name in {"beir", "trec"}:
        assert report.written["judgments"] == 0
    elif name == "dpo":
        return  # what a reviewer accepted is the reviewer's word
    else:
        assert set(report.written.values()) == {0}


def test_what_was_left_out_is_counted(desk: Flywheel, tmp_path: Path) -> None:
    every = desk.export.votes(tmp_path / "a.csv").written["votes"]
    n_asked = desk.export.retrievals(tmp_path / "b.csv").written["retrievals"]
    desk.opt_out(LEAVING)
    desk.mute(STAYING)
    report = desk.export.votes(tmp_path / "c.csv")
    assert report.written["votes"] + sum(report.left_out.values()) == every
    assert set(report.left_out) == {
        "votes of people who opted out, or on their questions",
        "votes of people who are muted",
    }
    asked = desk.export.retrievals(tmp_path / "d.csv")
    assert asked.left_out == {
        "retrievals of people who opted out": n_asked - asked.written["retrievals"]
    }


@pytest.mark.parametrize("name", [*EXPORTS])
def test_a_mask_that_came_later_is_applied(desk: Flywheel, name: str, tmp_path: Path) -> None:
    """Texts were stored before anything was masked."""
    desk.close()
    masked = lambda text: text.replace("own", "***").replace("secretof", "***")  # noqa: E731
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), mask=masked) as fw:
        EXPORTS[name](fw, tmp_path / "out")
        files = [
            p for p in (tmp_path / "out").rglob("*") if p.is_file() and p.name != "corpus.jsonl"
        ]
        text = "".join(p.read_text(encoding="utf-8") for p in files)
        assert "own question" not in text
        shown = {p.text for p in fw.passages()}  # passages are what users are shown
        for line in text.splitlines():
            if "secretof" in line:
                assert any(p in line for p in shown)


def test_questions_stored_without_words_are_in_no_set(
    tmp_path: Path, help_desk: list[Passage]
) -> None:
    config = Config(encoder="", store_queries="hash")
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as fw:
        fw.add(help_desk)
        asks(fw, STAYING, "one of my own")
        for name, write in EXPORTS.items():
            report = write(fw, tmp_path / "out")
            if name in {"pairs", "triplets", "labeled-pairs", "preferences", "evaluation", "kto"}:
                assert set(report.written.values()) == {0}, name
                assert "questions whose words are not stored" in report.left_out, name
        assert "one of my own" not in text_of(tmp_path / "out")


def test_in_another_index_the_hash_is_the_id_of_the_person(
    desk: Flywheel, tmp_path: Path, help_desk: list[Passage]
) -> None:
    files = [tmp_path / "retrievals.jsonl", tmp_path / "votes.jsonl"]
    desk.export.retrievals(files[0])
    desk.export.votes(files[1])
    rows = [json.loads(line) for line in files[0].read_text().splitlines()]
    (leaving,) = {row["user"] for row in rows if "SECRETOFLEAVING 1" in row["query"]}
    for name in ("forgotten", "out"):
        with Flywheel.open(tmp_path / name, encoder=WordEncoder()) as other:
            other.add(help_desk)
            if name == "out":
                other.opt_out(leaving)
            other.import_files("csv", files)
            if name == "forgotten":
                assert any("SECRETOFLEAVING" in each.query for each in other.retrievals())
                other.forget(leaving)
            assert not any("SECRETOFLEAVING" in each.query for each in other.retrievals())
            assert any("my own question" in each.query for each in other.retrievals())
