"""A refresh that uses the rows of past queries that the version before stored gives the very files of one
that looks all of them up anew."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given
from hypothesis import strategies as st

from fakes import WordEncoder
from gates import QUERIES, folder_of, make_history, opened
from hostile import reseal
from plain_model import is_answer
from rag_flywheel import Config, CorruptFileError, Flywheel, FlywheelError, Passage
from rag_flywheel.rank.stored_lookups import FOLDER, StoredLookups, load_stored_lookups
from rag_flywheel.refresh.unrelated import UNRELATED
from thorough import thorough

OTHERS = len(UNRELATED)  # rows beside those of past queries
WORDS = ["reset", "login", "refund", "secret", "page", "month"]
ASKED = ["reset login", "refund secret", "page month reset", "login page", "secret month"]
TEAMS = "ab"
WHERE: list[dict[str, Any] | None] = [None, {"team": "a"}]
SETTINGS = Config(encoder="", tenant_key="team", tenant_required=False)


def passage(i: int, *more: str, team: str | None = None) -> Passage:
    text = f"{WORDS[i % 6]} {WORDS[i // 2 % 6]} {WORDS[i // 3 % 6]} text{i} {' '.join(more)}"
    return Passage(f"p{i}", text, metadata={"team": team or TEAMS[i % 2]})


def contents(version: Path) -> dict[str, bytes]:
    """Every file of a version but its manifest, which has its id and time."""
    return {
        path.relative_to(version).as_posix(): path.read_bytes()
        for path in sorted(version.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def without_lookups(version: Path) -> None:
    """Take the stored rows out of a version, as if it had never had any."""
    if (version / FOLDER).exists():
        shutil.rmtree(version / FOLDER)
        values = json.loads((version / "manifest.json").read_text())
        values["files"] = {n: f for n, f in values["files"].items() if not n.startswith(FOLDER)}
        (version / "manifest.json").write_text(json.dumps(values))


def live(root: Path) -> Path:
    return root / "versions" / (root / "CURRENT").read_text().split()[0]


def names_in(version: Path) -> set[bytes]:
    return {name.tobytes() for name in load_stored_lookups(version).names}


def refreshed_either_way(root: Path, config: Config | None, dim: int) -> int:
    """Refresh an index, and a copy that has no stored rows: all files must be the same. How many rows
    were used again."""
    copy = root.with_name("copy")
    shutil.copytree(root, copy)
    without_lookups(live(copy))
    before = names_in(live(root))
    outcomes = []
    for folder in (root, copy):
        with Flywheel.open(folder, encoder=WordEncoder(dim), config=config) as fw:
            outcomes.append(fw.refresh().outcome)
    assert outcomes[0] == outcomes[1]
    if outcomes[0] != "unchanged":
        assert contents(live(root)) == contents(live(copy))
    shutil.rmtree(copy)
    return len(before & names_in(live(root)))


users = st.sampled_from(["ann", "bob", None])
asks = st.tuples(st.just("ask"), st.integers(0, 4), st.integers(0, 1), users)
votes = st.tuples(
    st.just("vote"),
    st.integers(0, 20),
    st.integers(0, 3),
    users,
    st.sampled_from(["helpful", "harmful", "retract"]),
)
names = st.tuples(st.just("name"), st.integers(0, 20), st.integers(0, 11), users)
others = st.sampled_from(
    [
        *[("refresh",)] * 4,
        *[("touch", 1), ("edit", 0), ("remove", 2), ("forget", "ann"), ("mute", "bob")],
        *[("rollback",), ("release",)],
    ]
)


def happens(fw: Flywheel, asked: list[Any], kind: str, *more: Any) -> None:
    if kind == "ask":
        asked.append(fw.retrieve(ASKED[more[0]], where=WHERE[more[1]], user_id=more[2]))
    elif kind == "touch":
        fw.add([passage(more[0], team="a")])
    elif kind == "edit":
        fw.add([passage(more[0], "more", "of", "it")])
    elif kind == "remove":
        fw.remove([f"p{more[0]}"])
    elif kind in {"forget", "mute"}:
        getattr(fw, kind)(more[0])
    elif kind in {"rollback", "release"}:
        getattr(fw, kind)()
    elif asked:
        shown = asked[more[0] % len(asked)]
        if kind == "name":
            fw.correct(shown.id, f"p{more[1]}", user_id=more[2])
        else:
            hit = shown.hits[more[1] % len(shown.hits)]
            fw.feedback(shown.id, hit.passage_id, more[3], user_id=more[2])


@thorough(40, few=4, phases=(Phase.reuse, Phase.generate, Phase.shrink))
@given(st.lists(st.one_of(asks, asks, votes, votes, names, others), min_size=6, max_size=24))
def test_whatever_happened_a_refresh_gives_the_files_of_one_without_stored_rows(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[Any, ...]]
) -> None:
    root = tmp_path_factory.mktemp("rows") / "kb"
    asked: list[Any] = []
    with Flywheel.open(root, encoder=WordEncoder(32), config=SETTINGS) as fw:
        fw.add(passage(i) for i in range(12))
        fw.refresh()
        shown = fw.retrieve(ASKED[0])
        fw.feedback(shown.id, shown.hits[0].passage_id, "helpful", user_id="eve")
        fw.refresh()
    for kind, *more in [*history, ("refresh",)]:
        if kind == "refresh":
            refreshed_either_way(root, SETTINGS, 32)
            continue
        with Flywheel.open(root, encoder=WordEncoder(32), config=SETTINGS) as fw:
            try:
                happens(fw, asked, kind, *more)
            except FlywheelError:  # no version to roll back to, a retrieval or passage that is gone
                continue


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index whose weights were fitted to votes on 150 past queries."""
    root = make_history(tmp_path_factory.mktemp("learned") / "kb")
    with opened(root) as fw:
        fw.refresh()
    assert len(names_in(live(root))) == len(QUERIES) + OTHERS
    return root


