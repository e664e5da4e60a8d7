"""Adds files to the index, some at a time, and removes the passages that they no longer have.

A batch holds the passages of whole documents and is one commit, so that a call which was interrupted
goes on where it stopped. It must not know formats.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from rag_flywheel.disk import disk_errors
from rag_flywheel.encode.too_long import count_too_long
from rag_flywheel.encoder import Encoder
from rag_flywheel.errors import InputError, quoted
from rag_flywheel.formats.documents import ADDED_FROM, Cutting, read_passages
from rag_flywheel.formats.files import JSONL, Found, Selection, below, find_files
from rag_flywheel.ingest.source_names import SourceNames, project_of
from rag_flywheel.records import AddFilesReport, AddReport, Passage, Progress, SkippedFile
from rag_flywheel.store import corpus, sources, text_votes
from rag_flywheel.store import passages as store
from rag_flywheel.store.database import Database
from rag_flywheel.store.lineages import Rule

_NAMED = 3  # failed files in the message of an error


@dataclass(frozen=True)
class Index:
    """What passages are added to. encoder: called for the first passages; rule: of votes."""

    root: Path
    database: Database
    encoder: Callable[[], Encoder]
    rule: Rule


@dataclass(frozen=True)
class Options:
    """How files are added; see `Flywheel.add_files`.

    at_once: passages that a commit has, or those of one document if it has more.
    """

    root: Path | None = None
    name: str | None = None
    selection: Selection = field(default_factory=Selection)
    cutting: Cutting = field(default_factory=Cutting)
    prune: bool = False
    strict: bool = False
    dry_run: bool = False
    at_once: int = 512


def add_files(
    index: Index, paths: Sequence[Path], options: Options, progress: Progress | None = None
) -> AddFilesReport:
    """Add the passages of these files and folders. Raises InputError when none can be read."""
    found = find_files(paths, options.selection)
    with disk_errors(index.root):
        names, under = _names(index, [path.resolve() for path in paths], options)
    run = _Run(index, names, options)
    files = list(run.named(found, under))
    if options.strict:
        run.require_readable(files)
    if files and not options.dry_run:
        with index.database.transaction() as conn:
            names.save(conn, index.root)
    if options.prune:
        run.drop_gone(found)
    for number, (file, source) in enumerate(files, 1):
        run.add_file(file, source)
        if progress is not None:
            progress("add files", number, len(files))
    if not run.n_files:
        raise InputError(_nothing(paths, run.skipped))
    run.flush()
    if options.prune:
        run.prune_jsonl()
    run.count_lost()
    return AddFilesReport(run.report, run.n_files, tuple(run.skipped))


def checked_paths(given: Sequence[object]) -> list[Path]:
    """The paths of files and folders that a caller gave. Raises InputError."""
    found = []
    for path in given:
        if not isinstance(path, str | Path) or not str(path) or "\0" in str(path):
            raise InputError(f"a path is {quoted(path)}; expected the name of a file or folder")
        found.append(Path(path))
    if not found:
        raise InputError("paths is empty; expected files or folders")
    return found


def _names(index: Index, paths: list[Path], options: Options) -> tuple[SourceNames, str | None]:
    """(the names of files, the name of the root that these files are named by or None)."""
    with index.database.snapshot() as conn:
        names = SourceNames.load(conn, index.root)
        if options.root is None and options.name is None:
            return names, None
        name = options.name or ""
        if options.root is not None:
            root = options.root.resolve()
        else:
            root = names.roots.get(name) or project_of(paths)
        if not root.is_dir():
            raise InputError(f"the root {root} is no folder; expected one that the files are in")
        prefix = f"{name}:" if name else ""
        is_used = any(_is_of(source, prefix) for _, source in sources.ids_with_source(conn))
    return names.with_root(name, root, is_used=is_used), name


def _is_of(source: str, prefix: str) -> bool:
    if prefix:
        return source.startswith(prefix)
    return not source.startswith("/") and ":" not in source.partition("/")[0]


class _Run:
    """One call of `add_files`: what it has read, and what it has done so far."""

    def __init__(self, index: Index, names: SourceNames, options: Options) -> None:
        self.index = index
        self.names = names
        self.options = options
        self.report = AddReport(0, 0, 0)
        self.n_files = 0
        self.skipped: list[SkippedFile] = []
        with index.database.snapshot() as conn:
            self._start = store.read_clock(conn)
        self._seen: dict[str, None] = {}  # ids of this call
        self._waiting: list[Passage] = []
        self._obsolete: dict[str, None] = {}
        self._jsonl: list[str] = []

    def named(self, found: Found, under: str | None) -> Iterator[tuple[Path, str]]:
        """Yield the files with their names; those that cannot be named are skipped."""
        self.skipped += found.skipped
        for file in found.files:
            try:
                yield file, self.names.of(file, under)
            except InputError as error:
                if under is not None and "is not below" in str(error):
                    raise
                self._fail(file, str(error))

    def require_readable(self, files: list[tuple[Path, str]]) -> None:
        """Read every file once. Raises InputError for those that cannot be."""
        failed = [skip for skip in self.skipped if skip.failed]
        for file, source in files:
            try:
                for _ in read_passages(file, source, self.options.cutting):
                    pass
            except InputError as error:
                failed.append(_failure(file, error))
        if failed:
            raise InputError(f"nothing was added: {_some(failed)}")

    def add_file(self, file: Path, source: str) -> None:
        """Add the passages of a file; if it cannot be read, it is skipped, and nothing changes."""
        is_jsonl = file.suffix.lower() == JSONL
        try:
            passages = read_passages(file, source, self.options.cutting)
            if is_jsonl:  # read twice, so that its size does not matter
                ids = self._new_ids(p.id for p in passages)
                passages = read_passages(file, source, self.options.cutting)
            else:
                passages = iter(whole := list(passages))
                ids = self._new_ids(p.id for p in whole)
        except InputError as error:
            self._fail(file, str(error).removeprefix(f"{file} cannot be read: "))
            return
        self.n_files += 1
        self._seen.update(ids)
        if is_jsonl:
            self._jsonl.append(source)
        elif not ids:
            self.skipped.append(SkippedFile(str(file), "no text"))
        if not is_jsonl:
            self._note_obsolete(file, source, ids)
        for passage in passages:
            if is_jsonl:
                metadata = {**passage.metadata, ADDED_FROM: source}
                passage = replace(passage, metadata=metadata)
            self._waiting.append(passage)
            if is_jsonl and len(self._waiting) >= self.options.at_once:
                self.flush()
        if len(self._waiting) >= self.options.at_once:
            self.flush()

    def _new_ids(self, ids: Iterator[str]) -> dict[str, None]:
        found: dict[str, None] = {}
        for id_ in ids:
            if id_ in found or id_ in self._seen:
                where = "twice" if id_ in found else "in another file, too"
                raise InputError(
                    f"the passage id {quoted(id_)} comes {where}; expected each id once"
                )
            found[id_] = None
        return found

    def _note_obsolete(self, file: Path, source: str, ids: dict[str, None]) -> None:
        """Note what the file had under any name of it, and has no longer."""
        with self.index.database.snapshot() as conn:
            for name in (source, *self.names.others(file, source)):
                old = sources.ids_cut_from(conn, name)
                if self.options.cutting.splitter is not None:
                    old += sources.ids_added_from(conn, name)
                self._obsolete.update((id_, None) for id_ in old if id_ not in ids)

    def drop_gone(self, found: Found) -> None:
        """Note the passages of files below the given folders that are gone, or excluded by a pattern."""
        folders = []
        for folder in found.folders:
            if any(folder in file.parents for file in found.files):
                folders.append(folder)
            else:  # rather a disk that is not mounted than the end of everything
                reason = "it holds no file that is read, so its passages stay"
                self.skipped.append(SkippedFile(f"{folder}/", reason, failed=True))
        with self.index.database.snapshot() as conn:
            gone: dict[str, bool] = {}
            for id_, source in sources.ids_with_source(conn):
                if source not in gone:
                    gone[source] = self._is_gone(source, folders)
                if gone[source]:
                    self._obsolete[id_] = None

    def _is_gone(self, source: str, folders: Sequence[Path]) -> bool:
        path = self.names.path_of(source)
        if path is None:
            return False
        inside = list(below(path, folders))
        if not inside:
            return False
        return not path.exists() or any(map(self.options.selection.excludes, inside))

    def prune_jsonl(self) -> None:
        """Remove the passages that came from the .jsonl files of this call and are no longer in them."""
        with self.index.database.snapshot() as conn:
            for source in self._jsonl:
                self._obsolete.update((id_, None) for id_ in sources.ids_added_from(conn, source))
        self.flush()

    def flush(self) -> None:
        """Add what waits, and remove what is obsolete."""
        obsolete = [id_ for id_ in self._obsolete if id_ not in self._seen]
        if self.options.dry_run:
            self._count(obsolete)
        else:
            self._write(obsolete)
        self._waiting, self._obsolete = [], {}

    def count_lost(self) -> None:
        """Count the votes that are lost in the end: a later batch may have brought a text back."""
        if self.report.lost_votes or self.report.lost_answers:
            with self.index.database.snapshot() as conn:
                votes, answers = text_votes.lost_since(conn, self._start)
            self.report = replace(self.report, lost_votes=votes, lost_answers=answers)

    def _write(self, obsolete: list[str]) -> None:
        with self.index.database.snapshot() as conn:
            present = list(store.current_by_id(conn, obsolete))
        if not self._waiting and not present:
            return
        encoder = self.index.encoder()
        found = corpus.add(
            self.index.database, encoder, self._waiting, self.index.rule, remove=present
        )
        too_long = count_too_long(encoder, map(store.encoded_text, self._waiting))
        self.report = _sum(self.report, replace(found, too_long=too_long))

    def _count(self, obsolete: list[str]) -> None:
        with self.index.database.snapshot() as conn:
            old = store.current_by_id(conn, [p.id for p in self._waiting])
            removed = len(store.current_by_id(conn, obsolete))
        same = sum(p.id in old and old[p.id].passage == p for p in self._waiting)
        new = len(self._waiting) - len(old)
        self.report = _sum(self.report, AddReport(new, len(old) - same, same, removed))

    def _fail(self, file: Path, reason: str) -> None:
        self.skipped.append(SkippedFile(str(file), reason, failed=True))


def _failure(file: Path, error: InputError) -> SkippedFile:
    return SkippedFile(str(file), str(error).removeprefix(f"{file} cannot be read: "), failed=True)


def _sum(a: AddReport, b: AddReport) -> AddReport:
    counts = [f.name for f in fields(AddReport) if isinstance(getattr(a, f.name), int)]
    return replace(a, **{name: getattr(a, name) + getattr(b, name) for name in counts})


def _some(failed: list[SkippedFile]) -> str:
    said = "; ".join(f"{skip.path}: {skip.reason}" for skip in failed[:_NAMED])
    return said + (f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else "")


def _nothing(paths: Sequence[Path], skipped: list[SkippedFile]) -> str:
    failed = [skip for skip in skipped if skip.failed]
    if failed:
        return f"nothing was added: {_some(failed)}"
    names = ", ".join(map(str, paths))
    if not skipped:
        return f"{names} holds no file; expected some that can be read, at any depth"
    return f"{names} holds no file that is read: {_some(skipped)}"
