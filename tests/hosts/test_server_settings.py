"""Settings of a server, or of a user there, that are made for other programs."""

import os
import time
from collections.abc import Iterator

import pytest

from folders import PASSAGES, QUERY
from hosts import Shared
from on_postgres import SERVER
from rag_flywheel import Flywheel, Passage
from rag_flywheel.deploy import promote
from rag_flywheel.store.postgres import Address

ROLE = "flywheel_strict"
STRICT = {
    "statement_timeout": "1ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "1ms",
    "idle_session_timeout": "200ms",
    "transaction_timeout": "1ms",
    "default_transaction_isolation": "serializable",
    "search_path": "pg_catalog",
    "datestyle": "German",
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-5",
    "timezone": "Asia/Kathmandu",
    "standard_conforming_strings": "off",
}


@pytest.fixture
def strict(shared: Shared) -> Iterator[Shared]:
    """The index, for a user whose sessions have odd settings."""
    if os.environ.get(SERVER):
        pytest.skip("makes a user without a password, whom another server may refuse")
    address = Address.of(shared.url)
    parts = address.url.partition("://")
    url = f"{parts[0]}://{ROLE}@{parts[2].partition('@')[2]}"
    with shared.sql() as conn:
        conn.execute(f"DROP ROLE IF EXISTS {ROLE}")
        conn.execute(f"CREATE ROLE {ROLE} LOGIN")
        database = conn.execute("SELECT current_database()").fetchone()[0]
        conn.execute(f'GRANT CREATE ON DATABASE "{database}" TO {ROLE}')
        for name, value in STRICT.items():
            there = conn.execute("SELECT 1 FROM pg_settings WHERE name = %s", (name,)).fetchone()
            if there is not None:
                conn.execute(f"ALTER ROLE {ROLE} SET {name} = '{value}'")
    made = Shared(shared.folder, url, shared.objects)
    yield made
    made.close()
    with shared.sql() as conn:
        conn.execute(f"DROP OWNED BY {ROLE} CASCADE")
        conn.execute(f"DROP ROLE {ROLE}")


def test_an_index_is_used_under_any(strict: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    share = promote.share

    def later(*given: object) -> None:  # than a session of this user may be idle
        time.sleep(1.0)
        share(*given)  # type: ignore[arg-type]

    one, two = strict.open("one"), strict.open("two")
    with one._database.reading() as conn:
        assert conn.execute("SELECT current_user").fetchone() == (ROLE,)
    monkeypatch.setattr(promote, "share", later)
    one.add(PASSAGES)
    assert one.refresh().outcome == "promoted"
    for fw in (one, two):
        found = fw.retrieve(QUERY, k=8, user_id="ann")
        fw.feedback(found.id, found.hits[-1].passage_id, "helpful", user_id="ann")
    time.sleep(0.5)
    two.add([Passage("more", "common word3 of another kind")])
    assert two.refresh().outcome == "promoted"
    assert [fw.verify() for fw in (one, two)] == [[], []]
    assert one.forget("ann").version is not None
    assert order(one) == order(two)


def order(fw: Flywheel) -> list[tuple[str, float]]:
    return [(hit.passage_id, hit.score) for hit in fw.retrieve(QUERY, k=8, record=False).hits]
