"""Files of this machine, chosen as `Flywheel.add_files` does, named, and read some at a time."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rag_flywheel.checks import items
from rag_flywheel.client.sending import summed
from rag_flywheel.errors import FlywheelError, InputError, quoted
from rag_flywheel.records import AddFilesReport, SkippedFile

_PART_BYTES, _PART_FILES = 2**20, 50  # that the service can add within the time of a call


@dataclass
class Chosen:
    """Files by the names that they are sent under, and what was left out of the folders given."""

    files: list[tuple[str, Path]]
    skipped: list[SkippedFile]
    reports: list[AddFilesReport] = field(default_factory=list)
    first_error: FlywheelError | None = None

    def parts(self) -> Iterator[list[tuple[str, bytes]]]:
        """Yield names and bytes, some files at a time; one that cannot be read is skipped."""
        part: list[tuple[str, bytes]] = []
        size = 0
        for name, path in self.files:
            try:
                data = path.read_bytes()
            except OSError as error:
                why = error.strerror or str(error)
                self.skipped.append(SkippedFile(str(path), why, failed=True))
                continue
            if part and (size + len(data) > _PART_BYTES or len(part) == _PART_FILES):
                yield part
                part, size = [], 0
            part.append((name, data))
            size += len(data)
        if part:
            yield part

    def failed(self, part: Sequence[tuple[str, bytes]], error: InputError) -> None:
        """Note that the service could use no file of a part."""
        self.first_error = self.first_error or error
        self.skipped += [SkippedFile(name, str(error), failed=True) for name, _ in part]

    def together(self) -> AddFilesReport:
        """What the service did with all parts. Raises InputError when it could use no file."""
        n_files = sum(report.n_files for report in self.reports)
        skipped = [*self.skipped, *(s for report in self.reports for s in report.skipped)]
        if not n_files:
            said = "; ".join(f"{s.path}: {s.reason}" for s in skipped[:3])
            raise self.first_error or InputError(
                f"found no file that is read: {said or 'the folders are empty'}"
            )
        return AddFilesReport(summed(r.passages for r in self.reports), n_files, tuple(skipped))


def chosen_files(
    paths: str | Path | Iterable[str | Path],
    *,
    root: str | Path | None,
    include: Sequence[str],
    exclude: Sequence[str],
) -> Chosen:
    """The files that these paths name, and those in folders at any depth. Raises InputError.

    root: the folder that they are named from; None: the nearest one that holds all of them.
    """
    from rag_flywheel.formats.files import Selection, find_files  # where few callers need it

    given = [paths] if isinstance(paths, str | Path) else items("paths", paths, object)
    for path in given:
        if not isinstance(path, str | Path) or not str(path) or "\0" in str(path):
            raise InputError(f"a path is {quoted(path)}; expected the name of a file or folder")
    selection = Selection(
        tuple(items("include", include, str)), tuple(items("exclude", exclude, str))
    )
    found = find_files([Path(str(path)) for path in given], selection)
    files = list(found.files)
    base = _common(files, found.folders) if root is None else Path(root).resolve()
    named = []
    for file in files:
        if not file.is_relative_to(base):
            raise InputError(f"{file} is not below the root {base}; expected one that holds all")
        named.append((file.relative_to(base).as_posix(), file))
    return Chosen(named, found.skipped)


def golden_files(path: object) -> list[tuple[str, bytes]]:
    """The files that hold known answers: a .csv or .tsv, or those of a BEIR folder. Raises InputError."""
    if not isinstance(path, str | Path) or "\0" in str(path):
        raise InputError(f"path is {quoted(path)}; expected the name of a file or folder")
    path = Path(path)
    files = [*path.glob("queries.*"), *path.glob("qrels/*")] if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} has no queries and no qrels; expected a BEIR folder")
    try:
        return [
            (f.relative_to(path).as_posix() if path.is_dir() else f.name, f.read_bytes())
            for f in sorted(files)
        ]
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); expected a BEIR folder, a .csv or a .tsv"
        ) from error


def _common(files: Sequence[Path], folders: Sequence[Path]) -> Path:
    tops = [*folders, *(f.parent for f in files if not any(f.is_relative_to(d) for d in folders))]
    return Path(os.path.commonpath(tops)) if tops else Path.cwd()
