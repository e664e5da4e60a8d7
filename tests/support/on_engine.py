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
from rag_flywheel.config import FILE_NAME, read_config
from rag_flywheel.deploy.published import Published

EVERYWHERE = "RAG_FLYWHEEL_TEST_ENGINE"
KINDS = ("pgvector", "milvus")
_GONE = (
    "the collection of the version in its backup is deleted meanwhile, so that a refresh is needed"
)
_NAME = "it gives an index file another hash, by which the collection is named"
_FILES = "it damages files that are read only where passages are found in memory"
REASONS: Mapping[str, str] = {
    r"test_live_version\.py::test_it_is_refused_by_name.*\[scores_": _FILES,
    r"test_damaged_folder\.py::test_more_vectors_than_passages": _FILES,
    r"test_damaged_folder\.py::test_a_part_that_was_written_wrong.*\[tokens": _FILES,
    r"test_not_hashed_again\.py::test_files_of_the_parent_are_linked": _NAME,
    r"test_interleavings\.py::test_a_refresh_in_the_middle_of_a_backup\[\('(connect|rename)": _GONE,
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
        patch.setattr(Published, "clean", clean_own(Published.clean))
        yield


def opened_there(opened: Callable[..., Config], address: str) -> Callable[..., Config]:
    """`open_folder` that gives every new index an engine."""

    def open_folder(root: Path, *, config: Config | None, new: Config, create: bool) -> Config:
        engine, marker = None, root / FILE_NAME
        if not marker.exists():
            engine = address + _prefix(root)
            new = replace(new, engine=engine)
        elif f'"{address}' in marker.read_text(encoding="utf-8", errors="replace"):
            engine = read_config(marker).engine
        if config is not None and config.engine is None:
            config = replace(config, engine=engine)
        return opened(root, config=config, new=new, create=create)

    return open_folder


def clean_own(clean: Callable[[Published, Path], None]) -> Callable[[Published, Path], None]:
    """`Published.clean` that lets a copied folder, which shares its collections, delete none of them."""

    def clean_(published: Published, root: Path) -> None:
        server: Any = published.server
        if server.prefix == _prefix(root):
            clean(published, root)

    return clean_


def _prefix(root: Path) -> str:
    return "t" + hashlib.blake2b(str(root.absolute()).encode(), digest_size=6).hexdigest()
