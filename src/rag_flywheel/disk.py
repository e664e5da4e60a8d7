"""What the package does with the disk, safely.

OS errors become StorageError. Untrusted files are read only after checking their type and size. What is
in an index folder is created, moved and deleted without following a link: the folder itself may be
reached through one, but from there each step goes by the descriptor of the folder before it, so that a
link put in place between two steps is an error, never a way out.
"""

import errno
import json
import math
import os
import re
import shlex
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from rag_flywheel.errors import (
    CorruptFileError,
    DiskFullError,
    FlywheelError,
    InputError,
    ReadOnlyError,
    StorageError,
)

REMEDY = (
    "run `rag-flywheel refresh` to build a new version, `rag-flywheel rollback` to another version, "
    "or `rag-flywheel repair`"
)
"""What to do about a file of a version that cannot be used."""
DAMAGE = OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, MemoryError
"""What reading a damaged file may raise."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ROOM_FOR_A_PAGE = 64 * 1024
_MOST_BYTES = 64 * 2**30  # of one file of a version
MOST_JSON = 2**30
_MOST_HEADER = 1_000
_T = TypeVar("_T")
_NPY = re.compile(
    rb"\{'descr': '([<>|][biufcSUO]\d{0,4})', 'fortran_order': (False|True), "
    rb"'shape': \(((?:\d{1,18},? ?){0,4})\), \} *\n"
)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a StorageError that names `path` and the remedy."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        where = error.filename or path
        if error.errno in _FULL:
            raise DiskFullError(
                f"no space to write {where} ({error.strerror or error}); free some and repeat the "
                "call. What was live before is still live"
            ) from error
        if error.errno in _FORBIDDEN:
            raise ReadOnlyError(
                f"{where} cannot be read or written ({error.strerror}); give this user permission, "
                "or work on a copy of the folder"
            ) from error
        raise StorageError(f"{where}: {error.strerror or error}") from error


@contextmanager
def version_file_errors(
    path: Path | str, problem: str = "cannot be read", *, of: tuple[type[Exception], ...] = DAMAGE
) -> Iterator[None]:
    """Turn the errors of reading a file or folder of a version into CorruptFileError.

    path, problem: the subject of the message, and what is wrong with it; of: the errors to turn.
    """
    try:
        yield
    except FlywheelError:
        raise
    except of as error:
        raise CorruptFileError(f"{path} {problem} ({str(error)[:200]}); {REMEDY}") from error


@contextmanager
def regular_file(
    path: Path, *, most: int = _MOST_BYTES, follow: bool = False
) -> Iterator[tuple[BufferedReader, int]]:
    """(the file open for reading, its size in bytes); never waits, as opening a pipe would.

    most: a larger file is refused; follow: whether the path may be a symbolic link.
    Raises OSError, and ValueError for anything but a regular file.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:  # a link; a socket
            raise ValueError(f"{path.name} is a symbolic link or no file") from error
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path.name} is a folder or a device; expected a file")
        if found.st_size > most:
            raise ValueError(f"{path.name} has {found.st_size} bytes; expected {most} at most")
        with open(descriptor, "rb", closefd=False) as file:
            yield file, found.st_size
    finally:
        os.close(descriptor)


def read_bytes(path: Path, *, most: int, follow: bool = False) -> bytes:
    """All of a regular file. Raises OSError, and ValueError when it is none or too large."""
    with regular_file(path, most=most, follow=follow) as (file, _):
        data = file.read(most + 1)
    if len(data) > most:  # it grew
        raise ValueError(f"{path.name} has more than {most} bytes")
    return data


def read_json(path: Path, kind: Any = Any, *, most: int = MOST_JSON) -> Any:
    """The value in a JSON file, of a type. Raises OSError or ValueError, whatever is in the file."""
    return parsed_json(read_bytes(path, most=most), path.name, kind)


def parsed_json(text: str | bytes, name: str, kind: Any = Any) -> Any:
    """The value of JSON text, of a type; ValueError, calling it `name`, for everything else."""
    try:
        return msgspec.convert(json.loads(text), kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{name}: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{name} is nested too deeply ({error})") from error
    except ValueError as error:
        raise ValueError(f"{name} is no JSON ({error})") from error


def read_words(path: Path, kind: Any) -> Any:
    """`read_json` of very many words, in a third of its time."""
    try:
        return msgspec.json.decode(read_bytes(path, most=MOST_JSON), type=kind)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path.name}: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{path.name} is nested too deeply ({error})") from error


