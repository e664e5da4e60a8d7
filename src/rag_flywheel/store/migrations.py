"""The tables, as migrations that are only ever appended to.

Events are appended and never changed; `clock` holds the number of the newest event, so that a
reader learns with one small query whether anything happened.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, cast

import sqlite_utils
from sqlite_utils.migrations import Migrations

from rag_flywheel.errors import NewerFormatError, StorageError
from rag_flywheel.store.connection import Connection, Rows, in_chunks, scalar
from rag_flywheel.store.database import Database
from rag_flywheel.store.near_identical import Words, sketch
from rag_flywheel.store.passages import (
    body_hash,
    encoded_text,
    put_sketches,
    query_digest,
    stored_row,
)
from rag_flywheel.store.questions import keyed, question_key
from rag_flywheel.store.schema import ALIVE, MIGRATIONS, require_ours, require_schema
from rag_flywheel.store.sqlite import SqliteDatabase
from rag_flywheel.store.timeline import new_token
from rag_flywheel.store.users import USER_KEY, new_user_key

Hash = Callable[[bytes, str], str]
"""Computes what is stored for a user's or session's id, from the key of the index and the id."""
migrations = Migrations("rag-flywheel")

# passages: one row per text that a passage ever had; an edit ends a row and begins another, so a
# pid always means the same words. lineage: the first row whose votes this text inherits (its own
# pid when none). vectors: key is the 16-byte hash of the text that was encoded.
_FIRST = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE clock (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL);
INSERT INTO clock VALUES (1, 0);
CREATE TABLE passages (
    pid INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    origin TEXT NOT NULL CHECK (origin IN ('index', 'rerank')),
    title TEXT NOT NULL,
    text TEXT NOT NULL,
    metadata TEXT NOT NULL,
    text_hash BLOB NOT NULL,
    lineage INTEGER NOT NULL,
    born INTEGER NOT NULL,
    ended INTEGER
);
CREATE UNIQUE INDEX passages_current ON passages (id) WHERE ended IS NULL AND origin = 'index';
CREATE UNIQUE INDEX passages_foreign ON passages (id, text_hash) WHERE origin = 'rerank';
CREATE INDEX passages_id ON passages (id);
CREATE INDEX passages_born ON passages (born);
CREATE INDEX passages_ended ON passages (ended) WHERE ended IS NOT NULL;
CREATE TABLE vectors (
    text_hash BLOB NOT NULL, revision TEXT NOT NULL, vector BLOB NOT NULL
);
CREATE UNIQUE INDEX vectors_key ON vectors (text_hash, revision);
CREATE TABLE retrievals (
    rid INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('retrieve', 'rerank')),
    at REAL NOT NULL,
    query TEXT NOT NULL,
    query_hash BLOB NOT NULL,
    k INTEGER NOT NULL,
    filter TEXT,
    tenant TEXT,
    version TEXT,
    seen INTEGER NOT NULL,
    user_id TEXT,
    session_id TEXT,
    latency_ms REAL NOT NULL,
    hits TEXT NOT NULL,
    answer TEXT
);
CREATE INDEX retrievals_query ON retrievals (query_hash);
CREATE TABLE votes (
    seq INTEGER PRIMARY KEY,
    rid INTEGER NOT NULL REFERENCES retrievals,
    pid INTEGER NOT NULL REFERENCES passages,
    verdict TEXT NOT NULL CHECK (verdict IN ('helpful', 'harmful', 'retract')),
    user_id TEXT,
    reason TEXT,
    at REAL NOT NULL
);
CREATE INDEX votes_retrieval ON votes (rid);
CREATE TABLE refreshes (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    outcome TEXT NOT NULL,
    version TEXT,
    parameters TEXT NOT NULL,
    reason TEXT NOT NULL,
    scores TEXT NOT NULL,
    seconds REAL NOT NULL
);
CREATE TABLE moves (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    action TEXT NOT NULL CHECK (action IN ('promote', 'rollback', 'release', 'found')),
    version TEXT NOT NULL,
    frozen_at INTEGER
);
"""

