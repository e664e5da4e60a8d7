"""Every kind of user, on the four small collections: the results that `full_summary.py` reads.

    python benchmarks/learning/full.py --seeds 0 1 2
    python benchmarks/learning/full.py --seeds 0 --kinds wrong40 trust

RAG_FLYWHEEL_DATA holds the BEIR folders. Hours on one thread (OMP_NUM_THREADS=1). A result that is
there is not made again, so it can be stopped and taken up. Kinds that ask the same queries share
what no user can change.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rag_flywheel.bench.bench import Series, write_result
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.users import Users

COLLECTIONS = ("scifact", "metatool", "feedbackqa", "squad11_dev")
KINDS = {
    "main": Users(),
    "perfect": Users(eta=0.0, eps=0.0),
    "attention": Users(eps=0.0),
    "wrong40": Users(eps=0.4),
    "trust": Users(trust=0.3),
    "random5": Users(malicious=0.05, attack="random"),
    "inverted5": Users(malicious=0.05, attack="inverted"),
    "collude5": Users(malicious=0.05, attack="collude"),
    "answers": Users(answer_level=True),
}
"""main asks every train query and is scored on every test query, the others SOME."""
SOME = 3_000, 1_000  # train queries asked, test queries scored


@dataclass(frozen=True)
class Job:
    """A kind of user, under a seed, and where its result goes."""

    kind: str
    seed: int
    out: Path

    @property
    def protocol(self) -> Protocol:
        train, test = (None, None) if self.kind == "main" else SOME
        return Protocol(seed=self.seed, max_train=train, max_test=test, users=KINDS[self.kind])


def path_of(folder: Path, kind: str, seed: int) -> Path:
    """The file of a result."""
    return folder / f"full-{kind}-{seed}.json"


def run(jobs: Sequence[Job], folders: Sequence[Path]) -> None:
    """Run those of one seed that share a Series, one after the other."""
    with tempfile.TemporaryDirectory() as scratch:
        series = Series(folders, Path(scratch))
        for job in jobs:
            if job.out.exists():
                continue
            began = time.monotonic()
            write_result(series.run(job.protocol), job.out)
            spent = time.monotonic() - began
            print(f"{time.strftime('%H:%M:%S')} {job.out.name}: {spent:.0f} s", file=sys.stderr)


def main() -> None:
    """Run what is asked for and not yet there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--collections", nargs="+", default=list(COLLECTIONS))
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/results"))
    asked = parser.parse_args()
    folders = [find_collection(name) for name in asked.collections]
    for seed in asked.seeds:
        jobs = [Job(kind, seed, path_of(asked.folder, kind, seed)) for kind in asked.kinds]
        for whole in (True, False):
            alike = [job for job in jobs if (job.kind == "main") == whole]
            if not all(job.out.exists() for job in alike):
                run(alike, folders)


if __name__ == "__main__":
    main()
