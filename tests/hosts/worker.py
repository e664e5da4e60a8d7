"""A process of a host: worker.py URL FOLDER OBJECTS refresh|forget [POINT [SIGSTOP]].

It comes to a point of its work, says so, and ends itself by SIGKILL, or stops by SIGSTOP, just before or
after it. On stdout, one JSON line each: "ready"; "there", at the point; the outcome of the call, or its
error.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fakes import WordEncoder
from rag_flywheel import Flywheel, Passage
from rag_flywheel.deploy import objects, promote
from rag_flywheel.errors import FlywheelError

POINTS: dict[str, tuple[Any, str, str]] = {
    "building": (promote, "share", "before"),  # nothing was sent yet
    "sending": (objects.Objects, "_put_manifest", "before"),  # parts are there, the manifest is not
    "sent": (promote, "_share", "after"),  # the version is in the store, the row is not written
    "row": (promote, "write_current", "before"),  # the row is committed
    "current": (promote, "write_current", "after"),  # so is CURRENT of this folder
    "telling": (promote, "tell", "after"),  # so is CURRENT of the store
    "pruning": (
        objects.Objects,
        "delete",
        "before",
    ),  # rows of old versions are deleted, files are not
    "sweeping": (
        objects.Objects,
        "sweep",
        "before",
    ),  # manifests of old versions are deleted as well
}
"""By their names: what is called there, and whether the process ends before that call or after it."""


def say(*what: object) -> None:
    print(json.dumps(what), flush=True)


def end_at(point: str, sign: signal.Signals) -> None:
    """Send a signal to this process once it comes to the point."""
    place, name, when = POINTS[point]
    call: Callable[..., Any] = getattr(place, name)

    def ended(*values: Any, **more: Any) -> Any:
        if when == "before":
            say("there")
            os.kill(os.getpid(), sign)
        found = call(*values, **more)
        if when == "after":
            say("there")
            os.kill(os.getpid(), sign)
        return found

    setattr(place, name, ended)


if __name__ == "__main__":
    url, folder, store, what, *at = sys.argv[1:]
    with Flywheel.open(url, cache=Path(folder), objects=store, encoder=WordEncoder()) as fw:
        if at:
            end_at(at[0], signal.Signals[at[1]] if len(at) > 1 else signal.SIGKILL)
        say("ready")
        try:
            if what == "forget":
                say(fw.forget("ann").version)
            else:
                fw.add([Passage("more", "common word3 of another kind")])
                say(fw.refresh().outcome)
        except FlywheelError as error:
            say(type(error).__name__, str(error))
