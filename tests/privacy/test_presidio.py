"""The adapter for Presidio: what its analyzer finds is masked, by its documented interface and for real."""

import sys
from dataclasses import dataclass
from typing import Any

import pytest

from rag_flywheel import ConfigError
from rag_flywheel.privacy.presidio import presidio_mask


@dataclass
class Result:
    """As presidio_analyzer.RecognizerResult."""

    entity_type: str
    start: int
    end: int
    score: float


class Analyzer:
    """Finds given words, as an AnalyzerEngine does."""

    def __init__(self, *found: tuple[str, str, float]) -> None:
        self.found = found
        self.asked: list[tuple[str, Any]] = []

    def analyze(self, text: str, language: str, entities: Any = None) -> list[Result]:
        self.asked.append((language, entities))
        return [
            Result(kind, text.index(word), text.index(word) + len(word), score)
            for kind, word, score in self.found
            if word in text
        ]


def test_what_is_found_is_masked_and_overlaps_are_one() -> None:
    analyzer = Analyzer(
        ("EMAIL_ADDRESS", "ann@example.org", 1.0),
        ("URL", "example.org", 0.5),
        ("PERSON", "Ann Lee", 0.85),
        ("LOCATION", "Lee of Berlin", 0.6),
        ("US_BANK_NUMBER", "123456789", 0.05),
    )
    mask = presidio_mask(analyzer, language="de", entities=("PERSON", "EMAIL_ADDRESS"))
    text = "Ann Lee of Berlin, ann@example.org, order 123456789"
    assert mask(text) == "[LOCATION], [EMAIL], order 123456789"
    assert mask("nothing here") == "nothing here"
    assert analyzer.asked[0] == ("de", ["PERSON", "EMAIL_ADDRESS"])


def test_without_presidio_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    monkeypatch.setattr("rag_flywheel.privacy.presidio.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install presidio-analyzer"):
        presidio_mask()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of its packages
def test_the_real_analyzer_with_its_recognisers_of_patterns() -> None:
    """Without a model of names, which has to be downloaded."""
    presidio = pytest.importorskip("presidio_analyzer")
    engines = pytest.importorskip("presidio_analyzer.nlp_engine")
    spacy = pytest.importorskip("spacy")

    class Blank(engines.SpacyNlpEngine):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(models=[{"lang_code": "en", "model_name": "blank"}])
            self.nlp = {"en": spacy.blank("en")}

        def load(self) -> None:
            pass

        def is_loaded(self) -> bool:
            return True

    registry = presidio.RecognizerRegistry()
    registry.load_predefined_recognizers(languages=["en"])
    mask = presidio_mask(presidio.AnalyzerEngine(nlp_engine=Blank(), registry=registry))
    assert (
        mask(
            "ann@example.org or 212-555-0123, card 4111 1111 1111 1111 from 8.8.8.8, order 123456789"
        )
        == "[EMAIL] or [PHONE], card [CARD] from [IP], order 123456789"
    )
