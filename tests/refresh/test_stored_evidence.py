"""What a version keeps of its votes gives the same as judging all votes anew, or is not used."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given
from hypothesis import strategies as st

from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, FlywheelError, Passage
from rag_flywheel.curate.chances import RULES
from rag_flywheel.deploy.loaded import LoadedVersion
from rag_flywheel.rank import evidence
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.rank.posterior import Rates
from rag_flywheel.rank.raters import RaterWeight
from rag_flywheel.rank.stored_evidence import Provenance
from reopened import (
    CONFIG,
    DIM,
    QUERIES,
    TEXTS,
    WHERE,
    Opened,
    contents,
    the_same,
    uses_stored_evidence,
    voted_index,
)
from thorough import thorough

DAY_S = 86_400.0
USER = "a" * 32


@pytest.fixture
def opened() -> Iterator[Callable[..., Opened]]:
    provenance: list[Opened] = []

    def make(root: Path, config: Config = CONFIG) -> Opened:
        provenance.append(Opened(root, config))
        return provenance[-1]

    yield make
    for each in provenance:
        each.database.close()


users = st.sampled_from(["ann", "bob", None])
asks = st.tuples(st.just("ask"), st.integers(0, 3), st.integers(0, 2), users)
verdicts = st.sampled_from(["helpful", "harmful", "retract"])
votes = st.tuples(st.just("vote"), st.integers(0, 20), st.integers(0, 3), users, verdicts)
judges = st.tuples(st.just("judge"), st.integers(0, 20), users, verdicts)
names = st.tuples(st.just("name"), st.integers(0, 20), st.integers(0, 3), users)
does = st.tuples(
    st.just("do"), st.integers(0, 20), st.sampled_from(["copied", "regenerated"]), users
)
others = st.sampled_from(
    [
        *[("refresh",)] * 3,
        *[("rollback",), ("release",), ("age",)],
        *[("edit", 0), ("touch", 1), ("remove", 2), ("forget", "ann"), ("opt out", "bob")],
    ]
)


def happens(fw: Flywheel, asked: list[Any], kind: str, *more: Any) -> None:
    """One step of a history; what cannot be done as things are is refused, and nothing happens."""
    root = Path(fw.status().path)
    if kind == "ask":
        asked.append(fw.retrieve(QUERIES[more[0]], where=WHERE[more[1]], user_id=more[2]))
    elif kind == "refresh":
        fw.refresh()
    elif kind == "rollback":
        fw.rollback()
    elif kind == "release":
        fw.release()
    elif kind == "age":
        with closing(sqlite3.connect(root / "flywheel.db")) as conn, conn:
            for table in ("retrievals", "votes", "answer_votes", "corrections"):
                conn.execute(f"UPDATE {table} SET at = at - ?", (40 * DAY_S,))
    elif kind in {"edit", "touch"}:
        text = f"{TEXTS[more[0]]} more of it" if kind == "edit" else f"{TEXTS[more[0]]} "
        fw.add([Passage(f"p{more[0]}", text, metadata={"team": "a"})])
    elif kind == "remove":
        fw.remove([f"p{more[0]}"])
    elif kind == "forget":
        fw.forget(more[0])
    elif kind == "opt out":
        fw.opt_out(more[0])
    elif asked:
        shown = asked[more[0] % len(asked)]
        if kind == "judge":
            fw.answer_feedback(shown.id, more[2], user_id=more[1])
        elif kind == "do":
            fw.signal(shown.id, more[1], user_id=more[2])
        else:
            passage = shown.hits[more[1] % len(shown.hits)].passage_id
            if kind == "name":
                fw.correct(shown.id, passage, user_id=more[2])
            else:
                fw.feedback(shown.id, passage, more[3], user_id=more[2])


@thorough(40, few=4, phases=(Phase.reuse, Phase.generate, Phase.shrink))
@given(
    st.lists(
        st.one_of(asks, asks, votes, votes, votes, judges, names, does, others),
        min_size=6,
        max_size=30,
    )
)
def test_whatever_happened_a_new_process_finds_what_judging_all_votes_gives(
    history: list[tuple[Any, ...]],
) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder) / "kb"
        with Flywheel.open(root, encoder=WordEncoder(DIM), config=CONFIG) as fw:
            fw.add(
                Passage(f"p{i}", text, metadata={"team": "ab"[i % 2]})
                for i, text in enumerate(TEXTS)
            )
            asked: list[Any] = []
            for kind, *more in history:
                try:
                    happens(fw, asked, kind, *more)
                except FlywheelError:
                    continue  # no version to roll back to, a retrieval that is gone
                if kind in {"refresh", "rollback", "release", "forget"}:
                    the_same(root)
            the_same(root)
            fw.refresh()
        assert the_same(root)


@pytest.fixture(scope="module")
def voted_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("heard") / "kb"
    voted_index(root)
    return root


@pytest.fixture
def root(voted_before: Path, tmp_path: Path) -> Path:
    made = Path(shutil.copytree(voted_before, tmp_path / "kb"))
    Flywheel.open(made, encoder=WordEncoder(DIM)).close()  # on a server it gets a schema of its own
    return made


def test_what_was_heard_is_used_and_later_votes_are_judged(
    root: Path, opened: Callable[..., Opened]
) -> None:
    each = opened(root)
    state = each.state()
    assert uses_stored_evidence(state)
    assert len(contents(state)) == 3
    with Flywheel.open(root, encoder=WordEncoder(DIM)) as fw:
        shown = fw.retrieve(QUERIES[1])
        fw.feedback(shown.id, shown.hits[0].passage_id, "harmful", user_id="bob")
        fw.feedback(fw.retrieve(QUERIES[3]).id, "p3", "helpful", user_id="bob")
    later = each.state()
    assert uses_stored_evidence(later)
    assert len(contents(later)) == 4
    assert contents(later) == contents(each.state(each.deaf()))
    changed = {key for key, said in contents(later).items() if contents(state).get(key) != said}
    assert len(changed) == 2


def test_a_query_whose_votes_were_all_retracted_since_says_nothing(
    root: Path, opened: Callable[..., Opened]
) -> None:
    with closing(sqlite3.connect(root / "flywheel.db")) as conn:
        ids = [row[0] for row in conn.execute("SELECT id FROM retrievals WHERE tenant NOT NULL")]
    with Flywheel.open(root, encoder=WordEncoder(DIM), config=CONFIG) as fw:
        for id_ in ids:
            for i in range(len(TEXTS)):
                try:
                    fw.feedback(id_, f"p{i}", "retract", user_id="ann")
                except FlywheelError:
                    continue
    each = opened(root)
    assert uses_stored_evidence(each.state())
    assert len(contents(each.state())) == 2
    assert contents(each.state()) == contents(each.state(each.deaf()))
    assert each.answers(each.version) == each.answers(each.deaf())


def test_of_a_version_rolled_back_to_what_it_heard_is_used(
    root: Path, opened: Callable[..., Opened]
) -> None:
    with Flywheel.open(root, encoder=WordEncoder(DIM), config=CONFIG) as fw:
        target = fw.status().version
        shown = fw.retrieve(QUERIES[2])
        fw.feedback(shown.id, shown.hits[0].passage_id, "helpful", user_id="bob")
        assert fw.refresh().outcome == "promoted"
        assert fw.rollback() is not None
        assert fw.status().version == target
    each = opened(root)
    assert uses_stored_evidence(each.state())
    assert contents(each.state()) == contents(each.state(each.deaf()))
    assert len(contents(each.state())) == 3


def with_provenance(version: LoadedVersion, **changes: Any) -> LoadedVersion:
    assert version.evidence is not None
    return replace(
        version,
        evidence=replace(
            version.evidence, provenance=replace(version.evidence.provenance, **changes)
        ),
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda v: with_provenance(v, until=10**6),
        lambda v: with_provenance(v, n_forgotten=1),
        lambda v: with_provenance(v, by=""),
        lambda v: with_provenance(
            v, by=v.evidence.provenance.by.replace(f'"rules": {RULES}', '"rules": 0')
        ),
        lambda v: with_provenance(
            v, by=v.evidence.provenance.by.replace('"queries": "', '"queries": "x')
        ),
        lambda v: replace(v, parameters=Parameters(rates=Rates(0.1234, 0.2))),
        lambda v: replace(v, raters={USER: RaterWeight(0.5, 0.6)}),
        lambda v: replace(v, parameters=replace(v.parameters, choice=1.234)),
        lambda v: replace(v, evidence=None),
    ],
)
def test_what_was_heard_otherwise_is_not_used(
    root: Path, opened: Callable[..., Opened], change: Callable[[LoadedVersion], LoadedVersion]
) -> None:
    each = opened(root)
    other = change(each.version)
    if other.evidence is not None:
        assert (other.evidence.provenance, other.parameters, other.raters) != (
            each.version.evidence.provenance if each.version.evidence else Provenance(),
            each.version.parameters,
            each.version.raters,
        )
    state = each.state(other)
    assert other.evidence is None or not uses_stored_evidence(state)
    assert contents(state) == contents(each.state(replace(other, evidence=None)))


def test_it_is_not_used_when_votes_age(root: Path, opened: Callable[..., Opened]) -> None:
    assert uses_stored_evidence(opened(root).state())
    aging = replace(CONFIG, vote_half_life_days=10.0)
    assert not uses_stored_evidence(opened(root, aging).state())
    with (root / "flywheel.toml").open("a") as file:
        file.write("vote_half_life_days = 10.0\n")
    with Flywheel.open(root, encoder=WordEncoder(DIM)) as fw:
        fw.add([Passage("new", "one more")])
        fw.refresh()
    each = opened(root, aging)
    assert each.version.evidence is not None
    assert (len(each.version.evidence), each.version.evidence.provenance) == (0, Provenance())
    assert len(contents(each.state())) == 3


def test_it_is_not_used_when_signals_are_believed_otherwise_since(
    root: Path, opened: Callable[..., Opened]
) -> None:
    each = opened(root)
    assert each.version.evidence is not None
    said = json.loads(each.version.evidence.provenance.by)
    with closing(sqlite3.connect(root / "flywheel.db")) as conn, conn:
        assert said["trusts"] == dict(conn.execute("SELECT kind, trust FROM trusts"))
        conn.execute("INSERT OR REPLACE INTO trusts (kind, trust) VALUES ('copied', 0.3)")
    assert not uses_stored_evidence(each.state())


def test_it_is_not_used_once_a_user_was_deleted(root: Path, opened: Callable[..., Opened]) -> None:
    each = opened(root)
    with Flywheel.open(root, encoder=WordEncoder(DIM), config=CONFIG) as fw:
        fw.forget("ann")
    assert not uses_stored_evidence(each.state())
    assert contents(each.state()) == contents(each.state(each.deaf()))
    assert uses_stored_evidence(opened(root).state()) or not len(
        opened(root).version.evidence or ()
    )


def test_votes_frozen_before_what_was_heard_are_judged(
    root: Path, opened: Callable[..., Opened]
) -> None:
    each = opened(root)
    assert each.version.evidence is not None
    for frozen_at in range(each.version.evidence.provenance.until + 1):
        each.frozen_at = frozen_at
        assert uses_stored_evidence(each.state()) == (
            frozen_at == each.version.evidence.provenance.until
        )
        assert contents(each.state()) == contents(each.state(each.deaf()))


def test_it_is_not_used_beside_a_backup_from_before_it(
    tmp_path: Path, opened: Callable[..., Opened]
) -> None:
    root, backup = tmp_path / "kb", tmp_path / "backup.db"
    voted_index(root)
    with Flywheel.open(root, encoder=WordEncoder(DIM), config=CONFIG) as fw:
        with closing(sqlite3.connect(root / "flywheel.db")) as conn:
            conn.execute("VACUUM INTO ?", (str(backup),))
        shown = fw.retrieve(QUERIES[3])
        fw.feedback(shown.id, shown.hits[0].passage_id, "helpful", user_id="ann")
        newest = fw.refresh().version
    for name in ("flywheel.db-wal", "flywheel.db-shm"):
        (root / name).unlink(missing_ok=True)
    shutil.copy(backup, root / "flywheel.db")
    with Flywheel.open(root, encoder=WordEncoder(DIM), config=CONFIG) as fw:
        for _ in range(9):  # as many events as there were, and more
            shown = fw.retrieve(QUERIES[2])
            fw.feedback(shown.id, shown.hits[0].passage_id, "helpful", user_id="bob")
    each = opened(root)
    assert each.version.id not in {None, newest}  # the one before it, of the same database
    assert uses_stored_evidence(each.state())
    assert contents(each.state()) == contents(each.state(each.deaf()))


def test_a_vector_that_is_not_stored_is_made(root: Path, opened: Callable[..., Opened]) -> None:
    each = opened(root)
    before = contents(each.state())
    with closing(sqlite3.connect(root / "flywheel.db")) as conn, conn:
        assert conn.execute(
            "DELETE FROM vectors WHERE text_hash IN (SELECT query_hash FROM retrievals)"
        ).rowcount
    after = contents(each.state())
    assert uses_stored_evidence(each.state())
    assert {key: said[0] for key, said in after.items()} == {k: s[0] for k, s in before.items()}
    for key, (_, vector) in after.items():
        was, now = (np.frombuffer(v, np.float32) for v in (before[key][1], vector))
        assert now == pytest.approx(was, abs=1e-6)


def test_very_many_past_queries_are_heard_with_their_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Callable[..., Opened]
) -> None:
    monkeypatch.setattr(evidence, "CODES_FROM", 20)
    monkeypatch.setattr("rag_flywheel.refresh.stored_evidence.CODES_FROM", 20)
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(DIM), config=CONFIG) as fw:
        fw.add(Passage(f"p{i}", text, metadata={"team": "a"}) for i, text in enumerate(TEXTS))
        for i in range(30):
            shown = fw.retrieve(f"{QUERIES[i % 4]} word{i}")
            fw.feedback(shown.id, shown.hits[i % 3].passage_id, "helpful")
        fw.refresh()
    each = opened(tmp_path / "kb")
    state, judged = each.state(), each.state(each.deaf())
    assert uses_stored_evidence(state)
    assert state.evidence.codes is not None
    assert judged.evidence.codes is not None
    assert state.evidence.codes.table.tolist() == judged.evidence.codes.table.tolist()
    assert np.array_equal(state.evidence.codes.centroids, judged.evidence.codes.centroids)
    assert contents(state) == contents(judged)
    assert each.answers(each.version) == each.answers(each.deaf())