@pytest.fixture
def root(learned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(learned, tmp_path / "kb"))


def vote(root: Path, query: str) -> None:
    with opened(root) as fw:
        shown = fw.retrieve(query, user_id="bob")
        best = next((h for h in shown.hits if is_answer(query, h.passage_id)), shown.hits[0])
        fw.feedback(shown.id, best.passage_id, "helpful", user_id="bob")


def test_parameters_memory_and_gate_are_the_same_with_fitted_weights(root: Path) -> None:
    n = len(QUERIES) + OTHERS
    vote(root, "topic3 problem3 quite other words")
    assert refreshed_either_way(root, None, 64) == n
    vote(root, QUERIES[5])
    assert refreshed_either_way(root, None, 64) >= n
    with opened(root) as fw:
        fw.add([Passage("new", "topic1 problem1 further words")])
    vote(root, QUERIES[6])
    assert refreshed_either_way(root, None, 64) == 0
    files = contents(live(root))
    assert {"parameters.json", "gate.json", "memory/chances.npy", "lookups/names.npy"} <= set(files)


def other_features(version: Path) -> StoredLookups:
    """Make the stored features others, and the manifest agree."""
    path = version / FOLDER / "features.npy"
    np.save(path, np.load(path) * np.float32(0.5))
    reseal(version, f"{FOLDER}/features.npy")
    return load_stored_lookups(version)


def test_stored_rows_are_used_and_not_looked_up_again(root: Path) -> None:
    before = other_features(live(root))
    vote(root, "topic3 problem3 quite other words")
    with opened(root) as fw:
        fw.refresh()
    after = load_stored_lookups(live(root))
    assert len(after) == len(before) + 1
    for name in before.names:
        now, then = after.find(name.tobytes()), before.find(name.tobytes())
        assert now is not None
        assert then is not None
        np.testing.assert_array_equal(now[1], then[1])


