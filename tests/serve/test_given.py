"""The features of the texts of an application's own candidates, and which of them are kept."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.index.bm25 import K1, B
from rag_flywheel.index.tokenizer import tokenize, tokenizer_of
from rag_flywheel.rank.features import FEATURES, GIVEN
from rag_flywheel.rank.score import POOL
from rag_flywheel.records import EmbeddedText, Features
from rag_flywheel.serve.candidates import look_up
from rag_flywheel.serve.given import GivenCandidates
from rag_flywheel.serve.lookups import Lookups
from rag_flywheel.serve.state import scope

ENGLISH_WORDS = Config(encoder="", language="english")
ENGLISH = [
    Passage("reset", "To get a new password, open Settings and choose Reset.", "New password"),
    Passage("secret", "The account page lets you change your login secret."),
    Passage("mail", "We send a link to your e-mail address; it works for an hour.", "Links"),
    Passage("refund", "Refunds are paid within thirty days of the order.", "Refund policy"),
]
GERMAN = [
    Passage("kennwort", "Ein neues Kennwort gibt es in den Einstellungen unter Zurücksetzen."),
    Passage("konto", "Auf der Kontoseite ändern Sie Ihr Anmeldegeheimnis.", "Ihr Konto"),
    Passage("link", "Der Link in der E-Mail gilt eine Stunde, danach ist ein neuer nötig."),
    Passage("geld", "Erstattungen kommen binnen dreißig Tagen nach der Bestellung."),
]
ASKED = {
    "new password settings": ENGLISH,
    "how do I reset my password?": ENGLISH,
    "neues Kennwort vergessen": GERMAN,
    "Wann kommt die Erstattung?": GERMAN,
    "nobody wrote of this": ENGLISH,
}


def candidates(passages: Sequence[Passage], scores: Sequence[float]) -> GivenCandidates:
    unknown = np.full(len(passages), -1)
    return GivenCandidates(passages, np.array(scores, dtype=np.float64), unknown, unknown)


def given_text_features(
    query: str, passages: Sequence[Passage], scores: Sequence[float] | None = None
) -> Features:
    scores = [0.0] * len(passages) if scores is None else scores
    return candidates(passages, scores).text_features(query, tokenizer_of("english"))


def named(features: Features) -> dict[str, list[float]]:
    return dict(zip(GIVEN[2:], features.T.tolist(), strict=True))


@pytest.mark.parametrize("query", ASKED)
def test_bm25_is_that_of_the_candidates_alone(query: str) -> None:
    """BM25 by hand: Lucene's idf, k1 1.2, b 0.75, over the best of the candidates."""
    texts = [tokenize(f"{p.title} {p.text}".strip()) for p in ASKED[query]]
    average = sum(map(len, texts)) / len(texts)
    expected = []
    for words in texts:
        norm = K1 * (1 - B + B * len(words) / average)
        total = 0.0
        for word in tokenize(query):
            df = sum(word in other for other in texts)
            idf = np.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
            total += idf * words.count(word) / (words.count(word) + norm)
        expected.append(total)
    best = max(expected) or 1.0
    found = given_text_features(query, ASKED[query], [0.0, 1.0, 2.0, 3.0])
    assert named(found)["bm25"] == pytest.approx([each / best for each in expected], abs=1e-6)


@pytest.mark.parametrize("query", ASKED)
def test_texts_have_the_features_that_they_have_in_an_index_of_the_candidates_alone(
    tmp_path: Path, query: str
) -> None:
    passages = ASKED[query]
    encoder = WordEncoder()
    with Flywheel.open(tmp_path / "kb", encoder=encoder, config=ENGLISH_WORDS) as fw:
        fw.add(passages)
        fw.refresh()
        fw.retrieve(query, record=False)
        assert fw._server is not None
        state = fw._server._live.state()
        question = EmbeddedText(query, encoder.encode_queries([query])[0])
        (indexed,) = look_up(state, scope(state, None), [question], POOL, Lookups(0))
    assert len(indexed.pids) == len(passages)
    found = given_text_features(query, passages)
    assert found == pytest.approx(indexed.features[:, 1 : len(FEATURES)], abs=1e-6)


def test_words_and_titles_are_matched_in_both_languages() -> None:
    english = named(given_text_features("new password settings", ENGLISH))
    assert english["bm25"] == [1.0, 0.0, 0.0, 0.0]
    assert english["title"][0] == 1.0
    german = named(given_text_features("Konto: neues Kennwort", GERMAN))
    assert (np.argmax(german["bm25"]), np.argmax(german["title"])) == (0, 1)
    # "Erstattung" is no word of a text, but four letters of one
    german = named(given_text_features("Erstattung", GERMAN))
    assert german["bm25"] == [0.0] * 4 and german["pieces"] == [0.0, 0.0, 0.0, 1.0]


def test_the_texts_of_the_fifty_best_are_read_and_the_others_get_the_least() -> None:
    passages = [Passage(f"p{i}", f"word{i} common {'more ' * (i % 5)}") for i in range(60)]
    scores = [float(i) for i in range(60)]
    query = "common word7 word55"
    found = given_text_features(query, passages, scores)
    alone = given_text_features(query, passages[10:], scores[10:])
    assert found[10:].tolist() == alone.tolist()
    assert found[:10].tolist() == [alone.min(axis=0).tolist()] * 10  # word7 was not read


def test_one_candidate_and_a_query_without_words_have_features() -> None:
    one = given_text_features("new password", ENGLISH[:1])
    assert one.shape == (1, 8) and np.isfinite(one).all()
    nothing = given_text_features("what is it", ENGLISH)
    assert np.isfinite(nothing).all() and nothing[:, 0].tolist() == [0.0] * 4


def test_the_best_the_last_and_those_shown_are_kept_by_falling_score() -> None:
    passages = [Passage(f"p{i}", "some text") for i in range(100)]
    every = candidates(passages, [float(i) for i in range(100)])
    assert every.kept([99, 3]) == [*range(99, 49, -1), 3, 0]
    few = candidates(passages[:3], [1.0, 1.0, 1.7e308])
    assert few.kept([0]) == [2, 0, 1]
    assert few.logged([2, 0], np.array([7, 8, 9])) == [(9, 1e299), (7, 1.0)]


@pytest.mark.parametrize("passages", [ENGLISH, GERMAN])
def test_measures_are_the_same_whether_or_not_the_words_were_read_before(
    passages: Sequence[Passage],
) -> None:
    query, scores = (
        "This is a new link: in den Einstellungen, the Zurücksetzen",
        [3.0, 2.0, 1.0, 0.5],
    )
    alone, after = (candidates(passages[:3], scores[:3]) for _ in range(2))
    after.text_features(query, tokenizer_of("english"))
    assert after.words and not alone.words
    found = after.measures(query, [2, 0], tokenizer_of("english"))
    assert found.tolist() == alone.measures(query, [2, 0], tokenizer_of("english")).tolist()
    wanted = set(tokenize(query))
    for row, passage in zip(found.tolist(), (passages[2], passages[0]), strict=True):
        words = tokenize(f"{passage.title} {passage.text}")
        share = len(wanted & set(words)) / len(wanted)
        assert row == pytest.approx([share, float(share < 1), np.log1p(len(words))], abs=1e-6)