def exactly(kind: type[_T], values: object) -> _T:
    """A dataclass of parsed values: ValueError unless these are all of its fields, as they are typed,
    and no other."""
    expected = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    found = set(values) if isinstance(values, dict) else set()
    if found != expected:
        raise ValueError(f"{min(found ^ expected)!r} is missing or not known in {kind.__name__}")
    return msgspec.convert(values, kind)


@contextmanager
def array_file(path: Path) -> Iterator[tuple[BufferedReader, np.dtype[Any], tuple[int, ...]]]:
    """(a .npy file open at its first value, the kind of its values, its shape), once the header agrees with
    the file's size; values are in the order of rows.

    Only headers as np.save writes them for plain numbers are read. Raises OSError or ValueError,
    whatever is in the file.
    """
    with _array_file(path) as (file, kind, shape, order):
        if order != "C":
            raise ValueError(f"{path.name} holds its values by columns; expected rows")
        yield file, kind, shape


@contextmanager
def _array_file(
    path: Path,
) -> Iterator[tuple[BufferedReader, np.dtype[Any], tuple[int, ...], Literal["C", "F"]]]:
    with regular_file(path) as (file, size):
        start = file.read(10)
        n_header = int.from_bytes(start[8:10], "little")
        if start[:8] != b"\x93NUMPY\x01\x00" or n_header > _MOST_HEADER:
            raise ValueError(f"{path.name} is no .npy file of format 1.0")
        found = _NPY.fullmatch(file.read(n_header))
        if found is None:
            raise ValueError(f"{path.name} has a damaged header")
        if b"O" in found[1]:
            raise ValueError(f"{path.name} holds objects; expected numbers, allow_pickle=False")
        try:
            kind = np.dtype(found[1].decode("ascii"))
        except TypeError as error:
            raise ValueError(
                f"{path.name} holds values of the unknown kind {found[1]!r}"
            ) from error
        shape = tuple(int(n) for n in found[3].replace(b",", b" ").split())
        if 10 + n_header + math.prod(shape) * kind.itemsize != size:
            raise ValueError(f"{path.name} has {size} bytes, which is not what its header says")
        yield file, kind, shape, "F" if found[2] == b"True" else "C"


def read_array(path: Path) -> npt.NDArray[Any]:
    """The array in a .npy file; memory is allocated only once the header agrees with the file's size.

    Only headers as np.save writes them for plain numbers are read. Raises OSError or ValueError,
    whatever is in the file.
    """
    with _array_file(path) as (file, kind, shape, order):
        n = math.prod(shape)
        values = np.fromfile(file, dtype=kind, count=n)
    if len(values) != n:
        raise ValueError(f"{path.name} was cut short while it was read")
    return values.reshape(shape, order=order)


def read_arrays(folder: Path, kinds: Mapping[str, str], **sizes: int) -> list[Any]:
    """The arrays in .npy files of a folder. Raises OSError or ValueError, whatever is in the files.

    kinds: by the name of each file its dtype and shape, such as "uint8 n 16" or "int32|int64 n+1", in
    which a letter is one number in all files; sizes: the numbers that are fixed in advance.
    """
    arrays = []
    for name, kind in kinds.items():
        array = read_array(folder / f"{name}.npy")
        dtype, *shape = kind.split()
        for length, axis in zip(array.shape, shape, strict=False):
            letter, _, more = axis.partition("+")
            if not letter.isdigit():
                sizes.setdefault(letter, length - int(more or 0))
        expected = tuple(_length(axis, sizes) for axis in shape)
        if str(array.dtype) not in dtype.split("|") or array.shape != expected:
            raise ValueError(
                f"{name}.npy holds {array.dtype} {array.shape}; expected {dtype} {expected}"
            )
        arrays.append(array)
    return arrays


