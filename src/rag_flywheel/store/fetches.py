"""Notes which host is fetching which version, so that no other deletes its files meanwhile.

It is for databases on a server alone, by whose clock notes age: those of hosts may differ by minutes.
"""

from rag_flywheel.store import column_checks
from rag_flywheel.store.connection import Connection

_NOW = "extract(epoch FROM clock_timestamp())"


def note(conn: Connection, host: str, version: str) -> None:
    """Note that a host begins to fetch a version."""
    conn.execute(
        f"INSERT INTO fetches (host, version, at) VALUES (?, ?, {_NOW}) "
        "ON CONFLICT (host, version) DO UPDATE SET at = excluded.at",
        (host, version),
    )


def end(conn: Connection, host: str) -> None:
    """Note that a host fetches nothing any more."""
    conn.execute("DELETE FROM fetches WHERE host = ?", (host,))


def under_way(conn: Connection, *, within_s: float) -> set[str]:
    """The versions that a host began to fetch within this time, and has not fetched yet."""
    rows = conn.execute(f"SELECT version FROM fetches WHERE at > {_NOW} - ?", (within_s,))
    return {column_checks.text("fetches.version", row[0]) for row in rows}
