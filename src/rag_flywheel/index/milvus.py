"""The texts of versions in Milvus: a collection of each, which never changes, with the vector of every
passage and its BM25 score for each word.

    pid     INT64                the number of a passage
    dense   FLOAT_VECTOR         its vector
    words   SPARSE_FLOAT_VECTOR  by the number of a word, from 1 on, the BM25 score of the passage for it

Both are compared by inner product, so that Milvus finds what FAISS and BM25 find in memory: the score of a
passage for a word is a number that does not depend on the query. It must not know passages' texts: those are
in the store, and `read_texts` reads them.
"""

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rag_flywheel.errors import ConfigError, EngineError, counted
from rag_flywheel.index.engine import Found, Positions, Question, ReadTexts, Scores
from rag_flywheel.index.fresh import FreshSegment
from rag_flywheel.index.in_memory import InMemory
from rag_flywheel.index.lru import LRU
from rag_flywheel.index.part import Part
from rag_flywheel.index.positions import find_pids
from rag_flywheel.index.stored_statistics import StoredStatistics
from rag_flywheel.records import Pids, Vectors

log = logging.getLogger("rag_flywheel")
ReadTitled = Callable[[Pids], Sequence[tuple[str, str]]]
"""The title and the whole text of passages by their numbers."""
TOKEN = "RAG_FLYWHEEL_MILVUS_TOKEN"
"""The environment variable with the token, or USER:PASSWORD, of a server that wants one."""
_ADDRESS = re.compile(r"(https?://[^/\s@]+)/([A-Za-z_][A-Za-z0-9_]{0,99})", re.ASCII)
_BUILDING = "_building"
_AT_ONCE = 500  # rows that are written
_READ, _QUERIES = 1_000, 256  # rows that are read, and queries that are asked
_MOST = 16_384  # that a search of Milvus returns
_LISTED = 4_096  # numbers of passages that a filter names before others are tried
_MARGIN = 1.5
_CACHED_BYTES = 64 * 2**20  # of rows that were read
_WORDS_BYTES = 1_000  # of the words of one, about
_TEXTS = 20_000  # that were read, and are kept as the numbers of their words
_NONE = np.empty(0, dtype=np.int32)
_EXACT_BELOW = 20_000  # passages; above, a graph finds nearly all of the nearest
_NOT_CONNECTED, _NOT_LOADED = 2, 101  # codes of Milvus's errors
_NO_WORD = 0  # the place of a passage without words, which no query names
_SOON_S, _TIMEOUT_S, _BUILD_TIMEOUT_S = 1.0, 10.0, 600.0


