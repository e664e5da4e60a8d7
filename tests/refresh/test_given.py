"""An application that keeps its own vector store: what votes on its candidates teach."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from fakes import WordEncoder
from forgetting import query_name
from gates import folder_of, gate_of, live
from plain_model import ids, is_answer, phrasings, scores, topics
from rag_flywheel import Candidate, Config, Flywheel, Passage, Retrieval, Vote
from rag_flywheel.curate.source import Source
from rag_flywheel.deploy.loaded import load_memory, load_version
from rag_flywheel.errors import UnknownIdError
from rag_flywheel.improve.examples import Examples
from rag_flywheel.index.tokenizer import tokenizer_of
from rag_flywheel.rank.features import FEATURES, GIVEN
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.records import QueryKey
from rag_flywheel.refresh.examples import ExampleBuilder
from rag_flywheel.refresh.panel import Panel
from rag_flywheel.refresh.past import Past, read_past
from rag_flywheel.refresh.tune import _lessons
from rag_flywheel.serve.given import GivenCandidates
from rag_flywheel.serve.lookups import Lookups
from rag_flywheel.store.place import open_database

TOPICS, ASKED = 200, 150
PASSAGES = {p.id: p for p in topics(TOPICS)}
SCALES = {  # of the scores of four candidates, whichever is the answer
    "cosines": (0.2, 0.6),
    "negated distances": (-1.2, -0.7),
    "reciprocal ranks": (0.012, 0.0328),
    "bm25": (0.0, 40.0),
}


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder())


def given(query: str, rng: np.random.Generator, low: float, high: float) -> list[Candidate]:
    """The answer and the decoy of a topic and those of another, with scores that say nothing."""
    t = int(query.split()[0].removeprefix("topic"))
    names = [f"{kind}{n}" for n in (t, (t + 7) % TOPICS) for kind in ("answer", "decoy")]
    return [
        Candidate(name, PASSAGES[name].text, float(score), metadata={"lang": "en"})
        for name, score in zip(names, rng.uniform(low, high, len(names)), strict=True)
    ]


def vote(fw: Flywheel, shown: Retrieval, rng: np.random.Generator, wrong: float = 0.1) -> None:
    fw.feedback_many(
        Vote(
            shown.id,
            hit.passage_id,
            "helpful"
            if is_answer(shown.query, hit.passage_id) != (rng.random() < wrong)
            else "harmful",
            "ann",
        )
        for hit in shown.hits
    )


def first_right(fw: Flywheel, queries: list[str], low: float, high: float) -> float:
    rng = np.random.default_rng(9)
    found = [fw.rerank(q, given(q, rng, low, high), record=False) for q in queries]
    return float(np.mean([is_answer(q, ids(r)[0]) for q, r in zip(queries, found, strict=True)]))


UNSEEN = [q for q in phrasings(0, 1, TOPICS) if int(q.split()[0][5:]) >= ASKED]


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES.keys())
def test_weights_are_fitted_to_votes_on_given_candidates_and_pass_the_gate(
    tmp_path: Path, scale: tuple[float, float]
) -> None:
    """The scores say nothing, the texts do: a refresh finds both, for topics without any vote."""
    rng = np.random.default_rng(4)
    with opened(tmp_path / "kb") as fw:
        for query in phrasings(0, 1, ASKED):
            vote(fw, fw.rerank(query, given(query, rng, *scale)), rng)
        before = first_right(fw, UNSEEN, *scale)
        report = fw.refresh()
        assert report.parameters == "new", report.reason
        found = live(fw)
        assert found.weights == Parameters().weights  # no vote was on a passage of the index
        assert found.given["bigram"] > 0.5 and found.reads_given
        assert found.rates.noise == pytest.approx(0.1, abs=0.05)
        assert before < 0.4 < 0.7 < first_right(fw, UNSEEN, *scale)
        shown = fw.rerank(UNSEEN[0], given(UNSEEN[0], rng, *scale))
        for hit in shown.hits:
            why = hit.explanation
            assert tuple(why.terms) == GIVEN
            total = why.intercept + sum(why.terms.values()) + why.evidence
            assert total == pytest.approx(hit.score, abs=1e-6)
        sentences = fw.explain_version(str(report.version)).sentences
        assert any("an application's own candidates: candidate" in each for each in sentences)
        assert fw.verify() == []


def test_the_scale_of_scores_is_fitted_not_the_span_of_a_call(tmp_path: Path) -> None:
    """Right passages score 0.1 higher. A call whose scores span 0.01 says next to nothing, one whose
    scores span 0.4 a lot; before the refresh both are laid over three log-odds."""
    rng = np.random.default_rng(2)
    names = [f"d{i}" for i in range(6)]

    def calls(i: int) -> tuple[list[Candidate], str]:
        wide = i % 2 == 0
        right = names[int(rng.integers(6))]
        values = {n: 0.5 + rng.normal(0.0, 0.03 if wide else 0.002) for n in names}
        if wide:
            values[right] += 0.15
        return [Candidate(n, f"a text {n} for asking{i}", s) for n, s in values.items()], right

    def spans(fw: Flywheel) -> list[float]:
        """Of the log-odds of a narrow and a wide call."""
        found = []
        for low, high in ((0.5, 0.505), (0.3, 0.7)):
            some = [
                Candidate(n, f"no text {n}", low + (high - low) * j / 5)
                for j, n in enumerate(names)
            ]
            values = scores(fw.rerank("quite another", some, record=False)).values()
            found.append(max(values) - min(values))
        return found

    with opened(tmp_path / "kb") as fw:
        for i in range(300):
            candidates, right = calls(i)
            shown = fw.rerank(f"asking{i} thing{i}", candidates)
            fw.feedback_many(
                Vote(shown.id, h.passage_id, "helpful" if h.passage_id == right else "harmful")
                for h in shown.hits
            )
        assert spans(fw) == pytest.approx([3.0, 3.0])
        report = fw.refresh()
        narrow, wide = spans(fw)
        assert report.parameters == "new", report.reason
        assert live(fw).given["score"] > 5.0
        assert wide > 2.0 * narrow


def test_fewer_than_64_questions_leave_the_weights_and_fill_the_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    asked, similar = phrasings(0, 1, 20), phrasings(1, 2, 20)
    with opened(root := tmp_path / "kb") as fw:
        for query in asked:
            vote(fw, fw.rerank(query, given(query, rng, 0.2, 0.6)), rng, wrong=0.0)
        values = given(similar[3], rng, 0.5, 0.5)[::-1]  # all as good, the answer given last
        at_once = fw.rerank(similar[3], values, record=False)
        assert ids(at_once)[0] == "answer3"  # votes on a similar question, at once
        report = fw.refresh()
        assert report.parameters == "kept" and "of the 64 past queries it takes" in report.reason
        assert live(fw) == Parameters()
        memory = load_memory(folder_of(fw))
        assert {key.query_hash for key in memory.keys} == {query_name(root, q) for q in asked}
        row = memory.rows[QueryKey(query_name(root, asked[3]), None)]
        assert len(memory.before(row)) == 4
        after = fw.rerank(similar[3], values, record=False)
        assert ids(after)[0] == "answer3"
        same = fw.rerank(asked[3], given(asked[3], rng, 0.2, 0.6), record=False)
        assert ids(same)[0] == "answer3"
    with opened(tmp_path / "kb") as fw:
        assert scores(fw.rerank(similar[3], values, record=False)) == pytest.approx(scores(after))


def test_a_user_names_a_given_candidate_that_was_not_shown(tmp_path: Path) -> None:
    candidates = [Candidate(f"c{i}", f"text {i}", 1.0 - i / 10) for i in range(9)]
    with opened(tmp_path / "kb") as fw:
        shown = fw.rerank("some question", candidates, 2)
        assert ids(shown) == ["c0", "c1"]
        with pytest.raises(UnknownIdError, match="'other'"):
            fw.correct(shown.id, "other")
        for user in ("ann", "bob"):
            fw.correct(shown.id, "c8", user_id=user)
        assert ids(fw.rerank("some question", candidates, 2, record=False)) == ["c8", "c0"]
        fw.refresh()
        assert ids(fw.rerank("some question", candidates, 2, record=False)) == ["c8", "c0"]
        examples = examples_of(fw)
    assert examples.n_named is not None and examples.n_named.tolist() == [2.0]


def test_examples_are_the_candidates_that_were_given(tmp_path: Path) -> None:
    """60 candidates: the 50 best are features read, one beyond them has a vote."""
    query = "topic1 problem1 once"
    candidates = [
        Candidate(f"c{i}", f"text{i} topic{i % 7} problem{i % 5}", float(i), "A title" * (i % 2))
        for i in range(60)
    ]
    with opened(tmp_path / "kb") as fw:
        shown = fw.rerank(query, candidates, 60)
        fw.feedback_many(
            [Vote(shown.id, "c2", "helpful", "ann"), Vote(shown.id, "c59", "harmful", "bob")]
        )
        fw.refresh()
        examples = examples_of(fw)
        pids = pids_of(fw)
    assert examples.given is not None and examples.given.tolist() == [True]
    wanted = [2, *range(11, 60)]
    assert sorted(examples.lineages[0].tolist()) == sorted(pids[f"c{i}"] for i in wanted)
    texts = [Passage(c.passage_id, c.text, c.title) for c in candidates]
    own, none = np.array([c.score for c in candidates]), np.full(60, -1)
    served = GivenCandidates(texts, own, none, none).text_features(query, tokenizer_of("english"))
    row = {pid: examples.features[0, i] for i, pid in enumerate(examples.lineages[0].tolist())}
    for i in wanted:
        features = row[pids[f"c{i}"]]
        assert features[: len(FEATURES)].tolist() == [0.0] * len(FEATURES)
        own = features[len(FEATURES) :]
        assert own[0] == pytest.approx((i - 59) / 59, abs=1e-6) and own[1] == i - 59
        assert own[2:] == pytest.approx(served[i], abs=1e-6)
    net = dict(zip(examples.lineages[0].tolist(), examples.net[0].tolist(), strict=True))
    assert {pid: value for pid, value in net.items() if value} == {pids["c2"]: 1, pids["c59"]: -1}


def test_a_candidate_that_was_added_to_the_index_since_is_one_candidate(tmp_path: Path) -> None:
    """Its votes go on to the passage, so two rows of one text have the same votes."""
    candidates = [Candidate("x", "first text", 2.0), Candidate("y", "second text", 1.0)]
    with opened(tmp_path / "kb") as fw:
        shown = fw.rerank("some question", candidates)
        fw.feedback(shown.id, "x", "helpful", user_id="ann")
        fw.add([Passage("x", "first text")])
        shown = fw.rerank("some question", candidates)
        fw.feedback(shown.id, "y", "harmful", user_id="bob")
        fw.refresh()
        examples = examples_of(fw)
    lineages = examples.lineages[0][examples.present[0]].tolist()
    assert len(lineages) == len(set(lineages)) == 2
    assert sorted(examples.net[0].tolist())[:1] == [-1.0] and examples.net[0].max() == 1.0


def test_candidates_that_are_passages_of_the_index_teach_the_weights_of_the_index(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(3)
    asked = phrasings(0, 1, 6)
    with opened(root := tmp_path / "kb") as fw:
        fw.add(topics(4))
        fw.refresh()
        for query in asked:  # two of them on topics that are not in the index
            vote(fw, fw.rerank(query, given(query, rng, 0.2, 0.6)), rng)
        for query in phrasings(2, 3, 3):
            shown = fw.retrieve(query)
            fw.feedback(shown.id, shown.hits[0].passage_id, "helpful")
        fw.remove(["answer1"])
        fw.refresh()
        found = examples_of(fw)
    texts = {query_name(root, q): q for q in [*asked, *phrasings(2, 3, 3)]}
    assert found.given is not None
    own = [texts[key.query_hash] for key, mine in zip(found.keys, found.given, strict=True) if mine]
    # a topic of which a candidate is not in the index, or no more
    assert sorted(own) == sorted(asked)
    assert (found.features[found.given][:, :, : len(FEATURES)] == 0.0).all()
    assert (found.features[~found.given][:, :, len(FEATURES) :] == 0.0).all()


def test_the_encoder_is_taught_by_passages_of_the_index_alone(tmp_path: Path) -> None:
    """Given candidates have no vectors here."""
    rng = np.random.default_rng(4)
    with opened(tmp_path / "kb") as fw:
        fw.add(topics(4))
        for query in phrasings(0, 1, 40):
            vote(fw, fw.rerank(query, given(query, rng, 0.2, 0.6)), rng)
        for query in (indexed := phrasings(1, 2, 4)):
            shown = fw.retrieve(query)
            fw.feedback(shown.id, shown.hits[0].passage_id, "helpful")
        fw.refresh()
        with builder_of(fw) as (builder, past, source):
            panel = Panel(
                builder, past, untuned=past.vectors, source=source, live=source, until=2**62
            )
            taught = _lessons(panel, Parameters())
            assert len(panel.examples) == 44
            assert set(taught.texts) <= set(indexed)
            lineages = taught.examples.lineages[taught.examples.present]
            assert len(taught.vectors(lineages)) == len(lineages)


def test_what_a_gate_weighs_of_given_candidates_is_written_down(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    with opened(tmp_path / "kb") as fw:
        for query in phrasings(0, 1, 100):
            vote(fw, fw.rerank(query, given(query, rng, 0.2, 0.6)), rng)
        fw.refresh()
        assert set(gate_of(fw)["candidate"]["given"]) == set(GIVEN[1:])


def test_older_retrievals_without_stored_candidates_still_move_rankings(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    with opened(tmp_path / "kb") as fw:
        values = given("topic1 problem1 x", rng, 0.2, 0.6)
        vote(fw, fw.rerank("topic1 problem1 x", values), rng, wrong=0.0)
    with closing(sqlite3.connect(tmp_path / "kb" / "flywheel.db")) as conn, conn:
        conn.execute("UPDATE retrievals SET candidates = NULL")
    with opened(tmp_path / "kb") as fw:
        fw.refresh()
        assert ids(fw.rerank("topic1 problem1 x", values, record=False))[0] == "answer1"


@contextmanager
def builder_of(fw: Flywheel) -> Iterator[tuple[ExampleBuilder, Past, Source]]:
    """What a refresh would make examples with, and of which past queries."""
    info = next(v for v in fw.versions() if v.live)
    version = load_version(
        folder_of(fw), version=info.id, watermark=info.watermark, dim=64, n_passages=info.n_passages
    )
    source = Source(WordEncoder(), Config(encoder=""))
    database = open_database(Path(fw.status().path))
    try:
        past = read_past(database, source, until=2**62)
        yield ExampleBuilder(database, version, Lookups(0), 100), past, source
    finally:
        database.close()


def examples_of(fw: Flywheel) -> Examples:
    """As a refresh makes them."""
    with builder_of(fw) as (builder, past, _):
        return builder.past(past)


def pids_of(fw: Flywheel) -> dict[str, int]:
    with closing(sqlite3.connect(Path(fw.status().path) / "flywheel.db")) as conn:
        return dict(conn.execute("SELECT id, pid FROM passages"))
