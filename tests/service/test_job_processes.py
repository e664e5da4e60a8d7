"""The process of a job is known from the moment it is made until it ends."""

import subprocess
import time

from rag_flywheel.service.jobs import is_job


def begin(id_: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["/bin/sh", "-c", "read x", id_], stdin=subprocess.PIPE)


def end(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


def test_a_process_that_was_just_made_is_the_job() -> None:
    for n in range(50):  # its words are not there yet, more often than not
        process = begin(f"job{n}")
        try:
            assert is_job(process.pid, f"job{n}")
        finally:
            end(process)


def test_another_process_and_one_that_has_ended_are_not() -> None:
    process = begin("one")
    try:
        deadline = time.monotonic() + 10
        while is_job(process.pid, "another") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_job(process.pid, "another")
        assert process.stdin is not None
        process.stdin.close()
        while is_job(process.pid, "one") and time.monotonic() < deadline:
            time.sleep(0.01)  # then it is a zombie
        assert not is_job(process.pid, "one")
    finally:
        process.wait()
    assert not is_job(process.pid, "one")
