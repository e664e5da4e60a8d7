"""Exploration: within its cap, of what teaches most, marked, and never where it must not be."""

import hashlib
import json
import math
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import WordEncoder
from rag_flywheel import Candidate, Config, Flywheel, Passage, Retrieval, Vote
from rag_flywheel.errors import ConfigError
from rag_flywheel.rank.posterior import Rates
from rag_flywheel.serve.explore import Allowance, drawn, taught

N_PASSAGES, K = 12, 3
PASSAGES = [
    Passage(f"p{i}", f"reset password number{i}", metadata={"team": "ab"[i % 2]})
    for i in range(N_PASSAGES)
]
QUERY = "reset password"
Open = Callable[..., Flywheel]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """An index of passages that all may answer the query, with a share of answers explored."""

    def made(share: float, **settings: Any) -> Flywheel:
        config = Config(encoder="", explore=share, **settings)
        fw = Flywheel.open(tmp_path / f"kb {share}", encoder=WordEncoder(), config=config)
        fw.add(PASSAGES)
        return fw

    return made


def asked(fw: Flywheel, n: int, query: str = QUERY, **how: Any) -> list[Retrieval]:
    return [fw.retrieve(query, k=K, **how) for _ in range(n)]


def explored(found: Sequence[Retrieval]) -> list[Retrieval]:
    return [each for each in found if any(hit.explored for hit in each.hits)]


def ids(found: Retrieval) -> list[str]:
    return [hit.passage_id for hit in found.hits]


def logged(root: Path) -> dict[str, list[tuple[str, Mapping[str, float]]]]:
    """By retrieval: (passage id, parts) of each hit that is in the record."""
    with closing(sqlite3.connect(root / "flywheel.db")) as conn:
        rows = conn.execute("SELECT id, hits FROM retrievals").fetchall()
    return {id_: [(hit[1], hit[3]) for hit in json.loads(hits)] for id_, hits in rows}


def test_one_answer_in_so_many_gives_its_last_place_to_a_passage_from_below(opened: Open) -> None:
    with opened(0.2) as fw:
        plain = ids(fw.retrieve(QUERY, k=N_PASSAGES, record=False))
        found = asked(fw, 400)
        some = explored(found)
        assert 0.2 * 400 - 4 * 8 < len(some) < 0.2 * 400 + 4 * 8  # 8: its standard deviation
        for each in some:
            assert ids(each)[:-1] == plain[: K - 1]
            assert ids(each)[-1] in plain[K:]
            assert [hit.explored for hit in each.hits] == [False] * (K - 1) + [True]
            assert [hit.rank for hit in each.hits] == list(range(1, K + 1))
        assert all(ids(each) == plain[:K] for each in found if each not in some)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_cap_holds_at_any_time_whatever_answers_need_nothing(share: float) -> None:
    allowance, rng = Allowance(share), np.random.default_rng(0)
    spent = 0.0
    for n in range(1, 500):
        useful = rng.random() < (0.1 if n < 200 else 1.0)
        probability = allowance.spend(useful=bool(useful))
        assert (probability > 0.0) == useful
        assert probability <= 0.9
        spent += probability
        assert spent <= share * n + 1e-9
    assert spent > share * 300 - 1.0  # of the answers that all had something to learn


