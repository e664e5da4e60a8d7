"""GoldenSet, which an application reaches as `fw.golden`.

It must not know the rules by which answers are known.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rag_flywheel.config import Config
from rag_flywheel.curate.golden import golden_items
from rag_flywheel.curate.pins import KnownQueries
from rag_flywheel.curate.source import Source
from rag_flywheel.encoder import TextEncoder
from rag_flywheel.errors import InputError, quoted
from rag_flywheel.formats.golden import read_answers, write_answers
from rag_flywheel.formats.qrels import OTHER_GRADE
from rag_flywheel.formats.rows import Row, RowsRead, refuse, rows_of
from rag_flywheel.formats.tally import EMPTY
from rag_flywheel.records import AddReport, GoldenItem, TenantScope
from rag_flywheel.store import golden, passages, wall_clock
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database
from rag_flywheel.store.passages import StoredPassage
from rag_flywheel.store.questions import query_hash, question_key
from rag_flywheel.store.tenants import Tenant, Tenants, shows


class GoldenSet:
    """The queries of an index whose answers are known, from files, pins, users and reviewers."""

    def __init__(
        self,
        database: Database,
        config: Config,
        source: Callable[[], Source],
        queries: Callable[[], TextEncoder],
        tenants: Tenants,
        masked: Callable[[str], str],
    ) -> None:
        """queries: the encoder of queries of the live version; masked: a query as it may be stored."""
        self._masked = masked
        self._tenants = tenants
        self._database = database
        self._config = config
        self._source = source
        self._queries = queries

    def add(
        self,
        path: str | Path,
        *,
        split: str = "test",
        lenient: bool = False,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> AddReport:
        """Import known answers, all or none: a BEIR folder, or a .csv or .tsv.

        split: the qrels of a BEIR folder to read; "all": every split. lenient: rows that cannot be used
            are left out, and counted in the report, instead of refusing all.
        tenant: queries without a tenant are of this one; those of others are refused.
        Another grade for the same query and passage replaces the stored one. An answer (grade 1 or more)
        comes first for its query from now on, and is evidence for similar ones, unless
        config.known_answers is False. Raises InputError, naming file and line.
        """
        self._database.require_open()
        scope = self._tenants.scope(tenant, all_tenants)
        most = self._config.max_query_chars
        read = RowsRead(lenient)
        rows = read_answers(_path(path), split=split, max_query_chars=most, into=read)
        report, left_out = self._import(rows, scope, lenient=lenient)
        for lines in read.lines:
            left_out.update(lines.left_out)
        del left_out[EMPTY]
        return replace(report, left_out=dict(left_out))

    def add_answers(
        self,
        answers: Iterable[tuple[str, str, int]],
        *,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> AddReport:
        """Import known answers, all or none: (query, passage id, grade) each, with grades from 0 to 100.

        Otherwise as `add`. Raises InputError, naming the row.
        """
        self._database.require_open()
        scope = self._tenants.scope(tenant, all_tenants)
        rows = rows_of(answers, scope.tenant, self._config.max_query_chars)
        return self._import(rows, scope, lenient=False)[0]

    def _import(
        self, rows: Sequence[Row], scope: TenantScope, *, lenient: bool
    ) -> tuple[AddReport, Counter[str]]:
        rows = [replace(row, query=self._masked(row.query)) for row in rows]
        with self._database.reading() as conn:  # before anything is encoded
            rows, left_out = _of_scope(rows, scope, lenient=lenient)
            present = _present(conn, rows, scope)
            rows, more = _checked(rows, present, lenient=lenient)
            left_out.update(more)
        vectors = KnownQueries.of(self._database, self._config, rows, self._queries)
        with self._database.transaction(durable=True) as conn:
            report = _append(conn, rows, scope)
            vectors.put(conn)
        return report, left_out

    def items(self, *, tenant: Tenant | None = None, all_tenants: bool = False) -> list[GoldenItem]:
        """The queries with an answer that is in the index now, near-duplicates merged."""
        self._database.require_open()
        scope = self._tenants.scope(tenant, all_tenants)
        return golden_items(self._database, self._source(), scope=scope)

    def export(
        self, path: str | Path, *, tenant: Tenant | None = None, all_tenants: bool = False
    ) -> int:
        """Write the items as a new BEIR folder, or a new .csv or .tsv; returns how many.

        The file has no user ids, but the texts of queries. Raises InputError, StorageError.
        """
        out = _path(path).resolve()
        items = self.items(tenant=tenant, all_tenants=all_tenants)
        write_answers(items, out, outside=self._database.path.parent.resolve())
        return len(items)


def _path(path: object) -> Path:
    if not isinstance(path, str | Path) or "\0" in str(path):
        raise InputError(f"path is {quoted(path)}; expected the name of a file or folder")
    return Path(path)


def _append(conn: Connection, rows: Sequence[Row], scope: TenantScope) -> AddReport:
    present = _present(conn, rows, scope)
    answers, _ = _checked(rows, present)
    stored = {
        (a.query, a.tenant, a.lineage): a.grade
        for a in golden.answers_until(conn, passages.read_clock(conn))
        if a.source == "imported"
    }
    new, changed, key = [], 0, question_key(conn)
    for row in answers:
        passage, hashed = present[row.passage_id], query_hash(key, row.query)
        old = stored.get((hashed, row.tenant, passage.lineage))
        if old != row.grade:
            changed += old is not None
            new.append(golden.NewAnswer(row.query, hashed, row.tenant, passage.pid, row.grade))
    if new:
        first = passages.advance_clock(conn, len(new))
        golden.append_answers(conn, new, first_seq=first, at=wall_clock.now())
    return AddReport(len(new) - changed, changed, len(answers) - len(new))


def _present(conn: Connection, rows: Sequence[Row], scope: TenantScope) -> dict[str, StoredPassage]:
    found = passages.current_by_id(conn, sorted({row.passage_id for row in rows}))
    return {id_: stored for id_, stored in found.items() if shows(scope, stored.passage)}


def _of_scope(
    rows: Sequence[Row], scope: TenantScope, *, lenient: bool
) -> tuple[list[Row], Counter[str]]:
    """The rows under the tenant of the scope, and how many were left out, by reason.

    Raises InputError for the row of another tenant, unless lenient.
    """
    if scope.tenant is not None:
        rows = [r if r.tenant is not None else replace(r, tenant=scope.tenant) for r in rows]
    foreign = [row for row in rows if not scope.holds(row.tenant)]
    if not lenient:
        refuse(
            [
                f"{r.where} has the tenant {r.tenant}; expected {scope.tenant}, as named"
                for r in foreign
            ]
        )
    left_out = Counter({"the query is another tenant's": len(foreign)}) if foreign else Counter()
    return [row for row in rows if scope.holds(row.tenant)], left_out


def _checked(
    rows: Sequence[Row], present: Mapping[str, StoredPassage], *, lenient: bool = False
) -> tuple[list[Row], Counter[str]]:
    """One row for each query and passage text, of copies the one with the highest grade; and how many rows
    were left out, by reason.

    Raises InputError for unknown passages and two grades, unless lenient.
    """
    problems: list[str] = []
    left_out = Counter[str]()
    answers: dict[tuple[str, str | None, str], Row] = {}
    for row in rows:
        if row.passage_id not in present:
            left_out["the passage is not in the index"] += 1
            problems.append(
                f"{row.where} names the passage {quoted(row.passage_id[:200])}; expected one of this index"
            )
            continue
        first = answers.setdefault((row.query, row.tenant, row.passage_id), row)
        if first.grade != row.grade:
            left_out[OTHER_GRADE] += 1
            problems.append(
                f"{row.where} gives the grade {row.grade} where {first.where} gave {first.grade}; "
                "expected one grade for a query and passage"
            )
    if not lenient:
        refuse(problems)
    best: dict[tuple[str, str | None, int], Row] = {}
    for row in answers.values():
        place = row.query, row.tenant, present[row.passage_id].lineage
        best[place] = max(row, best.get(place, row), key=lambda each: each.grade)
    return list(best.values()), left_out
