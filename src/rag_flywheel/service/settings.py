"""The settings of the service: what it serves, where it listens, and how much it takes at once.

They come from the command line, or from environment variables that begin with RAG_FLYWHEEL_SERVICE_.
"""

import re
from functools import cached_property
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from rag_flywheel.errors import ConfigError
from rag_flywheel.service.logs import LogFormat
from rag_flywheel.store.postgres import is_url
from rag_flywheel.store.service.addresses import on_loopback
from rag_flywheel.store.service.names import file_beside, named_folder
from rag_flywheel.store.service.state import address_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
PREFIX = "RAG_FLYWHEEL_SERVICE_"


class Settings(BaseSettings):
    """What the service serves and where.

    indexes: the folder of each index by its name; the first is the default one.
    state: the service's own records, keys, repeated requests, limits and jobs: the path of a SQLite file, or
        the URL of a PostgreSQL database that many hosts share, as "postgresql://HOST/DATABASE?schema=NAME".
        None: service.db beside the folder of the first index.
    host, port: where it listens; anywhere but on loopback it wants a key to exist.
    workers: processes that answer.
    open_access: serve callers without a key, as an administrator; None: on loopback, where no key exists.
    origins: the origins whose pages may call the routes for browsers.
    body_bytes, batch_rows, call_s: the largest body of a request, the most rows in one, and how long a call
        may take.
    warm: load models and versions at the start, before they are asked for; /readyz waits for it.
    open_metrics: give /metrics to callers without a key.
    numbers_s, coverage_s: how often the numbers of the indexes are read for /metrics, and how often their
        coverage is computed; 0: never.
    trace: emit spans of OpenTelemetry, as its own environment variables say; wants the extra `otel`.
    log_format: of the lines that are logged: text or json.
    calls_per_minute: by key; by address for a public key, and without one. votes_per_minute: by user, and
        on one retrieval. 0: no limit; None: the defaults of `rates.py`, and without a key no limit.
    token_s: for how long a feedback token can be used.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    indexes: Annotated[dict[str, Path], NoDecode] = Field(default_factory=dict)
    state: str | Path | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    open_access: bool | None = None
    origins: tuple[str, ...] = ()
    body_bytes: Annotated[int, Field(ge=1024)] = 16 * 2**20
    batch_rows: Annotated[int, Field(ge=1)] = 10_000
    call_s: Annotated[float, Field(gt=0)] = 30.0
    warm: bool = True
    open_metrics: bool = False
    numbers_s: Annotated[float, Field(gt=0)] = 30.0
    coverage_s: Annotated[float, Field(ge=0)] = 900.0
    trace: bool = False
    log_format: LogFormat = "text"
    calls_per_minute: Annotated[int | None, Field(ge=0)] = None
    votes_per_minute: Annotated[int | None, Field(ge=0)] = None
    token_s: Annotated[int, Field(ge=1)] = 3 * 3600

    @field_validator("indexes", mode="before")
    @classmethod
    def _read_indexes(cls, given: object) -> object:
        """NAME=FOLDER,NAME=FOLDER, or folders alone, each named as its last part."""
        if not isinstance(given, str):
            return given
        return dict(named_folder(part) for part in given.split(",") if part.strip())

    @field_validator("state")
    @classmethod
    def _check_state(cls, given: str | Path | None) -> str | Path | None:
        """A URL as it is, anything else as a path."""
        if isinstance(given, str) and is_url(given):
            return address_of(given).url
        return None if given is None else Path(given)

    @field_validator("origins")
    @classmethod
    def _check_origins(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        """As browsers write them: without a path."""
        for origin in given:
            parts = urlsplit(origin)
            if origin != f"{parts.scheme}://{parts.netloc}" or parts.scheme not in (
                "http",
                "https",
            ):
                raise ValueError(
                    f"found the origin {origin!r}; expected one such as https://help.example.com"
                )
        return given

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        for name in self.indexes:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"found the name {name!r} of an index; expected letters, digits, '.', '_' and '-'"
                )
        return self

    @cached_property
    def on_loopback(self) -> bool:
        """Whether only this machine can call it."""
        return on_loopback(self.host)

    @property
    def records(self) -> str | Path:
        """The service's own records, as `open_state` takes them. Raises ConfigError without any index."""
        return self.local_file if self.state is None else self.state

    @property
    def local_file(self) -> Path:
        """The file of the records, or where it would be: this host's scratch files are beside it.

        Raises ConfigError without any index.
        """
        if isinstance(self.state, Path):
            return self.state
        if not self.indexes:
            raise ConfigError("found no index to serve; name its folder, as in --index indexes/kb")
        return file_beside(next(iter(self.indexes.values())))