def test_what_is_left_is_spent_once_by_many_threads() -> None:
    allowance, spent = Allowance(0.1), list[float]()

    def spend() -> None:
        spent.extend(allowance.spend(useful=True) for _ in range(200))

    threads = [threading.Thread(target=spend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(spent) == pytest.approx(0.1 * 800)


def test_several_processes_keep_to_the_cap_each_by_itself(opened: Open, tmp_path: Path) -> None:
    with (
        opened(0.2) as one,
        Flywheel.open(tmp_path / "kb 0.2", encoder=WordEncoder()) as other,
    ):
        assert other.config.explore == 0.2
        for fw in (one, other) * 100:
            fw.retrieve(QUERY, k=K)
    marks = [hits[-1][1] for hits in logged(tmp_path / "kb 0.2").values()]
    probabilities = [m["explored"] if "explored" in m else 1.0 - m["stayed"] for m in marks]
    assert probabilities == pytest.approx([0.2] * 200)


def test_the_same_retrieval_is_explored_again_by_its_id() -> None:
    names = [f"retrieval {i}" for i in range(2_000)]
    for name in names[:50]:
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        place = int.from_bytes(digest, "big") / 2**64
        assert [drawn(name, place * by) for by in (0.999, 1.001)] == [False, True]
    assert sum(drawn(name, 0.3) for name in names) / len(names) == pytest.approx(0.3, abs=0.04)
    assert not any(drawn(name, 0.0) for name in names)
    assert all(drawn(name, 1.0) for name in names)


def test_nothing_is_explored_by_default_and_nothing_is_marked(opened: Open, tmp_path: Path) -> None:
    assert Config().explore == 0.0
    with opened(0.0) as fw:
        assert explored(asked(fw, 50)) == []
    for hits in logged(tmp_path / "kb 0.0").values():
        for _, parts in hits:
            assert not {"explored", "stayed"} & parts.keys()


def test_without_a_record_nothing_is_explored(opened: Open) -> None:
    with opened(0.5) as fw:
        plain = ids(fw.retrieve(QUERY, k=K, record=False))
        fw.opt_out("ann")
        for _ in range(20):
            assert fw.rank_many([QUERY], k=K) == [plain]
            assert ids(fw.retrieve(QUERY, k=K, record=False)) == plain
            assert ids(fw.retrieve(QUERY, k=K, user_id="ann")) == plain
        assert explored(asked(fw, 20))


def test_a_single_hit_is_the_best_one(opened: Open) -> None:
    with opened(0.5) as fw:
        best = ids(fw.retrieve(QUERY, k=1, record=False))
        assert all(ids(fw.retrieve(QUERY, k=1)) == best for _ in range(30))


def test_nothing_is_explored_where_nothing_is_below(opened: Open) -> None:
    with opened(0.5) as fw:
        assert explored([fw.retrieve(QUERY, k=N_PASSAGES) for _ in range(20)]) == []
        for each in PASSAGES[K:]:
            fw.remove([each.id])
        fw.add([Passage(f"far{i}", f"kittens sleep soundly day{i}") for i in range(9)])
        best, *_ = fw.retrieve(QUERY, k=20, record=False).hits[K:]
        assert best.score < math.log(1e-3)  # so that a verdict would be as good as known
        assert explored(asked(fw, 30)) == []


def test_the_record_holds_the_probability_of_what_was_shown(opened: Open, tmp_path: Path) -> None:
    with opened(0.2) as fw:
        found = asked(fw, 100)
        assert fw.verify() == []
    kept = logged(tmp_path / "kb 0.2")
    for each in found:
        *others, (last, parts) = kept[str(each.id)]
        assert last == each.hits[-1].passage_id
        mark = {"explored": pytest.approx(0.2)} if each.hits[-1].explored else {"stayed": 0.8}
        assert {k: v for k, v in parts.items() if k in ("explored", "stayed")} == mark
        assert drawn(str(each.id), 0.2) == each.hits[-1].explored
        for _, own in others:
            assert not {"explored", "stayed"} & own.keys()


def test_an_explored_hit_is_explained_and_takes_votes(opened: Open) -> None:
    with opened(0.5) as fw:
        plain = {hit.passage_id: hit for hit in fw.retrieve(QUERY, k=N_PASSAGES, record=False).hits}
        each = explored(asked(fw, 20))[0]
        hit = each.hits[-1]
        why = hit.explanation
        assert why.intercept + sum(why.terms.values()) + why.evidence == pytest.approx(hit.score)
        assert (hit.score, why, hit.text) == (
            pytest.approx(plain[hit.passage_id].score),
            plain[hit.passage_id].explanation,
            plain[hit.passage_id].text,
        )
        fw.feedback_many([Vote(each.id, hit.passage_id, "helpful", f"u{i}") for i in range(4)])
        assert ids(fw.retrieve(QUERY, k=K, record=False))[0] == hit.passage_id
        fw.signal(each.id, "abandoned", user_id="eve")  # which is divided by logged chances
        fw.refresh()
        assert fw.verify() == []


def test_passages_take_turns_by_what_a_vote_would_teach(opened: Open) -> None:
    with opened(0.5) as fw:
        below = fw.retrieve(QUERY, k=N_PASSAGES, record=False).hits[K:]
        worth = taught(np.exp([hit.score for hit in below]), Rates())
        times = np.zeros(len(below))
        for each in explored(asked(fw, 80)):
            at = int((worth / (1.0 + times)).argmax())
            assert ids(each)[-1] == below[at].passage_id
            times[at] += 1
        assert (times > 0).sum() > 3


def test_a_passage_is_explored_no_more_once_votes_said_enough_of_it(opened: Open) -> None:
    with opened(0.5) as fw:
        first = explored(asked(fw, 20))[0]
        last = ids(first)[-1]
        fw.feedback_many([Vote(first.id, last, "harmful", f"u{i}") for i in range(3)])
        later = {ids(each)[-1] for each in explored(asked(fw, 60))}
        assert later
        assert last not in later


def test_nothing_is_explored_once_the_answer_is_clear(opened: Open) -> None:
    with opened(0.5) as fw:
        first = fw.retrieve(QUERY, k=K)
        best = first.hits[0].passage_id
        fw.feedback_many([Vote(first.id, best, "helpful", f"u{i}") for i in range(6)])
        assert explored(asked(fw, 30)) == []
        assert explored(asked(fw, 30, "the password"))


def test_nothing_is_explored_where_the_answer_is_known(opened: Open) -> None:
    with opened(0.5) as fw:
        fw.pin(QUERY, "p9")
        found = asked(fw, 30)
        assert {ids(each)[0] for each in found} == {"p9"}
        assert explored(found) == []


def test_a_filter_and_the_tenant_hold_for_what_is_explored(opened: Open) -> None:
    with opened(0.5, tenant_key="team", tenant_required=False) as fw:
        some = explored(asked(fw, 40, where={"team": "a"}))
        assert some
        own = {p.id for p in PASSAGES if p.metadata["team"] == "a"}
        assert all(set(ids(each)) <= own for each in some)


def test_rerank_explores_the_candidates_that_are_stored(opened: Open, tmp_path: Path) -> None:
    given = [Candidate(f"c{i}", f"text number{i}", -0.1 * i) for i in range(8)]
    with opened(0.5) as fw:
        plain = ids(fw.rerank(QUERY, given, k=K, record=False))
        found = [fw.rerank(QUERY, given, k=K) for _ in range(40)]
        some = explored(found)
        assert 5 < len(some) < 35
        for each in some:
            assert ids(each)[:-1] == plain[:-1]
            assert ids(each)[-1] in {c.passage_id for c in given[K:]}
        last = ids(some[0])[-1]
        fw.feedback_many([Vote(some[0].id, last, "helpful", f"u{i}") for i in range(4)])
        assert ids(fw.rerank(QUERY, given, k=K, record=False))[0] == last
        assert fw.verify() == []
    assert logged(tmp_path / "kb 0.5")[str(some[0].id)][-1][0] == last


def test_retrieve_many_explores_as_retrieve_does(opened: Open) -> None:
    with opened(0.2) as fw:
        found = fw.retrieve_many([QUERY] * 300, k=K)
        assert 30 < len(explored(found)) < 90
        assert explored(fw.retrieve_many([QUERY] * 50, k=K, record=False)) == []


def test_a_vote_teaches_most_of_what_is_least_sure() -> None:
    rates = Rates(0.2, 0.3)
    chances = np.array([0.0, 0.01, 0.1, 0.5, 1.0])
    found = taught(chances, rates)
    joint = np.stack(  # P(verdict, right): by the definition, over the four outcomes
        [chances * 0.7, chances * 0.3, (1 - chances) * 0.2, (1 - chances) * 0.8]
    ).reshape(2, 2, -1)
    by_verdict, by_truth = joint.sum(axis=0, keepdims=True), joint.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        each = joint * np.log(joint / (by_verdict * by_truth))
    np.testing.assert_allclose(found, np.nan_to_num(each).sum(axis=(0, 1)), atol=1e-9)
    assert np.argmax(found) == 3
    assert taught(np.array([0.5]), Rates(0.5, 0.5))[0] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("share", [-0.1, 0.51, math.nan, "much"])
def test_the_share_is_at_most_one_half(share: object) -> None:
    with pytest.raises(ConfigError, match="explore"):
        Config(explore=share)  # type: ignore[arg-type]
