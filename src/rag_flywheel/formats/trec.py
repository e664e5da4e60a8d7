"""Writes runs and qrels as TREC's tools read them: columns between blanks, a file each."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote

import numpy as np

_NOT_IN_A_FIELD = re.compile(r"[\s%]")


def field(id_: str) -> str:
    """An id as one column: blanks, and %, as %20 and so on, since columns stand between blanks."""
    return _NOT_IN_A_FIELD.sub(
        lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), id_
    )


def id_of_field(text: str) -> str:
    """The id that `field` made this column of."""
    return unquote(text)


def write_run(
    path: Path, ranked: Iterable[tuple[str, Sequence[tuple[str, float]]]], tag: str
) -> int:
    """Write a run: (question id, its passages with their scores, the best first); returns how many rows.

    trec_eval sorts by the scores, in single precision, not by the ranks: a score that does not fall is
    written as the largest number below the one before.
    """
    n = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for question, passages in ranked:
            before = np.float32(np.inf)
            for rank, (passage, score) in enumerate(passages, 1):
                before = min(np.float32(score), np.nextafter(before, np.float32(-np.inf)))
                written = score if before == np.float32(score) else float(before)
                file.write(
                    f"{field(question)} Q0 {field(passage)} {rank} {written!r} {field(tag)}\n"
                )
                n += 1
    return n


def write_qrels(path: Path, grades: Iterable[tuple[str, str, int]]) -> int:
    """Write qrels: (question id, passage id, grade) each; returns how many rows."""
    n = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for question, passage, grade in grades:
            file.write(f"{field(question)} 0 {field(passage)} {grade}\n")
            n += 1
    return n


def write_topics(path: Path, questions: Iterable[tuple[str, str]]) -> int:
    """Write questions: (id, words) each, with a tab between; blanks of any kind are one blank."""
    n = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for id_, words in questions:
            file.write(f"{field(id_)}\t{' '.join(words.split())}\n")
            n += 1
    return n
