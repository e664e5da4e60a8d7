"""Publishes or fetches a version in processes that end themselves by SIGKILL, each a moment later.

    killed_at.py publish|fetch URL BUILT WORK STEP

URL: of an empty store; BUILT: an index with versions; WORK: a folder; STEP: how many moments later each ends.
After each, another process looks at what is there, and does it again. Says JSON: how many moments there were.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rag_flywheel.deploy import versions
from rag_flywheel.deploy.manifest import Manifest
from rag_flywheel.deploy.object_store import ObjectStore
from rag_flywheel.deploy.objects import PARTS, Objects

EVENTS = frozenset({"os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.chmod"})


class Moments:
    """Counts calls of the store and changes of files, and ends the process at one of them."""

    def __init__(self, last: int, folder: Path) -> None:
        self.left, self.folder = last, str(folder)
        sys.addaudithook(self._hook)

    def passed(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS or (event == "open" and self.folder in str(arguments[0])):
            self.passed()


class Counted(ObjectStore):
    """A store that passes a moment before each request and after it."""

    moments: Moments | None = None

    def _asked(self, *arguments: Any, **more: Any) -> Any:
        if self.moments is not None:
            self.moments.passed()
        found = super()._asked(*arguments, **more)
        if self.moments is not None:
            self.moments.passed()
        return found


def in_child(work: Callable[[], None]) -> int:
    """The status of a process that does this; before it, this one has not used the store."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def states(objects: Objects) -> dict[str, Any]:
    return {state.name: state.tag for state in objects.store.listed(PARTS)}


def check_published(objects: Objects, folder: Path, manifest: Manifest, work: Path) -> None:
    before = states(objects)
    if objects.versions():
        assert objects.versions() == [manifest.id]
        assert len(before) == len(set(manifest.files.values())), "a manifest before its parts"
    sent = objects.publish(folder, manifest)
    after = states(objects)
    assert {name: after[name] for name in before} == before, "sent again"
    assert sent.n_skipped == len(before)
    (work / "fetched").mkdir()
    objects.fetch(work / "fetched", manifest.id)
    assert versions.check(work / "fetched", manifest.id) == []


def check_fetched(objects: Objects, root: Path, manifest: Manifest) -> None:
    if versions.list_versions(root):
        assert versions.list_versions(root) == [manifest.id]
        assert versions.check(root, manifest.id) == []
    objects.fetch(root, manifest.id)
    assert versions.check(root, manifest.id) == []
    assert list((root / "staging").iterdir()) == []
    assert versions.strays(root) == []


def main(what: str, url: str, built: Path, work: Path, step: int) -> None:
    version = versions.list_versions(built)[0]
    manifest, folder = versions.read_manifest(built, version), built / "versions" / version
    if what == "fetch":
        assert in_child(lambda: _publish(f"{url}/all", folder, manifest)) == 0
    for n in range(1, 100_000, step):
        root = work / f"at-{n}"
        root.mkdir()
        place = f"{url}/{n}" if what == "publish" else f"{url}/all"

        def killed(n: int = n, place: str = place, root: Path = root) -> None:
            store = Counted(place)
            store.moments = Moments(n, root)
            if what == "publish":
                Objects(store).publish(folder, manifest)
            else:
                Objects(store).fetch(root, manifest.id)

        def checked(place: str = place, root: Path = root) -> None:
            objects = Objects.at(place)
            if what == "publish":
                check_published(objects, folder, manifest, root)
            else:
                check_fetched(objects, root, manifest)

        code = in_child(killed)
        assert code in (0, -signal.SIGKILL), code
        assert in_child(checked) == 0, f"{what}, ended at moment {n}"
        shutil.rmtree(root)
        if code == 0:
            print(json.dumps(n))
            return


def _publish(url: str, folder: Path, manifest: Manifest) -> None:
    Objects.at(url).publish(folder, manifest)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5]))
