"""What an index of a size needs, by a model of what was measured: a rough guide beyond the sizes that were.

    sizing.py --passages 1e7 --dim 384 --questions 50 --gbit 1

Times are of one processor core like the one that the results were measured on; docs/how-to/many-hosts.md
says what the model assumes.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
DIM = 384  # of the vectors that were measured
_NUMBER = 4  # bytes of one of theirs


def _result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


class Sizing:
    """The model, from the result files.

    n: passages. dim: numbers of a vector. Times are in ms or s of one core, sizes in bytes.
    """

    def __init__(self) -> None:
        growth, query, refresh = map(_result, ("speed_growth", "speed_query", "speed_refresh"))
        number, largest = list(growth["sizes"].items())[-1]
        self.measured = int(number)
        self.slope = float(growth["slope_of_a_new_question"])
        self.memory_each = float(largest["above_imports_mib"]) * 2**20 / self.measured
        self.memory_base = float(largest["peak_before_mib"]) * 2**20
        self.database_each = float(refresh["bytes_a_passage"]["database"])
        self.version_each = float(refresh["bytes_a_passage"]["version"])
        room = refresh["bytes"]
        versions = room["ten_versions"]["all"], room["first_version"]["all"]
        self.changed_share = float(versions[0] - versions[1]) / 9 / versions[1]
        self.refresh_s_each = float(refresh["refresh"]["1_percent"]["cpu_s"]) / self.measured
        recorded = query["sizes"][-1]["retrieve"]["threads_1"]["ours_recorded"]
        self.recorded_ms = float(recorded["cpu_p50_ms"])
        encoding = _result("encoding")
        self.encode_ms = float(encoding["one_query"]["ours"]["p50_ms"])
        self.embedded_per_s = float(encoding["passages"]["ours_per_s"])
        self.service_ms = float(_result("speed_service")["one_caller"]["above_ms"])

    def question_ms(self, n: float) -> float:
        """A new question of a user, from its text to the recorded answer, through the service."""
        searched = self.recorded_ms * math.pow(n / self.measured, self.slope)
        return searched + self.encode_ms + self.service_ms

    def per_core(self, n: float) -> float:
        """Questions a second of one core."""
        return 1000 / self.question_ms(n)

    def memory(self, n: float, dim: int) -> float:
        """Of each process that answers, without the model."""
        return self.memory_base + n * (self.memory_each + _NUMBER * (dim - DIM))

    def database(self, n: float, dim: int) -> float:
        """Of the store of passages and their vectors, without votes."""
        return n * (self.database_each + _NUMBER * (dim - DIM))

    def version(self, n: float, dim: int) -> float:
        """Of the files of one version."""
        return n * (self.version_each + _NUMBER * (dim - DIM))

    def fetch_s(self, n: float, dim: int, gbit: float, *, share: float = 1.0) -> float:
        """Until a host has a version. share: of its bytes that move; `changed_share` after a hundredth of
        the passages changed."""
        return self.version(n, dim) * share * 8 / (gbit * 1e9)

    def embed_hours(self, n: float) -> float:
        """To embed all passages with the default model, once."""
        return n / self.embedded_per_s / 3600

    def refresh_s(self, n: float) -> float:
        """A refresh after a hundredth of the passages changed, without embedding."""
        return n * self.refresh_s_each

    def cores(self, n: float, questions_per_s: float) -> int:
        """To answer so many questions a second, half of the time idle."""
        return math.ceil(2 * questions_per_s / self.per_core(n))

    def rows(self, n: float, dim: int, gbit: float) -> dict[str, str]:
        """What the page and the program show of a size, by name."""
        return {
            "memory of each process": f"{self.memory(n, dim) / 1e9:,.1f} GB",
            "the store, on disk": f"{self.database(n, dim) / 1e9:,.1f} GB",
            "a version, on disk": f"{self.version(n, dim) / 1e9:,.1f} GB",
            "one core: a question": f"{self.question_ms(n):.1f} ms",
            "one core: questions a second": f"{self.per_core(n):.0f}",
            "one core: embedding all, once": _time(self.embed_hours(n) * 3600),
            "one core: a refresh after 1 % changed": _time(self.refresh_s(n)),
            "fetching a whole version": _time(self.fetch_s(n, dim, gbit)),
            "fetching after 1 % changed": _time(
                self.fetch_s(n, dim, gbit, share=self.changed_share)
            ),
        }


def _time(seconds: float) -> str:
    for unit, in_s in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * in_s:
            return f"{seconds / in_s:,.1f} {unit}"
    return f"{seconds:.1f} s"


def main() -> None:
    """Print the needs of one size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passages", type=float, default=1e6)
    parser.add_argument("--dim", type=int, default=DIM)
    parser.add_argument("--questions", type=float, default=50, help="a second, at the busiest")
    parser.add_argument("--gbit", type=float, default=1, help="a second, to the object store")
    given = parser.parse_args()
    sizing = Sizing()
    for name, value in sizing.rows(given.passages, given.dim, given.gbit).items():
        print(f"{name:42}{value}")
    print(f"{'cores, half idle':42}{sizing.cores(given.passages, given.questions)}")


if __name__ == "__main__":
    main()
