"""Names files, so that one file has one name however it is given, and two files never share one.

A name is the path from a root folder, or the whole path. Roots are stored with the index: the current
folder plays no part.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rag_flywheel.disk import parsed_json
from rag_flywheel.errors import CorruptFileError, InputError, quoted
from rag_flywheel.store import journal
from rag_flywheel.store.connection import Connection

_KEY = "source_roots"
_PROJECT = (
    ".git",
    ".hg",
    ".svn",
    "pyproject.toml",
    "package.json",
    "mkdocs.yml",
    "Cargo.toml",
    "go.mod",
)
_INDEXES = "indexes"


@dataclass(frozen=True)
class SourceNames:
    """The roots of an index, by name; the one without a name, "", is that of the project.

    A file below the root "" is named by its path from there, docs/a.md; below another root with that
    root's name in front, manual:a.md; anywhere else by its whole path, /srv/docs/a.md.
    """

    roots: Mapping[str, Path]

    @classmethod
    def load(cls, conn: Connection, index: Path) -> "SourceNames":
        """The stored roots; without any, "" is the project that the index is in.

        That is the nearest folder above the index with a file such as .git or pyproject.toml, else
        the one that holds the index, or the folder `indexes` with it.
        """
        index = index.resolve()
        stored = journal.read_meta(conn, _KEY)
        if stored is None:
            return cls({"": _project(index)})
        try:
            found = parsed_json(stored, f"meta {quoted(_KEY)}", dict[str, str])
        except ValueError as error:
            raise CorruptFileError(f"flywheel.db: {error}; restore it from a backup") from error
        return cls({name: Path(os.path.normpath(index / path)) for name, path in found.items()})

    def save(self, conn: Connection, index: Path) -> None:
        """Store the roots; one that the index is in relative to it, so that they move together."""
        index = index.resolve()
        paths = {
            name: os.path.relpath(root, index) if root in index.parents else str(root)
            for name, root in self.roots.items()
        }
        journal.write_meta(conn, _KEY, json.dumps(paths, ensure_ascii=False, sort_keys=True))

    def with_root(self, name: str, root: Path, *, is_used: bool) -> "SourceNames":
        """These roots and one more, or another place of one that is gone from the disk.

        is_used: whether sources of that name are in the index. Raises InputError when the name
        stands for another folder.
        """
        if "/" in name or ":" in name or name != name.strip() or name.startswith("."):
            raise InputError(
                f"the source name {quoted(name)} has a slash or colon in it, or a dot or blank around it; "
                "expected a word such as 'manual'"
            )
        known = self.roots.get(name)
        if known not in (None, root) and is_used and known is not None and known.exists():
            what = f"the name {quoted(name)} stands" if name else "names without a prefix stand"
            raise InputError(
                f"{what} for files below {known} in this index, and not below {root}; expected "
                f"{'another' if name else 'a'} --name for them"
            )
        return SourceNames({**self.roots, name: root})

    def of(self, path: Path, under: str | None = None) -> str:
        """The name of a file, given by its resolved path. under: by this root.

        None: by the deepest named root that it is in, else by the root "". Raises InputError for a
        file outside the root, and for a path that is not UTF-8.
        """
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"its path {quoted(os.fsencode(path))} is not UTF-8; rename it"
            ) from error
        if under is not None:
            root = self.roots[under]
            if root not in path.parents:
                raise InputError(f"{path} is not below the root {root}; expected files below it")
            return _joined(under, path.relative_to(root).as_posix())
        return max(self._names(path).items(), key=lambda item: len(item[0].parts))[1]

    def others(self, path: Path, name: str) -> set[str]:
        """The other names that a file may have been added by, under other roots."""
        names = {
            _joined(n, path.relative_to(r).as_posix())
            for n, r in self.roots.items()
            if r in path.parents
        }
        return (names | {str(path)}) - {name}

    def path_of(self, source: str) -> Path | None:
        """The path of the file with this name; None for what is no file's name."""
        if source.startswith("/"):
            return Path(source)
        name, colon, rest = source.partition(":")
        if not colon or "/" in name:
            name, rest = "", source
        root = self.roots.get(name)
        return None if root is None else Path(os.path.normpath(root / rest))

    def _names(self, path: Path) -> dict[Path, str]:
        """Names by root, of which the deepest counts; the root "" counts less than any other."""
        found = {Path(): str(path)}
        project = self.roots.get("")
        if project is not None and project in path.parents:
            found[Path("/")] = _joined("", path.relative_to(project).as_posix())
        for name, root in self.roots.items():
            if name and root in path.parents:
                found[root] = _joined(name, path.relative_to(root).as_posix())
        return found


def project_of(paths: list[Path]) -> Path:
    """The root of a new name for these resolved paths: the one folder given, else what holds them."""
    if len(paths) == 1 and paths[0].is_dir():
        return paths[0]
    return Path(os.path.commonpath([path.parent for path in paths]))


def _joined(name: str, path: str) -> str:
    if name:
        return f"{name}:{path}"
    return f"./{path}" if ":" in path.partition("/")[0] else path  # as RFC 3986 has it, 4.2


def _project(index: Path) -> Path:
    for folder in index.parents:
        if any((folder / mark).exists() for mark in _PROJECT):
            return folder
    return index.parent.parent if index.parent.name == _INDEXES else index.parent
