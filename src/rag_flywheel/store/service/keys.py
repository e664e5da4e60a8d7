"""API keys: made, shown once, stored as digests, and revoked."""

import hashlib
import json
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from rag_flywheel.checks import MOST_NAME_CHARS, check_one_of, check_text
from rag_flywheel.errors import InputError, UnknownIdError, quoted
from rag_flywheel.store import wall_clock
from rag_flywheel.store.database import Database
from rag_flywheel.store.tenants import Tenant

Scope: TypeAlias = Literal["read", "vote", "write", "review", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "fw_"
_COLUMNS = "id, name, scopes, tenant, indexes, public, created, revoked"


@dataclass(frozen=True)
class Key:
    """An API key without its secret.

    scopes: what it may do. tenant: the one it is bound to; None: it may name any.
    indexes: those it is for; None: all. public: it may be seen by browsers, and only votes by tokens.
    created, revoked: seconds since 1970, UTC.
    """

    id: str
    name: str
    scopes: tuple[Scope, ...]
    tenant: Tenant | None
    indexes: tuple[str, ...] | None
    public: bool
    created: float
    revoked: float | None = None


def make_key(
    database: Database,
    name: str,
    scopes: Collection[str],
    *,
    tenant: Tenant | None = None,
    indexes: Collection[str] | None = None,
    public: bool = False,
) -> tuple[str, Key]:
    """Make a key; returns its text, which is stored nowhere, and its record. Raises InputError."""
    check_text("name", name, MOST_NAME_CHARS)
    given = list(scopes)
    for scope in given:
        check_one_of("a scope", scope, SCOPES)
    if not given:
        raise InputError(f"found no scopes; expected some of {', '.join(SCOPES)}")
    if public and set(given) != {"vote"}:
        raise InputError(
            "found a public key with other scopes than vote; browsers show it to anybody"
        )
    text = PREFIX + secrets.token_urlsafe(32)
    ordered = tuple(scope for scope in SCOPES if scope in given)
    named = None if indexes is None else tuple(indexes)
    with database.reading() as conn:
        created = wall_clock.now_of(conn)
    key = Key(secrets.token_hex(6), name, ordered, tenant, named, public, created)
    row = (
        key.id,
        _digest(text),
        name,
        json.dumps(ordered),
        None if tenant is None else json.dumps(tenant),
        None if named is None else json.dumps(named),
        int(public),
        key.created,
    )
    with database.transaction(durable=True) as conn:
        conn.execute(
            "INSERT INTO keys (id, digest, name, scopes, tenant, indexes, public, created) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )
    return text, key


def keys(database: Database) -> list[Key]:
    """All keys, revoked ones too, in the order they were made in."""
    with database.reading() as conn:
        return [
            _key(*row) for row in conn.execute(f"SELECT {_COLUMNS} FROM keys ORDER BY created, id")
        ]


def any_key(database: Database, *, revoked: bool = False) -> bool:
    """Whether there is a key that is not revoked. revoked: or one that is."""
    with database.reading() as conn:
        sql = "SELECT 1 FROM keys WHERE revoked IS NULL OR ? = 1 LIMIT 1"
        return conn.execute(sql, (int(revoked),)).fetchone() is not None


def find_key(database: Database, text: str) -> Key | None:
    """The key with this text that is not revoked."""
    with database.reading() as conn:
        row = conn.execute(
            f"SELECT {_COLUMNS} FROM keys WHERE digest = ? AND revoked IS NULL", (_digest(text),)
        ).fetchone()
    return None if row is None else _key(*row)


def key_by_id(database: Database, id_: str) -> Key | None:
    """The key with this id that is not revoked."""
    with database.reading() as conn:
        row = conn.execute(
            f"SELECT {_COLUMNS} FROM keys WHERE id = ? AND revoked IS NULL", (id_,)
        ).fetchone()
    return None if row is None else _key(*row)


def revoke_key(database: Database, id_: str) -> None:
    """Revoke a key, in every process from the next request on. Raises UnknownIdError."""
    with database.transaction(durable=True) as conn:
        changed = conn.execute(
            "UPDATE keys SET revoked = ? WHERE id = ? AND revoked IS NULL",
            (wall_clock.now_of(conn), id_),
        ).rowcount
    if not changed:
        raise UnknownIdError(
            f"found no key {quoted(id_)} that could be revoked; `rag-flywheel keys list` has them all"
        )


def _digest(text: str) -> bytes:
    """SHA-256 alone: a key has 256 bits of chance, so that no dictionary of keys can be tried."""
    return hashlib.sha256(text.encode()).digest()


def _key(
    id_: str,
    name: str,
    scopes: str,
    tenant: str | None,
    indexes: str | None,
    public: int,
    created: float,
    revoked: float | None,
) -> Key:
    return Key(
        id_,
        name,
        tuple(json.loads(scopes)),
        None if tenant is None else json.loads(tenant),
        None if indexes is None else tuple(json.loads(indexes)),
        bool(public),
        created,
        revoked,
    )
