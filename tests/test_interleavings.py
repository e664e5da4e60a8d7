"""What happens between two steps of two processes: the order is forced, at the steps themselves.

Another process is another object with connections of its own, in the same thread.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from fakes import Vectors, WordEncoder
from forgetting import query_name
from rag_flywheel import (
    Config,
    Flywheel,
    InputError,
    LockedError,
    Passage,
    UnknownIdError,
    restore,
)
from steps import Steps

PASSAGES = [Passage(f"p{i}", f"common word{i} and word{i + 1}", f"Title {i}") for i in range(12)]
QUERY = "word3 common"


class Hooked(WordEncoder):
    """Calls something before it encodes, once."""

    before: Callable[[], object] | None = None

    def _encode(self, texts: Sequence[str]) -> Vectors:
        act, self.before = self.before, None
        if act is not None:
            act()
        return super()._encode(texts)


def opened(root: Path, encoder: WordEncoder | None = None, **more: Any) -> Flywheel:
    config = Config(encoder="", keep_versions=2, **more)
    return Flywheel.open(root, encoder=encoder or WordEncoder(), config=config)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions, two voters; copied, never changed."""
    root = tmp_path_factory.mktemp("made") / "kb"
    with opened(root) as fw:
        fw.add(PASSAGES[:8])
        fw.refresh()
        fw.add(PASSAGES[8:])
        vote(fw, "ann")
        vote(fw, "bob", "word7 common")
        assert fw.refresh().outcome == "promoted"
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "kb"))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


@pytest.fixture
def both(steps: Steps, root: Path) -> Iterator[tuple[Flywheel, Flywheel]]:
    with opened(root) as fw, opened(root) as other:
        yield fw, other


def vote(fw: Flywheel, user: str, query: str = QUERY) -> int:
    """The number of the vote."""
    shown = fw.retrieve(query, user_id=user)
    fw.feedback(shown.id, shown.hits[0].passage_id, "helpful", user_id=user)
    with fw._database.reading() as conn:
        return int(conn.execute("SELECT max(seq) FROM votes").fetchone()[0])


def votes_behind(fw: Flywheel, query: str) -> set[int]:
    return {v for hit in fw.retrieve(query, record=False).hits for v in hit.explanation.votes}


REFRESH_STEPS = [
    ("sql", "BEGIN", 1),  # before it reads anything of passages and votes
    ("sql", "SELECT pid FROM passages", 1),
    ("sql", "SELECT pid, text_hash FROM passages", 1),
    ("sql", "BEGIN IMMEDIATE", 2),  # the first one notes that a refresh begins
    ("rename", "/versions/", 1),
    ("sql", "BEGIN IMMEDIATE", 3),
    ("rename", "/CURRENT", 1),
    ("sql", "BEGIN IMMEDIATE", 4),
]


@pytest.mark.parametrize("step", REFRESH_STEPS, ids=str)
def test_what_others_do_while_a_version_is_built_is_not_lost(
    both: tuple[Flywheel, Flywheel], steps: Steps, step: tuple[str, str, int]
) -> None:
    """It is in the next answer of everybody, and in the next version."""
    fw, other = both
    fw.add([Passage("due", "something to do")])
    voted: list[int] = []

    def happens() -> None:
        other.add([Passage("new", "brandnew thing"), Passage("p2", "edited thing altogether")])
        other.remove(["p5"])
        voted.append(vote(other, "late", "word9 common"))

    with steps.before(step[0], step[1], happens, nth=step[2]):
        assert fw.refresh().outcome == "promoted"
    for again in (False, True):
        for each in (fw, other):
            assert each.retrieve("brandnew thing", record=False).hits[0].passage_id == "new"
            hit = each.retrieve("edited thing altogether", record=False).hits[0]
            assert (hit.passage_id, hit.text) == ("p2", "edited thing altogether")
            assert "p5" not in [h.passage_id for h in each.retrieve(QUERY, 50, record=False).hits]
            assert set(voted) <= votes_behind(each, "word9 common")
            assert len(each.passages()) == 13
        assert fw.verify() == []
        if not again:
            assert (fw.refresh().outcome == "promoted") == (step != REFRESH_STEPS[0])
    assert fw.refresh().outcome == "unchanged"


