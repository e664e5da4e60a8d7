"""Processes of several hosts ask, vote and edit while another refreshes, and is killed, again and again."""

import time
from contextlib import ExitStack

import pytest

from hosts import Shared, come_to

pytestmark = pytest.mark.slow
N_KILLED, N_EACH = 4, 2


def test_hosts_at_work_while_a_refresher_is_killed_lose_nothing(shared: Shared) -> None:
    """The refresher is killed in another step of its work each time."""
    one, *_ = shared.begun("one")
    users, stop = [("one", "a"), ("two", "b"), ("two", "c"), ("three", "d")], shared.folder / "stop"
    with ExitStack() as stack:
        workers = [
            stack.enter_context(shared.worker(host, "use", name, str(stop), script="load_worker"))
            for host, name in users
        ]
        for n in range(N_KILLED):
            with shared.worker(
                "job", "refresh", f"r{n}", str(stop), script="load_worker"
            ) as refresher:
                for _ in range(N_EACH):
                    assert refresher.said(within_s=120)[0] == "refreshed"
                time.sleep(0.4 * n)
        stop.touch()
        found = [worker.said(within_s=120) for worker in workers]
        assert [worker.ended() for worker in workers] == [0] * len(workers)
    assert [wrong for *_, wrong in found] == [[]] * len(users)
    assert one.status().n_votes == sum(n_votes for n_votes, *_ in found) > 50
    report = one.refresh()
    for host in ("one", "two", "three", "job"):
        fw = shared.open(host)
        come_to(fw, report.version)
        assert fw.verify() == []
        assert fw.status().n_passages == one.status().n_passages
