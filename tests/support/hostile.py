"""Hostile files: a tiny index, ways to damage it, and what must hold of it whatever the damage.

Mutations are numbered by seeds, so that a failure, or the death of the process, names its cause.
"""

import hashlib
import json
import math
import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from fakes import WordEncoder
from folders import QUERY
from rag_flywheel import Flywheel, FlywheelError, Passage
from rag_flywheel.errors import InputError

PASSAGES = [Passage(f"p{i}", f"common word{i} and word{i + 1}", f"Title {i}") for i in range(8)]
DIM = 16
TIMEOUT_S = 20
USED_EVERY = 10  # a repair and a refresh take longer than all else
Answer = list[tuple[str, float]]
Damage = Callable[[random.Random, Path, bytes, bytes], None]


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder(DIM))


def make(root: Path) -> None:
    """An index of 8 passages with two versions, a vote and a write-ahead log."""
    with opened(root) as fw:
        fw.add(PASSAGES)
        fw.refresh()
        fw.feedback(fw.retrieve(QUERY).id, "p3", "helpful", user_id="u")
        fw.refresh()
        keep = fw.retrieve("word5 common")
        copy = root.with_name("with-log")
        fw.feedback(keep.id, "p5", "helpful", user_id="u")
        shutil.copytree(root, copy)  # while it is open, so that the log is there
    shutil.rmtree(root)
    copy.rename(root)
    (root / "flywheel.db-shm").unlink(missing_ok=True)


def answer(root: Path) -> Answer:
    with opened(root) as fw:
        return [(h.passage_id, h.score) for h in fw.retrieve(QUERY, record=False).hits]


def names(root: Path) -> list[str]:
    return sorted(
        p.relative_to(root).as_posix()
        for p in root.rglob("*")
        if p.is_file() and p.name not in {"refresh.lock", "flywheel.db-shm"}
    )


def flip(r: random.Random, path: Path, data: bytes, other: bytes) -> None:
    changed = bytearray(data or b"\0")
    for _ in range(r.choice([1, 1, 1, 3, 20])):
        changed[r.randrange(len(changed))] ^= r.randrange(1, 256)
    path.write_bytes(changed)


def flip_early(r: random.Random, path: Path, data: bytes, other: bytes) -> None:
    changed = bytearray(data or b"\0")
    changed[r.randrange(min(len(changed), 128))] = r.choice([0, 1, 0x7F, 0x80, 0xFF, 0x39, 0x5B])
    path.write_bytes(changed)


def truncate(r: random.Random, path: Path, data: bytes, other: bytes) -> None:
    path.write_bytes(data[: r.randrange(len(data) + 1)])


def extend(r: random.Random, path: Path, data: bytes, other: bytes) -> None:
    path.write_bytes(
        data + r.choice([b"\0", b"x", b"\n", data[:64], r.randbytes(r.randrange(500))])
    )


def zero(r: random.Random, path: Path, data: bytes, other: bytes) -> None:
    start = r.randrange(len(data) + 1)
    n = min(r.choice([1, 4, 8, 64, 4096]), len(data) - start)
    path.write_bytes(data[:start] + bytes(n) + data[start + n :])


def swap(r: random.Random, path: Path, data: bytes, other: bytes) -> None:
    path.write_bytes(other)


def splice(r: random.Random, path: Path, data: bytes, other: bytes) -> None:
    path.write_bytes(data[: r.randrange(len(data) + 1)] + other[r.randrange(len(other) + 1) :])


def huge_number(r: random.Random, path: Path, data: bytes, other: bytes) -> None:
    number = r.choice([2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1])
    size = 8 if number > 2**32 else 4
    where = r.randrange(min(len(data), r.choice([16, 128, 100_000])) + 1)
    path.write_bytes(data[:where] + number.to_bytes(size, "little") + data[where + size :])


def huge_text(r: random.Random, path: Path, data: bytes, other: bytes) -> None:
    """Another number for one in a text: in JSON, in TOML, in the header of an array."""
    digits = [i for i, byte in enumerate(data) if chr(byte).isdigit()]
    where = r.choice(digits) if digits else 0
    text = r.choice([b"9" * 18, b"1e400", b"-1", b"9" * 5000, b"NaN", b"Infinity", b"0", b'"x"'])
    path.write_bytes(data[:where] + text + data[where + 1 :])


def deep(r: random.Random, path: Path, data: bytes, other: bytes) -> None:
    path.write_bytes(r.choice([b"[", b'{"a":', b"[[", b"a.", b"("]) * r.choice([500, 100_000]))


def empty(r: random.Random, path: Path, data: bytes, other: bytes) -> None:
    path.write_bytes(b"")


def gone(r: random.Random, path: Path, data: bytes, other: bytes) -> None:
    path.unlink()


def link(r: random.Random, path: Path, data: bytes, other: bytes) -> None:
    path.unlink()
    path.symlink_to(r.choice(["/dev/zero", "/etc/passwd", path.name, "nowhere", "/dev/stdin"]))


def folder(r: random.Random, path: Path, data: bytes, other: bytes) -> None:
    path.unlink()
    path.mkdir()


def pipe(r: random.Random, path: Path, data: bytes, other: bytes) -> None:
    path.unlink()
    os.mkfifo(path)


CHANGES: list[Damage] = [
    *(flip, flip, flip, flip_early, flip_early, truncate, extend, zero, swap, splice),
    *(huge_number, huge_number, huge_text, huge_text, deep, empty),
]
REPLACEMENTS: list[Damage] = [gone, link, folder, pipe]


