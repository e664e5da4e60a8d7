"""The settings of one index folder: a frozen Config, stored as flywheel.toml."""

import dataclasses
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_type_hints

import msgspec
from msgspec import Meta

from rag_flywheel.checks import as_python
from rag_flywheel.disk import read_bytes
from rag_flywheel.errors import ConfigError, NewerFormatError
from rag_flywheel.records import AUTO, NO_LANGUAGE, STEMMED

FORMAT_VERSION = 1
FILE_NAME = "flywheel.toml"
_MOST_BYTES = 100_000
_Number: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000)]
_Days: TypeAlias = Annotated[float, Meta(gt=0, lt=1e6)] | None
DEFAULT_ENCODER = "sentence-transformers:all-MiniLM-L6-v2"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of an index.

    encoder: how to make the encoder: "sentence-transformers:NAME_OR_PATH" or "module:factory";
        "" for an index that is only ever opened with an encoder object.
    tenant_key: metadata key that separates tenants: evidence from votes cast under another value
        of it never counts. None: one tenant.
    tenant_required: with a tenant key, every call that reads or changes what tenants own has to name one,
        or to ask for all (`all_tenants=True`); false: without either it is on all tenants.
    n_candidates: how many passages dense search, and how many BM25, put forward for ranking.
    n_lookups: for how many queries, those asked last, vectors and features are cached until the
        corpus changes; each takes about 11 kB of memory.
    max_query_chars: a longer query is an error.
    edit_keeps_votes: votes on a passage survive an edit when at least this share of its words
        stays in place (difflib ratio over words, 0 to 1; 1.0: only if no word changes). Spelling does
        not count; a changed number, or a word such as "not", always does. Under another id at least
        0.95 must stay.
    show_copies: whether an answer shows every copy of a text that is in the index more than once; false:
        it shows one of them. Copies share their votes either way.
    votes_per_day: how many votes of one user, or of one session without a user, count within 24
        hours; later ones are stored but weigh nothing; None: all count.
    corrections_per_day: how many passages that one of them names count.
    memory_min_users: what fewer people than this say of a question moves no ranking, not their own either; a
        person is a user id. 1: what anybody says does.
    vote_half_life_days: a vote this old weighs half of a new one; None: votes do not age.
    retention_days: a refresh removes user ids, answers and reasons from retrievals and votes this
        old, and deletes those that no judgment rests on; None: all are kept.
    store_queries: "text", or "hash": of a question only a keyed hash and its vector are stored. Votes act
        under the shipped weights, since nothing that needs words is learned from them; a refresh takes the
        words from what was stored before.
    rephrased_within_s: a similar question in other words, within this many seconds in the same
        session, counts as a rephrasing: a weak sign that the first answer did not help; 0: never.
    known_answers: known answers (imported, pinned, or accepted in review) come first for their
        question and are evidence for similar ones; false: they only judge new parameters.
    record_wait_s: how long an answer waits, in seconds, while another program holds the write lock;
        then it is given, and recorded as soon as the lock is free. Votes wait for 60 s.
    explore: the share of recorded answers, at most 0.5, whose last place goes to the passage from below
        whose verdict would teach most; 0: none. 0.1 is enough where it is of use.
    chunk_tokens: how many tokens of the encoder a passage has at most that a file is cut into; None:
        what the encoder reads, at most 512, or 256 where it does not say.
    chunk_overlap: how many of them it shares with the passage before.
    keep_versions: how many index versions a refresh leaves on disk.
    tune: "auto": a refresh also tunes the encoder of queries on votes, whenever there are enough
        votes for another look of the gate (minutes); "off": only when it is called with tune.
    mask: what masks the texts of users before they are embedded or stored, where `open` is given no mask:
        "pii", "pii:DE,US", "presidio" or "module:function"; None: nothing does.
    engine: the database of vectors that passages are found in, "milvus:http://HOST:PORT/PREFIX" or
        "pgvector:postgresql://USER@HOST/DATABASE#PREFIX"; None: the memory of each process.
    language: whose word endings and stop words are left out of account: "auto", as found by the stop
        words of the passages; "none"; or the English name of a language, as "german".
    """

    encoder: str = DEFAULT_ENCODER
    tenant_key: Annotated[str, Meta(min_length=1)] | None = None
    tenant_required: bool = True
    n_candidates: Annotated[int, Meta(ge=1, le=10_000)] = 100
    n_lookups: Annotated[int, Meta(ge=0, le=1_000_000)] = 4_096
    max_query_chars: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    edit_keeps_votes: Annotated[float, Meta(ge=0, le=1)] = 0.95
    show_copies: bool = False
    votes_per_day: _Number | None = 2_000
    corrections_per_day: _Number | None = 20
    memory_min_users: Annotated[int, Meta(ge=1, le=1_000)] = 1
    vote_half_life_days: _Days = None
    retention_days: _Days = None
    store_queries: str = "text"
    rephrased_within_s: Annotated[float, Meta(ge=0, le=1e6)] = 300.0
    known_answers: bool = True
    record_wait_s: Annotated[float, Meta(ge=0, le=3_600)] = 0.05
    explore: Annotated[float, Meta(ge=0, le=0.5)] = 0.0
    chunk_tokens: Annotated[int, Meta(ge=16, le=100_000)] | None = None
    chunk_overlap: Annotated[int, Meta(ge=0, le=50_000)] = 0
    keep_versions: Annotated[int, Meta(ge=2, le=1_000_000)] = 10
    tune: str = "off"
    mask: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None
    engine: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None
    language: str = AUTO

    def __post_init__(self) -> None:
        if self.tune not in ("auto", "off"):
            raise ConfigError(f"config tune is {self.tune!r}; expected 'auto' or 'off'")
        if self.store_queries not in ("text", "hash"):
            raise ConfigError(
                f"config store_queries is {self.store_queries!r}; expected 'text' or 'hash'"
            )
        if self.language not in (AUTO, NO_LANGUAGE, *STEMMED):
            names = ", ".join((AUTO, NO_LANGUAGE, *STEMMED))
            raise ConfigError(f"config language is {self.language!r}; expected one of {names}")
        for name, kind in get_type_hints(Config, include_extras=True).items():
            value = as_python(getattr(self, name))
            object.__setattr__(self, name, value)
            try:
                msgspec.convert(value, kind)
            except msgspec.ValidationError as error:
                expected = str(error).replace("Expected", "expected")
                raise ConfigError(f"config {name} is {value!r}; {expected}") from error


def read_config(path: Path) -> Config:
    """The Config in the file at `path`.

    Raises ConfigError if it is no TOML, has an unknown key or a bad value; NewerFormatError if a
    newer release wrote it.
    """
    try:
        text = read_bytes(path, most=_MOST_BYTES, follow=True).decode("utf-8")
    except ValueError as error:
        raise ConfigError(
            f"{path} is not valid TOML ({error}); mend the line, or restore the file"
        ) from error
    return config_of(text, path)


def config_of(text: str, path: object) -> Config:
    """The Config that a TOML text says, which was read at `path`, a file or words for errors. Raises as
    `read_config` does."""
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not valid TOML ({error}); mend the line, or restore the file"
        ) from error
    found = values.pop("format_version", None)
    if type(found) is not int or found < 1:
        raise ConfigError(f"{path} says format_version = {found!r}; expected 1 or more")
    if found > FORMAT_VERSION:
        raise NewerFormatError(
            f"{path} has format {found}; this release reads up to {FORMAT_VERSION}. "
            "Upgrade rag-flywheel to open this index"
        )
    known = {field.name for field in dataclasses.fields(Config)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(
            f"{path} has the unknown key {unknown[0]!r}; known keys: {', '.join(sorted(known))}"
        )
    try:
        return Config(**values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def with_encoder(path: Path, config: Config, encoder: str) -> str:
    """The text of the file at `path`, which holds `config`, with another encoder; what else a user wrote
    there stays. Raises ConfigError."""
    import tomli_w

    text = read_bytes(path, most=_MOST_BYTES, follow=True).decode("utf-8")
    line = tomli_w.dumps({"encoder": encoder})
    changed, n = re.subn(r"(?m)^[ \t]*encoder[ \t]*=.*\n?", lambda _: line, text)
    if not n:
        changed = f"{text.rstrip()}\n{line}"
    wanted = dataclasses.replace(config, encoder=encoder)
    try:
        values = tomllib.loads(changed)
        values.pop("format_version", None)
        if Config(**values) == wanted:
            return changed
    except (ValueError, TypeError):
        pass  # it is written in a way that only a parser understands
    return config_text(wanted)


def config_text(config: Config) -> str:
    """The TOML text of `config`; `read_config` of it gives an equal Config."""
    import tomli_w

    values = {k: v for k, v in dataclasses.asdict(config).items() if v is not None}
    return tomli_w.dumps({"format_version": FORMAT_VERSION, **values})
