"""Reads runs, qrels and questions of TREC: a run is what was shown, and a grade in the qrels is a vote on
it."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from rag_flywheel.errors import InputError, counted
from rag_flywheel.formats.imported import LeftOut, Reading
from rag_flywheel.formats.json_values import ReadBytes, ending_of, opened, texts, values_of
from rag_flywheel.formats.qrels import whole_number
from rag_flywheel.formats.tools.fields import is_number, text_of, whole_of
from rag_flywheel.records import ImportedHit, ImportedRetrieval, ImportedVote

ASSESSOR = "trec-assessor"
_MOST_LINE = 2**20


def read_trec(paths: list[Path], read: ReadBytes | None = None) -> Reading:
    """The retrievals and votes of files, whose kinds are known by their columns: six of a run, four or
    three of qrels; id and words, with a tab between, or JSONL with _id and text, of the questions.

    Raises InputError, OSError.
    """
    words: dict[str, str] = {}
    others = []
    for path in paths:
        kind = _kind(path)
        if kind == "questions":
            words.update(_questions(path, read))
        else:
            others.append((path, kind))
    if not others:
        raise InputError(
            f"{', '.join(map(str, paths))}: found questions alone; expected a run or qrels with them"
        )
    for path, kind in others:
        yield from (_run(path, words, read) if kind == "run" else _qrels(path, words, read))


def _kind(path: Path) -> str:
    if ending_of(path) in (".jsonl", ".ndjson", ".json"):
        return "questions"
    with opened(path) as pieces:
        for n, line in _lines(path, texts(path, pieces)):
            if line.count("\t") == 1:  # first, since a question may end in a number
                return "questions"
            cells = line.split()
            if len(cells) == 6 and is_number(cells[3]) and is_number(cells[4]):
                return "run"
            if len(cells) in (3, 4) and is_number(cells[-1]):
                return "qrels"
            if len(cells) in (3, 4) and n == 1 and cells[-1].casefold() in ("score", "grade"):
                return "qrels"
            raise InputError(
                f"{path}, line {n} has {counted(len(cells), 'column')}; expected the six of a run, the "
                "four of qrels, or an id and a question with a tab between"
            )
    return "questions"


def _lines(path: Path, pieces: Iterator[str]) -> Iterator[tuple[int, str]]:
    """(number, line) of each line that is not blank."""
    left, n = "", 0
    for piece in pieces:
        *lines, left = (left + piece).split("\n")
        if len(left) > _MOST_LINE:
            raise InputError(
                f"{path}, line {n + len(lines) + 1} is longer than 1 MB; expected columns"
            )
        for line in lines:
            n += 1
            if line.strip():
                yield n, line.rstrip("\r")
    if left.strip():
        yield n + 1, left


def _questions(path: Path, read: ReadBytes | None) -> Iterator[tuple[str, str]]:
    if ending_of(path) in (".jsonl", ".ndjson", ".json"):
        for where, value in values_of(path, read):
            found = value if isinstance(value, dict) else {}
            id_ = text_of(found.get("_id")) or text_of(found.get("id"))
            words = text_of(found.get("text")) or text_of(found.get("query"))
            if id_ is None or words is None:
                raise InputError(f"{where} has no _id and text; expected a question a line")
            yield id_, words
        return
    with opened(path, read) as pieces:
        for n, line in _lines(path, texts(path, pieces)):
            id_, tab, words = line.partition("\t")
            if not tab or not words.strip():
                raise InputError(
                    f"{path}, line {n} has no tab; expected an id, a tab and a question"
                )
            yield id_.strip(), words.strip()


def _run(path: Path, words: dict[str, str], read: ReadBytes | None) -> Reading:
    with opened(path, read) as pieces:
        for n, line in _lines(path, texts(path, pieces)):
            cells = line.split()
            rank = whole_of(cells[3]) if len(cells) == 6 else None
            if rank is None:
                raise InputError(
                    f"{path}, line {n} is no row of a run; expected question, Q0, passage, rank, "
                    "score and tag"
                )
            if cells[0] not in words:
                yield LeftOut("rows of runs whose question is in none of the files")
                continue
            hit = ImportedHit(_ids(cells[2]), max(rank, 1))
            yield ImportedRetrieval(cells[0], words[cells[0]], (hit,))


def _qrels(path: Path, words: dict[str, str], read: ReadBytes | None) -> Reading:
    with opened(path, read) as pieces:
        for n, line in _lines(path, texts(path, pieces)):
            where, cells = f"{path}, line {n}", line.split()
            if n == 1 and not is_number(cells[-1]):
                continue  # a header, as BEIR has it
            if len(cells) not in (3, 4):
                raise InputError(f"{where} has {len(cells)} columns; expected the four of qrels")
            question, passage, grade = cells[0], cells[-2], whole_number(cells[-1], where)
            if question not in words:
                yield LeftOut("grades whose question is in none of the files")
                continue
            yield ImportedRetrieval(question, words[question], (ImportedHit(_ids(passage), 0),))
            yield ImportedVote(
                f"{question}\t{passage}",
                question,
                "helpful" if grade > 0 else "harmful",
                ImportedHit(_ids(passage)),
                user_id=ASSESSOR,
            )


def _ids(cell: str) -> tuple[str, ...]:
    """The ids that a column may stand for: itself, or with %20 and the like for what a column cannot hold."""
    return tuple(dict.fromkeys((cell, unquote(cell))))