@pytest.mark.parametrize("step", REFRESH_STEPS[1:], ids=str)
def test_a_vote_that_came_too_late_for_a_version_makes_another_due(
    both: tuple[Flywheel, Flywheel], steps: Steps, step: tuple[str, str, int]
) -> None:
    fw, other = both
    vote(fw, "cyd")
    with steps.before(step[0], step[1], lambda: vote(other, "late", "word9 common"), nth=step[2]):
        first = fw.refresh()
    assert first.outcome == "promoted"
    counted = fw.refresh(if_votes=2)
    assert counted.outcome == "unchanged" and "not due: 1 new vote " in counted.reason
    assert fw.refresh(if_votes=1).outcome == "promoted"
    assert fw.refresh().outcome == "unchanged"


HOLDERS: dict[str, Callable[[Flywheel, Path], object]] = {
    "refresh": lambda fw, saved: fw.refresh(),
    "rollback": lambda fw, saved: fw.rollback(),
    "release": lambda fw, saved: fw.release(),
    "forget": lambda fw, saved: fw.forget("ann"),
    "repair": lambda fw, saved: fw.repair(),
    "restore": lambda fw, saved: restore(saved, fw.status().path),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_one_at_a_time_changes_versions(
    both: tuple[Flywheel, Flywheel],
    steps: Steps,
    holder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At its commit point every other one is refused, and changes nothing."""
    fw, other = both
    fw.backup(tmp_path / "saved")
    if holder == "release":
        fw.rollback()
    if holder == "repair":
        (Path(fw.status().path) / "versions" / "thesis.odt").write_text("words")
    else:
        fw.add([Passage("due", "something to do")])
    acquire, refused = FileLock.acquire, []
    monkeypatch.setattr(  # none waits
        FileLock, "acquire", lambda self, timeout=None, **more: acquire(self, timeout=0.0, **more)
    )

    def happens() -> None:
        for name, call in HOLDERS.items():
            try:
                call(other, tmp_path / "saved")
            except LockedError:
                refused.append(name)

    with steps.before("rename", "quarantine" if holder == "repair" else "/CURRENT", happens):
        HOLDERS[holder](fw, tmp_path / "saved")
    assert refused == list(HOLDERS)
    assert fw.verify() == []
    assert other.retrieve(QUERY).version == fw.status().version


@pytest.mark.parametrize("step", REFRESH_STEPS[2:], ids=str)
def test_a_backup_in_the_middle_of_a_refresh(
    both: tuple[Flywheel, Flywheel], steps: Steps, step: tuple[str, str, int], tmp_path: Path
) -> None:
    fw, other = both
    fw.add([Passage("due", "something to do")])
    reports = []
    with steps.before(
        step[0], step[1], lambda: reports.append(other.backup(tmp_path / "saved")), nth=step[2]
    ):
        fw.refresh()
    assert_backed_up(tmp_path, reports[0].seq, "due")


@pytest.mark.parametrize(
    "step",
    [
        ("sql", "BEGIN", 1),
        ("sql", "SELECT timeline", 1),
        ("open", "CURRENT", 1),
        ("open", "manifest.json", 1),
        ("open", "manifest.json", 2),
        ("connect", ".flywheel.db", 1),
        ("rename", "/parts/", 1),
        ("rename", "backup.json", 1),
    ],
    ids=str,
)
def test_a_refresh_in_the_middle_of_a_backup(
    both: tuple[Flywheel, Flywheel], steps: Steps, step: tuple[str, str, int], tmp_path: Path
) -> None:
    """It is of one state, even when its version is deleted meanwhile."""
    fw, other = both

    def happens() -> None:
        for n in range(3):
            other.add([Passage(f"later{n}", f"a later thing{n}")])
            vote(other, f"late{n}")
            assert other.refresh().outcome == "promoted"

    with steps.before(step[0], step[1], happens, nth=step[2]):
        report = fw.backup(tmp_path / "saved")
    assert_backed_up(tmp_path, report.seq, "later")
    assert fw.verify() == []


def assert_backed_up(top: Path, seq: int, later: str) -> None:
    """The backup is of event `seq`, wholly: its passages, votes and version."""
    restore(top / "saved", top / "elsewhere")
    with opened(top / "elsewhere") as back, opened(top / "kb") as fw:
        with fw._database.reading() as conn:
            ids, votes = (
                {row[0] for row in conn.execute(sql, (seq,))}
                for sql in (
                    "SELECT id FROM passages WHERE born <= ?",
                    "SELECT seq FROM votes WHERE seq <= ?",
                )
            )
        assert {p.id for p in back.passages()} == ids
        with back._database.reading() as conn:
            assert {row[0] for row in conn.execute("SELECT seq FROM votes")} == votes
            assert conn.execute("SELECT seq FROM clock").fetchone() == (seq,)
        assert back.verify() == []
        found = back.retrieve(later, 50, record=False)
        assert found.version is not None
        assert {h.passage_id for h in found.hits} <= ids


@pytest.mark.parametrize(
    ("part", "nth"),
    [
        ("CURRENT", 1),
        ("manifest.json", 1),
        ("manifest.json", 2),
        ("parameters.json", 1),
        ("parameters.json", 2),
    ],
)
def test_a_version_that_is_deleted_while_it_is_opened(
    both: tuple[Flywheel, Flywheel], steps: Steps, part: str, nth: int
) -> None:
    """The newest answers, without an error."""
    fw, other = both

    def happens() -> None:
        for n in range(3):
            other.add([Passage(f"later{n}", f"a later thing{n}")])
            assert other.refresh().outcome == "promoted"

    with steps.before("open", part, happens, nth=nth):
        found = fw.retrieve("later thing2", record=False)
    assert found.hits[0].passage_id == "later2"
    assert found.version == fw.status().version


OLD = [Passage(f"old{i}", f"thing{i} of the old days") for i in range(4)]
NEW = [Passage(f"new{i}", f"thing{i} of the new days") for i in range(4)]


@pytest.mark.parametrize(
    ("kind", "warm", "stride"),
    [
        ("sql BEGIN", True, 1),
        ("sql BEGIN", False, 1),
        ("sql SELECT timeline", True, 1),
        ("sql SELECT timeline", False, 1),
        ("open kb", False, 9),
    ],
    ids=str,
)
def test_a_restore_in_the_middle_of_an_answer(
    steps: Steps, root: Path, tmp_path: Path, kind: str, warm: bool, stride: int
) -> None:
    """At each step in turn. After it, other texts have the numbers of those that are gone: an answer is
    of one state or of the other, and takes votes."""
    how, _, part = kind.partition(" ")
    with opened(root) as fw:
        fw.backup(tmp_path / "saved")
        fw.add(OLD)
        fw.refresh()
        fw.add([Passage("more", "one more of the old days")])

    def happens(place: Path) -> None:
        restore(tmp_path / "saved", place)
        with opened(place) as another:
            for each in reversed(
                NEW
            ):  # more events than are gone, and other texts under their numbers
                another.add([each])

    n_found = {"old": 0, "new": 0}
    for nth in range(1, 200, stride):
        place = Path(shutil.copytree(root, tmp_path / str(nth) / "kb"))
        with opened(place) as fw:
            if warm:
                assert fw.retrieve("thing1 of the days", 1).hits[0].passage_id == "old1"
            with steps.sweep(how, part, lambda: happens(place), nth=nth) as reached:  # noqa: B023
                found = fw.retrieve("thing2 of the days", 5)
            if not reached():
                break
            ids = [h.passage_id for h in found.hits]
            assert {h.passage_id: h.text for h in found.hits}.items() <= {
                p.id: p.text
                for p in [*PASSAGES, *OLD, *NEW, Passage("more", "one more of the old days")]
            }.items()
            was_new = ids[0] == "new2"
            n_found["new" if was_new else "old"] += 1
            assert ids[0] in {"old2", "new2"}
            assert not any(i.startswith("old" if was_new else "new") for i in ids), ids
            if was_new:
                fw.feedback(found.id, ids[0], "helpful", user_id="ann")
            after = fw.retrieve("thing2 of the days", 5)
            assert after.hits[0].passage_id == "new2"
            fw.feedback(after.id, "new2", "helpful", user_id="ann")
        shutil.rmtree(place.parent)
    assert 1 < nth < 190
    assert n_found["new"]


def at_each(
    steps: Steps, root: Path, tmp_path: Path, part: str, act: Callable[[Flywheel], object]
) -> Iterator[tuple[Flywheel, Any]]:
    """For each statement with this part in a retrieval, an index and a `call` under which `act` of
    another process is done before it."""
    for nth in range(1, 40):
        place = Path(shutil.copytree(root, tmp_path / str(nth) / "kb"))
        with opened(place) as fw, opened(place) as other:
            fw.retrieve("word9 common", 1, record=False)  # it has its version, and one text
            with steps.sweep("sql", part, lambda: act(other), nth=nth) as reached:
                yield fw, nth
            if not reached():
                assert nth > 1
                return
        shutil.rmtree(place.parent)


@pytest.mark.parametrize("ask", ["retrieve", "rank"])
def test_a_passage_removed_in_the_middle_of_an_answer_is_replaced_by_the_next(
    steps: Steps, root: Path, tmp_path: Path, ask: str
) -> None:
    gone, done = ["p2", "p3", "p4"], list[int]()
    for fw, nth in at_each(steps, root, tmp_path, "BEGIN", lambda o: done.append(o.remove(gone))):
        done.clear()
        if ask == "rank":
            (ids,) = fw.rank_many([QUERY], 3)
            assert not (done and set(gone) & set(ids)), f"at {nth}"
        else:
            ids = [h.passage_id for h in fw.retrieve(QUERY, 3).hits]
        assert len(ids) == 3, f"at {nth}"


@pytest.mark.parametrize("ask", ["retrieve", "rank"])
def test_a_restore_before_the_texts_of_an_answer_are_read(
    steps: Steps, root: Path, tmp_path: Path, ask: str
) -> None:
    """The numbers of its passages are those of other texts then."""
    with opened(root) as fw:
        fw.backup(tmp_path / "saved")
        fw.add(OLD)
        assert fw.rank_many(["thing1 of the days"], 1) == [["old1"]]

        def happens() -> None:
            restore(tmp_path / "saved", root)
            with opened(root) as another:
                for each in reversed(NEW):
                    another.add([each])

        with steps.before("sql", "BEGIN", happens):
            if ask == "rank":
                (ids,) = fw.rank_many(["thing2 of the days"], 3)
            else:
                ids = [
                    h.passage_id for h in fw.retrieve("thing2 of the days", 3, record=False).hits
                ]
        assert ids[0] == "new2" and len(ids) == 3


def test_a_passage_edited_in_the_middle_of_an_answer_is_in_it(
    steps: Steps, root: Path, tmp_path: Path
) -> None:
    edited = Passage("p3", f"{PASSAGES[3].text} again", PASSAGES[3].title)
    for fw, nth in at_each(steps, root, tmp_path, "BEGIN", lambda other: other.add([edited])):
        texts = {hit.passage_id: hit.text for hit in fw.retrieve(QUERY, 2).hits}
        assert texts.get("p3") in {PASSAGES[3].text, edited.text}, f"at {nth}"


def test_two_that_add_the_same_id_at_once(root: Path) -> None:
    encoder = Hooked()
    with opened(root, encoder) as fw, opened(root) as other:
        for before in (
            lambda: other.add([Passage("p3", "of the other")]),
            lambda: other.remove(["p3"]),
        ):
            encoder.before = before
            fw.add([Passage("p3", f"of the first {id(before)}")])
            (kept,) = [p for p in fw.passages() if p.id == "p3"]
            assert kept.text == f"of the first {id(before)}"
            assert fw.retrieve(kept.text, record=False).hits[0].text == kept.text
        assert fw.verify() == []


def test_what_is_to_be_removed_is_removed_by_another_meanwhile(root: Path) -> None:
    encoder = Hooked()
    with opened(root, encoder) as fw, opened(root) as other:
        encoder.before = lambda: other.remove(["p3"])
        with pytest.raises(UnknownIdError, match="Nothing was removed"):
            fw.add([Passage("new", "a new one")], remove=["p3"])
        assert "new" not in {p.id for p in fw.passages()}


@pytest.mark.parametrize("act", ["opt_out", "forget"])
def test_a_user_leaves_while_their_vote_is_divided(root: Path, act: str) -> None:
    """The texts of the answer are compared outside of the transaction."""
    encoder = Hooked()
    with opened(root, encoder) as fw, opened(root) as other:
        found = fw.retrieve("a question of eve", user_id="eve")
        votes = fw.status().n_votes
        encoder.before = lambda: getattr(other, act)("eve")
        said = {"answer": "word3 is common. word4 is too.", "user_id": "eve"}
        if act == "forget":
            with pytest.raises(UnknownIdError, match="no retrieval"):
                fw.answer_feedback(found.id, "helpful", **said)  # type: ignore[arg-type]
        else:
            assert fw.answer_feedback(found.id, "helpful", **said) == 0  # type: ignore[arg-type]
        assert fw.status().n_votes == votes


def test_a_vote_in_the_middle_of_folding_waits_for_the_next(steps: Steps, tmp_path: Path) -> None:
    """At each transaction of the refresh in turn, a vote comes on what is old."""
    old = tmp_path / "old"
    with opened(old, retention_days=30) as fw:
        fw.add(PASSAGES)
        found = fw.retrieve(QUERY, user_id="ann")
        fw.feedback(found.id, "p3", "helpful", user_id="ann", reason="as ann said")
        fw.refresh()
        fw.add([Passage("due", "something to do")])
    with closing(sqlite3.connect(old / "flywheel.db")) as conn, conn:
        for table in ("retrievals", "votes"):
            conn.execute(f"UPDATE {table} SET at = at - 31 * 86400")
    for nth in range(1, 20):
        root = shutil.copytree(old, tmp_path / str(nth))
        with opened(root, retention_days=30) as fw, opened(root, retention_days=30) as other:

            def happens(other: Flywheel = other) -> None:
                other.feedback(found.id, "p2", "harmful", user_id="bob", reason="as bob said")

            with steps.sweep("sql", "BEGIN IMMEDIATE", happens, nth=nth) as reached:
                assert fw.refresh().outcome == "promoted"
            if not reached():
                break
            with fw._database.reading() as conn:
                cast = conn.execute("SELECT seq, reason, user_id FROM votes ORDER BY 1").fetchall()
            assert len(cast) == 2
            assert cast[1][1] == "as bob said" and not cast[1][2].startswith("once:")
            assert votes_behind(other, QUERY) == {number for number, _, _ in cast}
            assert fw.verify() == []
    assert 3 < nth < 19


def test_a_user_forgotten_while_others_build_leaves_no_trace(
    both: tuple[Flywheel, Flywheel], steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one who forgets is told to come again; then nothing is left of what the build had read."""
    fw, other = both
    secret = "a question of nobody but ann"
    shown = fw.retrieve(secret, user_id="ann")
    fw.feedback(shown.id, shown.hits[0].passage_id, "helpful", user_id="ann")
    acquire = FileLock.acquire
    monkeypatch.setattr(
        FileLock, "acquire", lambda self, timeout=None, **more: acquire(self, timeout=0.0, **more)
    )
    refused = []

    def happens() -> None:
        with pytest.raises(LockedError):
            other.forget("ann")
        refused.append(True)

    with steps.before("rename", "/versions/", happens):
        fw.refresh()
    assert refused
    root = Path(fw.status().path)
    name = query_name(root, secret)
    other.forget("ann")
    for path in root.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes()
        assert not path.is_file() or name not in path.read_bytes()
    for each in (fw, other):
        assert each.retrieve(QUERY).version == other.status().version
        assert votes_behind(each, "word7 common")


@pytest.mark.parametrize("step", [("rename", "/versions/"), ("rename", "/CURRENT")], ids=str)
def test_a_vote_while_a_user_is_forgotten_counts(
    both: tuple[Flywheel, Flywheel], steps: Steps, step: tuple[str, str]
) -> None:
    fw, other = both
    of_ann, late = vote(fw, "ann"), list[int]()
    with steps.before(*step, lambda: late.append(vote(other, "late", "word9 common"))):
        fw.forget("ann")
    for each in (fw, other):
        assert set(late) <= votes_behind(each, "word9 common")
        assert of_ann not in votes_behind(each, QUERY)
    assert fw.verify() == []
    assert fw.refresh().outcome == "promoted"


def test_an_edit_of_metadata_is_in_the_next_answer(both: tuple[Flywheel, Flywheel]) -> None:
    """Texts that were read are cached until the next event of any process."""
    fw, other = both
    for value in (1, 2):
        hit = fw.retrieve(QUERY, record=False).hits[0]
        other.add([Passage(hit.passage_id, hit.text, hit.title, {"year": value})])
        for each in (fw, other):
            assert each.retrieve(QUERY, record=False).hits[0].metadata == {"year": value}
            (found,) = each.retrieve(QUERY, where={"year": value}, record=False).hits
            assert found.passage_id == hit.passage_id
            assert not each.retrieve(QUERY, where={"year": value + 1}, record=False).hits


def test_a_retracted_vote_is_behind_no_answer(both: tuple[Flywheel, Flywheel]) -> None:
    fw, other = both
    question = "quite another thing"
    number = vote(fw, "cyd", question)
    for each in (fw, other):
        assert number in votes_behind(each, question)
    shown = other.retrieve(question, user_id="cyd")
    other.feedback(shown.id, shown.hits[0].passage_id, "retract", user_id="cyd")
    for each in (fw, other):
        assert number not in votes_behind(each, question)


def test_a_rollback_is_frozen_at_the_last_vote_that_its_version_counted(
    both: tuple[Flywheel, Flywheel],
) -> None:
    """Not at its watermark: a version built under a rollback has passages that are younger than its votes."""
    fw, other = both
    first = fw.versions()[0].id
    early = votes_behind(fw, QUERY)
    late = vote(fw, "cyd", "word9 common")
    fw.rollback(first)
    frozen = fw.status().frozen_at
    assert frozen is not None and frozen < late
    other.add([Passage("due", "something to do")])
    built = other.refresh().version
    assert other.status().frozen_at == frozen
    assert fw.release()
    assert late in votes_behind(fw, "word9 common")
    assert fw.refresh().outcome == "promoted"
    fw.rollback(built)
    assert fw.status().frozen_at == frozen
    for each in (fw, other):
        assert late not in votes_behind(each, "word9 common")
        assert early and early <= votes_behind(each, QUERY)


def test_no_vote_is_on_an_answer_that_was_never_recorded(both: tuple[Flywheel, Flywheel]) -> None:
    fw, _ = both
    with pytest.raises(InputError):
        fw.feedback(fw.retrieve(QUERY, record=False).id, "p3", "helpful")
