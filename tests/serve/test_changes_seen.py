"""A process that follows adds, edits and removals answers as one that opens the folder now; what it
remembers of queries is used until the next change, and not after it."""

from pathlib import Path

import numpy as np
import pytest

from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.serve import candidates

WORDS = [f"word{i}" for i in range(12)]
QUERIES = ["word1 word2", "word3", "word4 word5 common", "word7"]


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder(), config=Config(encoder=""))


def answers(fw: Flywheel) -> list[list[tuple[str, float, float]]]:
    found = [fw.retrieve(query, 30, record=False) for query in QUERIES]
    found += [fw.retrieve(query, 30, where={"even": True}, record=False) for query in QUERIES[:2]]
    return [[(h.passage_id, h.score, h.relevance) for h in one.hits] for one in found]


def ids(found: list[list[tuple[str, float, float]]]) -> list[list[str]]:
    return [[id_ for id_, *_ in one] for one in found]


def numbers(found: list[list[tuple[str, float, float]]]) -> list[float]:
    return [value for one in found for _, *values in one for value in values]


def explained(fw: Flywheel) -> None:
    for query in QUERIES:
        for hit in fw.retrieve(query, 30, record=False).hits:
            why = hit.explanation
            parts = why.intercept + sum(why.terms.values()) + why.evidence
            assert hit.score == pytest.approx(parts, abs=1e-5)


@pytest.mark.parametrize("refreshed", [False, True])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_process_that_follows_changes_answers_as_one_that_opens_now(
    tmp_path: Path, refreshed: bool, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag_flywheel.index.postings._UNSORTED", 60)
    monkeypatch.setattr("rag_flywheel.index.fresh._KEPT", 6)
    monkeypatch.setattr("rag_flywheel.serve.fresh_texts._AT_ONCE", 7)
    rng = np.random.default_rng(seed)

    def passage(name: int) -> Passage:
        words = " ".join(rng.choice(WORDS, int(rng.integers(1, 7))))
        title = str(rng.choice(WORDS)) if rng.random() < 0.3 else ""
        return Passage(f"p{name}", words, title, {"even": name % 2 == 0})

    with opened(tmp_path / "kb") as writer, opened(tmp_path / "kb") as reader:
        writer.add([passage(i) for i in range(40)])
        if refreshed:
            writer.refresh()
        present, next_name = set(range(40)), 40
        for _ in range(12):
            step = int(rng.integers(4))
            some = rng.choice(sorted(present), 5, replace=False).tolist()
            if step == 0:
                new = range(next_name, next_name + int(rng.integers(1, 20)))
                writer.add([passage(i) for i in new])
                present |= set(new)
                next_name = new.stop
            elif step == 1:
                writer.add([passage(i) for i in some[: int(rng.integers(1, 6))]])
            elif step == 2:
                writer.remove([f"p{i}" for i in some])
                present -= set(some)
            else:
                copied = writer.retrieve(QUERIES[0], 1, record=False).hits[0]
                writer.add([Passage(f"p{next_name}", copied.text, copied.title, {"even": False})])
                present.add(next_name)
                next_name += 1
            found = answers(reader)
            assert answers(reader) == found  # from what is remembered
            with opened(tmp_path / "kb") as now:
                expected = answers(now)
            assert ids(found) == ids(expected)
            assert numbers(found) == pytest.approx(numbers(expected), abs=1e-6)
            shown = {id_ for one in ids(found) for id_ in one}
            assert shown <= {f"p{i}" for i in present}
        explained(reader)


@pytest.mark.parametrize("refreshed", [False, True])
def test_a_query_is_looked_up_once_after_each_change(
    tmp_path: Path, refreshed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = list[str]()
    made = candidates._looked_up

    def counted(state: object, inside: object, query: object, *others: object) -> object:
        looked_up.append(query.text)  # type: ignore[attr-defined]
        return made(state, inside, query, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(candidates, "_looked_up", counted)
    with opened(tmp_path / "kb") as fw, opened(tmp_path / "kb") as other:
        fw.add([Passage(f"p{i}", f"{word} common") for i, word in enumerate(WORDS)])
        if refreshed:
            fw.refresh()
        for i, change in enumerate(
            (
                lambda: None,
                lambda: fw.add([Passage("p0", "word0 edited")]),
                lambda: other.remove(["p1"]),
                lambda: other.add([Passage("new", "word1 common")]),
                lambda: other.add([Passage("p0", "word0 edited once more")]),
            )
        ):
            change()
            looked_up.clear()
            first = fw.retrieve("word1 word0", record=False)
            assert looked_up == ["word1 word0"], i
            again = fw.retrieve("word1 word0")
            assert looked_up == ["word1 word0"], i
            fw.feedback(again.id or "", again.hits[-1].passage_id, "helpful", user_id="ann")
            fw.retrieve("word1 word0", record=False)
            assert looked_up == ["word1 word0"], i  # a vote is no change of the texts
            assert [h.passage_id for h in first.hits] == [h.passage_id for h in again.hits]
            if i == 2:
                assert "p1" not in [h.passage_id for h in first.hits]


def test_many_texts_are_read_by_the_add_that_brings_them(tmp_path: Path) -> None:
    def passages(start: int, n: int) -> list[Passage]:
        return [Passage(f"p{i}", f"text{i} common") for i in range(start, start + n)]

    def n_read(fw: Flywheel) -> int:
        assert fw._server is not None
        state = fw._server._live.last()
        return -1 if state is None else len(state.fresh)

    with opened(tmp_path / "kb") as fw:
        fw.add(passages(0, 300))
        assert fw._server is None  # who only adds does not pay for it
        fw.retrieve("text1", record=False)
        fw.add(passages(300, 5))
        assert n_read(fw) == 300  # a few cost next to nothing at the next query
        fw.add(passages(305, 300))
        assert n_read(fw) == 605
        assert fw.retrieve("text600", 1, record=False).hits[0].passage_id == "p600"
