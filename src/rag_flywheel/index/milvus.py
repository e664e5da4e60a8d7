"""Milvus as a database of vectors: a collection of each version, with the vector of every passage and its
BM25 score for each word.

    pid     INT64                the number of a passage
    dense   FLOAT_VECTOR         its vector
    words   SPARSE_FLOAT_VECTOR  by the number of a word, from 1 on, the BM25 score of the passage for it

Both are compared by inner product, so that Milvus finds what FAISS and BM25 find in memory: the score of a
passage for a word is a number that does not depend on the query.
"""

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from rag_flywheel.errors import ConfigError, EngineError, counted
from rag_flywheel.vector_database import Chosen, Field, Row, unanswered

log = logging.getLogger("rag_flywheel")
TOKEN = "RAG_FLYWHEEL_MILVUS_TOKEN"
"""The environment variable with the token, or USER:PASSWORD, of a server that wants one."""
_ADDRESS = re.compile(r"(https?://[^/\s@]+)/([A-Za-z_][A-Za-z0-9_]{0,99})", re.ASCII)
_BUILDING = "_building"
MOST = 16_384  # passages that a search returns
EXACT_BELOW = 20_000  # passages; above, a graph finds nearly all of the nearest
_NOT_CONNECTED, _NOT_LOADED = 2, 101  # codes of Milvus's errors
_NO_WORD = 0  # the place of a passage without words, which no query names
_SOON_S, TIMEOUT_S, _BUILD_TIMEOUT_S = 1.0, 10.0, 600.0
QUERY_S = 1.0  # more for each query


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
    def address(self) -> str:
        """As in `VectorDatabase`."""
        return f"Milvus at {self.uri}"

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
                token, own = os.environ.get(TOKEN, ""), {"timeout": TIMEOUT_S, "dedicated": True}
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
                self.close()
            why = error.details() if isinstance(error, grpc.RpcError) else error
            raise unanswered(self.address, why) from error

    def close(self) -> None:
        """As in `VectorDatabase`."""
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
            return bool(client.has_collection(name, timeout=TIMEOUT_S)) and n == _count(
                client, name
            )

    def write(self, collection: str, dim: int, n: int, rows: Iterable[Sequence[Row]]) -> None:
        """As in `VectorDatabase`; what a build that died left is deleted."""
        client, name = self.client, self.name(collection)
        staged = f"{name}{_BUILDING}"
        with self.errors():
            for left in (name, staged):
                _drop(client, left)
            _create(client, staged, dim, n)
            for some in rows:
                client.insert(staged, list(map(_stored, some)), timeout=_BUILD_TIMEOUT_S)
            client.flush(staged, timeout=_BUILD_TIMEOUT_S)
            client.load_collection(staged, timeout=_BUILD_TIMEOUT_S)
            if (found := _count(client, staged)) != n:
                raise ValueError(f"it holds {counted(found, 'passage')} of {n}")
            client.rename_collection(staged, name, timeout=_BUILD_TIMEOUT_S)
            client.load_collection(name, timeout=_BUILD_TIMEOUT_S)

    def point(self, collection: str) -> None:
        """Let the alias, which is the prefix alone, stand for a collection. Raises EngineError."""
        client, name = self.client, self.name(collection)
        with self.errors():
            known = [
                alias for each in client.list_collections() for alias in _aliases(client, each)
            ]
            change = client.alter_alias if self.prefix in known else client.create_alias
            change(name, self.prefix, timeout=TIMEOUT_S)

    def collections(self) -> list[str]:
        """The names of all collections with the prefix, without it. Raises EngineError."""
        client, start = self.client, f"{self.prefix}_"
        with self.errors():
            every = client.list_collections(timeout=TIMEOUT_S)
        return [name.removeprefix(start) for name in every if name.startswith(start)]

    def drop(self, collection: str) -> None:
        """Delete a collection, if it is there. Raises EngineError."""
        client, name = self.client, self.name(collection)
        with self.errors():
            _drop(client, name)

    def open(self, collection: str, dim: int, n: int) -> "MilvusCollection":
        """As in `VectorDatabase`."""
        with self.errors():
            self.client.load_collection(self.name(collection), timeout=_BUILD_TIMEOUT_S)
        return MilvusCollection(self, self.name(collection), n)


