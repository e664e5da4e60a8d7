"""Texts are embedded by the workers of a Dask cluster: each once, whatever dies, or a clear error."""

import logging
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dask_cluster import CountedEncoder, DaskCluster, environment
from rag_flywheel import (
    EncoderError,
    EncoderMismatchError,
    EncoderNotFoundError,
    Flywheel,
    InputError,
    Passage,
)
from rag_flywheel.encode import cluster as cluster_module
from rag_flywheel.encode.cluster import Cluster

N = 2_560  # ten batches
SPEC = "dask_cluster:counted_encoder"
slow = pytest.mark.slow  # a worker takes two seconds to start


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DaskCluster]:
    pytest.importorskip("distributed", reason="needs the extra dask")
    made = DaskCluster(tmp_path / "cluster", pause_s=0.1)
    try:
        yield made
    finally:
        made.close()


def passages(n: int = N) -> list[Passage]:
    return [Passage(f"p{i}", f"text number{i} of many") for i in range(n)]


def n_vectors(folder: Path) -> int:
    with sqlite3.connect(folder / "flywheel.db") as conn:
        (n,) = conn.execute("SELECT count(*) FROM vectors").fetchone()
    conn.close()
    return int(n)


@slow
def test_every_text_is_embedded_once_by_the_workers_and_found(
    cluster: DaskCluster, tmp_path: Path
) -> None:
    cluster.start()
    seen = []
    with Flywheel.open(tmp_path / "kb", encoder=SPEC, dask=cluster.address) as fw:
        fw.add(passages(), progress=lambda *step: seen.append(step))
        assert set(cluster.encoded().values()) == {1}
        assert len(cluster.encoded()) == n_vectors(tmp_path / "kb") == N
        assert len(cluster.pids()) == 2
        assert [done for _, done, _ in seen] == [*range(0, N, 256), N]
        with Flywheel.open(tmp_path / "here", encoder=SPEC) as here:
            here.add(passages())
            for query in ("number7", "number2559 of many"):
                found, wanted = fw.retrieve(query), here.retrieve(query)
                assert [(h.passage_id, h.score) for h in found.hits] == [
                    (h.passage_id, h.score) for h in wanted.hits
                ]
        before = cluster.encoded()
        fw.add([Passage("few", "a text that is embedded here")])
        assert cluster.encoded() == before


@slow
def test_a_change_of_the_encoder_and_a_refresh_embed_on_the_workers(
    cluster: DaskCluster, tmp_path: Path
) -> None:
    cluster.start()
    with Flywheel.open(tmp_path / "kb", encoder="fakes:word_encoder") as fw:
        fw.add(passages())
        fw.refresh()
    with Flywheel.open(tmp_path / "kb", dask=cluster.address) as fw:
        report = fw.change_encoder("dask_cluster:OtherEncoder", force=True)
        assert (report.outcome, report.scores["n_embedded"]) == ("promoted", N)
        assert set(cluster.encoded().values()) == {1}
        assert len(cluster.encoded()) == N
        assert fw.retrieve("number7").hits[0].passage_id == "p7"
    with sqlite3.connect(tmp_path / "kb" / "flywheel.db") as conn:
        conn.execute("DELETE FROM vectors WHERE revision = 'other'")
    conn.close()
    with Flywheel.open(tmp_path / "kb", dask=cluster.address) as fw:
        assert fw.refresh().scores["n_embedded"] == N
    assert set(cluster.encoded().values()) == {2}


@slow
def test_a_part_whose_worker_dies_goes_to_another_one(cluster: DaskCluster, tmp_path: Path) -> None:
    cluster.start()
    killed = []

    def kill_one(step: str, done: int, total: int) -> None:
        if done >= 512 and not killed:
            killed.append(cluster.workers[0])
            killed[0].kill()

    with Flywheel.open(tmp_path / "kb", encoder=SPEC, dask=cluster.address) as fw:
        fw.add(passages(), progress=kill_one)
    assert killed
    assert n_vectors(tmp_path / "kb") == len(cluster.encoded()) == N


