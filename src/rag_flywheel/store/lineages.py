"""Decides whose votes a new text inherits: those of the same text, wherever it was before.

A lineage is named by the first row of a text; all rows of a lineage share its votes and known answers.
Everything runs in the write transaction that adds the texts. This module must not know what votes mean.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rag_flywheel.records import Passage
from rag_flywheel.store import passages as store
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.near_identical import (
    Words,
    is_copy,
    may_be_copy,
    near_identical,
    similarity,
)
from rag_flywheel.store.passages import ONE_TENANT, KnownRow, Named, StoredPassage, Tenancy

_MOVED_LEAST = 0.95  # share of the words that stay, at least, where a text comes under another id
_BUCKET = 32  # rows that are read for one key of a sketch
_ALIKE = 6  # rows that are compared, of those that share keys
_AT_ONCE = 512  # texts of which the rows that share keys are read together
_SAME_BODY = 64  # rows that are compared, of those with the same words under other titles
_BODY = 4  # words of a text, at least, that is the same under quite another title


@dataclass(frozen=True)
class Rule:
    """What counts as the same text.

    edit_keeps_votes: the share of words that stay, as in the settings; 1: none may change.
    tenancy: texts of two tenants are never the same.
    """

    edit_keeps_votes: float
    tenancy: Tenancy = ONE_TENANT

    def same_tenant(self, stored: Passage, new: Passage) -> bool:
        """Whether two passages are of one tenant, as two of one id are where the stored one has none."""
        tenant = self.tenancy.of(stored)
        unknown = tenant is None and stored.id == new.id
        return unknown or tenant == self.tenancy.of(new)

    def least(self, *, same_id: bool) -> float:
        """The share of words that must stay under the same id, or under another."""
        return self.edit_keeps_votes if same_id else max(self.edit_keeps_votes, _MOVED_LEAST)


@dataclass(frozen=True)
class Text:
    """A passage with its words, which are read when they are needed, and kept until `free_words`."""

    passage: Passage

    @cached_property
    def whole(self) -> Words:
        """The words of title and text."""
        return Words.of(store.encoded_text(self.passage))

    @cached_property
    def body(self) -> Words:
        """The words of the text alone."""
        return Words.of(self.passage.text) if self.passage.title else self.whole

    @cached_property
    def title(self) -> Words:
        """The words of the title."""
        return Words.of(self.passage.title)

    @cached_property
    def named(self) -> Named:
        """By what it is found in the store."""
        return Named.of(self.whole, self.body)

    @property
    def keys(self) -> Sequence[int]:
        """The sketch of title and text."""
        return self.named.keys

    @cached_property
    def digest(self) -> bytes:
        """16 bytes that name the words of title and text."""
        return self.whole.digest()

    @cached_property
    def n_words(self) -> int:
        """How many words title and text have."""
        return len(self.whole.folded)

    def name_words(self) -> None:
        """Read the words, note by what the text is found and compared, and free them."""
        _ = self.named, self.digest, self.n_words
        self.free_words()

    def free_words(self) -> None:
        """Free the words, which take ten times as much memory as the text."""
        for name in ("whole", "body", "title"):
            self.__dict__.pop(name, None)


def is_same_text(old: Text, new: Text, least: float) -> bool:
    """Whether `new` is an edit of `old`: near-identical with its title, or under another title.

    Under another title, a text of at least four words must be near-identical, word for word where
    the title turns (numbers, "not"); a shorter one must be the same, and the titles share a word.
    """
    if near_identical(old.whole, new.whole, least):
        return True
    if old.body.folded == new.body.folded:
        shared = set(old.title.folded) & set(new.title.folded)
        return len(new.body.folded) >= _BODY or bool(shared)
    return old.title.turning == new.title.turning and is_same_body(old, new, least)


def is_same_body(old: Text, new: Text, least: float) -> bool:
    """Whether a text of four words or more is an edit of another, whatever the titles are."""
    return len(new.body.folded) >= _BODY and near_identical(old.body, new.body, least)


def _came_from(root: Text | None, new: Text, least: float) -> bool:
    """Whether a text is an edit of the one that a lineage began with, so that many small edits do not
    carry votes to other words."""
    return root is not None and (is_same_body(root, new, least) or is_same_text(root, new, least))


@dataclass(frozen=True)
class Heir:
    """What a new text inherits: a lineage, or that of another new text (its number); else nothing."""

    lineage: int | None = None
    copy_of: int | None = None


class Lineages:
    """Finds the lineages of texts that are about to be added, while `leaving` rows are about to end."""

    def __init__(self, conn: Connection, rule: Rule, leaving: Mapping[int, StoredPassage]) -> None:
        self._conn = conn
        self._rule = rule
        self._leaving = leaving
        self._stands: dict[int, bool] = {}
        self._texts: dict[int, Text] = {}
        self._roots: dict[int, Text | None] = {}
        self._exact: dict[bytes, _Rows] = {}
        self._ids: set[str] = set()  # that rows have, of those of the texts, and so their hashes
        self._hashes: set[bytes] = set()
        self._bodies: set[bytes] = set()

    def of(self, texts: Sequence[Text], before: Mapping[str, StoredPassage]) -> list[Heir]:
        """What each of these texts inherits; before: the present rows of their ids.

        First comes the same text, of whatever time; then a text that is in the index and of which
        this is a copy; then a text that leaves, or left, and of which this is an edit; last, a copy
        among the new texts. A text that left is inherited once, by the text most like it.
        """
        heirs: dict[int, Heir] = {}
        self._note_stored(texts)
        for i, text in enumerate(texts):
            lineage = self._lineage_of_same(text)
            if lineage is not None:
                heirs[i] = Heir(lineage)
                self._stands[lineage] = True
        pairs: list[tuple[float, int, int]] = []
        for i, alike in self._rows_like(texts, [i for i in range(len(texts)) if i not in heirs]):
            text = texts[i]
            near = list(self._near(text, before.get(text.passage.id), alike))
            lineage = self._copied(text, near)
            if lineage is not None:
                heirs[i] = Heir(lineage)
            else:
                pairs += ((same, -i, -found) for found, same in self._edited(text, near).items())
            text.free_words()
        for _, minus_i, minus_lineage in sorted(pairs, reverse=True):  # of equals the oldest first
            i, lineage = -minus_i, -minus_lineage
            if i not in heirs and not self.stands(lineage):
                heirs[i] = Heir(lineage)
                self._stands[lineage] = True
        return self._with_copies(texts, heirs)

    @cached_property
    def _left(self) -> "_Nearby":
        return _Nearby((pid, self._text(stored)) for pid, stored in self._leaving.items())

    def stands(self, lineage: int) -> bool:
        """Whether a text of this lineage is in the index once the leaving rows have left."""
        known = self._stands.get(lineage)
        if known is None:
            rows = store.rows_of_lineage(self._conn, lineage)
            known = any(row.pid not in self._leaving for row in rows)
            self._stands[lineage] = known
        return known

    def _note_stored(self, texts: Sequence[Text]) -> None:
        """Note by what any of these texts can be found among all rows, so that only those are looked for."""
        self._ids, self._hashes, self._bodies = store.with_rows(
            self._conn,
            [text.passage.id for text in texts],
            [store.passage_hash(text.passage) for text in texts],
            [text.named.body_hash for text in texts],
        )

    def _rows_like(
        self, texts: Sequence[Text], numbers: Sequence[int]
    ) -> Iterator[tuple[int, list[KnownRow]]]:
        """Yield (number of a text, rows that share keys of its sketch), reading many at once."""
        for start in range(0, len(numbers), _AT_ONCE):
            some = numbers[start : start + _AT_ONCE]
            sketches = [texts[i].keys for i in some]
            yield from zip(
                some, store.rows_like(self._conn, sketches, _BUCKET, _ALIKE), strict=True
            )

    def _lineage_of_same(self, text: Text) -> int | None:
        """The lineage of the very same text under the same tenant; that under the same id goes first."""
        passage = text.passage
        name = store.passage_hash(passage)
        if name not in self._hashes:
            return None
        if name not in self._exact:
            rows = store.rows_with_text(self._conn, name)
            self._exact[name] = _Rows(rows, self._rule.tenancy)
        return self._exact[name].lineage(passage)

    def _near(
        self, text: Text, current: StoredPassage | None, alike: Sequence[KnownRow]
    ) -> Iterator[KnownRow]:
        """Rows that may be the same text, of the same tenant; each once. alike: those that share keys."""
        passage, conn = text.passage, self._conn
        found: list[KnownRow] = []
        if current is not None:
            found.append(KnownRow(current, True, 0))
        if passage.id in self._ids:
            earlier = store.earlier_texts(conn, passage.id, store.passage_hash(passage))
            found += (KnownRow(stored, False, 0) for stored in earlier)
        if text.named.body_hash in self._bodies:
            found += store.rows_with_body(conn, text.named.body_hash, _SAME_BODY)
        found += alike
        pids = self._left.like(text)
        found += (KnownRow(self._leaving[pid], True, 0) for pid in pids)
        seen = set[int]()
        for row in found:
            stored = row.stored
            if stored.pid not in seen and self._rule.same_tenant(stored.passage, passage):
                seen.add(stored.pid)
                yield row

    def _copied(self, text: Text, near: Iterable[KnownRow]) -> int | None:
        """The lineage of a text in the index that stays there, of which this is a copy."""
        for row in near:
            stored = row.stored
            if not row.present or stored.pid in self._leaving:
                continue
            if not may_be_copy(store.encoded_text(stored.passage), text.whole):
                continue
            if is_copy(self._text(stored).whole, text.whole) and self._fits(stored, text):
                return stored.lineage
        return None

    def _edited(self, text: Text, near: Iterable[KnownRow]) -> dict[int, float]:
        """How much like it, by lineage, the texts are that have left or leave and became this one."""
        found: dict[int, float] = {}
        for row in near:
            stored = row.stored
            if row.present and stored.pid not in self._leaving:
                self._stands[stored.lineage] = True
            if self.stands(stored.lineage):
                continue
            same_id = stored.passage.id == text.passage.id
            old = self._text(stored)
            if not is_same_text(old, text, self._rule.least(same_id=same_id)):
                continue
            if self._fits(stored, text):
                alike = similarity(old.whole, text.whole) + 1e-3 * same_id
                found[stored.lineage] = max(alike, found.get(stored.lineage, 0.0))
        return found

    def _fits(self, stored: StoredPassage, text: Text) -> bool:
        """Whether a text is also an edit of the first one of the lineage."""
        if stored.lineage == stored.pid:
            return True
        if stored.lineage not in self._roots:
            rows = store.rows_of(self._conn, [stored.lineage])
            root = rows.get(stored.lineage)
            self._roots[stored.lineage] = None if root is None else Text(root.passage)
        root_text = self._roots[stored.lineage]
        same_id = stored.passage.id == text.passage.id
        least = self._rule.least(same_id=same_id)
        return _came_from(root_text, text, least)

    def _with_copies(self, texts: Sequence[Text], heirs: dict[int, Heir]) -> list[Heir]:
        """The heirs, with new texts that are copies of others among them."""
        if len(heirs) < len(texts):
            shared = _shared_keys(texts)
            groups: dict[str | None, _Nearby] = defaultdict(lambda: _Nearby(only=shared))
            same: dict[tuple[bytes, str | None], int] = {}
            for i, text in enumerate(texts):
                tenant = self._rule.tenancy.of(text.passage)
                name = text.digest, tenant
                if i not in heirs:
                    of = same.get(name)
                    if of is None:
                        alike = groups[tenant].like(text)
                        of = next((j for j in alike if _is_copy(texts[j], text)), None)
                    heirs[i] = Heir() if of is None else Heir(heirs[of].lineage, of)
                if heirs[i].copy_of is None:
                    same.setdefault(name, i)
                    groups[tenant].add(i, text)
                text.free_words()
        return [heirs[i] for i in range(len(texts))]

    def _text(self, stored: StoredPassage) -> Text:
        if len(self._texts) > 4 * _BUCKET * _ALIKE and stored.pid not in self._leaving:
            return Text(stored.passage)
        return self._texts.setdefault(stored.pid, Text(stored.passage))


def successor(
    conn: Connection, rule: Rule, gone: StoredPassage, is_free: Callable[[int], bool]
) -> StoredPassage | None:
    """The present text that a removed one became, though it was added before that was removed.

    It must be younger than the first text of the lineage, an edit of the removed one, and without votes or
    known answers of its own.
    is_free: whether a lineage has no votes and no known answers.
    """
    old = Text(gone.passage)
    root = store.rows_of(conn, [gone.lineage]).get(gone.lineage)
    rows = store.rows_with_body(conn, old.named.body_hash, _SAME_BODY)
    rows += store.rows_like(conn, [old.keys], _BUCKET, _ALIKE)[0]
    least, best = rule.least(same_id=False), None
    for stored in (row.stored for row in rows if row.present):
        new = Text(stored.passage)
        alike = similarity(old.whole, new.whole)
        if (
            stored.lineage > gone.lineage
            and rule.same_tenant(gone.passage, stored.passage)
            and (best is None or alike > best[0])
            and is_same_text(old, new, least)
            and is_free(stored.lineage)
            and _came_from(None if root is None else Text(root.passage), new, least)
        ):
            best = alike, stored
    return None if best is None else best[1]


class _Rows:
    """Rows of one text, and the lineage that a new one inherits: that of a row of its id or, where no
    such row is in the index, of one that is; else of the newest."""

    def __init__(self, rows: Iterable[KnownRow], tenancy: Tenancy) -> None:
        self._tenancy = tenancy
        self._best: dict[str | None, KnownRow] = {}
        self._by_id: dict[str, KnownRow] = {}
        for row in sorted(rows, key=lambda row: (row.present, row.stored.pid)):
            self._best[tenancy.of(row.stored.passage)] = row
            self._by_id[row.stored.passage.id] = row

    def lineage(self, passage: Passage) -> int | None:
        """The lineage that a passage of this text inherits; None: none."""
        tenant = self._tenancy.of(passage)
        best, own = self._best.get(tenant), self._by_id.get(passage.id)
        if own is not None and self._tenancy.of(own.stored.passage) not in (None, tenant):
            own = None
        if own is None or (best is not None and best.present > own.present):
            own = best
        return None if own is None else own.stored.lineage


def _shared_keys(texts: Sequence[Text]) -> set[int]:
    """The keys that the sketches of two texts or more have."""
    every = np.array([text.keys for text in texts], dtype=np.int64).ravel()
    keys, counts = np.unique(every, return_counts=True)
    return set(keys[counts > 1].tolist())


def _is_copy(one: Text, other: Text) -> bool:
    """Whether two new texts are copies; the words of the first are not kept."""
    if one.n_words != other.n_words:
        return False
    found = may_be_copy(store.encoded_text(one.passage), other.whole)
    found = found and is_copy(one.whole, other.whole)
    one.free_words()
    return found


class _Nearby:
    """Texts in memory that are found by their sketches; each key leads to the first 32 at most.

    only: the keys by which there is anything to find, None: all.
    """

    def __init__(
        self, texts: Iterable[tuple[int, Text]] = (), *, only: Collection[int] | None = None
    ) -> None:
        self._names: dict[int, list[int]] = defaultdict(list)
        self._only = only
        for name, text in texts:
            self.add(name, text)

    def add(self, name: int, text: Text) -> None:
        """Add a text under a number."""
        for key in text.keys:
            if self._only is None or key in self._only:
                names = self._names[key]
                if len(names) < _BUCKET:
                    names.append(name)

    def like(self, text: Text) -> list[int]:
        """The numbers of the texts that share the most keys with this one."""
        if not self._names:
            return []
        counts = Counter(name for key in text.keys for name in self._names.get(key, ()))
        return [name for name, _ in counts.most_common(_ALIKE)]
