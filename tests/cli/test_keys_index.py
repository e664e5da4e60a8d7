"""The index of the commands of the service may be named wherever that of others may."""

from pathlib import Path

import pytest

from rag_flywheel import Flywheel
from rag_flywheel.cli import main


@pytest.mark.parametrize("how", ["after", "before", "environment"])
def test_keys_are_those_beside_the_index_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    folder = tmp_path / "with a blank" / "kb"
    monkeypatch.chdir(tmp_path)
    Flywheel.open(folder, encoder="fakes:WordEncoder").close()
    words = ["keys", "add", "one", "--scope", "read"]
    if how == "environment":
        monkeypatch.setenv("RAG_FLYWHEEL_INDEX", str(folder))
    named = [] if how == "environment" else ["--index", str(folder)]
    with pytest.raises(SystemExit) as ended:
        main([*named, *words] if how == "before" else [*words, *named])
    assert ended.value.code == 0, capsys.readouterr().err
    assert (folder.parent / "service.db").exists()
    assert not (tmp_path / "indexes").exists()
