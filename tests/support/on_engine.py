"""The tests of the public interface with the passages of every index in a database of vectors.

RAG_FLYWHEEL_TEST_ENGINE is "pgvector" or "milvus": every index that a test makes then has `engine` in its
settings, with a prefix of its own, on a server that is started for the run and deleted with it.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lite import milvus_lite
from on_postgres import started
from rag_flywheel import Config
from rag_flywheel.config import FILE_NAME, config_text, read_config

EVERYWHERE = "RAG_FLYWHEEL_TEST_ENGINE"
KINDS = ("pgvector", "milvus")
_FILES = "it damages files that are read only where passages are found in memory"
REASONS: Mapping[str, str] = {
    r"test_live_version\.py::test_it_is_refused_by_name.*\[scores_": _FILES,
    r"test_damaged_folder\.py::test_more_vectors_than_passages": _FILES,
    r"test_damaged_folder\.py::test_a_part_that_was_written_wrong.*\[tokens": _FILES,
    r"test_derived_files\.py::test_what_other_files_are_named_so": _FILES,
}
"""Parts of the names of tests, as regular expressions, and why their passages have to be in memory."""


def why_skipped(test: str) -> str | None:
    """Why a test needs the passages in memory; None: it does not."""
    return next((why for name, why in REASONS.items() if re.search(name, test)), None)


@contextmanager
def every_index_there(folder: Path) -> Iterator[None]:
    """Start what the variable names with its data below a folder, and put every new index into it."""
    kind = os.environ[EVERYWHERE]
    if kind not in KINDS:
        raise ValueError(f"{EVERYWHERE} is {kind!r}; expected one of {', '.join(KINDS)}")
    if kind == "milvus":
        pytest.importorskip("milvus_lite", reason="needs the package milvus-lite")
        pytest.importorskip("pymilvus", reason="needs the extra milvus")
        with milvus_lite(folder) as server, _patched(f"milvus:{server.uri}/"):
            yield
        return
    server = started(folder / "pg")
    try:
        with _patched(f"pgvector:{server.get_uri()}#"):
            yield
    finally:
        server.cleanup()


@contextmanager
def _patched(address: str) -> Iterator[None]:
    from rag_flywheel import flywheel

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flywheel, "open_folder", opened_there(flywheel.open_folder, address))
        yield


def opened_there(opened: Callable[..., Config], address: str) -> Callable[..., Config]:
    """`open_folder` that gives every new index an engine, and the copy of a folder a prefix of its own."""

    def open_folder(root: Path, *, config: Config | None, new: Config, create: bool) -> Config:
        own, marker = address + _prefix(root), root / FILE_NAME
        if not marker.exists():
            new = replace(new, engine=own)
            if config is not None and config.engine is None:
                config = replace(config, engine=own)
        elif f'"{address}' in marker.read_text(encoding="utf-8", errors="replace"):
            found = read_config(marker)
            if found.engine != own:
                _copy(str(found.engine), own)
                marker.write_text(config_text(replace(found, engine=own)), encoding="utf-8")
            if config is not None and config.engine is None:
                config = replace(config, engine=own)
        return opened(root, config=config, new=new, create=create)

    return open_folder


def _prefix(root: Path) -> str:
    return "t" + hashlib.blake2b(str(root.absolute()).encode(), digest_size=6).hexdigest()


def _copy(old: str, new: str) -> None:
    """Copy the collections of one prefix, for the copy of a folder that has them."""
    if old.startswith("milvus:"):
        _copy_collections(old, new)
        return
    import psycopg

    url, _, prefix = old.removeprefix("pgvector:").rpartition("#")
    other = new.rpartition("#")[2]
    with psycopg.connect(url) as conn:
        sql = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE %s"
        for (name,) in conn.execute(sql, (f"{prefix}\\_%",)).fetchall():
            copied = name.replace(prefix, other, 1)
            conn.execute(f"DROP TABLE IF EXISTS {copied} CASCADE")
            conn.execute(f"CREATE TABLE {copied} (LIKE {name} INCLUDING ALL)")
            conn.execute(f"INSERT INTO {copied} SELECT * FROM {name}")


def _copy_collections(old: str, new: str) -> None:
    from rag_flywheel.index.milvus import Milvus

    source, dest = (Milvus.at(each.removeprefix("milvus:")) for each in (old, new))
    for name in source.collections():
        client: Any = source.client
        rows = client.query(source.name(name), filter="pid >= 0", output_fields=["pid"])
        pids = [int(row["pid"]) for row in rows]
        (field,) = (
            f
            for f in client.describe_collection(source.name(name))["fields"]
            if f["name"] == "dense"
        )
        dim = int(field["params"]["dim"])
        found = list(source.open(name, dim, len(pids)).rows(pids))
        dest.write(name, dim, len(pids), [found])
    source.close()
    dest.close()