def mutate(root: Path, seed: int) -> tuple[str, str, bool]:
    """Damage one file; (its name, how, whether the manifest was made to agree)."""
    r = random.Random(seed)
    found = names(root)
    of_versions = [n for n in found if n.startswith("versions/")]
    others = [n for n in found if n not in of_versions]
    name = r.choice(of_versions if r.random() < 0.6 else others)
    path = root / name
    data, other = path.read_bytes(), (root / r.choice(found)).read_bytes()
    sealed = name in of_versions and path.name != "manifest.json" and r.random() < 0.5
    change = r.choice(CHANGES if sealed or r.random() < 0.9 else REPLACEMENTS)
    state = path.stat()
    change(r, path, data, other)
    if r.random() < 0.2 and path.is_file() and not path.is_symlink():
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # as if nothing had happened
    if sealed:
        reseal(root / Path(*Path(name).parts[:2]), "/".join(Path(name).parts[2:]))
    return name, change.__name__, sealed


def reseal(version: Path, name: str) -> None:
    manifest = version / "manifest.json"
    values = json.loads(manifest.read_text())
    data = (version / name).read_bytes()
    kind = "derived" if name.startswith("derived/") else "files"
    values[kind][name] = [hashlib.sha256(data).hexdigest(), len(data)]
    manifest.write_text(json.dumps(values))


def same(root: Path, name: str, data: bytes) -> bool:
    path = root / name
    return path.is_file() and not path.is_symlink() and path.read_bytes() == data


def problem(good: Path, root: Path, seed: int, expected: Answer) -> str | None:
    """Damage a copy of the good index; what does not hold of it then, None when all does."""
    shutil.copytree(good, root)
    try:
        name, how, sealed = mutate(root, seed)
        untouched = same(root, name, (good / name).read_bytes())
        wrong = _verdict(root, name, sealed, untouched, expected)
        if wrong is None and seed % USED_EVERY == 0:
            wrong = _used(root, name)
    except Exception:
        wrong, name, how, sealed = traceback.format_exc(), "?", "?", False
    finally:
        shutil.rmtree(root)
    return None if wrong is None else f"seed {seed}: {name} {how} sealed={sealed}: {wrong}"


def _verdict(root: Path, name: str, sealed: bool, untouched: bool, expected: Answer) -> str | None:
    """Version files: when the manifest does not agree, the version is never served and is named.
    When it does, or for any other file: an answer of finite scores, or a FlywheelError; and a
    version that cannot be read is named. The same answer, whenever the live version is refused to
    be changed: settings and files of versions that are not live do not alter what is served. What is
    derived from other files may be gone."""
    live = name.split("/")[1] == (root / "CURRENT").read_text().split()[0] if "/" in name else False
    served: Answer | None = None
    try:
        served = answer(root)
    except FlywheelError as error:
        refused = str(error)
        if name == "flywheel.toml" and isinstance(error, InputError):
            return None  # sound settings that differ: here, a shorter longest query
    try:
        with opened(root) as fw:
            named = fw.verify()
    except FlywheelError as error:
        named = [str(error)]
    if untouched:
        return None if served == expected and not named else f"nothing changed: {named}"
    if "/derived/" in name and not os.path.lexists(root / name):  # it is computed again
        return None if served == expected and not named else f"served {served}, named {named}"
    if served is not None and not all(math.isfinite(score) for _, score in served):
        return f"scores {served}"
    if name.startswith("versions/"):
        short = name.removeprefix("versions/")
        if not sealed and not name.endswith("manifest.json"):
            if live and served is not None:
                return "served though its manifest does not agree"
            if not any(short in said for said in named):
                return f"not named: {named}"
        if live and served is None and not named:
            return f"refused ({refused}) but not named"
        if not live and served != expected:
            return f"another version is damaged, but served {served}"
    elif served is None and not named:
        return f"refused ({refused}) but verify says nothing"
    return None


def _used(root: Path, name: str) -> str | None:
    """All else that an application does: a FlywheelError at most. Unless the settings or the
    database are damaged, a repair makes the folder sound, and it answers."""
    own = name.startswith(("flywheel.toml", "flywheel.db"))
    try:
        with opened(root) as fw:
            fw.repair()
            if not own and (left := fw.verify()):
                return f"still wrong after the repair: {left}"
            shown = fw.retrieve(QUERY)
            fw.feedback(shown.id, shown.hits[0].passage_id, "harmful")
            fw.add([Passage("new", "quite another word")])
            fw.refresh()
    except FlywheelError as error:
        return None if own else f"not repaired: {error}"
    return None


def _too_long(*_: object) -> None:
    raise TimeoutError(f"more than {TIMEOUT_S} s")


def run(good: Path, work: Path, first: int, n: int) -> list[str]:
    """The problems of n seeds from `first`, each damaged in a copy under `work`."""
    expected = answer(good)
    signal.signal(signal.SIGALRM, _too_long)
    found = []
    for seed in range(first, first + n):
        (work / "seed").write_text(str(seed))
        signal.alarm(TIMEOUT_S)
        wrong = problem(good, work / "kb", seed, expected)
        signal.alarm(0)
        if wrong is not None:
            found.append(wrong)
    return found


if __name__ == "__main__":
    good, work = Path(sys.argv[1]), Path(sys.argv[2])
    print(json.dumps(run(good, work, int(sys.argv[3]), int(sys.argv[4]))))
