"""Finds the files to read in folders, by include and exclude patterns; says what is left out and why."""

import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rag_flywheel.errors import InputError, quoted
from rag_flywheel.formats.convert import SUFFIXES
from rag_flywheel.records import SkippedFile

JSONL = ".jsonl"
FORMATS = ", ".join(sorted(SUFFIXES))
BUILT = (
    "node_modules/", "bower_components/", "__pycache__/", "site-packages/", "venv/",
    "_build/", "build/", "dist/", "target/",
)  # fmt: skip
"""Folders that hold other people's files, or what is built from files beside them."""
_ANY_CASE = "".join(f"[{c.upper()}{c}]" for c in "changelog")
CHANGELOGS = tuple(
    f"{name}{end}" for name in (_ANY_CASE, "CHANGES", "HISTORY") for end in ("", ".*")
)


@dataclass(frozen=True)
class Selection:
    """Which files of a folder are read: patterns as in .gitignore, relative to the folder.

    include: only files that match one; none: all. exclude: files and folders that are left out,
    besides hidden ones, BUILT and CHANGELOGS; "!build/" takes such a default back.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    @cached_property
    def _specs(self) -> tuple[Any, Any, Any, Any]:
        return (
            _spec(self.include, "include"),
            _spec(self.exclude, "exclude"),
            _spec([*BUILT, *self.exclude], "exclude"),
            _spec([*CHANGELOGS, *self.exclude], "exclude"),
        )

    def excludes(self, name: str) -> bool:
        """Whether a pattern of `exclude` leaves out the file of this name below the folder."""
        return bool(self._specs[1].match_file(name))

    def why_not_folder(self, name: str) -> str:
        """Why the folder of this name, which ends in "/", is left out; "": it is searched."""
        if _is_hidden(name.rstrip("/")):
            return "hidden"
        if self.excludes(name):
            return "excluded by a pattern"
        return "folder left out by default" if self._specs[2].match_file(name) else ""

    def why_not_file(self, name: str) -> str:
        """Why the file of this name below the folder is left out; "": it is read."""
        include, exclude, _, changelogs = self._specs
        suffix = Path(name).suffix.lower()
        if _is_hidden(name):
            return "hidden"
        if exclude.match_file(name):
            return "excluded by a pattern"
        if self.include and not include.match_file(name):
            return "no include pattern names it"
        if suffix == JSONL:
            return ".jsonl, which is read only when the file itself is named"
        if suffix not in SUFFIXES:
            return f"{suffix}, which is not read" if suffix else "no ending, so not read"
        if not self.include and changelogs.match_file(name):
            return "changelog"
        return ""


@dataclass
class Found:
    """Files to read, each once, with links resolved; and what was left out of the folders.

    folders: the folders that were given, resolved.
    """

    files: dict[Path, None] = field(default_factory=dict)
    folders: list[Path] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)


def find_files(paths: Sequence[Path], selection: Selection) -> Found:
    """The files that these paths name, and those in folders at any depth, in the order of names.

    Links to files are followed, links to folders are not, unless they are given themselves.
    Raises InputError for a path that does not exist.
    """
    found = Found()
    for path in paths:
        try:
            real = path.resolve(strict=True)
            is_folder = stat.S_ISDIR(real.stat().st_mode)
        except (OSError, RuntimeError, ValueError) as error:
            missing = isinstance(error, FileNotFoundError)
            why = "" if missing else f" can be read ({getattr(error, 'strerror', error)})"
            raise InputError(
                f"no file or folder {path}{why}; expected {FORMATS}, {JSONL} or a folder"
            ) from error
        if is_folder:
            found.folders.append(real)
            _search(real, selection, found)
        elif real.suffix.lower() in SUFFIXES or real.suffix.lower() == JSONL:
            found.files[real] = None
        else:
            what = f"it is {real.suffix}" if real.suffix else "it has no ending"
            reason = f"{what}; expected {FORMATS} or {JSONL}"
            found.skipped.append(SkippedFile(str(path), reason, failed=True))
    return found


def _search(folder: Path, selection: Selection, found: Found) -> None:
    def refused(error: OSError) -> None:
        reason = f"it cannot be read ({error.strerror})"
        found.skipped.append(SkippedFile(str(error.filename), reason, failed=True))

    for above, folders, files in os.walk(folder, onerror=refused):
        here = Path(above)
        below = here.relative_to(folder)
        for name in sorted(folders):
            reason = selection.why_not_folder(f"{(below / name).as_posix()}/")
            if not reason and (here / name).is_symlink():
                reason = "link to a folder"
            if reason:
                folders.remove(name)
                found.skipped.append(SkippedFile(f"{here / name}/", reason))
        folders.sort()
        for name in sorted(files):
            reason = selection.why_not_file((below / name).as_posix())
            if reason:
                found.skipped.append(SkippedFile(str(here / name), reason))
            else:
                _add(here / name, found)


def _add(path: Path, found: Found) -> None:
    try:
        found.files[path.resolve(strict=True)] = None
    except (OSError, RuntimeError) as error:  # a link to nothing, or to itself
        reason = f"it cannot be read ({getattr(error, 'strerror', error)})"
        found.skipped.append(SkippedFile(str(path), reason, failed=True))


def _is_hidden(name: str) -> bool:
    return name.rpartition("/")[2].startswith(".")


def _spec(patterns: Sequence[str], option: str) -> Any:
    from pathspec import GitIgnoreSpec

    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of odd brackets
            return GitIgnoreSpec.from_lines(patterns)
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{option} patterns {quoted(list(patterns))} cannot be used ({error}); expected such as "
            "'drafts/' or '*.md'"
        ) from error


def below(path: Path, folders: Sequence[Path]) -> Iterator[str]:
    """The name of a path below each of the folders that it is in."""
    for folder in folders:
        if folder in path.parents:
            yield path.relative_to(folder).as_posix()