class MilvusCollection:
    """A `Collection` of n passages."""

    most = MOST

    def __init__(self, server: Milvus, name: str, n: int) -> None:
        self._server, self._name, self._n = server, name, n

    def search(
        self, field: Field, queries: Sequence[Any], n: int, chosen: Chosen | None
    ) -> list[list[int]]:
        """As in `Collection`."""
        parameters, condition = {}, ""
        if field == "dense" and self._n >= EXACT_BELOW:
            parameters = {"ef": max(256, 2 * n)}
        if field == "words":
            queries = [{word + 1: times for word, times in query.items()} for query in queries]
        if chosen is not None:
            condition = f"pid {'in' if chosen.these else 'not in'} {list(chosen.pids)}"
        with self._server.errors():
            every = self._ask(
                "search",
                timeout=TIMEOUT_S + QUERY_S * len(queries),
                data=list(queries),
                anns_field=field,
                filter=condition,
                limit=n,
                search_params={"metric_type": "IP", "params": parameters},
                output_fields=["pid"],
            )
            return [[int(hit["pid"]) for hit in hits] for hits in every]

    def rows(self, pids: Sequence[int]) -> list[Row]:
        """As in `Collection`."""
        fields, found = ["pid", "dense", "words"], list[Row]()
        with self._server.errors():
            condition = f"pid in {list(pids)}"
            for row in self._ask("query", TIMEOUT_S, filter=condition, output_fields=fields):
                words = {place: score for place, score in row["words"].items() if place != _NO_WORD}
                numbers = np.fromiter(words, np.int64, len(words)) - 1
                scores = np.fromiter(words.values(), np.float32, len(words))
                vector = np.array(row["dense"], dtype=np.float32)
                found.append(Row(int(row["pid"]), vector, numbers.astype(np.int32), scores))
        return found

    def _ask(self, method: str, timeout: float, **named: Any) -> Any:
        """What a method of the client returns for the collection, which a server that was started again may
        have to load first."""
        from pymilvus.exceptions import MilvusException

        call = getattr(self._server.client, method)
        try:
            return call(self._name, timeout=timeout, **named)
        except MilvusException as error:
            if error.code != _NOT_LOADED:
                raise
        self._server.client.load_collection(self._name, timeout=_BUILD_TIMEOUT_S)
        return call(self._name, timeout=timeout, **named)


def _create(client: Any, name: str, dim: int, n: int) -> None:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("pid", DataType.INT64, is_primary=True)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=dim)
    schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    indexes = client.prepare_index_params()
    if n < EXACT_BELOW:
        indexes.add_index("dense", index_type="FLAT", metric_type="IP")
    else:
        graph = {"M": 32, "efConstruction": 200}
        indexes.add_index("dense", index_type="HNSW", metric_type="IP", params=graph)
    indexes.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    client.create_collection(name, schema=schema, index_params=indexes, timeout=_BUILD_TIMEOUT_S)


def _stored(row: Row) -> dict[str, Any]:
    words = dict(zip((row.words + 1).tolist(), row.scores.tolist(), strict=True))
    return {"pid": row.pid, "dense": row.vector, "words": words or {_NO_WORD: 1.0}}


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


def _drop(client: Any, name: str) -> None:
    """Delete a collection, if it is there, and what stands for it."""
    if client.has_collection(name, timeout=TIMEOUT_S):
        for alias in _aliases(client, name):
            client.drop_alias(alias, timeout=TIMEOUT_S)
        client.drop_collection(name, timeout=_BUILD_TIMEOUT_S)


def _aliases(client: Any, name: str) -> list[str]:
    found: list[str] = client.list_aliases(name, timeout=TIMEOUT_S)["aliases"]
    return found
