"""Known answers act on ranking, and still judge new weights: no question is judged by its own answer."""

from pathlib import Path

import pytest

from fakes import WordEncoder
from forgetting import query_name
from gates import gate_of, hashes_of, make_history
from known import imported, table
from rag_flywheel import Config, Flywheel
from rag_flywheel.store.passages import query_digest

N = 12


def asked(i: int) -> tuple[str, str]:
    """A question in two wordings, near-duplicates of one another, whose words no passage has."""
    return f"unheard{i} of{i} things{i}", f"things{i} unheard{i} of{i}"


@pytest.mark.parametrize("how", ["imported", "pinned"])
def test_the_gate_does_not_see_the_known_answers_that_it_judges_by(
    tmp_path: Path, how: str
) -> None:
    scores = []
    for acts in (True, False):
        root = tmp_path / str(acts)
        config = Config(encoder="", known_answers=acts)
        Flywheel.open(root, encoder=WordEncoder(), config=config).close()
        make_history(root)
        with Flywheel.open(root, encoder=WordEncoder()) as fw:
            known = {q: f"answer{i}" for i in range(N) for q in asked(i)}
            if how == "imported":
                imported(fw, tmp_path, table(dict.fromkeys(known.items(), 1)))
            else:
                for query, passage in known.items():
                    fw.pin(query, passage)
            third = {f"of{i} things{i} unheard{i}": f"answer{i}" for i in range(N)}
            for query, passage in {**known, **third}.items():
                # served, the answer comes first, for wordings that nobody named as well
                first = fw.rank_many([query], 1)[0] == [passage]
                assert first == acts
            assert fw.refresh().outcome == "promoted"
            gate = gate_of(fw)
            judged = set(gate["golden_queries"])
            first = [min(asked(i), key=query_digest) for i in range(N)]
            assert {query_name(root, q).hex() for q in first} == judged
            scores.append(gate["golden_ndcg@10"])
            assert not judged & hashes_of(fw).keys()
    assert scores[0] == scores[1]
    for side in scores[0].values():
        assert max(side) < 1.0  # none of them is helped to its answer
        assert sum(side) / N < 0.2


def test_served_order_is_not_what_the_gate_judges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held-out votes are judged by a memory of votes alone: pins on them change no score of the gate."""
    # else users are weighed by the pins, which are wrong here
    monkeypatch.setattr("rag_flywheel.refresh.next_version.weighed_raters", lambda *_, **__: {})
    found = []
    for pinned in (False, True):
        root = make_history(tmp_path / str(pinned))
        with Flywheel.open(root, encoder=WordEncoder()) as fw:
            if pinned:
                for query in list(hashes_of(fw).values()):
                    wrong = "decoy" + query.split()[0].removeprefix("topic")
                    fw.pin(query, wrong)
                    assert fw.rank_many([query], 1) == [[wrong]]
            fw.refresh()
            found.append({key: gate_of(fw)[key] for key in ("log_likelihood", "condensed_ndcg")})
    assert found[0] == found[1]
