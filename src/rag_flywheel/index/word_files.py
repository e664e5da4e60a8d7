"""Stores the words of texts in parts, so that versions can share those of texts that did not change.

    tokens/parts.json          the number of each part, in order, and how many words were numbered so far
    tokens/rows.npy            int64 (n,), ascending: where each text is in the parts, one after another
    tokens/order.npy           int32 (words,): the number of each word in the parts
    tokens/ids-NUMBER.npy      uint16 (m,): the words of the texts of a part, one text after another; 65,535
                               stands for a number that is as large or larger
    tokens/more-NUMBER.npy     int32: those numbers, in order
    tokens/lengths-NUMBER.npy  int32 (k,): how many words each text of the part has

A word keeps its number in the parts from version to version, and is renumbered when they are read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from rag_flywheel.disk import all_below, link, read_arrays, read_json, write_arrays
from rag_flywheel.index.parts import Rows, layout, pieces

MOST_UNUSED_WORDS = 0.2  # of the numbers; with more, all texts are written anew
_LARGE = 65_535
_MOST_JSON, _MOST_PARTS = 100_000, 1_000
_PARTS = "parts.json"
_ARRAYS = {"rows": "int64 n", "order": "int32 words"}
_KINDS = {"ids": "uint16 m", "more": "int32 large", "lengths": "int32 k"}
Ints = npt.NDArray[np.int32]
_Number = Annotated[int, Meta(ge=0, lt=2**31)]


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    parts: Annotated[list[_Number], Meta(max_length=_MOST_PARTS)]
    words: _Number


@dataclass(frozen=True)
class StoredWords:
    """The parts of a version and what is used of them.

    sizes: texts of each part, by its number, in order; rows int64 (n,), ascending: of the texts that are
    used, in all parts one after another; order int32: the number of each word in the parts, -1: it has
    none yet; n_words: numbered so far.
    """

    sizes: Mapping[str, int]
    rows: Rows
    order: Ints
    n_words: int

    def of(self, used: npt.NDArray[np.bool_], words: Ints) -> "StoredWords":
        """The same with a part of the used texts, bool (n,), and these of its words, -1: a new one."""
        order = np.append(self.order, np.int32(-1))[words]
        return replace(self, rows=self.rows[used], order=order)


def save_texts(
    place: Path,
    tokens: Ints,
    offsets: Ints,
    n_words: int,
    before: tuple[Path, StoredWords] | None = None,
) -> None:
    """Write the words of texts into a folder; text i has tokens[offsets[i]:offsets[i + 1]].

    before: the folder and the parts of another version that hold the first of the texts; these are linked
    where enough of a part is used, and not written.
    """
    old = StoredWords({}, np.empty(0, np.int64), np.full(n_words, -1, np.int32), 0)
    if before is not None:
        n_used = int(np.count_nonzero(before[1].order >= 0))
        if n_used >= (1.0 - MOST_UNUSED_WORDS) * before[1].n_words:
            old = before[1]
    number = old.order.copy()
    number[number < 0] = old.n_words + np.arange(np.count_nonzero(number < 0))
    next_part = 1 + max(map(int, old.sizes), default=0)
    parts, rows, start = [], [np.empty(0, dtype=np.int64)], 0
    for stretch in layout(len(offsets) - 1, old.sizes, old.rows):
        if stretch.name is not None and stretch.rows is not None:
            assert before is not None
            for kind in _KINDS:
                name = f"{kind}-{stretch.name}.npy"
                link(before[0] / name, place / name)
            parts.append(int(stretch.name))
            rows.append(start + stretch.rows)
            start += stretch.size
            continue
        for first, end in pieces(stretch):
            ids = number[tokens[offsets[first] : offsets[end]]]
            _write_part(place, next_part, ids, np.diff(offsets[first : end + 1]))
            parts.append(next_part)
            next_part += 1
            rows.append(start + np.arange(end - first, dtype=np.int64))
            start += end - first
    write_arrays(place, _ARRAYS, np.concatenate(rows), number)
    n_numbered = max(old.n_words, int(number.max(initial=-1)) + 1)
    text = json.dumps({"parts": parts, "words": n_numbered})
    (place / _PARTS).write_text(text, encoding="utf-8")


def _write_part(place: Path, number: int, ids: Ints, lengths: Ints) -> None:
    large = ids >= _LARGE
    low = np.where(large, np.int32(_LARGE), ids).astype(np.uint16)
    names = (f"{kind}-{number}" for kind in _KINDS)
    write_arrays(place, names, low, ids[large], lengths.astype(np.int32))


def load_texts(place: Path, *, n_words: int) -> tuple[Ints, Ints, StoredWords]:
    """The words of all texts of a folder, one text after another, the number of words of each text, and
    the parts that hold them. Raises OSError or ValueError, whatever is in the files."""
    header: _Header = read_json(place / _PARTS, _Header, most=_MOST_JSON)
    rows, order = read_arrays(place, _ARRAYS, words=n_words)
    if not all_below(order, header.words):
        raise ValueError("order.npy names a word that was not numbered")
    new_number = np.full(max(header.words, 2**16), -1, dtype=np.int32)
    new_number[order] = np.arange(n_words, dtype=np.int32)
    if np.count_nonzero(new_number >= 0) != n_words:
        raise ValueError("order.npy names a word twice")
    if np.any(rows[1:] <= rows[:-1]) or (len(rows) and rows[0] < 0):
        raise ValueError("rows.npy is not ascending")
    sizes, tokens, lengths, at = dict[str, int](), [], [], 0
    for number in header.parts:
        ids, each = _read_part(place, number, new_number)
        start = sum(sizes.values())
        sizes[str(number)] = len(each)
        end = at + int(np.searchsorted(rows[at:], start + len(each)))
        if end - at < len(each):
            used = np.zeros(len(each), dtype=bool)
            used[rows[at:end] - start] = True
            ids, each = ids[np.repeat(used, each)], each[used]
        tokens.append(ids)
        lengths.append(each)
        at = end
    if at != len(rows) or len(sizes) != len(header.parts):
        raise ValueError("rows.npy names a text that is not there, or a part is named twice")
    stored = StoredWords(sizes, rows, order, header.words)
    return _joined(tokens), _joined(lengths), stored


def _joined(parts: list[Ints]) -> Ints:
    """The arrays one after another; each is let go once it is copied, so that none is in memory twice."""
    found = np.empty(sum(map(len, parts)), dtype=np.int32)
    end = len(found)
    while parts:
        part = parts.pop()
        found[end - len(part) : end] = part
        end -= len(part)
    return found


def _read_part(place: Path, number: int, new_number: Ints) -> tuple[Ints, Ints]:
    """The words of a part, one text after another, and how many each text has.

    new_number: by the number that a word has in the parts the one that it gets, -1: none.
    """
    kinds = {f"{kind}-{number}": shape for kind, shape in _KINDS.items()}
    low, more, lengths = read_arrays(place, kinds)
    large = np.flatnonzero(low == _LARGE)
    if len(large) != len(more) or (len(more) and more.min() < _LARGE):
        raise ValueError(f"more-{number}.npy does not hold the large numbers of ids-{number}.npy")
    if not all_below(more, len(new_number)):
        raise ValueError(f"more-{number}.npy names a word that was not numbered")
    ids: Ints = new_number[low]
    ids[large] = new_number[more]
    if np.any(lengths < 0) or int(lengths.sum(dtype=np.int64)) != len(ids):
        raise ValueError(f"lengths-{number}.npy does not divide the words among texts")
    return ids, lengths
