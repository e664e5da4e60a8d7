"""Three hosts and one folder, to which the same is done in a random order, answer the same."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from hosts import Shared, come_to
from rag_flywheel import Flywheel, FlywheelError, Passage, restore

N_STEPS = 40
HOSTS = ["a", "b", "c"]
STEPS = {
    "add": 4, "edit": 3, "remove": 2, "vote": 10, "refresh": 5, "rollback": 2, "release": 2, "forget": 1,
    "opt_out": 1, "reopen": 3, "lose": 1, "backup": 1, "restore": 1,
}  # fmt: skip
"""What is done, and how often; a host that loses its folder joins again."""


class Twins:
    """An index in one folder, and the same one of several hosts."""

    def __init__(self, shared: Shared, folder: Path, seed: int) -> None:
        self.shared, self.folder, self.random = shared, folder, random.Random(seed)
        self.one = Flywheel.open(folder / "one", encoder=WordEncoder())
        self.hosts = {name: shared.open(name) for name in HOSTS}
        self.ids: list[str] = []
        self.versions: dict[str | None, str | None] = {None: None}  # of the folder: of the hosts
        self.n_saved = 0

    def text(self) -> str:
        words = [f"word{self.random.randrange(30)}" for _ in range(self.random.randint(3, 12))]
        return " ".join(words)

    def both(self, call: Callable[[Flywheel], Any]) -> tuple[Any, Any]:
        """What a call returns, or the name of its error, of the folder and of any host."""

        def result(fw: Flywheel) -> Any:
            try:
                return call(fw)
            except FlywheelError as error:
                return type(error).__name__

        return result(self.one), result(self.hosts[self.random.choice(HOSTS)])

    def step(self, name: str) -> None:
        """Do one thing to both."""
        getattr(self, name)()
        if name in ("refresh", "restore"):
            version = self.versions.get(self.one.status().version)
            for host in self.hosts.values():
                come_to(host, version)

    def same(self, call: Callable[[Flywheel], Any]) -> None:
        here, there = self.both(call)
        assert here == there

    def add(self) -> None:
        self.ids.append(f"p{len(self.ids)}")
        passage = Passage(self.ids[-1], self.text())
        self.same(lambda fw: fw.add([passage]).added)

    def edit(self) -> None:
        passage = Passage(self.random.choice(self.ids), self.text())
        self.same(lambda fw: fw.add([passage]).updated)

    def remove(self) -> None:
        doomed = self.random.choice(self.ids)
        self.same(lambda fw: fw.remove([doomed]) and None)

    def vote(self) -> None:
        query, n = self.text(), self.random.randrange(3)
        user = self.random.choice(["ann", "bob", "eve", None])
        verdict = self.random.choice(["helpful", "harmful"])

        def call(fw: Flywheel) -> str | None:
            found = fw.retrieve(query, k=5, user_id=user)
            if found.id is None or n >= len(found.hits):
                return None
            fw.feedback(found.id, found.hits[n].passage_id, verdict, user_id=user)
            return found.hits[n].passage_id

        self.same(call)

    def refresh(self) -> None:
        here, there = self.both(lambda fw: fw.refresh())
        assert here.outcome == there.outcome
        self.versions[here.version] = there.version

    def rollback(self) -> None:
        versions = [version.id for version in self.one.versions()]
        if len(versions) > 1:
            to = self.random.choice(versions)
            here, there = self.both(lambda fw: fw.rollback(to if fw is self.one else self._of(to)))
            assert self.versions.get(here, here) == there

    def _of(self, version: str) -> str:
        found = self.versions[version]
        assert found is not None
        return found

    def release(self) -> None:
        self.same(lambda fw: fw.release())

    def forget(self) -> None:
        user = self.random.choice(["ann", "bob"])
        here, there = self.both(lambda fw: fw.forget(user))
        self.versions[here.version] = there.version

    def opt_out(self) -> None:
        self.same(lambda fw: fw.opt_out("eve"))

    def reopen(self) -> None:
        name = self.random.choice(HOSTS)
        self.hosts[name].close()
        self.hosts[name] = self.shared.open(name)

    def lose(self) -> None:
        name = self.random.choice(HOSTS)
        self.hosts[name].close()
        shutil.rmtree(self.shared.root(name))
        self.hosts[name] = self.shared.open(name)

    def backup(self) -> None:
        self.n_saved += 1
        self.same(lambda fw: fw.backup(self._saved(self.n_saved, fw is self.one)) and None)

    def _saved(self, n: int, of_one: bool) -> Path:
        return self.folder / f"saved-{n}-{'one' if of_one else 'hosts'}"

    def restore(self) -> None:
        if self.n_saved:
            n = self.random.randint(1, self.n_saved)
            restore(self._saved(n, True), self.folder / "one")
            restore(self._saved(n, False), self.shared.root(self.random.choice(HOSTS)))

    def compare(self) -> None:
        """See that every host answers a question as the folder does."""
        query = self.text()
        expected = order(self.one, query)
        for name, host in self.hosts.items():
            assert order(host, query) == expected, name


def order(fw: Flywheel, query: str) -> list[tuple[str, float]]:
    found = fw.retrieve(query, k=6, record=False)
    return [(hit.passage_id, round(hit.score, 5)) for hit in found.hits]


@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3, 4))])
def test_hosts_answer_as_one_folder_whatever_is_done(
    shared: Shared, tmp_path: Path, seed: int
) -> None:
    twins = Twins(shared, tmp_path, seed)
    try:
        twins.add()
        for name in twins.random.choices(list(STEPS), list(STEPS.values()), k=N_STEPS):
            twins.step(name)
            twins.compare()
        assert [host.verify() for host in twins.hosts.values()] == [[], [], []]
    finally:
        twins.one.close()