# What makes the loop safe. looks: what the gate decided of new parameters, and what it spent on it.
# golden: imported answers; corrections: the answer a user named instead; reviews: what a reviewer
# decided of an item. forgets: two rows each, begun and done. Deciding rows are only ever appended.
_SAFETY = """
CREATE TABLE looks (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    version TEXT NOT NULL,
    n_votes INTEGER NOT NULL,
    alpha REAL NOT NULL,
    p REAL,
    outcome TEXT NOT NULL CHECK (outcome IN ('better', 'no better', 'vetoed', 'reset'))
);
CREATE TABLE golden (
    seq INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    query TEXT NOT NULL,
    query_hash BLOB NOT NULL,
    tenant TEXT,
    pid INTEGER NOT NULL REFERENCES passages,
    grade INTEGER NOT NULL,
    source TEXT NOT NULL
);
CREATE INDEX golden_query ON golden (query_hash);
CREATE TABLE corrections (
    seq INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    rid INTEGER NOT NULL REFERENCES retrievals,
    pid INTEGER NOT NULL REFERENCES passages,
    user_id TEXT
);
CREATE INDEX corrections_retrieval ON corrections (rid);
CREATE TABLE reviews (
    seq INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('accept', 'reject', 'undo')),
    query TEXT NOT NULL,
    query_hash BLOB NOT NULL,
    tenant TEXT,
    pid INTEGER NOT NULL REFERENCES passages,
    user_id TEXT
);
CREATE INDEX reviews_query ON reviews (query_hash);
CREATE TABLE forgets (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('begun', 'done')),
    report TEXT NOT NULL
);
CREATE TABLE opted_out (user_id TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX retrievals_user ON retrievals (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX votes_user ON votes (user_id) WHERE user_id IS NOT NULL;
"""

# Votes on whole answers. credits: the part of each shown hit in a vote, computed when it was cast;
# other hits have 0, so that the last vote of a user counts for all hits.
_ANSWERS = """
CREATE TABLE answer_votes (
    seq INTEGER PRIMARY KEY,
    rid INTEGER NOT NULL REFERENCES retrievals,
    kind TEXT NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('helpful', 'harmful', 'retract')),
    user_id TEXT,
    at REAL NOT NULL
);
CREATE INDEX answer_votes_retrieval ON answer_votes (rid);
CREATE INDEX answer_votes_user ON answer_votes (user_id) WHERE user_id IS NOT NULL;
CREATE TABLE credits (
    seq INTEGER NOT NULL REFERENCES answer_votes,
    pid INTEGER NOT NULL REFERENCES passages,
    credit REAL NOT NULL,
    PRIMARY KEY (seq, pid)
) WITHOUT ROWID;
"""

# Notes of users to a reviewer: the answer in their own words, or that it is missing.
_NOTES = """
CREATE TABLE notes (
    seq INTEGER PRIMARY KEY,
    rid INTEGER NOT NULL REFERENCES retrievals,
    kind TEXT NOT NULL CHECK (kind IN ('text', 'missing')),
    text TEXT NOT NULL,
    user_id TEXT,
    at REAL NOT NULL
);
CREATE INDEX notes_retrieval ON notes (rid);
CREATE INDEX notes_user ON notes (user_id) WHERE user_id IS NOT NULL;
CREATE TABLE note_reviews (
    seq INTEGER PRIMARY KEY,
    note INTEGER NOT NULL REFERENCES notes,
    decision TEXT NOT NULL CHECK (decision IN ('accept', 'reject', 'undo')),
    user_id TEXT,
    at REAL NOT NULL
);
CREATE INDEX note_reviews_note ON note_reviews (note);
"""

