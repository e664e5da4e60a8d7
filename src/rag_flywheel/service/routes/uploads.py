"""Files that callers send: documents to be cut into passages, and known answers."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from fastapi import APIRouter, File, Query, Response, UploadFile
from filelock import FileLock, Timeout

from rag_flywheel.checks import MOST_NAME_CHARS, check_text
from rag_flywheel.disk import disk_errors
from rag_flywheel.errors import FlywheelError, InputError, LockedError, quoted
from rag_flywheel.formats.table import SEPARATORS
from rag_flywheel.records import AddFilesReport, AddReport
from rag_flywheel.service.answers import answer, schema_of
from rag_flywheel.service.bodies import Tenants
from rag_flywheel.service.calls import Call, needs
from rag_flywheel.service.problems import WRITES
from rag_flywheel.service.repeats import OnceRoute

router = APIRouter(tags=["uploads"], route_class=OnceRoute, responses=WRITES)
Writer = Annotated[Call, needs("write", whole_index=True)]
Reviewer = Annotated[Call, needs("review")]
Files = Annotated[
    list[UploadFile], File(description="Files, each with its path as the filename, as docs/a.md.")
]
_WAIT_S = 20.0  # for another upload under the same name


@router.post("/documents", response_model=schema_of(AddFilesReport))
def add_documents(
    files: Files,
    call: Writer,
    name: Annotated[
        str, Query(description="Put before the names of the files, as documents:docs/a.md.")
    ] = "documents",
    strict: Annotated[bool, Query(description="Add nothing if a file cannot be read.")] = False,
    chunk_tokens: Annotated[int | None, Query(ge=1)] = None,
    chunk_overlap: Annotated[int | None, Query(ge=0)] = None,
    base_url: Annotated[str | None, Query(description="The address of the site.")] = None,
    anchors: Literal["github", "mkdocs", "vitepress"] = "github",
    dry_run: Annotated[bool, Query(description="Only count.")] = False,
) -> Response:
    """Cut documents into passages, add these, and remove those that the files no longer have."""
    folder = _root(call, name)
    with _alone(folder), _written(files, folder) as paths, _named_as_sent(folder):
        found = call.fw.add_files(
            paths,
            root=folder,
            name=name,
            strict=strict,
            chunk_tokens=chunk_tokens,
            chunk_overlap=chunk_overlap,
            base_url=base_url,
            anchors=anchors,
            dry_run=dry_run,
        )
    skipped = [replace(s, path=s.path.removeprefix(f"{folder}/")) for s in found.skipped]
    return answer(replace(found, skipped=tuple(skipped)))


@router.post("/golden/files", response_model=schema_of(AddReport))
def add_golden_files(
    files: Files,
    call: Reviewer,
    tenants: Tenants,
    split: Annotated[str, Query(description="The qrels of a BEIR folder to read.")] = "test",
    lenient: Annotated[
        bool, Query(description="Leave out, and count, rows that cannot be used.")
    ] = False,
) -> Response:
    """Import known answers from a .csv or .tsv, or the files of a BEIR folder, all or none."""
    with tempfile.TemporaryDirectory(prefix="golden-") as made:
        folder = Path(made)
        with _written(files, folder) as paths, _named_as_sent(folder):
            is_table = len(paths) == 1 and paths[0].suffix in SEPARATORS
            found = call.fw.golden.add(
                paths[0] if is_table else folder,
                split=split,
                lenient=lenient,
                **call.tenant(*tenants),
            )
    return answer(found)


def _root(call: Call, name: str) -> Path:
    """The folder that documents of this name are written to while they are read. Raises InputError.

    It is the same for every upload, since an index remembers where files of a name are.
    """
    check_text("name", name, MOST_NAME_CHARS)
    if not name or "/" in name or "\0" in name or name.startswith("."):
        raise InputError(f"name is {quoted(name)}; expected a word such as 'documents'")
    state = call.service.settings.local_file
    return state.resolve().with_name(f"{state.name}.uploads") / call.name / name


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While no other upload uses the folder, which is gone afterwards. Raises LockedError, StorageError."""
    with disk_errors(folder.parent):
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=_WAIT_S):
                shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
                folder.mkdir(mode=0o700)
                try:
                    yield
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
        except Timeout:
            raise LockedError(
                f"another upload under the name {quoted(folder.name)} is under way; repeat it later"
            ) from None


@contextmanager
def _written(files: Sequence[UploadFile], folder: Path) -> Iterator[list[Path]]:
    """The files that were sent, in a folder. Raises InputError for no name, and for one given twice."""
    paths: list[Path] = []
    for file in files:
        path = folder / _inside(file.filename)
        if path.exists() or path in paths:
            raise InputError(f"found two files named {quoted(file.filename)}; expected each once")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as out:
            shutil.copyfileobj(file.file, out)
        paths.append(path)
    yield paths


def _inside(name: str | None) -> PurePosixPath:
    """The path below the folder that a file's name means. Raises InputError."""
    check_text("the name of a file", name, MOST_NAME_CHARS)
    path = PurePosixPath(str(name))
    too_long = any(len(part.encode()) > 255 for part in path.parts)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in str(name) or too_long:
        raise InputError(f"found the file name {quoted(name)}; expected one such as docs/a.md")
    return path


@contextmanager
def _named_as_sent(folder: Path) -> Iterator[None]:
    """Errors of the library name files as they were sent."""
    try:
        yield
    except FlywheelError as error:
        said = str(error).replace(f"{folder}/", "").replace(str(folder), "what was sent")
        raise type(error)(said) from error
