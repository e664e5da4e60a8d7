"""Passages in other scripts and languages are found, before and after the first refresh."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fakes import Vectors, WordEncoder
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.errors import ConfigError, OlderFormatError
from rag_flywheel.index.known_items import dense_trust
from rag_flywheel.index.tokenizer import tokenizer_for

PLACES = [
    "会议室",
    "打印室",
    "档案馆",
    "体育馆",
    "停车场",
    "食堂",
    "药店",
    "书店",
    "邮局",
    "银行",
    "车站",
    "港口",
]
ACTS = [
    "每周一开放",
    "需要预约",
    "由前台登记",
    "可以网上申请",
    "年底维修",
    "不得吸烟",
    "提供热水",
    "收取押金",
]
CHINESE = [
    Passage(f"{i}-{j}", f"{place}{act}，负责人是{place[0]}{act[-1]}先生。")
    for i, place in enumerate(PLACES)
    for j, act in enumerate(ACTS)
] + [Passage("gold", "出差期间的住宿凭据须在月底前交给会计。")]


class LatinEncoder(WordEncoder):
    """Knows words of the Latin script alone: every other text looks much the same to it."""

    def _encode(self, texts: Sequence[str]) -> Vectors:
        return super()._encode(
            ["".join(c if c.isascii() else " " for c in t) + " x" for t in texts]
        )


class PairEncoder(WordEncoder):
    """Knows every script: by pairs of characters."""

    def _encode(self, texts: Sequence[str]) -> Vectors:
        return super()._encode([" ".join(map("".join, pairwise(t))) for t in texts])


@pytest.fixture(params=["before the first refresh", "after it", "added after it"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Flywheel]:
    with Flywheel.open(tmp_path / "kb", encoder=LatinEncoder()) as fw:
        half = len(CHINESE) // 2 if request.param == "added after it" else len(CHINESE)
        fw.add(CHINESE[:half])
        if request.param != "before the first refresh":
            fw.refresh()
        fw.add(CHINESE[half:])
        yield fw


def trust(fw: Flywheel) -> float:
    assert fw._server is not None
    return fw._server._live.state().version.parameters.trust


def test_an_encoder_that_does_not_know_a_script_is_not_trusted(opened: Flywheel) -> None:
    for query, gold in (("凭据", "gold"), ("港口提供热水吗", "11-6"), ("药店需要预约吗", "6-1")):
        assert opened.retrieve(query, record=False).hits[0].passage_id == gold
    assert trust(opened) < 0.1


def test_an_encoder_that_knows_it_is(tmp_path: Path) -> None:
    with Flywheel.open(tmp_path / "kb", encoder=PairEncoder(256)) as fw:
        fw.add(CHINESE)
        fw.retrieve("凭据", record=False)
        assert trust(fw) == 1.0
        fw.refresh()
        fw.retrieve("凭据", record=False)
        assert trust(fw) == 1.0


def test_trust_by_hand() -> None:
    """Of texts that words find, vectors find every fourth: (1/4 over 1/2) squared."""
    texts = [f"{chr(0x4E00 + 40 * i)}{chr(0x4E01 + 40 * i)}" * 6 for i in range(64)]
    vectors = np.eye(64, dtype=np.float32)
    known = {text[0]: i for i, text in enumerate(texts)} | {
        text[1]: i for i, text in enumerate(texts)
    }

    def encode(queries: Sequence[str]) -> Vectors:
        places = [known[query[0]] for query in queries]
        return vectors[[p if p % 4 == 0 else (p + 1) % 64 for p in places]]

    chinese = tokenizer_for("auto", texts)
    assert dense_trust(texts, vectors, chinese, encode) == 0.25
    assert dense_trust(texts[:5], vectors[:5], chinese, encode) == 1.0  # too few to tell
    english = [f"word{i} page about thing{i}" for i in range(64)]
    assert dense_trust(english, vectors, tokenizer_for("auto", english), encode) == 1.0


GERMAN = [
    Passage("key", "Der Garagenschlüssel liegt bei der Verwaltung und ist dort zu holen."),
    Passage("pool", "Das Schwimmbad ist im Sommer von acht bis zwanzig Uhr offen."),
    Passage("rooms", "Die Häuser am Markt werden nicht vor dem Herbst vermietet."),
    Passage("bill", "Eine Rechnung wird mit der Post oder auf Wunsch per Mail geschickt."),
]


@pytest.mark.parametrize("refreshed", [False, True])
def test_german_is_recognised_and_its_words_are_stemmed_and_parted(
    tmp_path: Path, refreshed: bool
) -> None:
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as fw:
        fw.add(GERMAN)
        if refreshed:
            fw.refresh()
        for query, gold in (("Haus", "rooms"), ("Rechnungen", "bill"), ("Sommers", "pool")):
            hit = fw.retrieve(query, record=False).hits[0]
            assert hit.passage_id == gold and hit.explanation.terms["bm25"] > 0
        given = fw.retrieve("ist das der", record=False).hits
        assert all(hit.explanation.terms["bm25"] == 0 for hit in given)  # stop words


def test_another_language_is_another_index_of_words(tmp_path: Path) -> None:
    root = tmp_path / "kb"

    def finds(language: str) -> bool:
        config = Config(encoder="", language=language)
        if (settings := root / "flywheel.toml").exists():
            text = settings.read_text()
            old = text.split('language = "')[1].split('"')[0]
            settings.write_text(text.replace(f'language = "{old}"', f'language = "{language}"'))
        with Flywheel.open(
            root, encoder=WordEncoder(), config=None if settings.exists() else config
        ) as fw:
            fw.add(GERMAN)
            fw.refresh()
            found = {h.passage_id: h for h in fw.retrieve("Haus", record=False).hits}
            return found["rooms"].explanation.terms["bm25"] > 0

    assert [finds(name) for name in ("none", "german", "english", "auto")] == [
        False,
        True,
        False,
        True,
    ]


def test_a_language_that_is_not_known_is_refused() -> None:
    with pytest.raises(ConfigError, match="'klingon'; expected one of auto, none, arabic"):
        Config(language="klingon")


def test_words_of_an_earlier_tokenizer_ask_for_a_refresh(tmp_path: Path) -> None:
    root = tmp_path / "kb"
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        fw.add(GERMAN)
        fw.refresh()
    (manifest,) = root.glob("versions/*/manifest.json")
    manifest.write_text(manifest.read_text().replace('"tokenizer": 2', '"tokenizer": 1'))
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        with pytest.raises(OlderFormatError, match=r"tokenizer 1 .* Run `rag-flywheel refresh`"):
            fw.retrieve("Haus")
        assert fw.refresh().outcome == "promoted"
        assert fw.retrieve("Haus").hits[0].passage_id == "rooms"


@pytest.mark.parametrize("n", [40, 400])
def test_one_name_is_found_though_vectors_say_otherwise(tmp_path: Path, n: int) -> None:
    page = [Passage(f"p{i}", f"the office item {i} is on floor {i % 7}") for i in range(n)]
    codes = [
        Passage("a", "配線図の番号は７７３０１です"),
        Passage("b", "Use the spare WX-880K on site."),
    ]
    with Flywheel.open(tmp_path / "kb", encoder=LatinEncoder()) as fw:
        fw.add([*page, *codes])
        for _ in range(2):
            for query, gold in (("77301", "a"), ("wx880k", "b"), ("WX_880K", "b"), ("880", "b")):
                assert fw.retrieve(query, record=False).hits[0].passage_id == gold, query
            fw.refresh()
