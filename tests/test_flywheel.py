"""The public API: passages in, ranked passages out, and versions of it."""

import math
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from fakes import Vectors, WordEncoder
from plain_model import scored, shared_out
from rag_flywheel import Config, Flywheel, Passage, Retrieval
from rag_flywheel.errors import ClosedError, EncoderError, UnknownIdError
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.refresh.unrelated import UNRELATED

QUERY = "reset password"
WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "lotus", "maple"]


def ids(found: Retrieval) -> list[str]:
    return [hit.passage_id for hit in found.hits]


def scores(found: Retrieval) -> dict[str, float]:
    return {hit.passage_id: hit.score for hit in found.hits}


def vote(fw: Flywheel, query: str, passage_id: str, verdict: str = "helpful") -> None:
    fw.feedback(fw.retrieve(query, k=1000).id, passage_id, verdict)  # type: ignore[arg-type]


def random_passages(n: int, seed: int = 0) -> list[Passage]:
    rng = np.random.default_rng(seed)
    return [Passage(f"p{i}", " ".join(rng.choice(WORDS, rng.integers(2, 9)))) for i in range(n)]


def rows(fw: Flywheel) -> dict[str, int]:
    """How many rows each table of the database has, and the clock."""
    with closing(sqlite3.connect(Path(fw.status().path) / "flywheel.db")) as conn:
        tables = [r[0] for r in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        counts = {t: int(conn.execute(f"SELECT count(*) FROM {t}").fetchone()[0]) for t in tables}
        return counts | {"events": int(conn.execute("SELECT seq FROM clock").fetchone()[0])}


def test_scores_are_the_documented_formula(fw: Flywheel, encoder: WordEncoder) -> None:
    texts = {"a": "amber birch", "b": "amber amber cedar delta", "c": "fjord grove heron"}
    fw.add([Passage(p, text) for p, text in texts.items()])
    query, shipped = "amber cedar", Parameters()
    bm25 = {}
    for p, text in texts.items():
        bm25[p], words = 0.0, text.split()
        for word in query.split():
            df, tf = sum(word in t.split() for t in texts.values()), words.count(word)
            idf = math.log(1 + (3 - df + 0.5) / (df + 0.5))
            bm25[p] += idf * tf / (tf + 1.2 * (0.25 + 0.75 * len(words) / 3))  # average length 3
    given = encoder.encode_passages(list(texts.values()))
    cosines = dict(zip(texts, (given @ encoder.encode_queries([query])[0]).tolist(), strict=True))
    typical = (float((given @ given.T).sum()) - 3) / 6  # the mean of the three pairs
    for _ in range(2):  # before any version, and from one
        found, worth = fw.retrieve(query), {}
        for hit in found.hits:
            dense = (cosines[hit.passage_id] - typical) / (1 - typical) * shipped.weights["dense"]
            share = shipped.weights["bm25"] * bm25[hit.passage_id] / max(bm25.values())
            terms = {**dict.fromkeys(shipped.weights, 0.0), "dense": dense, "bm25": share}
            assert hit.explanation.terms == pytest.approx(terms, abs=1e-5)
            worth[hit.passage_id] = dense + share
            explained = hit.explanation.intercept + sum(hit.explanation.terms.values())
            assert explained == pytest.approx(hit.score, abs=1e-6)
        assert scores(found) == pytest.approx(scored(shared_out(worth), [], 4.0), abs=1e-5)
        assert [h.rank for h in found.hits] == [1, 2, 3]
        assert ids(found) == sorted(texts, key=lambda p: -scores(found)[p])
        assert fw.refresh().outcome in ("promoted", "unchanged")


def test_add_says_what_it_did_and_embeds_each_text_once(fw: Flywheel, encoder: WordEncoder) -> None:
    first = [Passage("a", "amber birch"), Passage("b", "cedar delta"), Passage("c", "amber birch")]
    report = fw.add(first)
    assert (report.added, report.updated, report.unchanged) == (3, 0, 0)
    assert encoder.n_encoded == 2  # two of the texts are the same
    again = fw.add(iter([*first, Passage("d", "ember")]))
    assert (again.added, again.updated, again.unchanged) == (1, 0, 3)
    assert encoder.n_encoded == 3
    edit = fw.add([Passage("a", "fjord"), Passage("b", "cedar delta"), Passage("e", "grove")])
    assert (edit.added, edit.updated, edit.unchanged) == (1, 1, 1)
    assert encoder.n_encoded == 5
    assert fw.add([]).added == 0
    assert fw.retrieve("fjord").hits[0].text == "fjord"
    assert [h.text for h in fw.retrieve("amber", k=100).hits].count("amber birch") == 1
    assert fw.status().n_passages == 5


@pytest.mark.parametrize("refreshed", [False, True])
def test_a_change_of_metadata_or_title_alone_embeds_nothing_and_acts_at_once(
    fw: Flywheel, encoder: WordEncoder, refreshed: bool
) -> None:
    fw.add([Passage("a", "amber birch cedar", "", {"lang": "en"}), Passage("b", "delta")])
    vote(fw, "amber", "a")
    if refreshed:
        fw.refresh()
    before, n = fw.retrieve("amber", record=False), encoder.n_encoded
    report = fw.add([Passage("a", "birch cedar", "amber", {"lang": "de"})])
    assert (report.added, report.updated, report.unchanged) == (0, 1, 0)
    after = fw.retrieve("amber", record=False)
    assert scores(after) == pytest.approx(scores(before), abs=1e-5)
    assert after.hits[0].explanation.evidence > 0
    assert (after.hits[0].title, after.hits[0].metadata) == ("amber", {"lang": "de"})
    assert ids(fw.retrieve("amber", where={"lang": "de"}, record=False)) == ["a"]
    assert ids(fw.retrieve("amber", where={"lang": "en"}, record=False)) == []
    for expected in ((0, 1, 0), (0, 0, 1)):  # metadata alone, then nothing
        report = fw.add([Passage("a", "birch cedar", "amber", {"lang": "fr"})])
        assert (report.added, report.updated, report.unchanged) == expected
        assert fw.retrieve("amber", record=False).hits[0].metadata == {"lang": "fr"}
        assert ids(fw.retrieve("amber", where={"lang": "fr"}, record=False)) == ["a"]
    assert encoder.n_encoded == n  # the query was asked before


@pytest.mark.parametrize("refreshed", [False, True])
def test_removed_passages_are_gone_at_once_and_can_come_back(
    fw: Flywheel, encoder: WordEncoder, help_desk: list[Passage], refreshed: bool
) -> None:
    fw.add(help_desk)
    if refreshed:
        fw.refresh()
    assert fw.remove(["reset", "cats", "reset"]) == 2
    assert sorted(ids(fw.retrieve(QUERY))) == ["refund", "secret"]
    with pytest.raises(UnknownIdError):
        fw.remove(["reset"])
    n = encoder.n_encoded
    assert (fw.add(help_desk[:1]).added, encoder.n_encoded) == (1, n)
    assert ids(fw.retrieve(QUERY))[0] == "reset"
    assert fw.remove([]) == 0


class FailingEncoder(WordEncoder):
    """Fails when it is given the text "poison"; n_done counts passages that came out."""

    def __init__(self, answer: float | None) -> None:
        super().__init__()
        self.answer = answer
        self.n_done = 0
        self.broken = True

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        found = super().encode_passages(texts)
        if self.broken and "poison" in texts:
            if self.answer is None:
                raise EncoderError("out of memory")
            found[list(texts).index("poison")] = self.answer
        else:
            self.n_done += len(texts)
        return found


@pytest.mark.parametrize("answer", [None, math.nan, math.inf, 0.0, 0.5])
def test_an_add_that_fails_adds_nothing_and_the_next_one_goes_on(
    tmp_path: Path, answer: float | None
) -> None:
    encoder = FailingEncoder(answer)
    long = [Passage(f"p{i}", f"longer words than the last number {i}") for i in range(300)]
    with Flywheel.open(tmp_path / "kb", encoder=encoder) as fw:
        fw.add([Passage("old", "poisonous plants")])
        before = rows(fw)
        with pytest.raises(EncoderError):
            fw.add([*long, Passage("old", "poison")])
        after = rows(fw)
        assert (after["passages"], after["events"]) == (before["passages"], before["events"])
        assert fw.status().n_passages == 1
        assert fw.retrieve("plants").hits[0].text == "poisonous plants"
        assert encoder.n_done > 1  # what came out before the failure is kept
        encoder.broken = False
        report = fw.add([*long, Passage("old", "poison")])
        assert (report.added, report.updated) == (300, 1)
        assert encoder.n_done == 302  # nothing that came out was made twice


def test_refresh_embeds_nothing_that_has_a_vector(fw: Flywheel, encoder: WordEncoder) -> None:
    fw.add(random_passages(40))
    vote(fw, "amber birch", "p7")
    n = encoder.n_encoded
    for passage in ("p8", "p9"):
        assert fw.refresh().scores["n_embedded"] == 0
        assert encoder.n_encoded == n + len(UNRELATED)  # once for all versions
        fw.remove([passage])


def test_outcomes_of_refresh(fw: Flywheel, help_desk: list[Passage]) -> None:
    fw.add(help_desk)
    first = fw.refresh()
    assert (first.outcome, first.version) == ("promoted", fw.versions()[0].id)
    assert (fw.refresh().outcome, fw.refresh(max_age_s=0.0).outcome) == ("unchanged", "unchanged")
    vote(fw, QUERY, "reset")
    assert fw.refresh(if_votes=2).outcome == "unchanged"
    assert fw.refresh(if_votes=2, max_age_s=3600.0).outcome == "unchanged"
    vote(fw, QUERY, "secret")
    second = fw.refresh(if_votes=2)
    assert (second.outcome, second.parameters) == ("promoted", "kept")
    vote(fw, QUERY, "cats", "harmful")
    assert fw.refresh(if_votes=2, max_age_s=0.0).outcome == "promoted"
    fw.add([Passage("new", "lotus maple")])
    assert fw.refresh(if_votes=1).outcome == "unchanged"
    assert (fw.refresh().outcome, fw.status().n_indexed) == ("promoted", 5)
    assert [v.parent for v in fw.versions()] == [*[v.id for v in fw.versions()][1:], None]
    assert [v.live for v in fw.versions()] == [True, False, False, False]


def test_scores_after_a_refresh_are_those_before(fw: Flywheel) -> None:
    fw.add(random_passages(60))
    queries = ["amber birch", "fjord", "maple nectar heron delta", "unknown words", "the"]
    for accuracy in (1e-5, 1e-4, 1e-4):  # with votes, a memory stands in for the logged scores
        before = fw.retrieve_many(queries, k=60, record=False)
        assert fw.refresh().outcome == "promoted"
        after = fw.retrieve_many(queries, k=60, record=False)
        for old, new in zip(before, after, strict=True):
            assert scores(new) == pytest.approx(scores(old), abs=accuracy)
        vote(fw, "amber birch", "p3")
        vote(fw, "fjord grove", "p9", "harmful")
        vote(fw, "lotus", "p5")


def test_retrieve_many_is_retrieve_in_order(fw: Flywheel) -> None:
    fw.add(random_passages(50))
    fw.refresh()
    fw.add(random_passages(55)[50:])
    vote(fw, "amber birch", "p3")
    queries = ["amber birch", "fjord", "amber birch", "zebra", "maple nectar heron"]
    many = fw.retrieve_many(queries, k=10)
    assert [found.query for found in many] == queries
    assert len({found.id for found in many}) == len(queries)
    for query, found in zip(queries, many, strict=True):
        one = fw.retrieve(query, k=10)
        assert [h.score for h in found.hits] == pytest.approx([h.score for h in one.hits], abs=1e-5)
        assert scores(found) == pytest.approx(scores(one), abs=1e-5)
    assert fw.retrieve_many([]) == []


def test_pruning_keeps_the_newest_and_the_live_one(tmp_path: Path, encoder: WordEncoder) -> None:
    config = Config(encoder="", keep_versions=2)
    with Flywheel.open(tmp_path / "kb", encoder=encoder, config=config) as fw:
        made = []
        for i in range(4):
            fw.add([Passage(f"p{i}", f"words {i}")])
            made.append(fw.refresh().version)
        assert [v.id for v in fw.versions()] == [made[3], made[2]]
        assert fw.rollback() == made[2]
        fw.add([Passage("more", "more words")])
        newest = fw.refresh().version
        assert [v.id for v in fw.versions()] == [newest, made[3], made[2]]  # its parent stays
        assert fw.verify() == []
        assert fw.rollback() == made[2]


def test_without_a_record_nothing_is_written(fw: Flywheel, help_desk: list[Passage]) -> None:
    fw.add(help_desk)
    fw.refresh()
    fw.retrieve("first use of a version", record=False)
    before = rows(fw)
    found = fw.retrieve("a query never seen", user_id="ann", session_id="s", record=False)
    many = fw.retrieve_many(["another query", "and another"], record=False)
    assert rows(fw) == before
    assert [found.id, *(m.id for m in many)] == [None] * 3
    assert len(found.hits) == 4


def test_an_empty_index_answers_and_refreshes(fw: Flywheel) -> None:
    assert (fw.retrieve(QUERY).hits, fw.retrieve(QUERY).version) == ((), None)
    assert fw.retrieve(QUERY, where={"lang": "en"}).hits == ()
    assert (fw.refresh().outcome, fw.retrieve(QUERY).hits) == ("promoted", ())
    fw.add([Passage("a", "reset it")])
    assert ids(fw.retrieve(QUERY)) == ["a"]
    fw.refresh()
    fw.remove(["a"])
    assert (fw.retrieve(QUERY).hits, fw.refresh().outcome) == ((), "promoted")
    assert (fw.retrieve(QUERY).hits, fw.verify()) == ((), [])


@pytest.mark.parametrize("refreshed", [False, True])
def test_filters_act_before_the_best_are_taken(
    tmp_path: Path, encoder: WordEncoder, refreshed: bool
) -> None:
    config = Config(encoder="", n_candidates=2)
    with Flywheel.open(tmp_path / "kb", encoder=encoder, config=config) as fw:
        near = [Passage(f"en{i}", f"reset password {i}", "", {"lang": "en"}) for i in range(40)]
        far = [Passage(f"de{i}", f"kittens sleep {i}", "", {"lang": "de"}) for i in range(3)]
        fw.add([*near, *far])
        if refreshed:
            fw.refresh()
        assert ids(fw.retrieve(QUERY, k=2))[0].startswith("en")
        assert sorted(ids(fw.retrieve(QUERY, k=3, where={"lang": "de"}))) == ["de0", "de1", "de2"]
        assert len(fw.retrieve(QUERY, k=20, where={"lang": {"in": ["en", "fr"]}}).hits) == 20
        assert sorted(ids(fw.retrieve(QUERY, k=10**6))) == sorted(p.id for p in [*near, *far])


@pytest.mark.parametrize("refreshed", [False, True])
def test_any_script_and_any_length(fw: Flywheel, refreshed: bool) -> None:
    texts = {
        "ar": "إعادة تعيين كلمة المرور",
        "he": "איפוס סיסמה לחשבון",
        "zh": "重置 密码 的 步骤",
        "emoji": "👩‍👩‍👧 🎉 party",
        "long": "amber " * 174_000 + "xylophone",  # 1 MB
        "nul": "before\x00after \u2028 end",
    }
    fw.add([Passage(f"{name}/é ü", text) for name, text in texts.items()])
    if refreshed:
        fw.refresh()
    for name, query in {
        "ar": "كلمة المرور", "he": "סיסמה", "zh": "密码", "emoji": "🎉", "long": "xylophone amber",
        "nul": "before\x00after",
    }.items():  # fmt: skip
        best = fw.retrieve(query, user_id="ünï").hits[0]
        assert (best.passage_id, best.text) == (f"{name}/é ü", texts[name])


def test_status_numbers_and_answers(fw: Flywheel, help_desk: list[Passage]) -> None:
    fw.add(help_desk[:3])
    version = fw.refresh().version
    fw.add(help_desk[3:])
    fw.remove(["secret"])
    shown = fw.retrieve(QUERY)
    fw.retrieve(QUERY)
    fw.feedback(shown.id, "reset", "helpful")
    assert shown.id is not None
    fw.answer(shown.id, "Öffne die Einstellungen")
    found = fw.status()
    assert (found.version, found.n_versions, found.frozen_at) == (version, 1, None)
    assert (found.n_passages, found.n_indexed, found.n_waiting) == (3, 3, 1)
    assert (found.n_retrievals, found.n_votes, found.votes_since_refresh) == (2, 1, 1)
    assert (found.encoder, found.dense_search, found.dense_recall) == ("words", "every passage", 1)
    fw.refresh()
    assert (fw.status().votes_since_refresh, fw.status().n_waiting) == (0, 0)
    with closing(sqlite3.connect(Path(found.path) / "flywheel.db")) as conn:
        kept = conn.execute("SELECT id, answer FROM retrievals ORDER BY rid").fetchall()
    assert [answer for _, answer in kept] == ["Öffne die Einstellungen", None]
    assert kept[0][0] == shown.id


def test_after_close_every_use_says_so(tmp_path: Path, encoder: WordEncoder) -> None:
    with Flywheel.open(tmp_path / "kb", encoder=encoder) as fw:
        fw.add([Passage("a", "words")])
        fw.refresh()
        shown = fw.retrieve("words")
        assert shown.id is not None
    for use in (
        lambda: fw.add([]),
        lambda: fw.remove(["a"]),
        lambda: fw.retrieve("words"),
        lambda: fw.feedback(shown.id, "a", "helpful"),
        lambda: fw.refresh(),
        lambda: fw.status(),
        lambda: fw.release(),
        lambda: fw.versions(),
        lambda: fw.verify(),
    ):
        with pytest.raises(ClosedError, match="was closed; open it again"):
            use()