# trusts: the factor of each kind of signal, estimated anew at each refresh.
_SIGNALS = """
CREATE TABLE trusts (kind TEXT PRIMARY KEY, trust REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX retrievals_session ON retrievals (session_id) WHERE session_id IS NOT NULL;
"""
# mutes: events, of which the last on a user holds.
_MUTES = """
CREATE TABLE mutes (
    seq INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    muted INTEGER NOT NULL CHECK (muted IN (0, 1)),
    at REAL NOT NULL
);
CREATE INDEX mutes_user ON mutes (user_id);
"""
# body_hash: of the words of a text without its title. sketches: eight keys of each text of the index.
_CONTENT = """
CREATE INDEX passages_text ON passages (text_hash);
CREATE INDEX passages_body ON passages (body_hash) WHERE body_hash IS NOT NULL;
CREATE INDEX passages_lineage ON passages (lineage);
CREATE INDEX votes_passage ON votes (pid);
CREATE INDEX credits_passage ON credits (pid);
CREATE INDEX golden_passage ON golden (pid);
CREATE INDEX reviews_passage ON reviews (pid);
CREATE TABLE sketches (
    key INTEGER NOT NULL, pid INTEGER NOT NULL REFERENCES passages, PRIMARY KEY (key, pid)
) WITHOUT ROWID;
"""
# attempts: of refreshes; a row with the number of another in `attempt` says how that one went.
_ATTEMPTS = """
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('begun', 'ended', 'failed')),
    attempt INTEGER REFERENCES attempts,
    pid INTEGER NOT NULL,
    error TEXT,
    reason TEXT,
    to_do TEXT
);
CREATE INDEX attempts_attempt ON attempts (attempt) WHERE attempt IS NOT NULL;
"""
# withdrawn: what the last "better" let in was lost with the votes it rested on; recounted: fewer votes
# count than at the last look, since users were muted.
_LOOKS = """
CREATE TABLE looks (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    version TEXT NOT NULL,
    n_votes INTEGER NOT NULL,
    alpha REAL NOT NULL,
    p REAL,
    outcome TEXT NOT NULL CHECK (
        outcome IN ('better', 'no better', 'vetoed', 'reset', 'withdrawn', 'recounted')
    ),
    arm TEXT NOT NULL DEFAULT 'weights'
);
"""
# dp_releases: the privacy loss of each release of counts, which add up.
_RELEASES = """
CREATE TABLE dp_releases (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    what TEXT NOT NULL,
    epsilon REAL NOT NULL,
    delta REAL NOT NULL
);
"""
# run: the keyed hash of the id of a run of another program, such as a framework's.
_RUNS = """
CREATE TABLE runs (
    run TEXT NOT NULL,
    rid INTEGER NOT NULL REFERENCES retrievals,
    PRIMARY KEY (run, rid)
) WITHOUT ROWID;
CREATE INDEX runs_rid ON runs (rid);
"""
# imports: what came in from other tools. key: the keyed hash of the tool, the tenant and the external id, so
# that nothing comes in twice, not even what was deleted since, of which nothing else is left.
_IMPORTS = """
CREATE TABLE imports (
    key BLOB PRIMARY KEY,
    external TEXT,
    rid INTEGER,
    seq INTEGER
) WITHOUT ROWID;
CREATE INDEX imports_retrieval ON imports (rid) WHERE rid IS NOT NULL;
CREATE INDEX imports_event ON imports (seq) WHERE seq IS NOT NULL;
CREATE INDEX retrievals_at ON retrievals (at);
"""
# forgotten: what went with the users who were forgotten, by keyed hashes; `store/forgotten.py` says of what.
_FORGOTTEN = "CREATE TABLE forgotten (key BLOB PRIMARY KEY) WITHOUT ROWID"
# fetches: which host is fetching which version of an index that hosts share, and since when.
_FETCHES = """
CREATE TABLE fetches (
    host TEXT NOT NULL,
    version TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (host, version)
) WITHOUT ROWID
"""
_WITH_USERS = {
    "retrievals": ("user_id", "session_id"),
    "votes": ("user_id",),
    "corrections": ("user_id",),
    "reviews": ("user_id",),
}
_WITH_QUERIES = "retrievals", "golden", "reviews"
_APPEND_ONLY = ("moves", "refreshes", "looks", "forgets")


