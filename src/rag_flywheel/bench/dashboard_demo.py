"""Makes the index that `make serve-demo` serves: the help desk of the demo, smaller, with a queue to review.

A few dozen simulated people ask and vote over three cycles, each followed by a refresh. Some name the answer
themselves, write one, or say that it is missing; a few questions have known answers, so that the gate has
golden questions to weigh. Run it as: python -m rag_flywheel.bench.dashboard_demo FOLDER
"""

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from rag_flywheel.bench.cycles import asking_of
from rag_flywheel.bench.demo import help_desk, prepare
from rag_flywheel.bench.users import OnAnswer, Users
from rag_flywheel.disk import disk_errors
from rag_flywheel.errors import counted
from rag_flywheel.flywheel import Flywheel
from rag_flywheel.formats.beir import Split
from rag_flywheel.records import Retrieval, Vote
from rag_flywheel.report.progress import Bars

N_CYCLES = 3
N_PEOPLE = 40
N_ASKED = 300  # questions in a cycle
N_KNOWN = 60  # questions with imported answers
_N_WRITTEN, _N_MISSING = 4, 4
_MARK = "whole"  # a folder without it was not finished


def make(folder: Path, *, seed: int = 0) -> None:
    """Make the index in a new folder."""
    collection, users, rng = help_desk(), Users(), np.random.default_rng(seed)
    train = collection.splits["train"]
    asked = sorted(train.queries)[:N_ASKED]
    with Bars() as bars:
        prepare(folder, collection, bars)
    with Flywheel.open(folder) as fw, Bars() as bars:
        fw.golden.add_answers(_known(collection.splits["test"]))
        for _ in range(N_CYCLES):
            order = rng.permutation(asked).tolist()

            def respond(
                place: int, seen: Retrieval, order: Sequence[str] = order
            ) -> Sequence[Vote | OnAnswer]:
                person = f"person-{int(N_PEOPLE * rng.random() ** 2)}"
                return users.feedback(seen, train.qrels[order[place]], person, rng)

            asking_of(fw, train, order, respond, progress=bars)()
            fw.refresh(progress=bars)
        _write_notes(fw, train)


def _known(split: Split) -> list[tuple[str, str, int]]:
    """The answers of the first questions of a split, as rows to import."""
    questions = islice(sorted(split.queries.items()), N_KNOWN)
    return [(text, id_, grade) for q, text in questions for id_, grade in split.qrels[q].items()]


def _write_notes(fw: Flywheel, train: Split) -> None:
    """Texts that users write as the answer, and reports that it is missing, which wait for a review."""
    texts = list(islice(sorted(train.queries.values()), _N_WRITTEN + _N_MISSING))
    for place, query in enumerate(texts):
        person = f"person-{place}"
        shown = fw.retrieve(query, user_id=person)
        if place < _N_WRITTEN:
            written = f"What worked for me: {shown.hits[0].title}, as its own page explains it."
            fw.correct(shown.id, text=written, user_id=person)
        else:
            fw.missing(shown.id, "none of these tells how", user_id=person)


def main(arguments: Sequence[str]) -> int:
    """Make the index, unless the folder holds it."""
    if len(arguments) != 1:
        print("expected one argument: the folder of the index", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    with disk_errors(folder):
        if (folder / _MARK).exists():
            return 0
        if folder.exists() and any(folder.iterdir()):
            print(
                f"{folder} is not empty, and not a whole index of this demo; remove it first",
                file=sys.stderr,
            )
            return 1
        make(folder)
        (folder / _MARK).touch()
    with Flywheel.open(folder) as fw:
        status = fw.status()
    print(f"{counted(status.n_passages, 'passage')}, {counted(status.n_votes, 'vote')}: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
