"""Chooses the reader of a tool's files, and tells how far it is."""

from collections.abc import Sequence
from pathlib import Path

from rag_flywheel.disk import disk_errors
from rag_flywheel.errors import InputError
from rag_flywheel.formats.imported import Foreign, Reading
from rag_flywheel.formats.json_values import ReadBytes
from rag_flywheel.formats.tools.langfuse import read_langfuse
from rag_flywheel.formats.tools.langsmith import read_langsmith
from rag_flywheel.formats.tools.phoenix import read_phoenix
from rag_flywheel.formats.tools.shapes import LOOKS, first_bytes, not_of, other_kind, require_text
from rag_flywheel.formats.tools.tables import read_table
from rag_flywheel.formats.tools.trec import read_trec
from rag_flywheel.formats.tools.ubi import read_ubi
from rag_flywheel.records import Progress, Tool


def read_tool(
    tool: Tool, paths: Sequence[Path], id_key: str | None, progress: Progress | None
) -> Reading:
    """What files of a tool say, one record at a time. id_key: the metadata key of the passage id, None: the
    usual ones. Raises InputError, also for a file without a single record of the tool, and OSError. An empty
    file beside others, as of a day without votes, says nothing."""
    read, given, paths = _told(progress), paths, []
    for path in given:
        if path.is_dir():
            raise InputError(f"{path} is a folder; expected files: name those that are in it")
        if not path.is_file():
            raise InputError(f"no file {path}; expected {LOOKS[tool]}")
        with disk_errors(path):
            if first := first_bytes(path):
                require_text(tool, path, first)
                paths.append(path)
    if given and not paths:
        raise InputError(f"{given[0]} is empty; expected {LOOKS[tool]}")
    if tool == "trec":
        with disk_errors(paths[0] if paths else Path()):
            yield from _own(tool, paths, read_trec(list(paths), read))
        return
    for path in paths:
        with disk_errors(path):
            yield from _own(tool, [path], _read(tool, path, id_key, read))


def _own(tool: Tool, paths: Sequence[Path], records: Reading) -> Reading:
    """The records of files. Raises InputError where something is in them, and nothing of the tool."""
    n_own = n_foreign = 0
    try:
        for record in records:
            n_foreign += isinstance(record, Foreign)
            n_own += not isinstance(record, Foreign)
            yield record
    except InputError as error:
        if n_own:
            raise
        others = (other_kind(tool, path) for path in paths)
        raise next((other for other in others if other is not None), error) from None
    if n_foreign and not n_own:
        raise not_of(tool, paths[0])


def _read(tool: Tool, path: Path, id_key: str | None, read: ReadBytes | None) -> Reading:
    if tool == "langfuse":
        return read_langfuse(path, id_key, read)
    if tool == "phoenix":
        return read_phoenix(path, id_key, read)
    if tool == "langsmith":
        return read_langsmith(path, id_key, read)
    if tool == "ubi":
        return read_ubi(path, read)
    return read_table(path, read)


def _told(progress: Progress | None) -> ReadBytes | None:
    if progress is None:
        return None

    def read(path: Path, done: int, total: int) -> None:
        progress(f"read: {path.name}", done, total)

    return read