@migrations()
def m001_first_tables(db: sqlite_utils.Database) -> None:
    """Make every table of the first release."""
    _execute(db, _FIRST)


@migrations()
def m002_safety(db: sqlite_utils.Database) -> None:
    """Tables of the gate, of known answers, and of forgetting; the log can only be appended to."""
    _execute(db, _SAFETY)
    db.execute("ALTER TABLE moves ADD COLUMN held INTEGER NOT NULL DEFAULT 0")
    _append_only(db, _APPEND_ONLY)


@migrations()
def m003_hashed_users(db: sqlite_utils.Database) -> None:
    """Ids of users and sessions are stored as hashes under a key of the index; old ones too.

    folded: the event number at which a retrieval was folded, NULL: it is as it was recorded.
    """
    db.execute("ALTER TABLE retrievals ADD COLUMN folded INTEGER")
    db.execute("CREATE INDEX corrections_user ON corrections (user_id) WHERE user_id IS NOT NULL")
    key = new_user_key()
    db.execute("INSERT INTO meta (key, value) VALUES (?, ?)", (USER_KEY, key))
    if not _was_used(db):
        return
    for table, columns in _WITH_USERS.items():
        for column in columns:
            db.execute(
                f"UPDATE {table} SET {column} = user_hash(?, {column}) WHERE {column} IS NOT NULL",
                (key,),
            )


@migrations()
def m004_answer_votes(db: sqlite_utils.Database) -> None:
    """Votes on whole answers, and the part of each hit in them."""
    _execute(db, _ANSWERS)


@migrations()
def m005_notes(db: sqlite_utils.Database) -> None:
    """Notes of users to a reviewer, and the decisions on them."""
    _execute(db, _NOTES)


@migrations()
def m006_signals(db: sqlite_utils.Database) -> None:
    """The trust in each kind of signal, and an index of retrievals by session."""
    _execute(db, _SIGNALS)


@migrations()
def m007_why(db: sqlite_utils.Database) -> None:
    """Why an answer was used, or was not, in a user's words."""
    db.execute("ALTER TABLE answer_votes ADD COLUMN why TEXT")


@migrations()
def m008_arms(db: sqlite_utils.Database) -> None:
    """The gate has two arms, each with looks of its own: weights, and the encoder of queries."""
    db.execute("ALTER TABLE looks ADD COLUMN arm TEXT NOT NULL DEFAULT 'weights'")


@migrations()
def m009_present(db: sqlite_utils.Database) -> None:
    """An index of the present texts, so that queries on all of them need not read the texts."""
    db.execute(
        "CREATE INDEX passages_present ON passages (text_hash, lineage) "
        "WHERE ended IS NULL AND origin = 'index'"
    )


@migrations()
def m010_needs(db: sqlite_utils.Database) -> None:
    """Questions that differ by blanks, letters' case or a final mark are one question."""
    if not _was_used(db):
        return
    for table in _WITH_QUERIES:
        db.execute(
            "INSERT OR IGNORE INTO vectors (text_hash, revision, vector) "
            f"SELECT query_hash(t.query), v.revision, v.vector FROM {table} t "
            "JOIN vectors v ON v.text_hash = t.query_hash WHERE t.query_hash != query_hash(t.query)"
        )
    for table in _WITH_QUERIES:
        old = f"SELECT query_hash FROM {table} WHERE query_hash != query_hash(query)"
        db.execute(f"DELETE FROM vectors WHERE text_hash IN ({old})")
    for table in _WITH_QUERIES:
        db.execute(
            f"UPDATE {table} SET query_hash = query_hash(query) "
            "WHERE query_hash != query_hash(query)"
        )


@migrations()
def m011_candidates(db: sqlite_utils.Database) -> None:
    """The candidates that an application gave, with its own scores."""
    db.execute("ALTER TABLE retrievals ADD COLUMN candidates TEXT")


