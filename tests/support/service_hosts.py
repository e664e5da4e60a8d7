"""Services on several hosts that share their records: processes with names and clocks of their own."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from served import SUPPORT, Served, environment, served


def variables_of(name: str, skew_s: float = 0.0) -> dict[str, str]:
    """The environment of the processes of a host. skew_s: by how much its clock is ahead."""
    path = os.pathsep.join([str(SUPPORT / "another_host"), environment()["PYTHONPATH"]])
    return {"PYTHONPATH": path, "TEST_HOST": name, "TEST_SKEW_S": str(skew_s)}


@contextmanager
def host(
    folder: Path, state: str, name: str, *, skew_s: float = 0.0, options: Sequence[str] = ()
) -> Iterator[Served]:
    """A host that serves the index folder, with its records at the URL, until the block is left."""
    variables = variables_of(name, skew_s)
    with served(folder, options=["--state", state, *options], variables=variables) as found:
        yield found
