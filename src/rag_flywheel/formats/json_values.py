"""Reads the JSON values of a file one by one, whatever way tools write many of them.

One a line, one after another, the elements of an array, or of the list "data" of an object; plain or gzip.
"""

import codecs
import csv
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from json.decoder import JSONDecoder
from pathlib import Path
from typing import IO, Any

from rag_flywheel.errors import InputError, counted, quoted

MOST_VALUE_BYTES = 64 * 2**20
"""The largest size of one value, and of a cell of a table."""
_READ = 2**18
_GZIP = b"\x1f\x8b"
_BLANKS = " \t\r\n"
ReadBytes = Callable[[Path, int, int], None]
"""Called now and then as (file, bytes read, bytes in all)."""


@contextmanager
def opened(path: Path, read: ReadBytes | None = None) -> Iterator[Iterator[bytes]]:
    """The bytes of a file, unpacked where it is packed by gzip, in pieces.

    Raises InputError for a damaged gzip file; OSError.
    """
    size = path.stat().st_size
    with path.open("rb") as raw:
        packed = raw.read(2) == _GZIP
        raw.seek(0)
        file: IO[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]

        def pieces() -> Iterator[bytes]:
            while True:
                try:
                    piece = file.read(_READ)
                except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                    raise InputError(
                        f"{path} is no whole gzip file ({error}); fetch it anew, or pack it again"
                    ) from error
                if not piece:
                    return
                if read is not None:
                    read(path, raw.tell(), size)
                yield piece

        yield pieces()


def texts(path: Path, pieces: Iterator[bytes]) -> Iterator[str]:
    """The text of pieces in UTF-8, with or without a byte order mark. Raises InputError."""
    decoder, first = codecs.getincrementaldecoder("utf-8")(), True
    line = 1
    for piece in pieces:
        try:
            text = decoder.decode(piece)
        except UnicodeDecodeError as error:
            raise _no_utf8(path, line, error) from error
        if first and text:
            first, text = False, text.removeprefix("\ufeff")
        line += text.count("\n")
        yield text
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise _no_utf8(path, line, error) from error


def _no_utf8(path: Path, line: int, error: UnicodeDecodeError) -> InputError:
    return InputError(
        f"{path}, line {line} or below, is not UTF-8 ({error.reason}); convert the file first"
    )


def values_of(
    path: Path, read: ReadBytes | None = None, lists: Sequence[str] = ("data",)
) -> Iterator[tuple[str, Any]]:
    """Yield (file and line for messages, value) of each value.

    An array is taken as its elements, and an object with a list under one of the names `lists` as those.
    Raises InputError for what is no JSON, and OSError.
    """
    with opened(path, read) as pieces:
        for where, value in _Scanner(path, texts(path, pieces)).values():
            holds = value if isinstance(value, dict) else {}
            name = next((each for each in lists if isinstance(holds.get(each), list)), None)
            if name is None:
                yield where, value
                continue
            for each in value[name]:
                yield where, each


