"""Masks what Microsoft's Presidio finds in texts, names of people among them.

Presidio is imported when a mask is made; its models are the caller's. It must not know where texts come from.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from rag_flywheel.errors import ConfigError
from rag_flywheel.privacy.pii import Found, masked

_NAMES = {
    "EMAIL_ADDRESS": "EMAIL",
    "PHONE_NUMBER": "PHONE",
    "CREDIT_CARD": "CARD",
    "IBAN_CODE": "IBAN",
    "US_SSN": "SSN",
    "IP_ADDRESS": "IP",
}


def presidio_mask(
    analyzer: Any = None,
    *,
    language: str = "en",
    entities: Sequence[str] | None = None,
    least_score: float = 0.4,
) -> Callable[[str], str]:
    """A function that puts a word in the place of everything that Presidio finds: [PERSON], [EMAIL], ...

    analyzer: a presidio_analyzer.AnalyzerEngine; None: its default one, for English, which needs a spaCy
        model and downloads it when it is not there.
    language: of the texts.
    entities: names of what is masked, as "PERSON"; None: everything the analyzer knows.
    least_score: what is found with a lower score stays.
    Raises ConfigError when Presidio is not installed, or its default analyzer cannot be made.
    """
    if analyzer is None:
        analyzer = _default_analyzer()
    wanted = None if entities is None else list(entities)

    def mask(text: str) -> str:
        results = analyzer.analyze(text=text, language=language, entities=wanted)
        found = [
            Found(r.start, r.end, _NAMES.get(r.entity_type, r.entity_type))
            for r in results
            if r.score >= least_score
        ]
        return masked(text, _joined(found))

    return mask


def _default_analyzer() -> Any:
    if find_spec("presidio_analyzer") is None:
        raise ConfigError(
            "presidio_analyzer is not installed; expected: pip install presidio-analyzer, and a spaCy "
            "model as `python -m spacy download en_core_web_lg`"
        )
    from presidio_analyzer import AnalyzerEngine

    try:
        return AnalyzerEngine()
    except (Exception, SystemExit) as error:  # spaCy exits the process when a download fails
        raise ConfigError(
            f"Presidio's default analyzer cannot be made ({type(error).__name__}: {error}); expected its "
            "spaCy model: `python -m spacy download en_core_web_lg`"
        ) from error


def _joined(found: Sequence[Found]) -> list[Found]:
    """In order, with those that overlap as one, of the kind of the longest."""
    joined: list[tuple[int, Found]] = []  # (length of the longest part, the whole)
    for each in sorted(found):
        length = each.end - each.start
        if not joined or each.start >= joined[-1][1].end:
            joined.append((length, each))
            continue
        longest, before = joined[-1]
        kind = each.kind if length > longest else before.kind
        whole = Found(before.start, max(before.end, each.end), kind)
        joined[-1] = max(longest, length), whole
    return [whole for _, whole in joined]