class Milvus:
    """A server of Milvus, with the collections whose names begin with a prefix."""

    def __init__(self, uri: str, prefix: str) -> None:
        self.uri, self.prefix = uri, prefix
        self._client: Any = None
        self._of = 0  # the process that the client is of: a connection does not outlive a fork

    @classmethod
    def at(cls, address: str) -> "Milvus":
        """The server and the prefix of "http://HOST:PORT/PREFIX". Raises ConfigError; connects to nothing."""
        found = _ADDRESS.fullmatch(address)
        if found is None:
            raise ConfigError(
                f"config engine names the server {address!r}; expected http://HOST:PORT/PREFIX, the prefix "
                f"of letters, digits and _ (a password goes into the environment variable {TOKEN})"
            )
        return cls(found[1], found[2])

    @property
    def client(self) -> Any:
        """The connection of this process. Raises EngineError."""
        if self._client is None or self._of != os.getpid():
            try:
                from pymilvus import MilvusClient
            except ImportError as error:
                raise EngineError(
                    "config engine names Milvus, and its client is not installed: "
                    "pip install 'rag-flywheel[milvus]'"
                ) from error
            logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs what it raises
            with self.errors():
                token, own = os.environ.get(TOKEN, ""), {"timeout": _TIMEOUT_S, "dedicated": True}
                self._client = MilvusClient(uri=self.uri, token=token, **own)
                self._of = os.getpid()
        return self._client

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn the errors of Milvus and of the connection into EngineError; one that failed is opened anew by
        the next call."""
        import grpc
        from pymilvus.exceptions import MilvusException

        try:
            yield
        except (MilvusException, grpc.RpcError, OSError, ValueError) as error:
            code = getattr(error, "code", None)
            if not isinstance(code, int) or code == _NOT_CONNECTED:
                self._disconnect()
            raise EngineError(
                f"Milvus at {self.uri} does not answer as it should ({_first_line(error)}). Passages are "
                "found in it, so nothing is answered without it: start it, or mend `engine` in "
                "flywheel.toml, and run `rag-flywheel verify`"
            ) from error

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None and self._of == os.getpid():
            client.close()

    def answers(self) -> bool:
        """Whether it can be asked within a second or two."""
        try:
            client = self.client
            with self.errors():
                client.get_server_version(timeout=_SOON_S)
        except EngineError:
            return False
        return True

    def name(self, collection: str) -> str:
        """The whole name of a collection."""
        return f"{self.prefix}_{collection}"

    def has(self, collection: str, n: int) -> bool:
        """Whether a collection is there, with this many passages. Raises EngineError."""
        client, name = self.client, self.name(collection)
        with self.errors():
            return bool(client.has_collection(name, timeout=_TIMEOUT_S)) and n == _count(
                client, name
            )

    def publish(self, collection: str, texts: InMemory) -> None:
        """Write texts as a collection, unless it is there. It has its name once all are in it.

        What a build that died left is deleted. Raises EngineError.
        """
        if self.has(collection, len(texts.pids)):
            return
        client, name = self.client, self.name(collection)
        with self.errors():
            staged = f"{name}{_BUILDING}"
            for left in (name, staged):
                _drop(client, left)
            _create(client, staged, texts)
            for rows in _rows(texts):
                client.insert(staged, rows, timeout=_BUILD_TIMEOUT_S)
            client.flush(staged, timeout=_BUILD_TIMEOUT_S)
            client.load_collection(staged, timeout=_BUILD_TIMEOUT_S)
            n = _count(client, staged)
            if n != len(texts.pids):
                raise ValueError(f"it holds {counted(n, 'passage')} of {len(texts.pids)}")
            client.rename_collection(staged, name, timeout=_BUILD_TIMEOUT_S)
            client.load_collection(name, timeout=_BUILD_TIMEOUT_S)
        log.info("refresh: wrote %s into %s of Milvus", counted(n, "passage"), name)

    def point(self, collection: str) -> None:
        """Let the alias, which is the prefix alone, stand for a collection. Raises EngineError."""
        client, name = self.client, self.name(collection)
        with self.errors():
            known = [
                alias for each in client.list_collections() for alias in _aliases(client, each)
            ]
            change = client.alter_alias if self.prefix in known else client.create_alias
            change(name, self.prefix, timeout=_TIMEOUT_S)

    def collections(self) -> list[str]:
        """The names of all collections with the prefix, without it. Raises EngineError."""
        client, start = self.client, f"{self.prefix}_"
        with self.errors():
            every = client.list_collections(timeout=_TIMEOUT_S)
        return [name.removeprefix(start) for name in every if name.startswith(start)]

    def drop(self, collection: str) -> None:
        """Delete a collection, if it is there. Raises EngineError."""
        client, name = self.client, self.name(collection)
        with self.errors():
            _drop(client, name)

    def opened(
        self, collection: str, statistics: StoredStatistics, dim: int, read_texts: ReadTitled
    ) -> "InMilvus":
        """The texts of a collection, which must be there. Raises EngineError."""
        client, name, n = self.client, self.name(collection), len(statistics)
        if not self.has(collection, n):
            raise EngineError(
                f"Milvus at {self.uri} has no collection {name} of {counted(n, 'passage')}, which the live "
                "version is in; run `rag-flywheel refresh`, which writes it again"
            )
        with self.errors():
            client.load_collection(name, timeout=_BUILD_TIMEOUT_S)
        return InMilvus(self, name, statistics, dim, read_texts)


class _Row(NamedTuple):
    """What is stored of a passage: its vector float32 (dim,), the numbers of its words int32 (m,), and its
    BM25 score for each, float32 (m,)."""

    vector: Vectors
    words: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float32]


class InMilvus:
    """The `Engine` of texts in a collection. Here are their numbers and the word statistics."""

    def __init__(
        self,
        server: Milvus,
        name: str,
        statistics: StoredStatistics,
        dim: int,
        read_texts: ReadTitled,
    ) -> None:
        self._server, self._name, self._read_texts = server, name, read_texts
        self.statistics, self.dim = statistics, dim
        self._read = LRU[int, _Row](max(1, _CACHED_BYTES // (4 * dim + _WORDS_BYTES)))
        self._lock = threading.Lock()  # of the texts
        self._numbers: dict[int, int] = {}
        self._texts = FreshSegment.empty(1, statistics.tokenizer)

    @property
    def pids(self) -> Pids:
        """As in `Engine`."""
        return self.statistics.pids

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """As in `Engine`."""
        return self.statistics.vocabulary

    @property
    def typical_cosine(self) -> float:
        """As in `Engine`."""
        return self.statistics.numbers.typical_cosine

    def find(self, questions: Sequence[Question], n: int, part: Part | None) -> list[Found]:
        """As in `Engine`."""
        near = self._search("dense", [q.vector for q in questions], n, part)
        best = self._search("words", [self._sparse(q.words) for q in questions], n, part)
        every = [np.union1d(*each) for each in zip(near, best, strict=True)]
        return [
            Found(positions, self.score(question, positions))
            for question, positions in zip(questions, every, strict=True)
        ]

    def score(self, question: Question, positions: Positions) -> Scores:
        """As in `Engine`: from what is stored of the texts, so that scores are those of one machine."""
        rows = self._rows(positions)
        bm25 = np.zeros(len(rows), dtype=np.float32)
        tokens = np.concatenate([row.words for row in rows] or [_NONE])
        scores = np.concatenate([row.scores for row in rows] or [_NONE.astype(np.float32)])
        of_row = np.repeat(np.arange(len(rows)), [len(row.words) for row in rows])
        for word in question.words:
            if (token := self.vocabulary.get(word)) is not None:
                here = np.flatnonzero(tokens == token)
                bm25[of_row[here]] += scores[here]
        return Scores(self._stacked(rows) @ question.vector, bm25)

    def having_all(self, words: Sequence[str], most: int) -> Positions:
        """As in `Engine`. Where each of the words is in more texts than Milvus returns, they are held to be
        more than `most`."""
        tokens = [self.vocabulary.get(word) for word in dict.fromkeys(words)]
        known = sorted(
            (t for t in tokens if t is not None), key=lambda t: int(self.statistics.df[t])
        )
        if not known or len(known) < len(tokens):
            return np.empty(0, dtype=np.int64)
        rarest = int(self.statistics.df[known[0]])
        if rarest > (most if len(known) == 1 else _MOST):
            return np.arange(most + 1)
        found: Positions | None = None
        for token in known:
            part = None
            if found is not None:
                mask = np.zeros(len(self.pids), dtype=bool)
                mask[found] = True
                part = Part.of(mask)
            (found,) = self._search("words", [{token + 1: 1.0}], max(rarest, 1), part)
        assert found is not None
        return np.sort(found)

    def read(self, positions: Positions, words: Sequence[str], ngrams: Sequence[str]) -> ReadTexts:
        """As in `Engine`: their texts are read from the store, and tokenised."""
        with self._lock:
            rows, texts = self._tokenised(self.pids[positions])
        found = texts.read(rows, words, ngrams, self.statistics)
        return replace(found, titles=self.statistics.titles[positions].astype(np.int64))

    def _tokenised(self, pids: Pids) -> tuple[Positions, FreshSegment]:
        """Texts that were read lately, and where these are among them; the others are added."""
        missing = [pid for pid in pids.tolist() if pid not in self._numbers]
        if len(self._numbers) + len(missing) > _TEXTS:
            self._numbers, missing = {}, pids.tolist()
            self._texts = FreshSegment.empty(1, self.statistics.tokenizer)
        if missing:
            titled, start = self._read_texts(np.array(missing, dtype=np.int64)), len(self._numbers)
            titles, spoken = [title for title, _ in titled], [text for _, text in titled]
            numbers = np.arange(start, start + len(missing))
            blank = np.zeros((len(missing), 1), dtype=np.float32)  # vectors, which nobody asks for
            self._texts = self._texts.with_texts(numbers, spoken, titles, blank)
            self._numbers.update(zip(missing, numbers.tolist(), strict=True))
        return np.array([self._numbers[pid] for pid in pids.tolist()], dtype=np.int64), self._texts

    def vectors(self, pids: Pids) -> Vectors:
        """As in `Engine`."""
        at, there = find_pids(pids, self.pids)
        if not there.all():
            raise LookupError("a pid is not in the index")
        return self._stacked(self._rows(at))

    def nearest(self, vectors: Vectors, n: int) -> list[Pids]:
        """As in `Engine`."""
        return [self.pids[row] for row in self._search("dense", list(vectors), n, None)]

    def _sparse(self, words: Sequence[str]) -> dict[int, float]:
        """How often each known word is in a query, as Milvus compares it; nothing for none."""
        found: dict[int, float] = {}
        for word in words:
            if (token := self.vocabulary.get(word)) is not None:
                found[token + 1] = found.get(token + 1, 0.0) + 1.0
        return found

    def _stacked(self, rows: Sequence[_Row]) -> Vectors:
        return np.array([row.vector for row in rows], dtype=np.float32).reshape(len(rows), self.dim)

    def _search(
        self, field: str, queries: Sequence[Any], n: int, part: Part | None
    ) -> list[Positions]:
        """For each query the positions of the n best of a part, the best first; none for an empty one."""
        there = len(self.pids) if part is None else part.n
        n, found = min(n, there), [np.empty(0, dtype=np.int64) for _ in queries]
        asked = [i for i, query in enumerate(queries) if len(query)]
        if n < 1 or not asked:
            return found
        limit, condition = n, ""
        if part is not None:
            listed = min(part.n, len(self.pids) - part.n)
            wider = int(_MARGIN * n * len(self.pids) / part.n) + 1
            if listed > _LISTED and wider <= _MOST:
                limit = wider
            else:
                condition = self._only(part)
        every = self._asked(field, [queries[i] for i in asked], limit, condition)
        for i, positions in zip(asked, every, strict=True):
            if part is None or condition:
                found[i] = positions[:n]
                continue
            inside = positions[part.mask[positions]][:n]
            if len(inside) < n and len(positions) >= limit:  # others of the part may lie farther
                (inside,) = self._asked(field, [queries[i]], n, self._only(part))
            found[i] = inside
        return found

    def _only(self, part: Part) -> str:
        """The condition that a passage is of a part."""
        if 2 * part.n <= len(self.pids):
            return f"pid in {self.pids[part.mask].tolist()}"
        return f"pid not in {self.pids[~part.mask].tolist()}"

    def _asked(
        self, field: str, queries: Sequence[Any], limit: int, condition: str
    ) -> list[Positions]:
        """For each query the positions of the texts that Milvus finds, the best first."""
        parameters, found = {}, list[Positions]()
        if field == "dense" and len(self.pids) >= _EXACT_BELOW:
            parameters = {"ef": max(256, 2 * limit)}
        with self._server.errors():
            for start in range(0, len(queries), _QUERIES):
                every = self._ask(
                    "search",
                    data=list(queries[start : start + _QUERIES]),
                    anns_field=field,
                    filter=condition,
                    limit=limit,
                    search_params={"metric_type": "IP", "params": parameters},
                    output_fields=["pid"],
                )
                found += [self._positions([hit["pid"] for hit in hits]) for hits in every]
        return found

    def _ask(self, method: str, **named: Any) -> Any:
        """What a method of the client returns for the collection, which a server that was started again may
        have to load first."""
        from pymilvus.exceptions import MilvusException

        call = getattr(self._server.client, method)
        try:
            return call(self._name, timeout=_TIMEOUT_S, **named)
        except MilvusException as error:
            if error.code != _NOT_LOADED:
                raise
        self._server.client.load_collection(self._name, timeout=_BUILD_TIMEOUT_S)
        return call(self._name, timeout=_TIMEOUT_S, **named)

    def _positions(self, pids: Sequence[int]) -> Positions:
        at, there = find_pids(np.array(pids, dtype=np.int64), self.pids)
        if not there.all():
            raise ValueError(f"{self._name} has passages that are not of this version")
        return at

    def _rows(self, positions: Positions) -> list[_Row]:
        """What is stored of the texts at these positions; it never changes, so that of the last ones is
        cached."""
        pids = self.pids[positions].tolist()
        found = {pid: row for pid in pids if (row := self._read.get(pid)) is not None}
        missing = [pid for pid in dict.fromkeys(pids) if pid not in found]
        for start in range(0, len(missing), _READ):
            found |= self._fetched(missing[start : start + _READ])
        return [found[pid] for pid in pids]

    def _fetched(self, pids: Sequence[int]) -> dict[int, _Row]:
        found = {}
        with self._server.errors():
            fields = ["pid", "dense", "words"]
            for row in self._ask("query", filter=f"pid in {pids}", output_fields=fields):
                words = {place: score for place, score in row["words"].items() if place != _NO_WORD}
                tokens = np.fromiter(words, np.int64, len(words)) - 1
                scores = np.fromiter(words.values(), np.float32, len(words))
                own = _Row(
                    np.array(row["dense"], dtype=np.float32), tokens.astype(np.int32), scores
                )
                found[int(row["pid"])] = own
            if len(found) < len(pids):
                lost = counted(len(pids) - len(found), "passage")
                raise ValueError(f"{self._name} lacks {lost} of its version")
        for pid, own in found.items():
            self._read.put(pid, own)
        return found


def _create(client: Any, name: str, texts: InMemory) -> None:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("pid", DataType.INT64, is_primary=True)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=texts.dim)
    schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    indexes = client.prepare_index_params()
    if len(texts.pids) < _EXACT_BELOW:
        indexes.add_index("dense", index_type="FLAT", metric_type="IP")
    else:
        graph = {"M": 32, "efConstruction": 200}
        indexes.add_index("dense", index_type="HNSW", metric_type="IP", params=graph)
    indexes.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    client.create_collection(name, schema=schema, index_params=indexes, timeout=_BUILD_TIMEOUT_S)


def _rows(texts: InMemory) -> Iterator[list[dict[str, Any]]]:
    """The rows of a collection, some at a time."""
    from scipy import sparse

    bm25, n = texts.lexical.bm25, len(texts.pids)
    shape = n, len(bm25.starts) - 1
    by_text = sparse.csc_matrix((bm25.data, bm25.texts, bm25.starts), shape=shape).tocsr()
    for start in range(0, n, _AT_ONCE):
        positions = np.arange(start, min(start + _AT_ONCE, n))
        vectors, rows = texts.dense.at(positions), []
        for i, vector in zip(positions.tolist(), vectors, strict=True):
            own = slice(by_text.indptr[i], by_text.indptr[i + 1])
            places = (by_text.indices[own] + 1).tolist()
            words = dict(zip(places, by_text.data[own].tolist(), strict=True)) or {_NO_WORD: 1.0}
            rows.append({"pid": int(texts.pids[i]), "dense": vector, "words": words})
        yield rows


def _count(client: Any, name: str) -> int:
    """How many rows a collection has, every one that was written counted."""
    client.load_collection(name, timeout=_BUILD_TIMEOUT_S)
    rows = client.query(
        name,
        filter="",
        output_fields=["count(*)"],
        consistency_level="Strong",
        timeout=_BUILD_TIMEOUT_S,
    )
    return int(rows[0]["count(*)"])


def _first_line(error: BaseException) -> str:
    said = str(getattr(error, "message", None) or error).strip()
    return said.splitlines()[0][:300] if said else type(error).__name__


def _drop(client: Any, name: str) -> None:
    """Delete a collection, if it is there, and what stands for it."""
    if client.has_collection(name, timeout=_TIMEOUT_S):
        for alias in _aliases(client, name):
            client.drop_alias(alias, timeout=_TIMEOUT_S)
        client.drop_collection(name, timeout=_BUILD_TIMEOUT_S)


def _aliases(client: Any, name: str) -> list[str]:
    found: list[str] = client.list_aliases(name, timeout=_TIMEOUT_S)["aliases"]
    return found
