"""The requests that an object store is asked by, and how obstore answers them in this process.

It must not know what their errors mean to users.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

Meta = Mapping[str, Any]
"""What obstore says of an object: path, size, last_modified, e_tag and version."""


class Requests(Protocol):
    """What can be asked of an object store; raises the exceptions of obstore. Threads may share it."""

    def get(self, name: str, most: int) -> tuple[bytes, Meta]:
        """An object, without its bytes if they are more than `most`."""
        ...

    def get_range(self, name: str, start: int, end: int) -> bytes:
        """Bytes of an object."""
        ...

    def head(self, name: str) -> Meta:
        """An object without its bytes."""
        ...

    def list(self, prefix: str, most: int) -> list[Meta]:
        """The objects in a folder; when there are more than `most`, some more than that."""
        ...

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects."""
        ...

    def put(self, name: str, data: bytes | Iterator[bytes], options: Mapping[str, Any]) -> Meta:
        """Write an object, with options of obstore; gives its e_tag and version."""
        ...


class Direct:
    """The requests of the process that used obstore first."""

    def __init__(self, obstore: Any, store: Any) -> None:
        self._obstore, self._store = obstore, store

    def get(self, name: str, most: int) -> tuple[bytes, Meta]:
        """As `Requests.get`."""
        found = self._obstore.get(self._store, name)
        meta = dict(found.meta)
        return bytes(found.bytes()) if meta["size"] <= most else b"", meta

    def get_range(self, name: str, start: int, end: int) -> bytes:
        """As `Requests.get_range`."""
        return bytes(self._obstore.get_range(self._store, name, start=start, end=end))

    def head(self, name: str) -> Meta:
        """As `Requests.head`."""
        return dict(self._obstore.head(self._store, name))

    def list(self, prefix: str, most: int) -> list[Meta]:
        """As `Requests.list`."""
        found: list[Meta] = []
        for some in self._obstore.list(self._store, prefix=prefix):
            found += map(dict, some)
            if len(found) > most:
                break
        return found

    def delete(self, names: Sequence[str]) -> None:
        """As `Requests.delete`."""
        self._obstore.delete(self._store, names)

    def put(self, name: str, data: bytes | Iterator[bytes], options: Mapping[str, Any]) -> Meta:
        """As `Requests.put`."""
        return dict(self._obstore.put(self._store, name, data, **options))
