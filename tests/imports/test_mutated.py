"""Damaged exports: a clear count or error, and never half of what an error was raised for."""

import gzip
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exported_samples import FILES, SAMPLES
from fakes import WordEncoder
from rag_flywheel import Flywheel, FlywheelError, Passage

N = 200
ODD: list[Any] = [
    None, True, -1, 0, 10**30, 1e308, float("nan"), float("inf"), "", " ", "\x00", "\ud800", "x" * 6_000, [],
    {}, [[]], {"a": {"b": []}}, [None], "2026-13-45", -5e9, 10**400, "1e999", {"data": 3}, ["a", 1, None],
]  # fmt: skip
Mutation = Callable[[random.Random, bytes], bytes]


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def flipped(rng: random.Random, data: bytes) -> bytes:
    found = bytearray(data)
    for _ in range(rng.randrange(1, 12)):
        found[rng.randrange(len(found))] = rng.randrange(256)
    return bytes(found)


def repeated(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[max(0, at - rng.randrange(1, 400)) :]


def no_utf8(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + b"\xff\xfe\x80" + data[at:]


def half_packed(rng: random.Random, data: bytes) -> bytes:
    packed = gzip.compress(data)
    return rng.choice(
        [packed[: rng.randrange(2, len(packed))], flipped(rng, packed), b"\x1f\x8b" + data]
    )


def deep(rng: random.Random, data: bytes) -> bytes:
    n = rng.choice([50, 5_000, 200_000])
    nested = b'{"a":' * n + b"1" + b"}" * n if rng.random() < 0.5 else b"[" * n + b"]" * n
    at = data.find(b":", rng.randrange(len(data))) + 1
    return data[:at] + nested + b"," + data[at:]


def twice_a_key(rng: random.Random, data: bytes) -> bytes:
    places = [i for i in range(len(data)) if data[i : i + 2] == b'{"']
    if not places:
        return cut(rng, data)
    at = rng.choice(places) + 1
    end = data.find(b",", at) + 1
    return data[:end] + data[at:end] + data[end:]


def other_types(rng: random.Random, data: bytes) -> bytes:
    """Fields of JSON, or cells, that hold something else."""
    text = data.decode()
    try:
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError:
        try:
            rows = json.loads(text)
        except ValueError:
            cells = text.split(",")
            for _ in range(rng.randrange(1, 5)):
                cells[rng.randrange(len(cells))] = rng.choice(
                    ['"', "nan", "", "1e999", "\x00", "'=x", "9" * 500]
                )
            return ",".join(cells).encode("utf-8", "surrogatepass")
    for _ in range(rng.randrange(1, 4)):
        holder, key = rng.choice(list(places(rows)))
        holder[key] = rng.choice(ODD)
    lines = rows if isinstance(rows, list) and rng.random() < 0.5 else [rows]
    return "\n".join(json.dumps(line) for line in lines).encode()


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict | list):
        for key, each in list(value.items() if isinstance(value, dict) else enumerate(value)):
            yield value, key
            yield from places(each)


MUTATIONS: list[Mutation] = [
    cut, flipped, repeated, no_utf8, half_packed, deep, twice_a_key, other_types, other_types, other_types,
]  # fmt: skip


def _state(fw: Flywheel) -> list[str]:
    with fw._database.reading() as conn:
        return list(conn.iterdump())


@pytest.mark.thorough
@pytest.mark.parametrize("tool", FILES)
def test_mutated_files(tool: Any, tmp_path: Path, help_desk: list[Passage]) -> None:
    rng = random.Random(f"{tool} 25")
    outcomes = {"imported": 0, "refused": 0, "left out more": 0}
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as fw:
        fw.add(help_desk)
        for n in range(N):
            names = FILES[tool]
            damaged = rng.choice(names)
            mutation = rng.choice(MUTATIONS)
            paths = []
            for name in names:
                data = (SAMPLES / name).read_bytes()
                if name == damaged:
                    data = mutation(rng, data)
                path = tmp_path / name
                path.write_bytes(data)
                paths.append(path)
            before = _state(fw)
            try:
                dry = fw.import_files(tool, paths, dry_run=True)
            except FlywheelError as error:
                outcomes["refused"] += 1
                assert damaged in str(error), (n, mutation.__name__, error)
                with pytest.raises(FlywheelError):
                    fw.import_files(tool, paths)
                assert _state(fw) == before, "nothing of it came in"
                continue
            assert _state(fw) == before
            report = fw.import_files(tool, paths)
            outcomes["imported"] += 1
            outcomes["left out more"] += bool(report.left_out)
            assert (dry.retrievals, dict(dry.votes)) == (report.retrievals, dict(report.votes))
            again = fw.import_files(tool, paths)
            assert (again.retrievals, dict(again.votes), again.extended) == (0, {}, 0), (
                mutation.__name__
            )
        assert fw.verify() == []
        fw.retrieve("open settings and press reset")
        assert fw.refresh().outcome == "promoted"
    assert outcomes["refused"] > N // 10 and outcomes["imported"] > N // 10, outcomes
