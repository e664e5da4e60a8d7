"""Good votes teach where the shipped ranking is bad, from the first refresh on."""

from pathlib import Path

import pytest

from rag_flywheel.deploy.loaded import load_parameters
from teachable import passages, questions, vote
from tuned import N, folder_of, opened

pytestmark = pytest.mark.slow  # torch alone takes seconds to load


def test_good_votes_on_a_bad_ranking_are_learned_from(tmp_path: Path) -> None:
    """They were not: "50% of votes look wrong", with one in ten so. The two best hits of a question
    are the right two, in the wrong order half of the time."""
    with opened(tmp_path / "kb") as fw:
        fw.add(passages(N))
        fw.refresh()
        vote(fw, questions(0, 70))
        vote(fw, questions(70, 110))
        report = fw.refresh()
        assert "look wrong" not in report.reason
        assert report.parameters == "new"
        assert load_parameters(folder_of(fw)).rates.noise < 0.15