@migrations()
def m013_trust(db: sqlite_utils.Database) -> None:
    """How far the application trusts a vote, and whose votes are not heard."""
    for table in ("votes", "answer_votes"):
        db.execute(f"ALTER TABLE {table} ADD COLUMN trust REAL NOT NULL DEFAULT 1.0")
        db.execute(f"DROP INDEX {table}_user")
        db.execute(f"CREATE INDEX {table}_user ON {table} (user_id, at) WHERE user_id IS NOT NULL")
    _execute(db, _MUTES)


@migrations()
def m014_answerable(db: sqlite_utils.Database) -> None:
    """The chance that an answer holds a passage that answers the question; NULL in older rows."""
    db.execute("ALTER TABLE retrievals ADD COLUMN answerable REAL")


@migrations()
def m015_content(db: sqlite_utils.Database) -> None:
    """Texts are found by their words, so that votes and known answers follow them to other ids."""
    db.execute("ALTER TABLE passages ADD COLUMN body_hash BLOB")
    _execute(db, _CONTENT)


@migrations()
def m016_sketches(db: sqlite_utils.Database) -> None:
    """The words of the texts that are stored already."""
    pids = [row[0] for row in db.execute("SELECT pid FROM passages WHERE origin = 'index'")]
    columns = "pid, id, title, text, metadata, text_hash, lineage"
    for row in in_chunks(db.conn, f"SELECT {columns} FROM passages WHERE pid IN (%s)", pids):
        passage = stored_row(row).passage
        hashed = body_hash(passage.text)
        db.execute("UPDATE passages SET body_hash = ? WHERE pid = ?", (hashed, row[0]))
        put_sketches(db.conn, [(row[0], sketch(Words.of(encoded_text(passage))))])


@migrations()
def m017_conditions(db: sqlite_utils.Database) -> None:
    """Filters of past retrievals without keys that had no condition, which let every passage pass."""
    rows = db.execute("SELECT rid, filter FROM retrievals WHERE filter LIKE '%{}%'").fetchall()
    for rid, text in rows:
        try:
            old = json.loads(text)
        except ValueError:
            continue  # `verify` says so
        if isinstance(old, dict):
            kept = {key: wanted for key, wanted in old.items() if wanted != {}}
            new = json.dumps(kept, sort_keys=True) if kept else None
            db.execute("UPDATE retrievals SET filter = ? WHERE rid = ?", (new, rid))


@migrations()
def m020_timeline(db: sqlite_utils.Database) -> None:
    """The name of the timeline of events, and the tokens of the versions built from them."""
    db.execute("ALTER TABLE clock ADD COLUMN timeline TEXT NOT NULL DEFAULT ''")
    db.execute("UPDATE clock SET timeline = lower(hex(randomblob(16)))")
    db.execute(
        "CREATE TABLE builds (version TEXT PRIMARY KEY, token TEXT NOT NULL, at REAL NOT NULL) "
        "WITHOUT ROWID"
    )