def test_they_are_not_used_once_a_passage_changed(root: Path) -> None:
    good = contents(live(root))
    other_features(live(root))
    with opened(root) as fw:
        fw.add([Passage("answer1", "topic1 problem1 fix1 solution solved")])
        fw.refresh()
        fw.add([Passage("answer1", "topic1 problem1 fix1 solution")])
        fw.refresh()
    again = load_stored_lookups(live(root))
    assert sorted(again.features.ravel().tolist()) == pytest.approx(
        sorted(np.frombuffer(good["lookups/features.npy"][128:], np.float32).tolist()), nan_ok=True
    )


def test_other_metadata_computes_the_rows_of_filtered_queries_anew(tmp_path: Path) -> None:
    root = tmp_path / "kb"
    with Flywheel.open(root, encoder=WordEncoder(32), config=SETTINGS) as fw:
        fw.add(passage(i) for i in range(12))
        fw.refresh()
        for where in WHERE:
            shown = fw.retrieve(ASKED[0], where=where)
            fw.feedback(shown.id, shown.hits[0].passage_id, "helpful", user_id="ann")
        fw.refresh()
        first = live(root)
        fw.add([passage(1, team="a")])
        fw.feedback(shown.id, shown.hits[0].passage_id, "helpful", user_id="bob")
        fw.refresh()
    before, after = names_in(first), names_in(live(root))
    both = OTHERS + 2
    assert (len(before), len(after), len(before & after)) == (both, both, both - 1)


def test_the_rows_of_who_is_forgotten_are_in_no_version(tmp_path: Path) -> None:
    root = tmp_path / "kb"
    with Flywheel.open(root, encoder=WordEncoder(32), config=SETTINGS) as fw:
        fw.add(passage(i) for i in range(12))
        fw.refresh()
        for query, user in ((ASKED[0], "bob"), (ASKED[1], "ann")):
            shown = fw.retrieve(query, user_id=user)
            fw.feedback(shown.id, shown.hits[0].passage_id, "helpful", user_id=user)
            fw.refresh()
        both = names_in(folder_of(fw))
        fw.forget("ann")
        left = [names_in(path) for path in sorted((root / "versions").iterdir())]
    kept = {name for names in left for name in names}
    assert (len(both), len(kept)) == (OTHERS + 2, OTHERS + 1)
    assert kept < both


def test_nothing_is_stored_where_questions_have_no_words(tmp_path: Path) -> None:
    config = Config(encoder="", store_queries="hash")
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(32), config=config) as fw:
        fw.add(passage(i) for i in range(12))
        fw.refresh()
        shown = fw.retrieve(ASKED[0])
        fw.feedback(shown.id, shown.hits[0].passage_id, "helpful", user_id="ann")
        fw.refresh()
        assert not (folder_of(fw) / FOLDER).exists()


def damages() -> Iterator[Any]:
    yield "names.npy", lambda a: np.concatenate([a[:1], a[:-1]])
    yield "names.npy", lambda a: a[:, 1:]
    yield "offsets.npy", lambda a: a[::-1].copy()
    yield "offsets.npy", lambda a: np.append(np.zeros(len(a) - 1, np.int64), a[-1])
    yield "lineages.npy", lambda a: a - 10**6
    yield "lineages.npy", lambda a: a.astype(np.float64)
    yield "features.npy", lambda a: np.full_like(a, np.nan)
    yield "features.npy", lambda a: np.full_like(a, np.inf)
    yield "features.npy", lambda a: a[1:]
    yield "features.npy", lambda a: a.astype(object)


@pytest.mark.parametrize(("name", "change"), list(damages()))
def test_rows_that_cannot_be_are_named_and_computed_anew(
    root: Path, name: str, change: Any
) -> None:
    version, good = live(root), contents(live(root))
    path = version / FOLDER / name
    np.save(path, change(np.load(path)), allow_pickle=True)
    reseal(version, f"{FOLDER}/{name}")
    with pytest.raises(CorruptFileError, match=FOLDER):
        load_stored_lookups(version)
    with opened(root) as fw:
        assert [FOLDER in problem for problem in fw.verify()] == [True]
        assert fw.refresh().outcome == "promoted"
        assert fw.verify() == [p for p in fw.verify() if version.name in p]
    again = contents(live(root))
    assert again["lookups/features.npy"] == good["lookups/features.npy"]
