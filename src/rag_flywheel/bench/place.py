"""Where the indexes of a benchmark run are, in folders or on a server, and what finds their passages."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from rag_flywheel.config import Config
from rag_flywheel.deploy.loaded import published_of
from rag_flywheel.encoder import Encoder
from rag_flywheel.flywheel import Flywheel, copy
from rag_flywheel.store.place import open_database
from rag_flywheel.store.postgres import Address, PostgresDatabase


@dataclass(frozen=True)
class Place:
    """A place for indexes, each known by its folder.

    store: the URL of a PostgreSQL database, in which each index has a schema of its own, whose name begins
        with that of the URL; None: SQLite, in the folder.
    engine: as in the settings of an index.
    """

    store: str | None = None
    engine: str | None = None

    def __post_init__(self) -> None:
        if self.store is not None:
            Address.of(self.store)

    def names(self) -> dict[str, str]:
        """What a result says of it: the kinds of servers, without their addresses."""
        found = {} if self.store is None else {"store": "postgresql"}
        return found if self.engine is None else {**found, "engine": self.engine.partition(":")[0]}

    def make(self, folder: Path, encoder: Encoder | None) -> Flywheel:
        """Open a new index."""
        settings = Config(encoder="") if encoder is not None else Config()
        if self.engine is not None:
            settings = Config(encoder=settings.encoder, engine=self.engine)
        if self.store is None:
            return Flywheel.open(folder, encoder=encoder, config=settings)
        url = self._address(folder).url
        return Flywheel.open(url, cache=folder, encoder=encoder, config=settings)

    def copy(self, folder: Path, other: Path) -> None:
        """Copy an index that nobody uses. Copies share their passages in `engine`."""
        if self.store is None:
            shutil.copytree(folder, other)
        else:
            copy(folder, self._address(other).url, cache=other)

    def delete(self, folder: Path) -> None:
        """Delete a copy that nobody uses any more."""
        if self.store is not None:
            database = PostgresDatabase(self._address(folder), folder)
            try:
                database.drop_schema()
            finally:
                database.close()
        shutil.rmtree(folder)

    def delete_all(self, base: Path) -> None:
        """Delete an index whose copies are all deleted, and its passages in `engine`."""
        if self.engine is not None:
            database = open_database(base)
            published = published_of(Config(engine=self.engine), database)
            try:
                if published is not None:
                    published.drop_all()
                    published.close()
            finally:
                database.close()
        self.delete(base)

    def _address(self, folder: Path) -> Address:
        assert self.store is not None
        given = Address.of(self.store)  # whose URL ends with its schema
        own = hashlib.blake2b(str(folder.absolute()).encode(), digest_size=8).hexdigest()
        return Address.of(f"{given.url.removesuffix(given.schema)}{given.schema[:40]}_{own}")