def write_arrays(folder: Path, names: Iterable[str], *arrays: npt.NDArray[Any]) -> None:
    """Write arrays into .npy files of a folder, without pickle."""
    for name, array in zip(names, arrays, strict=True):
        write_array(folder / f"{name}.npy", array)


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a file as np.save does, without pickle. An OSError has its number: that of numpy, when the
    disk is full, says only how much was written."""
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        header = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_1_0(file, header)
        file.write(array.reshape(-1).view(np.uint8).data)


def _length(axis: str, sizes: Mapping[str, int]) -> int:
    letter, _, more = axis.partition("+")
    return int(letter) if letter.isdigit() else sizes.get(letter, 0) + int(more or 0)


def is_full(path: Path) -> bool:
    """Whether the disk that holds `path`, or its nearest folder, has no room for a page."""
    folder = next(p for p in (path, *path.absolute().parents) if p.exists())
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize < _ROOM_FOR_A_PAGE


def divides(offsets: npt.NDArray[np.integer[Any]], n: int, total: int) -> bool:
    """Whether offsets (n + 1,) divide `total` things, one after the other, among n: they begin at 0
    and never fall."""
    if offsets.shape != (n + 1,) or offsets[0] != 0 or offsets[-1] != total:
        return False
    return not np.any(offsets[1:] < offsets[:-1])  # differences of stored numbers could wrap


def all_within(numbers: npt.NDArray[np.floating[Any]], low: float, high: float) -> bool:
    """Whether all are finite and from `low` to `high`."""
    return bool(np.all((numbers >= low) & (numbers <= high)))


def all_below(numbers: npt.NDArray[np.integer[Any]], n: int, *, low: int = 0) -> bool:
    """Whether all are from `low` to n - 1."""
    return not len(numbers) or (int(numbers.min()) >= low and int(numbers.max()) < n)


def link(source: Path, target: Path) -> None:
    """Give files another name: by hard links, or by copies where the disk has no links."""
    if source.is_dir():
        target.mkdir()
        for path in source.iterdir():
            link(path, target / path.name)
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def sync(path: Path) -> None:
    """Wait until a file's contents, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _modes(descriptor: int) -> tuple[int, int]:
    """The modes of new folders and files in a folder, before the umask: for their owner alone, and for
    the group too where the folder can be written to by it."""
    shared = os.fstat(descriptor).st_mode & stat.S_IWGRP
    return (0o770, 0o660) if shared else (0o700, 0o600)


def new_file_mode(folder: Path) -> int:
    """The mode of a new file in a folder, before the umask, for libraries that make files themselves."""
    with opened_folder(folder) as descriptor:
        return _modes(descriptor)[1]


def make_private(folder: Path) -> None:
    """Take from all files and folders below a folder what it does not grant: others, and the group."""
    granted = 0o770 if folder.stat().st_mode & stat.S_IRWXG else 0o700
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(stat.S_IMODE(path.stat().st_mode) & granted)


def sync_tree(folder: Path) -> None:
    """`sync` every file and folder below `folder`, and itself."""
    for path in sorted(folder.rglob("*"), reverse=True):
        sync(path)
    sync(folder)


def make_folders(path: Path, mode: int = 0o777) -> None:
    """Make a folder of this mode, before the umask, and those above it that are missing; all of them are
    on the disk when it returns."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    for folder in missing:
        with suppress(PermissionError):  # which may be written to but not read
            sync(folder.parent)


@contextmanager
def new_folder(out: Path, *, outside: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `out` when the block ends without an error.

    Raises InputError unless `out` is new or empty, and outside the folder `outside`; both are
    absolute.
    """
    if out == outside or outside in out.parents:
        raise InputError(f"{out} is in the index folder; expected a new folder outside it")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; expected the name of a new folder")
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty; expected a new or empty folder: give another name")
    staged = out.with_name(f".{out.name}.{os.getpid()}-{os.urandom(4).hex()}")
    make_folders(out.parent)
    try:
        staged.mkdir(mode=0o700)
        yield staged
        sync_tree(staged)
        staged.rename(out)  # takes the place of an empty folder
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    sync(out.parent)


@contextmanager
def new_file(out: Path, *, outside: Path, overwrite: bool = False) -> Iterator[Path]:
    """An empty file to write into, which becomes `out` when the block ends without an error.

    overwrite: whether it may take the place of a file. Raises InputError where there is one otherwise,
    for a folder, and in the folder `outside`; both are absolute.
    """
    if outside in out.parents:
        raise InputError(f"{out} is in the index folder; expected a file outside it")
    if out.exists() and not out.is_file():
        raise InputError(f"{out} is no file; expected the name of a new file")
    if out.exists() and not overwrite:
        raise _there_already(out)
    staged = out.with_name(f".{out.name}.{os.getpid()}-{os.urandom(4).hex()}")
    make_folders(out.parent)
    try:
        os.close(os.open(staged, _NEW_FILE, 0o600))
        yield staged
        sync(staged)
        _put_in_place(staged, out, overwrite=overwrite)
    finally:
        with suppress(FileNotFoundError):
            staged.unlink()
    sync(out.parent)


