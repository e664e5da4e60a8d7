"""What moves when versions go through an object store: bytes and seconds, all of a version and what changed.

    RAG_FLYWHEEL_DATA=... python benchmarks/speed/speed_objects.py --work FOLDER

Passages come with their vectors. A version is published to an empty store and fetched into an empty folder;
then passages are edited, the index is refreshed, and the next version is published and fetched, of which only
what changed moves. The stores are a folder and a server of S3, that of moto, in a process of its own on
loopback: a program in Python, so that its seconds are an upper bound, and bytes are what counts.

"opened" compares two folders with what was fetched, one with the files that are computed from others, which
are not published, and one that computes them: what publishing them would save, and how large they are.

FOLDER/index is used when it is there, else built.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rag_flywheel import Config, Flywheel
from rag_flywheel.bench.machine import commit, machine
from rag_flywheel.deploy.manifest import Manifest
from rag_flywheel.deploy.objects import Objects
from rag_flywheel.deploy.versions import STAGING, VERSIONS, list_versions, read_manifest
from rag_flywheel.index.in_memory import InMemory
from rag_flywheel.index.parts import DERIVED_FOLDER
from speed_data import SEED, Data, read_data
from speed_edits import edited

LIBRARIES = ("numpy", "obstore")
_BUCKET = "versions"
_STARTS_S = 60.0
_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=int(sys.argv[1]), verbose=False)
server.start()
sys.stdin.read()
"""


@contextmanager
def s3_server(log: Path) -> Iterator[str]:
    """A server of S3 with a bucket; the URL of the bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(port)],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
        )
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "measured",
        "AWS_SECRET_ACCESS_KEY": "measured",
        "AWS_REGION": "us-east-1",
    }
    try:
        end = time.monotonic() + _STARTS_S
        while time.monotonic() < end:
            with socket.socket() as asked:
                if not asked.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.1)
        import boto3

        boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).create_bucket(
            Bucket=_BUCKET
        )
        yield f"s3://{_BUCKET}"
    finally:
        server.terminate()
        server.wait(30)


def moved(objects: Objects, root: Path, host: Path, manifest: Manifest) -> dict[str, Any]:
    """Publish a version and fetch it: files, bytes and seconds, beside all that the version has."""
    began = time.perf_counter()
    sent = objects.publish(root / VERSIONS / manifest.id, manifest)
    between = time.perf_counter()
    fetched = objects.fetch(host, manifest.id)
    ended = time.perf_counter()
    every = dict(manifest.files.values())
    return {
        "files": len(every),
        "bytes": sum(every.values()),
        "sent_files": sent.n_parts,
        "sent_bytes": sent.n_bytes,
        "publish_s": round(between - began, 2),
        "fetched_files": fetched.n_parts,
        "fetched_bytes": fetched.n_bytes,
        "linked_files": fetched.n_linked,
        "fetch_s": round(ended - between, 2),
    }


def opened(folder: Path, manifest: Manifest, scratch: Path) -> dict[str, Any]:
    """Seconds to load the texts of a version with its computed files and without; and their bytes."""
    without = scratch / "without"
    shutil.copytree(folder, without, ignore=shutil.ignore_patterns(DERIVED_FOLDER))
    spent: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(3):
        for name, place in (("with", folder), ("without", without)):
            began = time.perf_counter()
            InMemory.load(place, dim=manifest.dim, n_texts=manifest.n_passages)
            spent[name].append(time.perf_counter() - began)
    shutil.rmtree(without)
    n_bytes = sum(size for _, size in manifest.derived.values())
    return {f"{name}_s": round(min(each), 2) for name, each in spent.items()} | {"bytes": n_bytes}


def newest(root: Path) -> Manifest:
    return read_manifest(root, list_versions(root)[-1])


def through(
    stores: dict[str, Objects], root: Path, work: Path, data: Data, edits: dict[str, list[int]]
) -> dict[str, Any]:
    """The first version through each store, and the next ones after these edits."""
    result: dict[str, Any] = {name: {} for name in stores}
    for name in stores:
        host = work / f"host-{name}"
        shutil.rmtree(host, ignore_errors=True)
        (host / STAGING).mkdir(parents=True)
    for step, places in {"first": [], **edits}.items():
        if places:
            with Flywheel.open(root, encoder=data.encoder) as fw:
                fw.add(edited(data, places, step))
                fw.refresh()
        for name, objects in stores.items():
            print(f"{time.strftime('%H:%M:%S')} {step}: {name}", file=sys.stderr, flush=True)
            result[name][step] = moved(objects, root, work / f"host-{name}", newest(root))
    return result


def main() -> None:
    """Measure, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", default="aws_docs")
    parser.add_argument("--passages", type=int, default=159_173)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed_objects.json"))
    asked = parser.parse_args()
    data = read_data(asked.collection, asked.passages)
    index, root = asked.work / "index", asked.work / "writer"
    if not index.exists():
        with Flywheel.open(index, encoder=data.encoder, config=Config(encoder="")) as fw:
            fw.add(data.passages)
            fw.refresh()
    for name in ("writer", "store"):
        shutil.rmtree(asked.work / name, ignore_errors=True)
    shutil.copytree(index, root)
    every = list(range(0, len(data.passages), 100))
    edits = {"one_edit": every[1:2], "percent_edited": every}
    with s3_server(asked.work / "s3.log") as url:
        stores = {
            "folder": Objects.at((asked.work / "store").absolute().as_uri()),
            "s3": Objects.at(f"{url}/kb"),
        }
        found = through(stores, root, asked.work, data, edits)
    manifest = newest(root)
    result = {
        "commit": commit(),
        "seed": SEED,
        "machine": machine(*LIBRARIES),
        "collection": asked.collection,
        "n_passages": len(data.passages),
        "edits": {name: len(places) for name, places in edits.items()},
        **found,
        "opened": opened(root / VERSIONS / manifest.id, manifest, asked.work),
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