@slow
def test_when_the_scheduler_dies_the_rest_goes_to_the_one_that_comes_up(
    cluster: DaskCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.start()
    stored: list[set[int]] = []

    def lose_power(step: str, done: int, total: int) -> None:
        if done >= 512 and not stored:
            cluster.kill()
            stored.append(cluster.pids())
            cluster.start()

    with (
        caplog.at_level(logging.WARNING, "rag_flywheel"),
        Flywheel.open(tmp_path / "kb", encoder=SPEC, dask=cluster.address) as fw,
    ):
        fw.add(passages(), progress=lose_power)
    assert f"the Dask scheduler at {cluster.address} is gone" in caplog.text
    encoded = cluster.encoded()
    assert n_vectors(tmp_path / "kb") == len(encoded) == N
    assert sum(n > 1 for n in encoded.values()) <= 4 * 256  # what the two threads had been given
    assert cluster.pids() - stored[0]


@slow
def test_a_program_that_is_killed_embeds_nothing_again_but_what_was_under_way(
    cluster: DaskCluster, tmp_path: Path
) -> None:
    cluster.start()
    program = (
        "import sys\nfrom rag_flywheel import Flywheel, Passage\n"
        f"with Flywheel.open(sys.argv[1], encoder={SPEC!r}, dask={cluster.address!r}) as fw:\n"
        f"    fw.add([Passage(f'p{{i}}', f'text number{{i}} of many') for i in range({N})])\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "kb")], env=environment()
    )
    try:
        cluster.wait_for(1_024)
    finally:
        child.kill()
        child.wait()
    stored = n_vectors(tmp_path / "kb")
    assert 0 < stored < N
    with Flywheel.open(tmp_path / "kb", encoder=SPEC, dask=cluster.address) as fw:
        fw.add(passages())
    encoded = cluster.encoded()
    assert n_vectors(tmp_path / "kb") == len(encoded) == N
    assert sum(n > 1 for n in encoded.values()) <= N - stored
    assert sum(encoded.values()) <= N + 5 * 256


@slow
@pytest.mark.parametrize(
    ("spec", "kind", "says"),
    [
        ("dask_cluster:TrainedAnewEncoder", EncoderMismatchError, "revision 1.*found .*revision 2"),
        ("dask_cluster:FailingEncoder", EncoderError, r"failed on \d+ texts \(OSError\)"),
        ("dask_cluster:DeadlyEncoder", EncoderError, "several workers of tcp://.* died"),
        ("only_here:encoder", EncoderNotFoundError, "No module named 'only_here'"),
    ],
)
def test_what_goes_wrong_on_workers_is_said_and_quotes_no_text(
    cluster: DaskCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spec: str,
    kind: type[Exception],
    says: str,
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "only_here.py").write_text("from fakes import word_encoder as encoder\n")
    monkeypatch.syspath_prepend(tmp_path / "here")
    cluster.start(n_workers=0)
    cluster.start_worker(again="Deadly" in spec)
    with Flywheel.open(tmp_path / "kb", encoder=spec, dask=cluster.address) as fw:
        with pytest.raises(kind, match=says) as caught:
            fw.add(passages(520))
        assert "number" not in str(caught.value)
        assert fw.status().n_passages == 0


def test_without_a_scheduler_it_is_said_after_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="needs the extra dask")
    nobody = Cluster("tcp://127.0.0.1:9", patience_s=0.1)
    began = time.monotonic()
    with pytest.raises(EncoderError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        list(nobody.encode(CountedEncoder().encode_passages, [["a"], ["b"]]))
    assert time.monotonic() - began < 30.0
    monkeypatch.setattr(cluster_module, "_TRY_S", 1.0)
    nobody = Cluster("tcp://127.0.0.1:9", patience_s=2.5)
    with pytest.raises(EncoderError):
        list(nobody.encode(CountedEncoder().encode_passages, [["a"]]))
    assert caplog.text.count("no Dask scheduler answers at tcp://127.0.0.1:9; waiting") == 1


@pytest.mark.parametrize("address", ["tls://127.0.0.1:9", "tls://[::1]:9"])
def test_a_connection_that_cannot_be_made_is_said_at_once(address: str) -> None:
    """Without certificates Dask has none for tls:// addresses, and waiting would not help."""
    pytest.importorskip("distributed", reason="needs the extra dask")
    began = time.monotonic()
    with pytest.raises(
        EncoderError, match=r"no connection to tls://.* can be made \((TypeError|AssertionError)"
    ):
        list(Cluster(address).encode(CountedEncoder().encode_passages, [["a"], ["b"]]))
    assert time.monotonic() - began < 30.0


@slow
def test_a_scheduler_without_workers_is_an_error_after_a_while_and_waits_for_late_ones(
    cluster: DaskCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.start(n_workers=0)
    embed = CountedEncoder().encode_passages
    with pytest.raises(EncoderError, match=r"has had no worker for 3 s; start some \(dask worker"):
        list(Cluster(cluster.address, patience_s=3.0).encode(embed, [["a"], ["b"]]))
    assert caplog.text.count("has no worker; waiting for one, for 3 s at most") == 1
    cluster.start_worker()  # takes longer than the call that follows
    found = dict(Cluster(cluster.address, patience_s=60.0).encode(embed, [["a"], ["b"]]))
    assert sorted(found) == [0, 1]
    np.testing.assert_array_equal(found[1], embed(["b"]))


def test_an_encoder_that_workers_cannot_make_is_refused_before_anything_is_done(
    tmp_path: Path,
) -> None:
    with pytest.raises(EncoderError, match="CountedEncoder, which Dask workers cannot make"):
        Flywheel.open(tmp_path / "kb", encoder=CountedEncoder(), dask="tcp://127.0.0.1:9")
    with Flywheel.open(tmp_path / "kb", encoder=SPEC, dask="tcp://127.0.0.1:9") as fw:
        fw.add([Passage("a", "text")])
        with pytest.raises(EncoderError, match="which Dask workers cannot make"):
            fw.change_encoder(CountedEncoder())


@pytest.mark.parametrize(
    "address",
    [
        *("", "localhost:8786", "http://host:1", "tcp://", "tcp:// a", 7),
        *("tcp://host", "tls://10.0.0.1", "tcp://host:port", "tcp://::1:8786", "tcp://host:"),
    ],
)
def test_what_is_no_address_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"expected the address of a scheduler, as tcp://host:8786"
    ):
        Flywheel.open(tmp_path / "kb", encoder=SPEC, dask=address)
    assert not (tmp_path / "kb").exists()


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(EncoderError, match=r"pip install 'rag-flywheel\[dask\]'"):
        list(Cluster("tcp://127.0.0.1:9").encode(CountedEncoder().encode_passages, [["a"], ["b"]]))


@slow
def test_the_commands_take_the_address(cluster: DaskCluster, tmp_path: Path) -> None:
    lines = "".join(f'{{"id": "p{i}", "text": "text number{i} of many"}}\n' for i in range(N))
    (tmp_path / "texts.jsonl").write_text(lines)
    kb = tmp_path / "kb"
    kb.mkdir()
    (kb / "flywheel.toml").write_text(f'format_version = 1\nencoder = "{SPEC}"\n')
    cluster.start()

    def run(*words: str, **more: str) -> str:
        command = [sys.executable, "-m", "rag_flywheel", *words, "--index", str(kb)]
        return subprocess.run(
            command,
            env={**environment(), **more},
            cwd=tmp_path,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    assert "added 2560," in run("add", "texts.jsonl", "--dask", cluster.address)
    assert len(cluster.encoded()) == n_vectors(kb) == N
    assert "promoted" in run("refresh", "--dask", cluster.address)
    run("change-encoder", "dask_cluster:OtherEncoder", "--force", RAG_FLYWHEEL_DASK=cluster.address)
    assert sum(cluster.encoded().values()) == 2 * N