class _Scanner:
    """Takes values off the front of a text that comes in pieces, so that only one is in memory."""

    def __init__(self, path: Path, pieces: Iterator[str]) -> None:
        self._path = path
        self._pieces = pieces
        self._text, self._at, self._line = "", 0, 1
        self._ended = False
        self._decoder = JSONDecoder(object_pairs_hook=_unique)

    def values(self) -> Iterator[tuple[str, Any]]:
        """Yield (where, value) of each, of an array each element."""
        while (first := self._peek()) is not None:
            if first != "[":
                yield self._where(), self._take()
                continue
            yield from self._elements()

    def _elements(self) -> Iterator[tuple[str, Any]]:
        self._skip(1)
        if self._peek() == "]":
            self._skip(1)
            return
        while True:
            if self._peek() is None:
                raise self._broken("it ends within a list")
            yield self._where(), self._take()
            mark = self._peek()
            if mark not in (",", "]"):
                raise self._broken("expected a comma or ] after a value")
            self._skip(1)
            if mark == "]":
                return

    def _where(self) -> str:
        return f"{self._path}, line {self._line}"

    def _broken(self, why: object) -> InputError:
        return InputError(
            f"{self._where()} is no JSON ({why}); expected one value a line, or a list"
        )

    def _peek(self) -> str | None:
        """The next character that is no blank; None at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANKS:
                self._line += self._text[self._at] == "\n"
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return None

    def _skip(self, n: int) -> None:
        self._at += n

    def _take(self) -> Any:
        """The value that begins here."""
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                if end < len(self._text) or self._ended or not self._more():
                    break
            except _RepeatedKeyError as error:
                raise self._broken(error) from None
            except RecursionError:
                raise self._broken("too many values in one another") from None
            except ValueError as error:
                if len(self._text) - self._at > MOST_VALUE_BYTES:
                    raise self._broken(f"a value is larger than {MOST_VALUE_BYTES} bytes") from None
                if not self._more(doubling=True):
                    raise self._broken(getattr(error, "msg", error)) from None
        self._line += self._text.count("\n", self._at, end)
        self._at = end
        return value

    def _more(self, *, doubling: bool = False) -> bool:
        """Read more, as much again where a value did not end; False at the end of the file."""
        left = self._text[self._at :]
        new, n, wanted = [left], 0, max(len(left) if doubling else 1, 1)
        while n < wanted:
            piece = next(self._pieces, None)
            if piece is None:
                self._ended = True
                break
            new.append(piece)
            n += len(piece)
        self._text, self._at = "".join(new), 0
        return n > 0


class _RepeatedKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RepeatedKeyError("an object has a key twice")
    return found


def parsed(value: object) -> object:
    """The JSON value of a string that is one; anything else as it is."""
    if isinstance(value, str) and value[:1] in '{["' and len(value) <= MOST_VALUE_BYTES:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def ending_of(path: Path) -> str:
    """The ending of a name in small letters, such as ".csv", without a ".gz" behind it."""
    endings = [ending.lower() for ending in path.suffixes]
    if endings[-1:] == [".gz"]:
        endings.pop()
    return endings[-1] if endings else ""


def rows_of(
    path: Path,
    read: ReadBytes | None = None,
    check: Callable[[Sequence[str]], None] | None = None,
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (file and line, cells by the names of the first line) of each row of a table, whose cells are
    separated by what separates those names: commas, semicolons, as spreadsheets write where a comma is
    the decimal point, or tabs. Columns without a name are not read.

    check: gets the names, also where no row follows. Raises InputError, and OSError.
    """
    limit = csv.field_size_limit()
    with opened(path, read) as pieces:
        lines = _lines(texts(path, pieces))
        n, first = _first_line(lines)
        reader = csv.reader(chain([first], lines), delimiter=_separator(first), strict=True)
        try:
            csv.field_size_limit(MOST_VALUE_BYTES)
            header = next(reader, [])
            _require_once(f"{path}, line {n + 1}", header)
            if header and check is not None:
                check(header)
            for row in reader:
                where = f"{path}, line {n + reader.line_num}"
                if row and len(row) != len(header):
                    raise InputError(
                        f"{where} has {counted(len(row), 'column')}; expected {len(header)}, as the "
                        "line with their names has"
                    )
                if row:
                    cells = zip(header, row, strict=True)
                    yield where, {name: cell for name, cell in cells if name.strip()}
        except csv.Error as error:
            raise InputError(
                f"{path}, line {n + reader.line_num} cannot be taken apart ({error}); expected cells that "
                "hold separators, quotes or line ends in double quotes"
            ) from error
        finally:
            csv.field_size_limit(limit)


def _first_line(lines: Iterator[str]) -> tuple[int, str]:
    """(how many lines stand before it, the line with the names of columns): blank ones, and the one by
    which spreadsheets note the separator."""
    n = -1
    for n, line in enumerate(lines):
        if line.strip() and not re.fullmatch(r'"?sep=.?"?\s*', line, re.IGNORECASE):
            return n, line
    return n + 1, ""


def _separator(names: str) -> str:
    """What separates the names of columns."""
    return max(",;\t", key=re.sub(r'"[^"]*"', "", names).count)


def _require_once(where: str, names: Sequence[str]) -> None:
    times = Counter(names)
    twice = next((each for each, n in times.items() if each.strip() and n > 1), None)
    if twice is not None:
        raise InputError(f"{where} names the column {quoted(twice)} twice; expected each name once")


def _lines(pieces: Iterator[str]) -> Iterator[str]:
    """The lines of a text, with their ends."""
    left = ""
    for piece in pieces:
        *lines, left = (left + piece).split("\n")
        for line in lines:
            yield line + "\n"
    if left:
        yield left
