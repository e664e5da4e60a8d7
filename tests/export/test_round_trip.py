"""What is exported and imported into another index gives the same judgments: UBI, TREC and tables."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import WordEncoder
from rag_flywheel import Flywheel, Passage
from thorough import thorough

TEXTS = {
    "reset": "open settings and press reset to get a new password",
    "the account": "the account page changes the login secret password",
    "=refund": "refunds are paid within thirty days of the password",
    "100%": "kittens sleep most of the day without a password",
    "ein «Haus»": "das Haus hat ein password 密码",
}
IDS = sorted(TEXTS)
QUERIES = (
    "reset password",
    "=cmd|calc password",
    "Wo ist das password?",
    "密码 password",
    "-1 password",
    "password 404",
)
SAME = {"reset password": ("reset password", "  Reset   PASSWORD?")}
USERS = ("ann", "bob", "=eve", None)
KINDS = (
    "helpful",
    "harmful",
    "retract",
    "answer",
    "not the answer",
    "copied",
    "rating",
    "correction",
)


@dataclass(frozen=True)
class Act:
    """One thing that a user does with a question: who, in which session, which passage, what."""

    query: str
    user: str | None
    session: str | None
    place: int
    kind: str
    asks_again: bool


ACTS = st.lists(
    st.builds(
        Act,
        st.sampled_from(QUERIES).flatmap(lambda q: st.sampled_from(SAME.get(q, (q,)))),
        st.sampled_from(USERS),
        st.sampled_from((None, "s1", "s2")),
        st.integers(0, len(IDS) - 1),
        st.sampled_from(KINDS),
        st.booleans(),
    ),
    min_size=1,
    max_size=14,
)
PASSAGES_ALONE = ACTS.map(
    lambda acts: [a for a in acts if a.kind in {"helpful", "harmful", "retract"}]
)


def live(fw: Flywheel, acts: list[Act]) -> None:
    """Do all this."""
    asked: dict[tuple[str, str | None, str | None], str] = {}
    for act in acts:
        key = act.query, act.user, act.session
        if act.asks_again or key not in asked:
            shown = fw.retrieve(act.query, k=len(IDS), user_id=act.user, session_id=act.session)
            asked[key] = str(shown.id)
        seen = fw.retrieval(asked[key])
        passage = seen.hits[act.place].passage_id
        if act.kind in {"helpful", "harmful", "retract"}:
            fw.feedback(seen.id, passage, act.kind, user_id=act.user, reason="=why\nso")  # type: ignore[arg-type]
        elif act.kind == "correction":
            fw.correct(seen.id, passage, user_id=act.user)
        elif act.kind == "rating":
            fw.signal(seen.id, "rating", 1 + act.place, user_id=act.user)
        elif act.kind == "copied":
            fw.signal(seen.id, "copied", passage_id=passage, user_id=act.user)
        else:
            verdict = "helpful" if act.kind == "answer" else "harmful"
            fw.answer_feedback(seen.id, verdict, user_id=act.user)  # type: ignore[arg-type]


Judged = dict[tuple[str, str], tuple[float, float]]


def judged(fw: Flywheel) -> Judged:
    """By question, without what is typed differently, and passage: the sums of the votes."""
    return {
        (" ".join(j.query.casefold().split()).rstrip("?"), j.passage_id): (
            round(j.helpful, 6),
            round(j.harmful, 6),
        )
        for j in fw.judgments()
        if j.helpful or j.harmful
    }


@contextmanager
def two_indexes() -> Iterator[tuple[Flywheel, Flywheel, Path]]:
    folder = Path(tempfile.mkdtemp(prefix="round-trip"))
    try:
        with (
            Flywheel.open(folder / "one", encoder=WordEncoder()) as one,
            Flywheel.open(folder / "other", encoder=WordEncoder()) as other,
        ):
            for fw in (one, other):
                fw.add([Passage(id_, text) for id_, text in TEXTS.items()])
            yield one, other, folder
    finally:
        shutil.rmtree(folder)


def votes_table(fw: Flywheel, folder: Path, ending: str) -> list[Path]:
    for what in ("retrievals", "votes"):
        getattr(fw.export, what)(folder / f"{what}{ending}")
    return [folder / f"{what}{ending}" for what in ("votes", "retrievals")]


def ubi_files(fw: Flywheel, folder: Path) -> list[Path]:
    fw.export.ubi(folder / "ubi")
    return sorted((folder / "ubi").iterdir())


def trec_files(fw: Flywheel, folder: Path) -> list[Path]:
    fw.export.trec(folder / "trec")
    return sorted((folder / "trec").iterdir())


TABLES: dict[str, Callable[[Flywheel, Path], list[Path]]] = {
    ending: lambda fw, folder, ending=ending: votes_table(fw, folder, ending)
    for ending in (".csv", ".jsonl", ".parquet")
}


@pytest.mark.parametrize("ending", [*TABLES])
@thorough(60, 8)
@given(acts=ACTS)
def test_tables_give_the_same_judgments(ending: str, acts: list[Act]) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow", reason="needs the extra parquet")
    with two_indexes() as (one, other, folder):
        live(one, acts)
        files = TABLES[ending](one, folder)
        report = other.import_files("csv", files)
        assert report.left_out == {}
        assert judged(other) == judged(one)
        again = other.import_files("csv", files)
        assert (again.retrievals, again.votes) == (0, {})
        assert judged(other) == judged(one)


@thorough(60, 8)
@given(acts=ACTS)
def test_user_behavior_insights_give_the_same_judgments(acts: list[Act]) -> None:
    with two_indexes() as (one, other, folder):
        live(one, acts)
        files = ubi_files(one, folder)
        report = other.import_files("ubi", files)
        assert report.left_out == {}
        assert judged(other) == judged(one)
        again = other.import_files("ubi", files)
        assert (again.retrievals, again.votes) == (0, {})
        assert judged(other) == judged(one)


@thorough(60, 8)
@given(acts=PASSAGES_ALONE)
def test_trec_gives_the_same_grades(acts: list[Act]) -> None:
    """A grade is one assessor's verdict: of judgments it keeps which side has more."""
    with two_indexes() as (one, other, folder):
        live(one, acts)
        files = trec_files(one, folder)
        if not any(path.stat().st_size for path in files):
            assert all(abs(helpful - harmful) < 0.5 for helpful, harmful in judged(one).values())
            return
        report = other.import_files("trec", files)
        assert report.left_out == {}
        expected = {
            place: helpful > harmful
            for place, (helpful, harmful) in judged(one).items()
            if abs(helpful - harmful) >= 0.5
        }
        assert {p: h > 0 for p, (h, _) in judged(other).items()} == expected
        (folder / "more").mkdir()
        back = {path.name: path for path in trec_files(other, folder / "more")}
        for name in ("qrels.trec", "topics.tsv"):
            own = {line.casefold() for line in (folder / "trec" / name).read_text().splitlines()}
            theirs = {line.casefold() for line in back[name].read_text().splitlines()}
            assert {" ".join(line.split()) for line in theirs} == {" ".join(x.split()) for x in own}
