"""What votes teach does not depend on where an index is, and a benchmark leaves nothing on servers."""

from pathlib import Path
from typing import Any

import pytest

from made_collection import write_collection
from rag_flywheel import FlywheelError
from rag_flywheel.bench.bench import run_bench
from rag_flywheel.bench.place import Place
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.users import Users
from rag_flywheel.index.milvus import Milvus

psycopg = pytest.importorskip("psycopg", reason="needs the extra pgvector: make test-engines")
PROTOCOL = Protocol(n_cycles=2, users=Users(eta=0.0, eps=0.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection(tmp_path_factory.mktemp("data") / "made")


@pytest.fixture(scope="module")
def in_folders(folder: Path) -> dict[str, Any]:
    return run_bench([folder], PROTOCOL)


def learned(result: dict[str, Any]) -> list[float]:
    (collection,) = result["collections"]
    return [cycle["values"]["nDCG@10"] for run in collection["runs"] for cycle in run["cycles"]]


def left(url: str) -> list[str]:
    """The schemas and tables of the benchmark on a server."""
    sql = (
        "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'learned%' UNION ALL "
        "SELECT relname FROM pg_class WHERE relname LIKE 'learned%' AND relkind = 'r'"
    )
    with psycopg.connect(url) as conn:
        return [name for (name,) in conn.execute(sql).fetchall()]


@pytest.mark.parametrize("engine", [None, "pgvector"])
def test_on_postgresql(
    folder: Path, in_folders: dict[str, Any], postgres: str, engine: str | None
) -> None:
    place = Place(
        f"{postgres}{'&' if '?' in postgres else '?'}schema=learned",
        None if engine is None else f"pgvector:{postgres}#learned",
    )
    found = run_bench([folder], PROTOCOL, place=place)
    assert learned(found) == pytest.approx(learned(in_folders), abs=1e-9)
    assert len(set(learned(found))) > 2
    assert found["environment"]["store"] == "postgresql"
    assert found["environment"].get("engine") == engine
    assert left(postgres) == []


def test_in_milvus(folder: Path, in_folders: dict[str, Any], request: Any) -> None:
    uri = request.getfixturevalue("server").uri
    found = run_bench([folder], PROTOCOL, place=Place(engine=f"milvus:{uri}/learned"))
    assert learned(found) == pytest.approx(learned(in_folders), abs=1e-9)
    assert found["environment"]["engine"] == "milvus" and "store" not in found["environment"]
    assert Milvus.at(f"{uri}/learned").collections() == []


@pytest.mark.parametrize(
    "place", [{"store": "postgresql://a:secret@b/c"}, {"engine": "faiss:nowhere"}]
)
def test_a_place_that_is_none_is_refused_at_once(folder: Path, place: dict[str, str]) -> None:
    with pytest.raises(FlywheelError):
        run_bench([folder], PROTOCOL, place=Place(**place))
