"""A passage that votes bring in is measured as one that search finds."""

from pathlib import Path

import numpy as np
import pytest

from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.rank.features import CHEAP
from rag_flywheel.records import EmbeddedText
from rag_flywheel.serve.candidates import look_up, with_evident
from rag_flywheel.serve.lookups import Lookups
from rag_flywheel.serve.state import scope

WORDS = [f"word{i}" for i in range(25)]
QUERY = "word1 word2 word3 common"


def test_cosine_and_bm25_of_what_votes_bring_in_are_those_of_candidates(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [f"common {' '.join(rng.choice(WORDS, 6))}" for _ in range(60)]
    passages = [Passage(f"p{i}", text) for i, text in enumerate(texts)]
    encoder = WordEncoder()
    with Flywheel.open(tmp_path / "kb", encoder=encoder, config=Config(encoder="")) as fw:
        fw.add(passages[:40])
        fw.refresh()
        fw.add(passages[40:])  # fresh ones
        fw.retrieve(QUERY, record=False)
        assert fw._server is not None
        state = fw._server._live.state()
        inside = scope(state, None)
        question = EmbeddedText(QUERY, encoder.encode_queries([QUERY])[0])
        few, every = (look_up(state, inside, [question], n, Lookups(0))[0] for n in (3, 100))
        brought = every.pids[~np.isin(every.pids, few.pids)]
        assert len(brought) > 30 and (brought >= state.fresh.pids[0]).any()
        pids, features = with_evident(state, inside, question, few, brought.tolist())
    row = {pid: features[i, : len(CHEAP)] for i, pid in enumerate(pids.tolist())}
    for pid, wanted in zip(every.pids.tolist(), every.features[:, : len(CHEAP)], strict=True):
        assert row[pid] == pytest.approx(wanted, abs=1e-6)  # cosines hang on how many are taken
        assert row[pid][CHEAP.index("bm25")] == wanted[CHEAP.index("bm25")]
    assert len({tuple(values) for values in row.values()}) > 20  # they are not all the same
