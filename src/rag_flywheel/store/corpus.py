"""Adds and removes passages: checks them, embeds those without a vector, writes in one commit."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from rag_flywheel.checks import check_passages, check_text
from rag_flywheel.encoder import Encoder, TextEncoder
from rag_flywheel.errors import InputError, UnknownIdError, quoted
from rag_flywheel.records import ALL_TENANTS, AddReport, Passage, Progress, TenantScope
from rag_flywheel.store import passages as store
from rag_flywheel.store import text_votes
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database
from rag_flywheel.store.embedding import store_vectors
from rag_flywheel.store.filters import PlainFilter, passes
from rag_flywheel.store.lineages import Lineages, Rule, Text, successor
from rag_flywheel.store.metadata_columns import MetadataColumns
from rag_flywheel.store.passages import StoredPassage
from rag_flywheel.store.tenants import shows
from rag_flywheel.store.vectors import hashes_with_vector


def add(
    database: Database,
    encoder: Encoder,
    given: Iterable[Passage],
    rule: Rule,
    *,
    remove: Collection[str] = (),
    progress: Progress | None = None,
    scope: TenantScope = ALL_TENANTS,
) -> AddReport:
    """Add passages, or change those that are there under the same id, and remove others: all or nothing.

    Vectors are stored as they are encoded, so that a repeated call after an interruption goes on
    where it stopped. Votes follow their texts to other ids, as `Lineages` decides.
    rule: what counts as the same text. remove: ids. scope: whose passages may be added, changed and
    removed. Raises InputError, UnknownIdError.
    """
    wanted, gone = check_passages(given), _checked_ids(remove)
    if both := next((id_ for id_ in gone if id_ in wanted), None):
        raise InputError(
            f"passage id {quoted(both)} is to be added and to be removed; expected one of both"
        )
    with database.reading() as conn:
        current = store.current_by_id(conn, list(wanted))
        _require_present(store.current_by_id(conn, gone), gone, scope)
    _require_own(wanted, current, scope)
    new = {
        p.id: Text(p)
        for p in wanted.values()
        if p.id not in current or current[p.id].text_hash != store.passage_hash(p)
    }
    passages = [text.passage for text in new.values()]
    embed(
        database,
        encoder,
        {store.passage_hash(p): store.encoded_text(p) for p in passages},
        progress,
    )
    for text in new.values():
        text.name_words()  # before others have to wait
    with database.transaction() as conn:
        change = _Change(conn, rule, store.current_by_id(conn, [*wanted, *gone]))
        _require_present(change.before, gone, scope)
        _require_own(wanted, change.before, scope)
        return change.write([new.get(p.id) or Text(p) for p in wanted.values()], gone)


def remove(
    database: Database, ids: Sequence[str], rule: Rule, scope: TenantScope = ALL_TENANTS
) -> int:
    """Remove passages, all or none; returns how many. Raises InputError, UnknownIdError.

    Votes follow a text that was added under another id before. scope: whose passages may be removed.
    """
    wanted = _checked_ids(ids)
    if not wanted:
        return 0
    with database.transaction() as conn:
        change = _Change(conn, rule, store.current_by_id(conn, wanted))
        _require_present(change.before, wanted, scope)
        change.write([], wanted)
    return len(wanted)


class _Change:
    """One change of the texts, in a write transaction; before: the present rows of the ids concerned."""

    def __init__(self, conn: Connection, rule: Rule, before: Mapping[str, StoredPassage]) -> None:
        self._conn = conn
        self._rule = rule
        self.before = before

    def write(self, wanted: Sequence[Text], gone: Sequence[str]) -> AddReport:
        """Add or change the texts that are wanted, and remove the ids that are gone."""
        seq = store.advance_clock(self._conn)
        new = []
        for text in wanted:
            old = self.before.get(text.passage.id)
            if _same(old, text.passage):
                continue
            if old is None or not self._stays(old, text.passage):
                new.append(text)
            else:
                store.update_in_place(self._conn, old.pid, text.passage, seq)
        replaced = [t.passage.id for t in new if t.passage.id in self.before]
        leaving = {self.before[id_].pid: self.before[id_] for id_ in (*replaced, *gone)}
        n_unchanged = sum(_same(self.before.get(t.passage.id), t.passage) for t in wanted)
        n_added = sum(t.passage.id not in self.before for t in new)
        heirs = Lineages(self._conn, self._rule, leaving).of(new, self.before)
        came = text_votes.absent(self._conn, [h.lineage for h in heirs if h.lineage is not None])
        last = store.last_pid(self._conn)
        store.end(self._conn, leaving, seq)
        pids: list[int] = []
        lineages: list[int] = []
        for text, heir in zip(new, heirs, strict=True):
            lineage = heir.lineage if heir.copy_of is None else lineages[heir.copy_of]
            pids.append(
                store.insert(self._conn, text.passage, seq=seq, lineage=lineage, named=text.named)
            )
            lineages.append(pids[-1] if lineage is None else lineage)
        keys = [text.named.keys for text in new]
        store.put_sketches(self._conn, zip(pids, keys, strict=True))
        self._hand_over(leaving, seq)
        n_updated = len(wanted) - n_added - n_unchanged
        report = AddReport(n_added, n_updated, n_unchanged, len(gone))
        return text_votes.with_followed(self._conn, report, leaving.values(), came, last)

    def _stays(self, old: StoredPassage, new: Passage) -> bool:
        """Whether the row of a passage stays, for its words do. Where it goes to another tenant, it parts
        from copies that do not."""
        if old.text_hash != store.passage_hash(new) or old.passage.title != new.title:
            return False
        if self._rule.same_tenant(old.passage, new):
            return True
        return len(store.rows_of_lineage(self._conn, old.lineage)) < 2

    def _hand_over(self, leaving: Mapping[int, StoredPassage], seq: int) -> None:
        """Give the votes of texts that left to texts that they became before, which begin new rows."""
        of = {stored.lineage: stored for stored in leaving.values()}
        lost = text_votes.absent(self._conn, of)
        for lineage in sorted(text_votes.with_any(self._conn, lost)):
            heir = successor(self._conn, self._rule, of[lineage], self._is_free)
            if heir is None:
                continue
            for copy in store.rows_of_lineage(self._conn, heir.lineage):
                store.end(self._conn, [copy.pid], seq)
                store.insert(self._conn, copy.passage, seq=seq, lineage=lineage)
            store.join(self._conn, heir.lineage, lineage)

    def _is_free(self, lineage: int) -> bool:
        return not text_votes.with_any(self._conn, [lineage])


def stored(database: Database, where: PlainFilter | None) -> list[Passage]:
    """The passages in the index that pass a checked filter, None: all."""
    with database.snapshot() as conn:
        if where is None:
            return [s.passage for s in store.present(conn)]
        pids = MetadataColumns().matching(conn, where).tolist()
        return [s.passage for s in store.fetch(conn, pids).values()]


def stored_one(database: Database, passage_id: str, scope: TenantScope) -> Passage:
    """The passage with this id that is in the index, and in the scope. Raises UnknownIdError."""
    with database.reading() as conn:
        found = store.current_by_id(conn, [passage_id]).get(passage_id)
    if found is None or not shows(scope, found.passage):
        raise UnknownIdError(f"no passage {quoted(passage_id)} is in the index")
    return found.passage


def stored_after(
    database: Database, where: PlainFilter | None, after: str, n: int | None
) -> list[Passage]:
    """Of the passages in the index that pass a checked filter, the first n whose ids come after this one."""
    found: list[Passage] = []
    with database.snapshot() as conn:
        for each in store.present_after(conn, after):
            if n is not None and len(found) == n:
                break
            if where is None or passes(where, each.passage.metadata):
                found.append(each.passage)
    return found


def embed(
    database: Database,
    encoder: Encoder,
    texts: dict[bytes, str],
    progress: Progress | None = None,
) -> int:
    """Encode and store the vectors that these texts, by hash, do not have yet; returns how many."""
    with database.reading() as conn:
        present = hashes_with_vector(conn, list(texts), encoder.revision)
    longest_first = sorted(texts, key=lambda h: -len(texts[h]))
    missing = {h: texts[h] for h in longest_first if h not in present}
    passages = TextEncoder.of_passages(encoder)
    for _ in store_vectors(database, missing, passages, progress, "embed"):
        pass
    if progress is not None and missing:
        progress("embed", len(missing), len(missing))
    return len(missing)


def _checked_ids(ids: Collection[str]) -> list[str]:
    """Distinct passage ids, in order. Raises InputError."""
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        what = f"the string {quoted(ids)}" if isinstance(ids, str) else type(ids).__name__
        raise InputError(f"ids is {what}; expected a list of passage ids")
    given = list(ids)
    for id_ in given:
        if not isinstance(id_, str):
            raise InputError(f"passage id {quoted(id_)} is {type(id_).__name__}; expected a string")
        check_text("passage id", id_)
    return list(dict.fromkeys(given))


def _require_own(
    wanted: Mapping[str, Passage], present: Mapping[str, StoredPassage], scope: TenantScope
) -> None:
    for passage in wanted.values():
        if not shows(scope, passage):
            raise InputError(
                f"passage {passage.id!r} does not have the metadata {scope.where!r} of the tenant that is "
                "named; expected it in every passage"
            )
        if passage.id in present and not shows(scope, present[passage.id].passage):
            raise InputError(f"passage id {passage.id!r} is taken; expected another")


def _require_present(
    present: Mapping[str, StoredPassage], ids: Sequence[str], scope: TenantScope
) -> None:
    missing = [i for i in ids if i not in present or not shows(scope, present[i].passage)]
    if missing:
        raise UnknownIdError(
            f"no passage {quoted(missing[0])} is in this index"
            + (f" (nor {len(missing) - 1} others given)" if len(missing) > 1 else "")
            + "; expected ids of passages that were added and not removed. Nothing was removed"
        )


def _same(old: StoredPassage | None, new: Passage) -> bool:
    return (
        old is not None
        and (old.passage.title, old.passage.text) == (new.title, new.text)
        and store.metadata_json(old.passage.metadata) == store.metadata_json(new.metadata)
    )
