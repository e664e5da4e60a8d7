"""Texts too long to be looked at in one step get the features that one step gives."""

import numpy as np
import pytest

from fakes import no_pieces
from rag_flywheel.rank import features
from rag_flywheel.rank.features import QueryWords, TextWords, rich_features


@pytest.mark.parametrize("at_once", [1, 5, 64])
def test_steps_change_nothing(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    rng = np.random.default_rng(0)
    query = QueryWords.of(list("abcad"), [3.0, 2.0, 1.0, 3.0, 0.5], [True] * 5)
    lengths = rng.integers(0, 60, size=12)
    places = rng.integers(-2, 4, size=int(lengths.sum())).clip(-1)
    texts = TextWords(places, lengths, np.minimum(lengths, 3), 30.0, 2.0)
    wanted, _ = rich_features(query, texts, no_pieces(12))
    monkeypatch.setattr(features, "_AT_ONCE", at_once)
    found, _ = rich_features(query, texts, no_pieces(12))
    assert np.allclose(found, wanted, rtol=0, atol=1e-6)
