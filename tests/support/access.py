"""Indexes that are served: two, the first with the data of two tenants, and every kind of key to them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.service.app import create_app
from rag_flywheel.service.settings import Settings
from rag_flywheel.store.database import Database
from rag_flywheel.store.service.keys import SCOPES, make_key, revoke_key
from shared_state import state_of

SECRET = "zebrafish"  # in everything that belongs to tenant a, and in nothing that a test asks for
QUERY = "reset the password"
ADDRESS = "http://127.0.0.1:8000"


def make_index(folder: Path, name: str = "kb", **settings: Any) -> Path:
    """An index of two passages without tenants."""
    config = Config(encoder="fakes:word_encoder", **settings)
    with Flywheel.open(folder / name, config=config) as fw:
        fw.add(
            [
                Passage("reset", "to get a new password open settings and choose reset"),
                Passage("refund", "refunds are paid within 30 days"),
            ]
        )
    return folder / name


def make_tenants(folder: Path) -> dict[str, str]:
    """An index with the data of tenants a and b in folder / "kb"; the ids of what belongs to a."""
    config = Config(encoder="fakes:word_encoder", tenant_key="team")
    ids: dict[str, str] = {}
    with Flywheel.open(folder / "kb", config=config) as fw:
        for team, more in (("a", SECRET), ("b", "b")):
            fw.add(
                [
                    Passage(
                        f"{team}-reset", f"press reset for a password {more}", more, {"team": team, more: 1}
                    ),
                    Passage(f"{team}-mail", f"write a mail for the password {more}", "", {"team": team}),
                    Passage(f"{team}-cats", f"cats sleep {more}", "", {"team": team}),
                ]
            )  # fmt: skip
            asked = [fw.retrieve(f"{QUERY} {more}", user_id=u, tenant=team) for u in "uvwxyz"]
            for user, shown in zip("uvwxyz", asked, strict=True):
                for name in ("reset", "mail"):
                    verdict: Any = "harmful" if user in "xyz" else "helpful"
                    fw.feedback(
                        shown.id,
                        f"{team}-{name}",
                        verdict,
                        reason=more,
                        user_id=user,
                        tenant=team,
                    )
            fw.correct(asked[0].id, text=f"by hand {more}", user_id="x", tenant=team)
            fw.missing(asked[1].id, f"missing {more}", user_id="y", tenant=team)
            fw.pin(f"where are cats {more}", f"{team}-cats", tenant=team)
            if team == "a":
                ids["retrieval"] = str(asked[0].id)
        items = [item for item in fw.review.items(tenant="a") if item.passage_id]
        fw.review.accept(items[0].id, tenant="a")
        ids["decided"] = items[0].id
        ids["waits"] = fw.review.items(tenant="a")[0].id
        ids["vote"] = str(fw.votes(1, tenant="a")[0].number)
    return ids


@dataclass
class Served:
    """A service, a client of it that is started, and its keys by name."""

    app: FastAPI
    client: TestClient
    folder: Path
    state: Database
    keys: dict[str, str] = field(default_factory=dict)
    key_ids: dict[str, str] = field(default_factory=dict)

    def add_key(self, name: str, *scopes: str, **named: Any) -> str:
        """Make a key; returns its text."""
        self.keys[name], key = make_key(self.state, name, scopes, **named)
        self.key_ids[name] = key.id
        return self.keys[name]

    def revoke(self, name: str) -> None:
        """Revoke a key."""
        revoke_key(self.state, self.key_ids[name])

    def headers(self, name: str, **more: str) -> dict[str, str]:
        """The headers of a request with a key."""
        return {"authorization": f"Bearer {self.keys[name]}", **more}

    def call(self, name: str, method: str, path: str, body: object = None, **more: Any) -> Any:
        """A request with a key."""
        return self.client.request(method, path, json=body, headers=self.headers(name), **more)


@contextmanager
def serve(folders: Mapping[str, Path], **settings: Any) -> Iterator[Served]:
    """Serve indexes on loopback within the block."""
    first = next(iter(folders.values()))
    settings = {"state": state_of(first), **settings}
    app = create_app(Settings(indexes=dict(folders), **settings))
    with TestClient(app, base_url=ADDRESS) as client:
        yield Served(app, client, first.parent, app.state.service.state)


def add_every_key(served: Served) -> None:
    """One key for each scope, and those that may do nothing, or too little."""
    for scope in SCOPES:
        served.add_key(scope, scope)
    served.add_key("all", *SCOPES)
    served.add_key("other index", *SCOPES, indexes=["other"])
    served.add_key("tenant b", *SCOPES, tenant="b")
    served.add_key("revoked", *SCOPES)
    served.add_key("public", "vote", public=True)
    served.revoke("revoked")
    served.keys["wrong"] = f"{served.keys['all'][:-1]}_"