@migrations()
def m024_keyed_questions(db: sqlite_utils.Database) -> None:
    """Questions are named by hashes under a key of the index, which versions repeat."""
    key = question_key(db.conn)
    each = " UNION ".join(f"SELECT query_hash FROM {table}" for table in _WITH_QUERIES)
    renamed = [(keyed(key, row[0]), row[0]) for row in db.execute(each).fetchall()]
    for table, column in (*((t, "query_hash") for t in _WITH_QUERIES), ("vectors", "text_hash")):
        db.conn.executemany(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", renamed)


@migrations()
def m025_voters(db: sqlite_utils.Database) -> None:
    """How many people were noted when retrievals of a question were made anonymous, and the event number."""
    for column in ("voters", "voters_at"):
        db.execute(f"ALTER TABLE retrievals ADD COLUMN {column} INTEGER")


@migrations()
def m026_looks_across_forgets(db: sqlite_utils.Database) -> None:
    """The looks of the gate outlast forgotten users: what the gate let in may be withdrawn, and looks know
    how many votes were deleted; and the privacy loss of counts that were released.

    n_counted: how many of the deleted votes counted; first_event: the first event of the user, NULL: not
    known.
    """
    db.execute("ALTER TABLE forgets ADD COLUMN n_counted INTEGER NOT NULL DEFAULT 0")
    db.execute("ALTER TABLE forgets ADD COLUMN first_event INTEGER")
    db.execute("ALTER TABLE looks RENAME TO old_looks")
    _execute(db, _LOOKS)
    columns = "id, at, version, n_votes, alpha, p, outcome, arm"
    db.execute(f"INSERT INTO looks ({columns}) SELECT {columns} FROM old_looks")
    db.execute("DROP TABLE old_looks")
    _append_only(db, ["looks"])
    _execute(db, _RELEASES)
    _append_only(db, ["dp_releases"])


@migrations()
def m027_attempts(db: sqlite_utils.Database) -> None:
    """When refreshes began, ended and failed."""
    _execute(db, _ATTEMPTS)
    _append_only(db, ["attempts"])


@migrations()
def m030_edited_metadata(db: sqlite_utils.Database) -> None:
    """The event that changed the metadata of a text last."""
    db.execute("ALTER TABLE passages ADD COLUMN edited INTEGER")
    db.execute("CREATE INDEX passages_edited ON passages (edited) WHERE edited IS NOT NULL")


@migrations()
def m031_runs(db: sqlite_utils.Database) -> None:
    """The runs of other programs that retrievals belong to."""
    _execute(db, _RUNS)


@migrations()
def m032_imports(db: sqlite_utils.Database) -> None:
    """What was imported from other tools, from which, and under which id there; retrievals are found by time,
    since those that are imported are older than others before them.

    source: the tool; NULL: it was recorded here.
    """
    for table in ("retrievals", "votes", "answer_votes"):
        db.execute(f"ALTER TABLE {table} ADD COLUMN source TEXT")
    _execute(db, _IMPORTS)


@migrations()
def m034_forgotten(db: sqlite_utils.Database) -> None:
    """What went with the users who were forgotten, by keyed hashes; imported retrievals are found by their
    ids in the tool, which several tenants may use."""
    _execute(db, _FORGOTTEN)
    db.execute("CREATE INDEX imports_external ON imports (external) WHERE external IS NOT NULL")


@migrations()
def m035_fetches(db: sqlite_utils.Database) -> None:
    """Which host is fetching which version, where hosts have folders of their own."""
    _execute(db, _FETCHES)


def _was_used(db: sqlite_utils.Database) -> bool:
    """Whether an earlier release may have written rows: on PostgreSQL, which came later, none did."""
    return isinstance(db.conn, sqlite3.Connection)


def _append_only(db: sqlite_utils.Database, tables: Iterable[str]) -> None:
    for table in tables:
        for action in ("UPDATE", "DELETE"):
            name, why = f"{table}_{action.lower()}", f"{table} can only be appended to"
            if isinstance(db.conn, sqlite3.Connection):
                body = f"BEGIN SELECT RAISE(ABORT, '{why}'); END"
            else:
                body = f"FOR EACH ROW EXECUTE FUNCTION refuse_change('{why}')"
            db.execute(f"CREATE TRIGGER {name} BEFORE {action} ON {table} {body}")


def _execute(db: sqlite_utils.Database, statements: str) -> None:
    for statement in statements.split(";\n"):
        if statement.strip():
            db.execute(statement)


def migrate(database: Database, user_hash: Hash) -> None:
    """Bring the tables up to this release.

    user_hash: hashes the ids of users that an earlier release stored as they were.
    Raises NewerFormatError when a newer release wrote the tables, and CorruptFileError when they
    are not as the migrations create them.
    """
    with database.reading() as conn:
        require_ours(conn)
        pending = _pending(conn)
    if pending and isinstance(database, SqliteDatabase):
        _apply(database, user_hash, hashes=m003_hashed_users.__name__ in pending)
    elif pending:
        _apply_to_server(database)
    with database.reading() as conn:
        require_schema(conn, migrations)


class NotMigratedError(StorageError):
    """The tables are those of an earlier release; opening the index for writing brings them up."""


def require_migrated(database: Database) -> None:
    """Raises NotMigratedError unless the tables are those of this release; changes nothing."""
    with database.reading() as conn:
        require_ours(conn)
        if _pending(conn):
            raise NotMigratedError(
                f"{database.path} was written by an earlier release, and bringing it up to this one writes "
                "to it; open the index once without read_only"
            )
        require_schema(conn, migrations)


def _every() -> list[Migrations._Migration]:
    """All migrations of this release, in order."""
    with closing(sqlite3.connect(":memory:")) as empty:
        return migrations.pending(sqlite_utils.Database(empty))


def _pending(conn: Connection) -> list[str]:
    """The names of the migrations that were not applied yet. Raises NewerFormatError."""
    if isinstance(conn, sqlite3.Connection):
        applied = {str(m.name) for m in migrations.applied(sqlite_utils.Database(conn))}
    else:
        applied = _applied_to_server(conn)
    ours = [str(m.name) for m in _every()]
    newer = sorted(applied - set(ours))
    if newer:
        raise NewerFormatError(
            f"the database was written by a newer release (it has {newer[0]!r}); "
            "upgrade rag-flywheel to open this index"
        )
    return [name for name in ours if name not in applied]


def _apply(database: SqliteDatabase, user_hash: Hash, *, hashes: bool) -> None:
    with database.transaction() as conn:
        conn.create_function("user_hash", 2, lambda key, id_: user_hash(bytes.fromhex(key), id_))
        conn.create_function("query_hash", 1, query_digest, deterministic=True)
        migrations.apply(sqlite_utils.Database(conn))
        each = " OR ".join(f"EXISTS (SELECT 1 FROM {table})" for table in _WITH_USERS)
        old = hashes and scalar(conn, f"SELECT {each}")
    if old:
        database.compact()  # the ids as they were are in freed bytes


class _Server:
    """What a migration takes, of a database that sqlite-utils does not know."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn

    def execute(self, sql: str, values: Sequence[object] = ()) -> Rows:
        """Run a statement."""
        return self.conn.execute(sql, values)


_REFUSE_CHANGE = (
    "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION '%', TG_ARGV[0]; END $$"
)


def _applied_to_server(conn: Connection) -> set[str]:
    there = conn.execute("SELECT to_regclass(?) IS NOT NULL", (MIGRATIONS,)).fetchone()
    rows = conn.execute(f"SELECT name FROM {MIGRATIONS}") if there == (True,) else ()
    return {str(row[0]) for row in rows}


def _apply_to_server(database: Database) -> None:
    """Apply what is pending, all or none; others that open the index meanwhile wait."""
    with database.transaction() as conn:
        conn.execute(
            f"CREATE TABLE IF NOT EXISTS {MIGRATIONS} (id INTEGER PRIMARY KEY, migration_set TEXT, "
            "name TEXT, applied_at TEXT)"
        )
        if not scalar(conn, "SELECT to_regclass(?) IS NOT NULL", (ALIVE,)):
            conn.execute(f"CREATE UNLOGGED TABLE {ALIVE} (token TEXT NOT NULL)")
            conn.execute(f"INSERT INTO {ALIVE} (token) VALUES (?)", (new_token(),))
        conn.execute(_REFUSE_CHANGE)
        pending = set(_pending(conn))
        for migration in _every():
            if migration.name in pending:
                migration.fn(cast(Any, _Server(conn)))
                at = datetime.now(UTC).isoformat(" ")
                sql = f"INSERT INTO {MIGRATIONS} (migration_set, name, applied_at) VALUES (?, ?, ?)"
                conn.execute(sql, (migrations.name, migration.name, at))