def _put_in_place(staged: Path, out: Path, *, overwrite: bool) -> None:
    if overwrite:
        staged.replace(out)
        return
    try:
        os.link(staged, out)  # unlike a rename, it takes no other file's place
    except FileExistsError:
        raise _there_already(out) from None
    except OSError:  # a disk without links
        if out.exists():
            raise _there_already(out) from None
        staged.rename(out)


def _there_already(out: Path) -> InputError:
    return InputError(
        f"{out} is there already; give another name, or ask for it to be overwritten "
        "(--overwrite, overwrite=True)"
    )


def link_error(path: Path) -> StorageError:
    """The error for a link in the place of a folder or file of an index."""
    target = "elsewhere"
    with suppress(OSError):
        target = str(path.parent / path.readlink())
    here, there = shlex.quote(str(path)), shlex.quote(target)
    return StorageError(
        f"{path} is a link to {target}; an index writes, moves and deletes only in its own folder, and "
        f"nothing was changed there. Put the real one in its place: rm {here} && mv {there} {here}. "
        "Or move the whole index folder to the other disk, and link that"
    )


def require_no_links(root: Path, names: Iterable[str]) -> None:
    """Raises StorageError naming the first of these entries of the folder that is a link."""
    for name in names:
        with suppress(PermissionError):  # which the next call meets
            if (root / name).is_symlink():
                raise link_error(root / name)


@contextmanager
def opened_folder(root: Path, place: str = "", *, create: bool = False) -> Iterator[int]:
    """The descriptor of a folder below the index folder, its steps divided by "/"; "": of that itself.

    create: make the folders that are missing. Raises StorageError for a link, and OSError.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    path = root
    try:
        for name in place.split("/") if place else []:
            path = path / name
            if create:
                with suppress(FileExistsError):
                    os.mkdir(name, _modes(descriptor)[0], dir_fd=descriptor)
                    os.fsync(descriptor)
            step = _step(descriptor, name, path)
            os.close(descriptor)
            descriptor = step
        yield descriptor
    finally:
        os.close(descriptor)


def _step(descriptor: int, name: str, path: Path) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=descriptor)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR} and path.is_symlink():
            raise link_error(path) from error
        raise OSError(error.errno, error.strerror, str(path)) from error


def names_in(root: Path, place: str = "") -> list[str]:
    """Sorted names of what is in a folder; none without it, or where a file is in its place."""
    try:
        with opened_folder(root, place) as folder:
            return sorted(os.listdir(folder))  # noqa: PTH208 - of a descriptor
    except (FileNotFoundError, NotADirectoryError):
        return []


def make_folder(root: Path, place: str) -> Path:
    """Make a new folder, and those above it that are missing. Raises FileExistsError."""
    above, _, name = place.rpartition("/")
    with opened_folder(root, above, create=True) as folder:
        os.mkdir(name, _modes(folder)[0], dir_fd=folder)
    return root / place


def move(root: Path, old: str, new: str) -> None:
    """Rename a file or folder and sync both sides; the folder of its new name is made when missing.

    Raises FileExistsError when something has the new name.
    """
    (above, _, name), (above_new, _, name_new) = old.rpartition("/"), new.rpartition("/")
    with (
        opened_folder(root, above) as source,
        opened_folder(root, above_new, create=True) as target,
    ):
        with suppress(FileNotFoundError):
            os.stat(name_new, dir_fd=target, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(root / new))
        os.rename(name, name_new, src_dir_fd=source, dst_dir_fd=target)
        os.fsync(source)
        os.fsync(target)


def delete(root: Path, entry: str) -> None:
    """Delete a file, a link (not what it leads to) or a folder with all that is in it; none is fine."""
    above, _, name = entry.rpartition("/")
    with suppress(FileNotFoundError), opened_folder(root, above) as folder:
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=folder)  # which follows no link, whatever happens meanwhile
        else:
            os.unlink(name, dir_fd=folder)
        os.fsync(folder)


def write_file(root: Path, entry: str, data: bytes) -> None:
    """Write a file in one step, and its folder when that is missing; it replaces the one of its name."""
    above, _, name = entry.rpartition("/")
    temporary = f".{name}.{os.getpid()}-{os.urandom(4).hex()}"
    with opened_folder(root, above, create=True) as folder:
        try:
            mode = _modes(folder)[1]
            with os.fdopen(os.open(temporary, _NEW_FILE, mode, dir_fd=folder), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
        os.fsync(folder)


def replace_text(path: Path, text: str) -> None:
    """Replace a file's text in one step: readers see the old text or the new, never a part."""
    write_file(path.parent, path.name, text.encode("utf-8"))
