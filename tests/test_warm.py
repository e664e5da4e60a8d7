"""`Flywheel.warm` loads whatever the first question would have to wait for, and records nothing."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from fakes import WordEncoder
from rag_flywheel import ClosedError, Config, EncoderError, Flywheel, Passage
from rag_flywheel.records import Vectors
from rag_flywheel.serve import live_version
from rag_flywheel.store.metadata_columns import MetadataColumns

PASSAGES = [Passage(f"p{i}", f"word{i} common", metadata={"team": "ab"[i % 2]}) for i in range(20)]
TENANTS = Config(encoder="", tenant_key="team")


class CountingEncoder(WordEncoder):
    """Counts the calls for queries."""

    n_calls = 0

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        self.n_calls += 1
        return super().encode_queries(texts)


def made(root: Path, config: Config | None = None) -> Path:
    with Flywheel.open(root, encoder=WordEncoder(), config=config) as fw:
        fw.add(PASSAGES)
        fw.refresh()
    return root


def test_the_first_question_after_it_loads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    read_live, read_missing = live_version.read_live, MetadataColumns._read_missing

    def reading(*args: object) -> object:
        loads.append("version")
        return read_live(*args)

    def columns(self: MetadataColumns, conn: object, keys: set[str]) -> None:
        if keys - self._columns.keys():
            loads.append("column")
        read_missing(self, conn, keys)

    monkeypatch.setattr(live_version, "read_live", reading)
    monkeypatch.setattr(MetadataColumns, "_read_missing", columns)
    encoder = CountingEncoder()
    with Flywheel.open(made(tmp_path / "kb", TENANTS), encoder=encoder) as fw:
        assert not loads
        assert not encoder.n_calls
        fw.warm()
        assert loads == ["version", "column"]
        assert encoder.n_calls
        fw.retrieve("word3", tenant="a")
        assert loads == ["version", "column"]


@pytest.mark.parametrize("config", [None, TENANTS])
def test_it_records_nothing_and_changes_no_answer(tmp_path: Path, config: Config | None) -> None:
    root = made(tmp_path / "kb", config)
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        wanted = fw.rank_many(["word3 common"], all_tenants=config is not None)
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        before = fw.status()
        fw.warm()
        fw.warm()
        assert fw.status() == before
        assert fw.rank_many(["word3 common"], all_tenants=config is not None) == wanted


def test_an_index_without_a_passage_or_a_version_can_be_warmed(tmp_path: Path) -> None:
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=TENANTS) as fw:
        fw.warm()
        fw.add(PASSAGES)
        fw.warm()
        assert fw.retrieve("word3", tenant="b").hits[0].passage_id == "p3"


def test_a_model_that_does_not_answer_is_an_error_of_the_start(tmp_path: Path) -> None:
    class Broken(WordEncoder):
        def encode_queries(self, texts: Sequence[str]) -> Vectors:
            return super().encode_queries(texts) * 2

    with (
        Flywheel.open(made(tmp_path / "kb"), encoder=Broken()) as fw,
        pytest.raises(EncoderError, match="unit length"),
    ):
        fw.warm()


class HeavyEncoder(CountingEncoder):
    """Loads more for many texts than for one."""

    n_warmed = 0

    def warm(self) -> None:
        self.n_warmed += 1


def heavy() -> HeavyEncoder:
    """As an index names it."""
    return MADE


MADE = HeavyEncoder()


@pytest.mark.parametrize("named", [True, False])
def test_an_encoder_that_can_be_warmed_is(tmp_path: Path, named: bool) -> None:
    made(tmp_path / "kb", Config(encoder=f"{__name__}:heavy" if named else ""))
    before = MADE.n_warmed
    with Flywheel.open(tmp_path / "kb", encoder=None if named else MADE) as fw:
        fw.retrieve("word3")
        assert MADE.n_warmed == before  # a question needs it not
        fw.warm()
        assert MADE.n_warmed == before + 1


def test_a_closed_index_is_not_warmed(tmp_path: Path) -> None:
    fw = Flywheel.open(made(tmp_path / "kb"), encoder=WordEncoder())
    fw.close()
    with pytest.raises(ClosedError):
        fw.warm()
