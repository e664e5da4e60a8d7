"""Helpers for tests of what a version heard: a folder as a new process finds it, heard or judged."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.curate.source import Source
from rag_flywheel.deploy.loaded import LoadedVersion
from rag_flywheel.encode.encoder_slot import OneEncoder
from rag_flywheel.serve.answers import Request
from rag_flywheel.serve.catch_up import initial_state
from rag_flywheel.serve.live import LiveState
from rag_flywheel.serve.live_version import LastLoaded, current_of, read_live
from rag_flywheel.serve.lookups import Lookups
from rag_flywheel.serve.server import Server
from rag_flywheel.serve.state import State
from rag_flywheel.store.place import open_database
from rag_flywheel.store.tenants import Tenants

DIM = 32
QUERIES = ["reset login", "refund secret", "page month reset", "login page"]
TEXTS = [f"{query} text{i}" for i, query in enumerate(QUERIES)]
WHERE = [None, {"team": "a"}, {"team": "b"}]
CONFIG = Config(encoder="", tenant_key="team", tenant_required=False, retention_days=30)


class Opened:
    """A folder as a new process finds it, with what its version heard or without."""

    def __init__(self, root: Path, config: Config = CONFIG) -> None:
        self.root, self.config, self.encoder = root, config, WordEncoder(DIM)
        self.database = open_database(root)
        self.source = Source(self.encoder, config)
        self.version, self.frozen_at = read_live(
            root, self.database, LastLoaded(OneEncoder(self.encoder))
        )

    def state(self, version: LoadedVersion | None = None) -> State:
        with self.database.snapshot() as conn:
            return initial_state(version or self.version, self.frozen_at, conn, self.source)

    def deaf(self) -> LoadedVersion:
        """The version without what it heard, so that every vote is judged."""
        return replace(self.version, evidence=None)

    def answers(self, version: LoadedVersion) -> list[Any]:
        def live() -> tuple[LoadedVersion, int | None]:
            return version, self.frozen_at

        lookups = Lookups(100)
        current = self.root / "CURRENT"
        live_state = LiveState(
            self.database, self.source, lambda: current_of(self.root), live, current
        )
        server = Server(self.database, self.config, self.source, live_state, lookups)
        found = []
        for where in WHERE:
            tenant = Tenants("team", required=False).scope(None, False, where).tenant
            asked = Request(8, where, where, tenant, record=False)
            found += server.retrieve([*QUERIES, "my login"], asked)
        return [
            [
                (
                    h.passage_id,
                    h.rank,
                    pytest.approx(h.score, abs=1e-9),
                    sorted(h.explanation.votes),
                )
                for h in one.hits
            ]
            for one in found
        ]


def contents(state: State) -> dict[Any, Any]:
    """{past query: what votes say of it, and its vector}, of those that have votes."""
    view = state.evidence
    evidence = {t: view.of_tenant(code) for t, code in view.tenant_codes.items()}
    return {
        key: (view.past_query(row), view.vectors[row].tobytes())
        for row, key in enumerate(view.keys)
        if evidence[key[1]][row]
    }


def uses_stored_evidence(state: State) -> bool:
    """Whether the state rests on what the version heard."""
    room = state.evidence._room
    return room is not None and room.stored is state.version.evidence


def the_same(root: Path) -> bool:
    """Whether what was heard is used; that it makes no difference is asserted."""
    each = Opened(root)
    try:
        assert contents(each.state()) == contents(each.state(each.deaf()))
        assert each.answers(each.version) == each.answers(each.deaf())
        return uses_stored_evidence(each.state())
    finally:
        each.database.close()


def voted_index(root: Path) -> None:
    """Two queries with votes before the refresh, one of them under a tenant too."""
    with Flywheel.open(root, encoder=WordEncoder(DIM), config=CONFIG) as fw:
        fw.add(Passage(f"p{i}", text, metadata={"team": "a"}) for i, text in enumerate(TEXTS))
        fw.refresh()
        for query, where in ((QUERIES[0], None), (QUERIES[0], WHERE[1]), (QUERIES[1], None)):
            shown = fw.retrieve(query, where=where)
            fw.feedback(shown.id, shown.hits[0].passage_id, "helpful", user_id="ann")
        fw.signal(shown.id, "copied", user_id="bob")
        assert fw.refresh().outcome == "promoted"
