"""The class Flywheel, the interface of applications; each method is a few lines that call a room."""

import hashlib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from rag_flywheel.capture import corrections
from rag_flywheel.capture import votes as capture
from rag_flywheel.capture.answer_votes import AnswerVote, append_answer_vote
from rag_flywheel.capture.runs import RUN_AND_RETRIEVAL, Run, find_run, link_run
from rag_flywheel.capture.signals import SignalGiven, append_adopted, append_signal, note_rephrased
from rag_flywheel.capture.terms import Terms, set_muted
from rag_flywheel.checks import (
    MOST_ID_CHARS,
    MOST_NAME_CHARS,
    NOT_GIVEN,
    check_candidates,
    check_days,
    check_k,
    check_name,
    check_one_of,
    check_optional_chance,
    check_optional_seconds,
    check_optional_text,
    check_text,
    check_trust,
    check_whole,
    items,
)
from rag_flywheel.config import Config
from rag_flywheel.curate.golden_set import GoldenSet
from rag_flywheel.curate.judged import passage_judgments
from rag_flywheel.curate.pins import Pin, append_pin, append_unpin
from rag_flywheel.curate.review import Review
from rag_flywheel.curate.source import Source
from rag_flywheel.curate.weights import WEIGHTS
from rag_flywheel.deploy import rollback
from rag_flywheel.deploy.attach import address_for, attach
from rag_flywheel.deploy.backup import back_up
from rag_flywheel.deploy.current import reconcile
from rag_flywheel.deploy.folder import is_new, open_folder, require_index
from rag_flywheel.deploy.follow import catch_up, join
from rag_flywheel.deploy.loaded import SharedIndexes, published_of
from rag_flywheel.deploy.repair import repair
from rag_flywheel.deploy.shared import bring
from rag_flywheel.deploy.shared_settings import checked, joined
from rag_flywheel.deploy.verify import problems
from rag_flywheel.disk import disk_errors
from rag_flywheel.encode.cluster import Cluster
from rag_flywheel.encode.encoder_slot import EncoderSlot
from rag_flywheel.encode.named_encoder import make_named
from rag_flywheel.encode.too_long import count_too_long
from rag_flywheel.encoder import Encoder, TextEncoder
from rag_flywheel.errors import InputError, UnreachableError, quoted
from rag_flywheel.formats.anchors import Site
from rag_flywheel.formats.chunks import Chunking
from rag_flywheel.formats.documents import Cutting
from rag_flywheel.formats.files import Selection
from rag_flywheel.formats.framework_documents import passages_of
from rag_flywheel.ingest.add_files import Index, Options, add_files, checked_paths
from rag_flywheel.privacy import ids as privacy
from rag_flywheel.privacy.audit import audit
from rag_flywheel.privacy.dp_counts import dp_counts
from rag_flywheel.privacy.forget import finish_forgetting, forget
from rag_flywheel.privacy.mask import Mask, MaskFunction, mask_by_name, unmasked
from rag_flywheel.records import (
    ALL_TENANTS,
    AddFilesReport,
    AddReport,
    AuditReport,
    BackupReport,
    Candidate,
    Comparison,
    CopyReport,
    DayActivity,
    DpCounts,
    Filter,
    ForgetReport,
    HashedUser,
    Health,
    HistoryEntry,
    Hit,
    ImportedRetrieval,
    ImportedVote,
    ImportReport,
    Passage,
    PassageJudgment,
    PastRefresh,
    PastVotes,
    Progress,
    QuestionSummary,
    RecordedRetrieval,
    RecordedVote,
    RefreshReport,
    RestoreReport,
    Retrieval,
    Signal,
    Splitter,
    Status,
    TenantScope,
    Tool,
    Verdict,
    VersionInfo,
    VersionStory,
    Vote,
)
from rag_flywheel.refresh.change_encoder import change_encoder, drop_change, prepare_encoder
from rag_flywheel.refresh.due import When
from rag_flywheel.refresh.job import Job
from rag_flywheel.refresh.refresh import refresh, refresh_locked
from rag_flywheel.report import status
from rag_flywheel.report.compare import compare
from rag_flywheel.report.coverage import Coverage, coverage
from rag_flywheel.report.explain import story
from rag_flywheel.report.gaps import UNLIKELY, Gap, gaps
from rag_flywheel.report.health import health
from rag_flywheel.report.progress import Bars, as_progress
from rag_flywheel.report.questions import QUESTION_ORDERS, QuestionOrder, questions
from rag_flywheel.report.raters import Rater, raters_of
from rag_flywheel.serve.answers import Request
from rag_flywheel.serve.live_version import current_of, server_of
from rag_flywheel.serve.lookups import Lookups
from rag_flywheel.serve.postponed import Postponed
from rag_flywheel.serve.server import Server
from rag_flywheel.store import corpus, journal, log, users, wall_clock
from rag_flywheel.store import votes as vote_store
from rag_flywheel.store.database import Database
from rag_flywheel.store.filters import plain_filter
from rag_flywheel.store.lineages import Rule
from rag_flywheel.store.metadata_columns import metadata_keys
from rag_flywheel.store.passages import Tenancy, encoded_text
from rag_flywheel.store.place import is_linked, open_database, open_store, settings_there
from rag_flywheel.store.postgres import Address, is_url
from rag_flywheel.store.questions import query_hash, question_key
from rag_flywheel.store.tenants import Tenant, Tenants, within

if TYPE_CHECKING:  # which serving does not need: imported where they are used
    from rag_flywheel.capture.scores import Meanings
    from rag_flywheel.export.export import Export

_MANY_TEXTS = 256  # whose words take a tenth of a second to read
Trust: TypeAlias = float | Callable[[str | None], float]
"""How much a user's feedback weighs: a number, or a function of the user's id."""
_ANY_QUERY = "a"
_DAY_S = 86_400.0


def restore(source: str | Path, path: str | Path) -> RestoreReport:
    """Make the index folder at `path` the state that the backup at `source` holds.

    path: a new or empty folder, or the index that the backup was made of, whose state is replaced; what
        was built from later events is moved to quarantine/. Processes that have the folder open answer
        from the restored state at their next call.
    Everything is checked before anything is changed. Raises InputError, LockedError while another process
    refreshes that index, CorruptFileError, NewerFormatError, StorageError.
    """
    from rag_flywheel.deploy import (
        restore as deploy,  # with sqlite-utils, which takes 50 ms to load
    )

    return deploy.restore(source, path, user_hash=privacy.hashed)


def copy(
    source: str | Path,
    dest: str | Path,
    *,
    cache: str | Path | None = None,
    objects: str | None = None,
) -> CopyReport:
    """Copy the index in the folder `source`, which may be in use, with all that it learned.

    dest: a new or empty folder, or the URL of a PostgreSQL database, as `Flywheel.open` takes it.
    cache: the new or empty folder that an index on PostgreSQL has its settings and versions in.
    objects: the place in an object store that hosts share its versions in, as `Flywheel.open` takes it.
    Raises InputError, NotAFlywheelError, CorruptFileError, StorageError; nothing is left of a copy that
    failed, but empty tables.
    """
    from rag_flywheel.deploy.copy import copy_index  # with sqlite-utils, which takes 50 ms to load

    root, address = _place(dest, cache)
    if objects is not None:
        objects = address_for(root, address, objects)
    require_index(Path(source))
    database = open_database(Path(source), read_only=not is_linked(Path(source)))
    try:
        with disk_errors(Path(source)):
            catch_up(Path(source), database)
        return copy_index(
            Path(source), database, root, address, user_hash=privacy.hashed, objects=objects
        )
    finally:
        database.close()


class Flywheel:
    """An index folder that retrieves passages, records votes, and learns from them.

    `Flywheel.open` returns one; it is a context manager, and thread-safe. Any number of processes may
    open the same folder. Passages and votes that one process commits are seen by the next call in every
    other. A version built elsewhere is used once this process has loaded it.
    Every method raises a FlywheelError, and nothing else, for errors that can be foreseen.
    lookups: a cache of query vectors and features; copies of one folder may share it as long as their
    passages do not change.

    In an index with tenants (config.tenant_key), a call that reads or changes what tenants own takes
    tenant, one's value of that key, or all_tenants=True; where config.tenant_required, as by default, it
    must be given one of them. What belongs to other tenants is then unknown to it.
    """

    def __init__(
        self,
        root: Path,
        config: Config,
        database: Database,
        slot: EncoderSlot,
        user_key: bytes,
        trust: Trust = 1.0,
        mask: MaskFunction | None = None,
    ) -> None:
        self._mask = Mask(mask)
        self._root = root
        self._trust = trust
        self._user_key = user_key
        self._config = config
        self._database = database
        self._slot = slot
        self._tenants = Tenants(config.tenant_key, config.tenant_required)
        self._server: Server | None = None
        self._published = published_of(config, database)
        self._indexes = SharedIndexes(self._published)  # that the server answers from
        self.lookups = Lookups(config.n_lookups)
        self._postponed = Postponed(database)
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        encoder: Encoder | str | None = None,
        config: Config | None = None,
        create: bool = True,
        trust: Trust = 1.0,
        mask: MaskFunction | None = None,
        read_only: bool = False,
        cache: str | Path | None = None,
        objects: str | None = None,
        dask: str | None = None,
    ) -> "Flywheel":
        """Open the index folder at `path`; it is created on first use.

        path: of the folder; or the URL of a PostgreSQL database, "postgresql://USER@HOST/DATABASE?schema=NAME",
            whose schema (without it "flywheel") then holds what cannot be rebuilt, in the place of SQLite.
        cache: the folder of the settings and versions of an index on PostgreSQL. It knows its database from
            then on, and can be opened by its path alone.
        objects: the place in an object store, "s3://BUCKET/PREFIX", gs://, az:// or file:///FOLDER, that the
            versions of an index on PostgreSQL are shared in, so that many hosts serve it, each from a folder
            of its own. The database knows it from then on. Credentials are in the environment.
        encoder: an object with the Encoder protocol, or "sentence-transformers:NAME_OR_PATH" or
            "module:factory"; None: the one in the folder's settings. Models load when first needed, and
            one that is named for a new folder at once, before the folder is made.
        config: settings of a new folder.
        create: False raises an error for a missing folder, so that a mistyped path is noticed.
        trust: how much the feedback of a user weighs, from 0 to 3, 1 for an ordinary one: a number, or a
            function of the user's id (None: without one), called with each vote.
        mask: called with each text that users write, and with the texts, titles and metadata given to
            `rerank` and the strings in filters, before they are embedded or stored; returns it without
            what must not be stored. None: the one that the settings name, if any.
        read_only: answer and report without writing a byte to the folder, as from an image, a read-only
            mount, or as another user than its owner. Answers are not recorded (their id is None); what
            changes the index raises ReadOnlyError. What other processes add or build is followed.
        dask: the address of a Dask scheduler, as tcp://host:8786, whose workers embed what comes in numbers:
            passages that are added, what a refresh or a change of the encoder has to embed. They make the
            encoder by its name, so it may not be an object. A question is embedded here.
        Raises NotAFlywheelError, NewerFormatError, ConfigError, StorageError, EncoderNotFoundError.
        """
        root, address = _place(path, cache)
        if objects is not None:
            objects = address_for(root, address, objects)
        cluster = None if dask is None else Cluster(dask)
        name = encoder if isinstance(encoder, str) else ""
        new = Config() if encoder is None else Config(encoder=name)
        chosen = name if encoder is not None or config is None else config.encoder
        create = create and not read_only
        if address is not None:  # first, so that a server that is not there leaves no folder behind
            theirs = settings_there(root, address)
            if theirs is not None and is_new(root):
                new = joined(theirs, config, name)
                chosen = new.encoder if encoder is None else name
        if create and chosen and chosen != Config().encoder and is_new(root):
            encoder = make_named(
                chosen, cluster
            )  # first, so that a mistyped name leaves no folder behind
        found = open_folder(root, config=config, new=new, create=create)
        database = open_store(
            root, privacy.hashed, read_only=read_only, address=address, own=objects is None
        )
        try:
            with database.reading() as conn:
                user_key = users.user_key(conn)
            with disk_errors(root):
                if objects is not None:
                    attach(root, database, objects, found)
                if not read_only:
                    reconcile(root, database, wait_s=0.0)
                    join(root, database)
                found = checked(root, database, found)
            if mask is None and found.mask is not None:
                mask = mask_by_name(found.mask)
            given = encoder if encoder is not None else found.encoder
            slot = EncoderSlot(database, given, by_settings=encoder is None, cluster=cluster)
            return cls(root, found, database, slot, user_key, trust, mask)
        except BaseException:
            database.close()
            raise

    def __enter__(self) -> "Flywheel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the folder; every later call raises ClosedError.

        Records of answers that wait because another program writes are written first; after 5 s they are
        lost, with a NotRecordedWarning.
        """
        self._postponed.close()
        self._database.close()
        self._drop_server()
        if self._published is not None:
            self._published.close()

    def warm(self) -> None:
        """Load the model, the live version, and the tenants of all passages, so that the first question
        takes no longer than others.

        For applications that serve requests: call it once before the first. Nothing is recorded. Raises
        EncoderNotFoundError, EncoderError, EncoderMismatchError, CorruptFileError, StorageError.
        """
        key = self._config.tenant_key
        with self._files():
            self._slot.warm()
            server = self._serving()
            server.queries().encode([_ANY_QUERY])  # one that is cached would load no model
            for where in [None] if key is None else [None, {key: {"exists": True}}]:
                asked = self._request(1, where, ALL_TENANTS, None, None, record=False)
                server.retrieve([_ANY_QUERY], asked)

    @property
    def config(self) -> Config:
        """The folder's settings."""
        return self._config

    def add(
        self,
        passages: Iterable[Passage],
        *,
        remove: Collection[str] = (),
        progress: bool | Progress = False,
        tenant: Tenant | None = None,
    ) -> AddReport:
        """Add passages, or update those with the same id, and remove others, all or none.

        They can be retrieved when this returns. Votes and known answers follow a text that is the same
        or near-identical to another id; those of a text that is gone are lost, until it comes back.

        remove: ids of passages to remove in the same step.
        progress: True for bars on a terminal, or a callable (step, done, total).
        tenant: all passages have to be this tenant's, and none of another tenant's is replaced or
            removed; None: each is of the tenant that its metadata name.
        Raises InputError for blank text, a repeated id, or bad metadata; UnknownIdError when one that is
        to be removed is not in the index.
        """
        self._database.require_writable()
        given, encoder = items("passages", passages, Passage), self._slot.get()
        scope = self._scope(tenant, tenant is None)
        with Bars() as bars:
            report = corpus.add(
                self._database,
                encoder,
                given,
                self._same_texts(),
                remove=remove,
                progress=as_progress(progress, bars),
                scope=scope,
            )
        self._follow(report)
        return replace(report, too_long=count_too_long(encoder, map(encoded_text, given)))

    def add_files(
        self,
        paths: str | Path | Iterable[str | Path],
        *,
        root: str | Path | None = None,
        name: str | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        prune: bool = False,
        strict: bool = False,
        chunk_tokens: int | None = None,
        chunk_overlap: int | None = None,
        base_url: str | None = None,
        anchors: Literal["github", "mkdocs", "vitepress"] = "github",
        splitter: Splitter | None = None,
        dry_run: bool = False,
        progress: bool | Progress = False,
    ) -> AddFilesReport:
        """Add the passages of files, and of folders at any depth; remove those they no longer have.

        Files are added some at a time: what was added stays when the call is interrupted, and a
        repeated call goes on. A file that cannot be read is skipped, and its earlier passages stay.

        root: the folder that files are named from; None: the project that the index is in.
        name: put before these names, as in "manual:a.md"; needed where two roots have like names.
        include, exclude: patterns as in .gitignore, relative to the folders given.
        prune: also remove passages of files that are gone from the folders given, and those from the
            .jsonl files given that these have no longer.
        strict: raise, before anything is added, when a file cannot be read.
        chunk_tokens, chunk_overlap: the most tokens of a passage, and how many it shares with the one
            before; None: those of the settings.
        base_url, anchors: the address that sources are below on the site, for the metadata `url`, and
            what makes its anchors.
        splitter: cuts documents instead: splitter(text, source) returns texts or passages.
        dry_run: only count; nothing is written.
        progress: as in `add`; the step is "add files".
        Raises InputError when nothing can be read, or a name stands for another folder.
        """
        self._database.require_writable()
        given = [paths] if isinstance(paths, str | Path) else items("paths", paths, object)
        check_optional_text("name", name, MOST_NAME_CHARS)
        check_optional_text("base_url", base_url, MOST_NAME_CHARS)
        for pattern in (*items("include", include, str), *items("exclude", exclude, str)):
            check_text("a pattern", pattern, MOST_NAME_CHARS)
        config = self._config
        chunking = Chunking.for_encoder(
            self._slot.get(),
            tokens=config.chunk_tokens if chunk_tokens is None else chunk_tokens,
            overlap=config.chunk_overlap if chunk_overlap is None else chunk_overlap,
        )
        check_one_of("anchors", anchors, get_args(Site))
        cutting = Cutting(chunking, base_url, anchors, splitter)
        options = Options(
            root=None if root is None else checked_paths([root])[0],
            name=name,
            selection=Selection(tuple(include), tuple(exclude)),
            cutting=cutting,
            prune=prune,
            strict=strict,
            dry_run=dry_run,
            at_once=self._slot.at_once,
        )
        index = Index(self._root, self._database, self._slot.get, self._same_texts())
        with Bars() as bars:
            found = add_files(index, checked_paths(given), options, as_progress(progress, bars))
        self._follow(found.passages)
        return found

    def _follow(self, report: AddReport) -> None:
        """Where queries were answered before, read the words of many new texts now, and not at the next."""
        if self._server is not None and report.added + report.updated >= _MANY_TEXTS:
            self._server.follow()

    def add_documents(
        self,
        documents: Iterable[object],
        *,
        ids: Literal["given", "content"] = "given",
        progress: bool | Progress = False,
    ) -> AddReport:
        """`add` for the documents of LangChain (page_content) and LlamaIndex (get_content or text).

        Their metadata come along; a value that is no string, number, boolean or None as JSON text.
        Blank documents are left out.
        ids: "given": the documents' own ids, where they have some; "content": made of source and text,
            the same whenever the document is loaded. Raises InputError.
        """
        return self.add(passages_of(documents, ids=ids), progress=progress)

    def remove(
        self, ids: Sequence[str], *, tenant: Tenant | None = None, all_tenants: bool = False
    ) -> int:
        """Remove passages, all or none; no call that begins after this returns shows them.

        Votes and known answers follow a text that was added under another id before. Returns how many
        were removed. Raises UnknownIdError when one is not in the index.
        """
        scope = self._scope(tenant, all_tenants)
        return corpus.remove(self._database, ids, self._same_texts(), scope)

    def _same_texts(self) -> Rule:
        return Rule(self._config.edit_keeps_votes, Tenancy(self._config.tenant_key))

    def passage(
        self, passage_id: str, *, tenant: Tenant | None = None, all_tenants: bool = False
    ) -> Passage:
        """The passage with this id. Raises UnknownIdError, InputError."""
        check_text("passage_id", passage_id, MOST_ID_CHARS)
        return corpus.stored_one(self._database, passage_id, self._scope(tenant, all_tenants))

    def passages(
        self,
        where: Filter | None = None,
        *,
        n: int | None = None,
        after: str | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> list[Passage]:
        """The passages that are in the index now and pass a metadata filter.

        n: at most so many, in the order of their ids; None: all, in no set order.
        after: an id, of a passage or not: those whose ids come after it, in their order. Raises InputError.
        """
        scope = self._scope(tenant, all_tenants, where)
        inside = within(scope, where)
        if n is None and after is None:
            return corpus.stored(self._database, inside)
        most = None if n is None else check_whole("n", n)
        check_optional_text("after", after, MOST_ID_CHARS)
        return corpus.stored_after(self._database, inside, after or "", most)

    def metadata_keys(
        self, *, tenant: Tenant | None = None, all_tenants: bool = False
    ) -> dict[str, list[str]]:
        """The metadata keys of the passages, those of objects with dots, with the kinds of their values.

        The kinds are "boolean", "list", "null", "number", "object" and "string", in this order.
        """
        scope = self._scope(tenant, all_tenants)
        with self._database.reading() as conn:
            found = metadata_keys(conn, scope.where)
        return {key: sorted(kinds) for key, kinds in sorted(found.items())}

    def retrieve(
        self,
        query: str,
        k: int = 8,
        *,
        where: Filter | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        run_id: str | Sequence[str] | None = None,
        record: bool = True,
        min_relevance: float | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> Retrieval:
        """The k best passages for a query, the best first; fewer when there are not so many.

        where: a filter expression on metadata, {"lang": "en", "year": {"gte": 2020}, "team": {"in":
            ["a", "b"]}}, applied before the k best are taken; docs/reference/filters.md has all operators.
        user_id, session_id: only their keyed hashes are stored.
        run_id: the id of the run of a framework, or of a trace, that this belongs to, or a list of them;
            feedback may then name the run. Only keyed hashes are stored. `link_run` adds others.
        record: False writes nothing, and the retrieval cannot get votes; the same holds for a user
            who opted out. While another program writes to the database, an answer waits for
            config.record_wait_s at most; its record is then written as soon as that ends, and votes in
            this process wait for it.
        min_relevance: those of the k best whose relevance is below it are left out; there may be none
            left.
        Raises InputError.
        """
        scope = self._scope(tenant, all_tenants, where)
        asked = self._request(
            k,
            where,
            scope,
            user_id,
            session_id,
            record,
            least=min_relevance,
            runs=[privacy.hashed_runs(self._user_key, run_id)],
        )
        found = self._serving().retrieve([self._mask.text(query)], asked)[0]
        within = self._config.rephrased_within_s
        if found.id is not None and session_id is not None and within > 0 and not self._postponed:
            least, encoder = self._serving().alike()
            note_rephrased(
                self._database,
                found.id,
                within_s=within,
                least_cosine=least,
                vectors=(encoder.revision, encoder.dim),
                wait_s=self._config.record_wait_s,
            )
        return found

    def retrieve_many(
        self,
        queries: Sequence[str],
        k: int = 8,
        *,
        where: Filter | None = None,
        run_id: str | Sequence[str | Sequence[str] | None] | None = None,
        record: bool = True,
        min_relevance: float | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> list[Retrieval]:
        """`retrieve` for many queries at once, in their order.

        run_id: of a run that all of them belong to; or a list with what `retrieve` takes for each query.
        """
        given = [self._mask.text(query) for query in items("queries", queries, str)]
        scope = self._scope(tenant, all_tenants, where)
        runs = privacy.hashed_runs_of_each(self._user_key, run_id, len(given))
        asked = self._request(k, where, scope, None, None, record, least=min_relevance, runs=runs)
        return self._serving().retrieve(given, asked)

    def rank_many(
        self,
        queries: Sequence[str],
        k: int = 8,
        *,
        where: Filter | None = None,
        min_relevance: float | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> list[list[str]]:
        """The ids of the k best passages for each query, as `retrieve` would rank them.

        For evaluation: without texts and explanations, and never recorded. Raises InputError.
        """
        given = [self._mask.text(query) for query in items("queries", queries, str)]
        scope = self._scope(tenant, all_tenants, where)
        asked = self._request(k, where, scope, None, None, record=False, least=min_relevance)
        return self._serving().rank(given, asked)

    def rerank(
        self,
        query: str,
        candidates: Sequence[Candidate],
        k: int = 8,
        *,
        where: Filter | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        run_id: str | Sequence[str] | None = None,
        record: bool = True,
        min_relevance: float | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> Retrieval:
        """The k best of an application's own candidates, reranked by votes.

        Without votes on similar queries the order is that of the given scores, of whatever scale,
        until a refresh fits weights to votes on given candidates. When recorded, the 50 best are
        stored with their texts, to learn from. where: only names the tenant, when config.tenant_key
        is set. min_relevance, run_id: as in `retrieve`; the relevance of a given candidate is that of its
        text alone, without its score. Raises InputError.
        """
        self._require_tenant_alone(
            "rerank", where, "candidates come filtered; do it in your own retriever"
        )
        scope = self._scope(tenant, all_tenants, where)
        asked = self._request(
            k,
            where,
            scope,
            user_id,
            session_id,
            record,
            kind="rerank",
            least=min_relevance,
            runs=[privacy.hashed_runs(self._user_key, run_id)],
        )
        given = check_candidates(candidates)
        masked = self._mask.candidates(given)
        return unmasked(self._serving().rerank(self._mask.text(query), masked, asked), given)

    def feedback(
        self,
        retrieval_id: str | None = None,
        passage_id: str = NOT_GIVEN,
        verdict: Verdict = NOT_GIVEN,
        *,
        run: str | None = None,
        user_id: str | None = None,
        reason: str | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> bool:
        """Record one vote: "helpful", "harmful", or "retract" to withdraw the user's last one.

        It is on the disk when this returns, and affects the next retrieval of similar queries.
        False, and nothing is recorded, when the user opted out.
        run: in place of retrieval_id, a run that was given as run_id, or to `link_run`; the vote is on its
            newest retrieval that showed the passage.
        Raises UnknownIdError, and InputError for a passage that the retrieval did not show.
        """
        vote = Vote(retrieval_id, passage_id, verdict, user_id, reason, run=run)
        return bool(self.feedback_many([vote], tenant=tenant, all_tenants=all_tenants))

    def feedback_many(
        self,
        votes: Iterable[Vote],
        *,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> int:
        """Record votes in one commit, all or none; returns how many. Raises as `feedback` does."""
        given = items("votes", votes, Vote)
        if any(vote.run is not None for vote in given):
            find = lru_cache(partial(self._run, None, tenant=tenant, all_tenants=all_tenants))
            on = [v if v.run is None else find(check_name("run", v.run)).vote(v) for v in given]
            return self.feedback_many(on, tenant=tenant, all_tenants=all_tenants)
        for vote in given:
            check_optional_text("user_id", vote.user_id, MOST_ID_CHARS)
        self._require_own([vote.retrieval_id for vote in given], tenant, all_tenants)
        trusts = {user: self._trust_of(user) for user in {vote.user_id for vote in given}}
        hashed = [
            self._mask.vote(privacy.hashed_vote(self._user_key, v, trust=trusts[v.user_id]))
            for v in given
        ]
        return capture.append_votes(self._database, hashed, self._terms(None, trust=1.0))

    def answer_feedback(
        self,
        retrieval_id: str | None = None,
        verdict: Verdict = NOT_GIVEN,
        *,
        run: str | None = None,
        answer: str | None = None,
        cited: Sequence[str] | None = None,
        user_id: str | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> bool:
        """Record a verdict on a whole answer. Its weight, at most 1, is divided among the cited passages.

        Each gets a share by how much of the answer it supports; without a text, by its chance to be
        the answer. A vote of the same user on a passage, by `feedback`, outranks its share.

        answer: the text; None: the one given to `answer`. Only the shares are stored.
        cited: the passages that the answer cites; none of them, []: no passage gets a share. None: not
            known, so that all that were shown get one.
        run: in place of retrieval_id, a run that was given as run_id, or to `link_run`; the verdict is on
            each of its 100 newest retrievals, of which some may have shown none of the cited.
        False when the user opted out, of whom nothing is recorded. Raises UnknownIdError, InputError.
        """
        if run is not None:
            found = self._run(retrieval_id, run, tenant, all_tenants)
            return max(  # of all of them
                self.answer_feedback(
                    id_,
                    verdict,
                    answer=answer,
                    cited=own,
                    user_id=user_id,
                    tenant=tenant,
                    all_tenants=all_tenants,
                )
                for id_, own in found.citing(cited).items()
            )
        self._require_own([retrieval_id], tenant, all_tenants)
        masked = self._mask.text(answer)
        vote = AnswerVote(retrieval_id, verdict, masked, cited, self._hidden(user_id))
        return append_answer_vote(self._database, vote, self._slot.at_hand, self._terms(user_id))

    def relevance(
        self,
        retrieval_id: str | None = None,
        helpful: Mapping[str, bool] = NOT_GIVEN,
        *,
        run: str | None = None,
        user_id: str | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> int:
        """Record a vote on each of these hits, by passage id: helpful where True, else harmful.

        All in one commit, or none; returns how many. Other hits get no vote. run: as in
        `feedback`. Raises as `feedback` does.
        """
        votes = capture.relevance_votes(retrieval_id, helpful, user_id, run)
        return self.feedback_many(votes, tenant=tenant, all_tenants=all_tenants)

    def adopted(
        self,
        retrieval_id: str | None = None,
        *,
        run: str | None = None,
        used: bool,
        why: str = "",
        cited: Sequence[str] | None = None,
        user_id: str | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> bool:
        """Record whether an answer was used, and why; it is divided like `answer_feedback`.

        run, cited: as there; cited are the passages that it was made of.
        False when the user opted out. Raises UnknownIdError, InputError.
        """
        if run is not None:
            found = self._run(retrieval_id, run, tenant, all_tenants)
            return max(  # of all of them
                self.adopted(
                    id_,
                    used=used,
                    why=why,
                    cited=own,
                    user_id=user_id,
                    tenant=tenant,
                    all_tenants=all_tenants,
                )
                for id_, own in found.citing(cited).items()
            )
        self._require_own([retrieval_id], tenant, all_tenants)
        user, terms = self._hidden(user_id), self._terms(user_id)
        masked = self._mask.text(why)
        return append_adopted(
            self._database, retrieval_id, used, masked, user, self._slot.at_hand, terms, cited
        )

    def signal(
        self,
        retrieval_id: str | None = None,
        kind: Signal = NOT_GIVEN,
        value: object = None,
        *,
        run: str | None = None,
        passage_id: str | None = None,
        user_id: str | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> bool:
        """Record what a user did with an answer, or with one passage of it, as weak evidence.

        kind: copied, accepted, edited (value: the final text, compared with the stored answer and
            not stored), regenerated, abandoned, rephrased, escalated, rating (value: 1 to 5, or 0.0
            to 1.0) or task_done (value False: it was not).
        passage_id: None: it is divided like `answer_feedback`.
        run: as in `answer_feedback`; with passage_id as in `feedback`.
        A vote of the same user outranks it. False when the user opted out. Raises UnknownIdError, InputError.
        """
        if run is not None:
            found = self._run(retrieval_id, run, tenant, all_tenants)
            return max(  # of all of them
                self.signal(
                    id_,
                    kind,
                    value,
                    passage_id=passage_id,
                    user_id=user_id,
                    tenant=tenant,
                    all_tenants=all_tenants,
                )
                for id_ in found.meant(passage_id)
            )
        self._require_own([retrieval_id], tenant, all_tenants)
        value = self._mask.text(value)
        given = SignalGiven(retrieval_id, kind, value, passage_id, self._hidden(user_id))
        return append_signal(self._database, given, self._slot.at_hand, self._terms(user_id))

    def link_run(
        self,
        retrieval_id: str | None,
        run_id: str,
        *,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> None:
        """Store that a retrieval belongs to a run, as `retrieve` with run_id does, so that feedback finds it.

        A retrieval may belong to 32 runs. Nothing is stored when the user who asked has opted out since.
        Raises UnknownIdError, InputError.
        """
        self._require_own([retrieval_id], tenant, all_tenants)
        hashed = privacy.hashed_run(self._user_key, "run_id", run_id)
        link_run(self._database, retrieval_id, hashed)

    def hashed_user(self, user_id: str) -> HashedUser:
        """The keyed hash under which a user of this index is stored: the `user` of votes and retrievals.

        It may be given as user_id, for who keeps no ids of users. Raises InputError.
        """
        return HashedUser(str(self._hidden(check_name("user_id", user_id))))

    def votes_behind(
        self, hit: Hit, *, tenant: Tenant | None = None, all_tenants: bool = False
    ) -> list[PastVotes]:
        """The votes on similar past queries that `hit.explanation.evidence` rests on, by query."""
        scope = self._scope(tenant, all_tenants)
        with self._database.snapshot() as conn:
            return vote_store.votes_by_number(conn, hit.explanation.votes, WEIGHTS, scope)

    def correct(
        self,
        retrieval_id: str | None = None,
        passage_id: str | None = None,
        text: str | None = None,
        *,
        run: str | None = None,
        user_id: str | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> bool:
        """Record the passage that a user names as the answer, or the answer that a user writes.

        passage_id: any passage, shown or not; it counts as two votes, and only the last one of a user
            on a retrieval counts.
        text: waits in `review`, and becomes a passage when it is accepted.
        run: in place of retrieval_id; it is on the newest retrieval of the run.
        It is on the disk when this returns. False, and nothing is recorded, when the user opted out. Raises
        InputError, and UnknownIdError for a retrieval or passage that does not exist.
        """
        if run is not None:
            return self.correct(
                self._run(retrieval_id, run, tenant, all_tenants).newest,
                passage_id,
                text,
                user_id=user_id,
                tenant=tenant,
                all_tenants=all_tenants,
            )
        self._require_own([retrieval_id], tenant, all_tenants)
        user = self._hidden(user_id)
        if text is None:
            terms = self._terms(user_id)
            return corrections.append_correction(
                self._database, retrieval_id, passage_id, user, terms
            )
        if passage_id is None:
            return corrections.append_text(
                self._database, retrieval_id, self._mask.text(text), user
            )
        raise InputError("found passage_id and text; expected one of them")

    def missing(
        self,
        retrieval_id: str | None = None,
        note: str = "",
        *,
        run: str | None = None,
        user_id: str | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> bool:
        """Record that a user reports a missing answer; `review` and `gaps` show it.

        run: in place of retrieval_id; it is on the newest retrieval of the run.
        False when the user opted out. Raises UnknownIdError, InputError.
        """
        if run is not None:
            return self.missing(
                self._run(retrieval_id, run, tenant, all_tenants).newest,
                note,
                user_id=user_id,
                tenant=tenant,
                all_tenants=all_tenants,
            )
        self._require_own([retrieval_id], tenant, all_tenants)
        user, masked = self._hidden(user_id), self._mask.text(note)
        return corrections.append_missing(self._database, retrieval_id, masked, user)

    def import_votes(
        self,
        records: Iterable[ImportedRetrieval | ImportedVote],
        *,
        source: str = "own",
        dry_run: bool = False,
        progress: bool | Progress = False,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> ImportReport:
        """Bring in retrievals and votes that another system recorded, in any order; returns what came of
        them.

        They keep their times. Nothing comes in twice: source and id name a record, and what was deleted here
        since stays deleted. What cannot be used is counted by reason. Nothing comes in when `records`
        raises; an interrupted call that is repeated goes on where it stopped. The first 512 questions with
        votes are embedded at once; the others wait for the next refresh, and until then their votes act
        where the same words are asked.
        source: the name of that system. dry_run: only count; nothing is written.
        progress: as in `add`; the steps are "import retrievals" and "import votes". Raises InputError.
        """
        from rag_flywheel.capture.scores import Meanings

        name = check_name("source", source)
        scope = self._scope(tenant, all_tenants)
        return self._bring_in(records, name, scope, Meanings(), dry_run, progress)

    def import_files(
        self,
        tool: Tool,
        paths: str | Path | Iterable[str | Path],
        *,
        scores: Sequence[str] = (),
        judges: Sequence[str] = (),
        id_key: str | None = None,
        dry_run: bool = False,
        progress: bool | Progress = False,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> ImportReport:
        """`import_votes` from files that a tool exported: langfuse, phoenix, langsmith, ubi, trec, or csv of
        one's own. Files of one call may be in any order.

        scores: the names of the scores that are verdicts, with the numbers of the worst and the best where
            they are not from 0 to 1: "stars=1..5". () takes usual names, such as user-feedback.
        judges: names of scores that a language model gave, where the tool does not say so.
        id_key: the key of the documents' metadata that holds the passage id. () and None: the usual ones.
        Raises InputError for a file that cannot be read; then nothing came in.
        """
        from rag_flywheel.capture.scores import Meanings
        from rag_flywheel.formats.tools.read import read_tool

        check_one_of("tool", tool, get_args(Tool))
        check_optional_text("id_key", id_key, MOST_NAME_CHARS)
        given = [paths] if isinstance(paths, str | Path) else items("paths", paths, object)
        scope = self._scope(tenant, all_tenants)
        meanings = Meanings.of(scores, judges)
        with Bars() as bars:
            told = as_progress(progress, bars)
            records = read_tool(tool, checked_paths(given), id_key, told)
            return self._bring_in(records, tool, scope, meanings, dry_run, told or False)

    def _bring_in(
        self,
        records: Iterable[object],
        source: str,
        scope: TenantScope,
        meanings: "Meanings",
        dry_run: bool,
        progress: bool | Progress,
    ) -> ImportReport:
        from rag_flywheel.capture.imported_records import Settings
        from rag_flywheel.capture.imports import bring_in
        from rag_flywheel.capture.question_vectors import QuestionVectors

        if not dry_run:
            self._database.require_writable()
        self._postponed.wait_for_all()
        key = self._user_key
        with self._database.reading() as conn:
            of_questions = question_key(conn)
        with Bars() as bars:
            told = as_progress(progress, bars)
            settings = Settings(
                source=source,
                scope=scope,
                scope_of=lambda tenant: self._scope(tenant, False),
                scope_of_json=lambda text: self._tenants.scope_of_json(text),
                hide=partial(privacy.hashed_id, key),
                run=partial(privacy.hashed_run, key, "run"),
                name=lambda tenant, data: hashlib.blake2b(
                    f"{source}\n{tenant or ''}\n".encode() + data, key=key, digest_size=16
                ).digest(),
                query_hash=partial(query_hash, of_questions),
                trust=self._trust_of,
                terms=self._terms(None, trust=1.0),
                mask=self._mask.text,
                vectors=QuestionVectors(self._database, self._live_queries, told),
                max_query_chars=self._config.max_query_chars,
                keep_words=self._config.store_queries == "text",
                meanings=meanings,
                dry_run=dry_run,
                progress=told,
            )
            with self._files():
                report = bring_in(self._database, records, settings)
                waiting = status.n_questions_waiting(self._root, self._database)
                return replace(report, waiting=waiting)

    def retrieval(
        self, retrieval_id: str, *, tenant: Tenant | None = None, all_tenants: bool = False
    ) -> RecordedRetrieval:
        """A recorded retrieval, as it was shown. Raises UnknownIdError, InputError."""
        capture.check_retrieval_id(retrieval_id)
        scope = self._scope(tenant, all_tenants)
        self._postponed.wait_for([retrieval_id])
        with self._database.snapshot() as conn:
            found = log.retrieval(conn, retrieval_id, scope)
        if found is None:
            raise capture.unknown_retrieval(retrieval_id)
        return found

    def retrievals(
        self,
        n: int = 50,
        *,
        before: str | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> list[RecordedRetrieval]:
        """The n newest recorded retrievals, the newest first.

        before: the id of a retrieval: the n newest that were recorded before it. Raises UnknownIdError,
        InputError.
        """
        n, scope = check_whole("n", n), self._scope(tenant, all_tenants)
        check_optional_text("before", before, MOST_ID_CHARS)
        with self._database.snapshot() as conn:
            row = None if before is None else log.row_number(conn, before, scope)
            if before is not None and row is None:
                raise capture.unknown_retrieval(before)
            return log.retrievals(conn, n, scope, before=row)

    def votes(
        self,
        n: int = 50,
        *,
        before: int | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> list[RecordedVote]:
        """The n newest votes, verdicts on answers, signals and corrections, the newest first.

        before: the number of a vote: the n newest before it. Raises InputError.
        """
        n, scope = check_whole("n", n), self._scope(tenant, all_tenants)
        last = None if before is None else check_whole("before", before)
        with self._database.snapshot() as conn:
            return log.votes(conn, n, scope, before=last)

    def judgments(
        self, *, tenant: Tenant | None = None, all_tenants: bool = False
    ) -> list[PassageJudgment]:
        """What the votes on each passage add up to, for each question, in the order of first votes.

        Of a user only the last verdict on a passage counts. Passages that are in the index no more have no
        judgment; a text under several ids has one for each. Raises InputError.
        """
        scope = self._scope(tenant, all_tenants)
        return passage_judgments(self._database, scope, last=self._last_event())

    def gaps(
        self,
        days: float = 30.0,
        *,
        min_relevance: float | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> list[Gap]:
        """Topics of the last `days` that users ask about without a good answer, those asked most first.

        min_relevance: a question without a vote is listed when `answerable` is below it, once four
        people asked about its topic; before, it has to be lower (see `Gap`). None: 0.5.
        Raises InputError.
        """
        self._database.require_open()
        scope = self._scope(tenant, all_tenants)
        least = check_optional_chance("min_relevance", min_relevance)
        serving = self._serving()
        return gaps(
            self._database,
            self._source(),
            days=days,
            rates=serving.rates(),
            weights=serving.weights(),
            least=UNLIKELY if least is None else least,
            scope=scope,
        )

    def questions(
        self,
        n: int = 50,
        *,
        order: QuestionOrder = "asked",
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> list[QuestionSummary]:
        """The first n questions that users asked, with how they were served and what votes say.

        order: "asked", the most asked first; "worst", those first of which the most askings are expected
            to have got no answer; "disputed", those on whose passages people disagree most.
        Raises InputError.
        """
        n, scope = check_whole("n", n), self._scope(tenant, all_tenants)
        check_one_of("order", order, QUESTION_ORDERS)
        return questions(self._database, scope, n, order, last=self._last_event())

    def activity(
        self, days: float = 30.0, *, tenant: Tenant | None = None, all_tenants: bool = False
    ) -> list[DayActivity]:
        """How much was asked and voted on each of the last `days` (UTC), the oldest first; days on which
        nothing was are left out. Raises InputError."""
        scope = self._scope(tenant, all_tenants)
        since = wall_clock.now() - check_days(days) * _DAY_S
        with self._database.snapshot() as conn:
            return log.by_day(conn, since, scope)

    def coverage(
        self, days: float = 30.0, *, tenant: Tenant | None = None, all_tenants: bool = False
    ) -> Coverage:
        """Whether the votes of the last `days` fall where they help, what nobody is shown, and whether users
        ask what they asked before, with sentences that say what it means.

        At most 10,000 questions are read, and nothing is encoded: questions whose vectors the live version's
        encoder did not make are not compared. Raises InputError.
        """
        self._database.require_open()
        scope = self._scope(tenant, all_tenants)
        serving = self._serving()
        with self._files():
            return coverage(
                self._database,
                days=days,
                scope=scope,
                queries=serving.queries(),
                near_votes=serving.near_votes,
            )

    @property
    def golden(self) -> GoldenSet:
        """The queries whose answers are known: `add` imports some, `items`, `export`."""
        return GoldenSet(
            self._database,
            self._config,
            self._source,
            self._live_queries,
            self._tenants,
            self._mask.text,
        )

    def pin(
        self,
        query: str,
        passage_id: str,
        *,
        where: Filter | None = None,
        grade: int = 1,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> bool:
        """Put a passage first for a query, in every process, until `unpin`; False: it was already.

        Whatever votes say, known answers come first for the same words: those of a higher grade (1 to
        100) before others. Similar questions take the answer as certain evidence, and the golden set
        holds it with the source "pinned". Nothing acts where config.known_answers is False. where: only
        names the tenant, when config.tenant_key is set.
        Raises UnknownIdError for a passage that is not in the index, and InputError.
        """
        pin = Pin(
            self._mask.text(query),
            passage_id,
            self._scope_of_pin("pin", where, tenant, all_tenants),
            grade,
        )
        return append_pin(self._database, self._config, pin, self._live_queries)

    def unpin(
        self,
        query: str,
        passage_id: str,
        *,
        where: Filter | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> bool:
        """Take back a `pin`; False where there is none. Raises as `pin` does.

        The passage stays known for the query where it was imported or accepted in review too.
        """
        pin = Pin(
            self._mask.text(query),
            passage_id,
            self._scope_of_pin("unpin", where, tenant, all_tenants),
        )
        return append_unpin(self._database, self._config, pin)

    @property
    def review(self) -> Review:
        """The answers that need a human decision: `next`, `accept`, `reject`, `undo`."""
        remove = partial(self.remove, all_tenants=True)
        return Review(self._database, self._source, self._hidden, self.add, remove, self._tenants)

    def answer(
        self,
        retrieval_id: str,
        text: str,
        *,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> None:
        """Store the answer that the application gave from a retrieval. Raises UnknownIdError.

        Nothing is stored when the user who asked has opted out since.
        """
        self._require_own([retrieval_id], tenant, all_tenants)
        capture.keep_answer(self._database, retrieval_id, self._mask.text(text))

    def raters(self, names: Iterable[str] = ()) -> list[Rater]:
        """The users who voted under an id, how far each is trusted, and who looks like one crowd.

        Crowds come first, then those with the least weight. Ids are stored as keyed hashes alone.
        names: ids that the caller knows, to be matched with the hashes. Raises InputError.
        """
        known = {str(self._hidden(check_name("names", n))): n for n in items("names", names, str)}
        with self._files():
            return raters_of(self._root, self._database, known)

    def mute(self, user_id: str | None = None, *, raters: Iterable[str] = ()) -> int:
        """Leave out all votes of a user, past and future, from the next call on; returns how many users
        this changes.

        What was learned from them is learned anew, without them, at the next refresh. raters: or of
        these, by the hashes that `raters` lists. Raises InputError.
        """
        return self._set_muted(user_id, raters, muted=True)

    def unmute(self, user_id: str | None = None, *, raters: Iterable[str] = ()) -> int:
        """Take back `mute`. Raises InputError."""
        return self._set_muted(user_id, raters, muted=False)

    def _set_muted(self, user_id: str | None, raters: Iterable[str], *, muted: bool) -> int:
        users_ = [
            check_text("raters", each, MOST_ID_CHARS) for each in items("raters", raters, str)
        ]
        if user_id is not None:
            users_.append(str(self._hidden(user_id)))
        if not users_:
            raise InputError("found no user_id and no raters; expected one user at least")
        return set_muted(self._database, users_, muted=muted)

    def opt_out(self, user_id: str, *, out: bool = True) -> None:
        """From now on, in every process, record nothing of a user; out=False: record them again.

        Their queries are answered as with record=False, and their votes are ignored. Data stored
        before stays until `forget` deletes it. Raises InputError.
        """
        user = self.hashed_user(user_id)
        with self._database.transaction() as conn:
            users.set_opted_out(conn, user, out)

    def forget(self, user_id: str) -> ForgetReport:
        """Delete all data of a user, all that was learned from them, and every version that rests on them.

        This deletes their questions with all votes on them, and their votes, answers and reasons; a
        new version is learned from the remaining log. Versions built before the first of these votes
        stay. When this returns, the folder's bytes hold none
        of it. The next refresh finishes what a crash or an error interrupts.
        Raises InputError, LockedError, StorageError.
        """
        self._database.require_writable()
        user = self.hashed_user(user_id)
        self._postponed.wait_for_all()  # or questions of the user would be recorded after this
        try:
            self._slot.get()  # the rebuild needs the encoder: fail before anything is deleted
            rebuild, key = self._rebuild(self._job(None)), self._config.tenant_key
            return forget(self._root, self._database, user, rebuild=rebuild, tenant_key=key)
        finally:
            self.lookups.clear()
            self._drop_server()

    def refresh(
        self,
        *,
        if_votes: int | None = None,
        max_age_s: float | None = None,
        tune: bool = False,
        progress: bool | Progress = False,
    ) -> RefreshReport:
        """Build the next index version from all data, check it, and make it live.

        This object answers from the new version when this returns.

        if_votes: refresh only after this many new votes.
        max_age_s: or when the live version is this old.
        tune: also tune the encoder of queries on the votes, when there are enough for another look of
            the gate. It takes minutes, and continues where it was after a crash.
        Raises LockedError when another process is refreshing, and EncoderError when tune is set for an
        encoder that cannot be tuned.
        """
        self._database.require_writable()
        when = When(if_votes, max_age_s)
        with Bars() as bars:
            job = self._job(as_progress(progress, bars))
            report = finish_forgetting(self._root, self._database, rebuild=self._rebuild(job))
            if report is not None:
                self.lookups.clear()
            else:
                report = refresh(job, when, tune=tune)
        if (server := self._server) is not None:
            server.renew()
        return report

    def change_encoder(
        self,
        encoder: Encoder | str,
        *,
        force: bool = False,
        progress: bool | Progress = False,
    ) -> RefreshReport:
        """Embed all passages with another encoder beside the live version, encode past questions with it,
        and make a version of it live if the gate lets it in; votes and all else that users said stay.

        The live version serves, and may be refreshed, while passages are embedded; then held-out and golden
        questions are ranked by both. The report says "promoted", or "rejected" and why: nothing has changed
        then but that the vectors are kept, so that the next call has little to embed. Killed at any moment,
        it goes on at the next call. `rollback` goes back to a version of the encoder before. This object
        answers from the new version when this returns, and takes an encoder object for its own.

        encoder: as for `open`. Its revision must be one of its own.
        force: make the version live whatever the gate says, also where too few questions have votes to tell.
        Raises LockedError while another process changes the encoder; StorageError while a change to
        another one is under way, or a rollback holds votes back; EncoderNotFoundError, EncoderError,
        DiskFullError.
        """
        self._database.require_writable()
        to = self._slot.other(encoder)
        spec = encoder if isinstance(encoder, str) else ""
        old_spec = self._slot.spec() or self._config.encoder
        with Bars() as bars:
            job = self._job(as_progress(progress, bars))
            report = change_encoder(job, to, spec, old_spec=old_spec, forced=force)
        if report.outcome != "rejected":
            self._slot.use(to)
        if report.outcome == "promoted":
            self._config = replace(self._config, encoder=spec)
        if (server := self._server) is not None:
            server.renew()
        return report

    def drop_encoder_change(self) -> int:
        """Give up a change of the encoder that did not go live, and delete its vectors; returns how many.

        Raises LockedError while it is being made.
        """
        self._database.require_writable()
        return drop_change(self._root, self._database)

    def versions(self) -> list[VersionInfo]:
        """The index versions on disk, the newest first."""
        with self._files():
            return status.versions(self._root, self._database)

    def explain_version(self, version: str) -> VersionStory:
        """How a version got its parameters: the gate's measurements, and its decision.

        Raises UnknownIdError, CorruptFileError.
        """
        with self._files():
            bring(self._root, self._database, version)
            return story(self._root, version)

    def refreshes(self, n: int = 50) -> list[PastRefresh]:
        """The n newest refreshes that ended, the newest first. Raises InputError."""
        n = check_whole("n", n)
        with self._database.snapshot() as conn:
            return [
                PastRefresh(
                    log.utc(at),
                    report.outcome,
                    report.version,
                    report.parameters,
                    report.reason,
                    report.scores,
                    report.seconds,
                )
                for at, report in journal.refresh_reports(conn, n)
            ]

    def compare(self, before: str, after: str, *, n: int = 100, k: int = 8) -> Comparison:
        """The questions among the n asked most that two versions answer otherwise, in their k best passages.

        Each version answers with the votes up to its own build, as after a rollback to it, and from the
        passages that are in the index now. Takes as long as loading both. Raises UnknownIdError,
        CorruptFileError, InputError.
        """
        for name, version in (("before", before), ("after", after)):
            check_text(name, version, MOST_ID_CHARS)
        n, k = check_whole("n", n), check_k(k)
        with self._files():
            for version in (before, after):
                bring(self._root, self._database, version)
            return compare(
                self._root,
                self._database,
                self._config,
                self._slot,
                self.lookups,
                (before, after),
                n=n,
                k=k,
                published=self._published,
            )

    def rollback(self, version: str | None = None, *, hold: bool = False) -> str:
        """Make a version live again (None: the one before the live one); returns its id.

        Votes that came after it was built stay stored and count again after `release`. Added and
        removed passages are not rolled back. hold: refreshes leave it live until `release`.
        A version of another encoder is answered from with that one: passages added since are embedded with
        it first. Raises UnknownIdError, CorruptFileError, LockedError; EncoderNotFoundError and
        EncoderMismatchError where that encoder cannot be had, and then all stays as it is.
        """
        self._database.require_writable()
        with self._files():
            job = self._job(None)
            return rollback.roll_back(
                self._root,
                self._database,
                version,
                hold=hold,
                prepare=lambda manifest: prepare_encoder(job, self._slot, manifest),
                published=self._published,
            ).version

    def release(self) -> bool:
        """End a rollback, so that later votes count and refreshes go on; False when none was held."""
        self._database.require_writable()
        with self._files():
            return rollback.release(self._root, self._database)

    def status(self) -> Status:
        """The folder's state in numbers."""
        with self._files():
            return status.status(self._root, self._database, self._config)

    def health(self, *, max_age_s: float | None = None) -> Health:
        """Whether the index can be served and is being refreshed: checks, each with what to do.

        It takes a fifth of a second of the processor at most, changes nothing, and raises no error for
        what is wrong with the folder. max_age_s: how long ago the last refresh may have ended.
        `rag-flywheel health` does the same without opening the index, so that it also tells why that fails.
        Raises InputError.
        """
        self._database.require_open()
        least = check_optional_seconds("max_age_s", max_age_s)
        return health(self._root, read_only=self._database.read_only, max_age_s=least)

    def audit(
        self, *, regions: Sequence[str] = (), passages: bool = False, show: bool = False
    ) -> AuditReport:
        """Look for personal data in every stored text, and count them by field and kind.

        regions: countries, as "DE", of which telephone numbers are found without a + before them.
        passages: also look through the titles and texts of passages, which users are shown.
        show: put what was found into the report; else it has only counts and the ids of records.
        Raises InputError, and ConfigError when the extra `pii` is not installed.
        """
        given = [check_text("a region", each, 2) for each in items("regions", regions, str)]
        with self._files():
            return audit(self._database, regions=given, passages=passages, show=show)

    def dp_counts(
        self,
        what: str = "votes",
        *,
        epsilon: float = 1.0,
        delta: float = 1e-6,
        most_keys: int = 10,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> DpCounts:
        """Counts that may leave the house: how many users have each key, differentially private.

        what: "votes", by passage and verdict; "questions", those asked; "missing", those of which users
            reported that the answer is missing.
        epsilon, delta: the privacy loss of this release; those of all releases add up, and are recorded.
        most_keys: for how many keys one user counts; the more, the more noise.
        Raises InputError, and ConfigError when the extra `dp` is not installed.
        """
        scope = self._scope(tenant, all_tenants)
        with self._files():
            return dp_counts(
                self._database, what, scope, epsilon=epsilon, delta=delta, most_keys=most_keys
            )

    def history(
        self, n: int = 50, *, tenant: Tenant | None = None, all_tenants: bool = False
    ) -> list[HistoryEntry]:
        """The n newest events in the history of the index, the newest first. Raises InputError.

        Events are promotions, rejected versions, rollbacks, releases, forgotten users, reviews, pins,
        and decisions of the gate. Reviews and pins, which quote queries, are those of the tenant named.
        """
        n, scope = check_whole("n", n), self._scope(tenant, all_tenants)
        with self._files():
            return status.history(self._root, self._database, n, scope)

    @property
    def export(self) -> "Export":
        """The index as files: `votes`, `judgments`, `retrievals`; `beir`, `trec`, `ubi`; `training_set`."""
        from rag_flywheel.export.export import Export

        settle = self._postponed.wait_for_all
        return Export(
            self._root, self._database, self._config, self._tenants, self._mask.text, settle
        )

    def _last_event(self) -> int | None:
        """The event that votes are frozen at by a rollback; None: all count."""
        live = current_of(self._root)
        return None if live is None else live.frozen_at

    def backup(self, dest: str | Path) -> BackupReport:
        """Write the state of the index at this moment into a folder outside it, to be restored by `restore`.

        It holds passages, votes, settings and the live version, with all that votes taught. Other calls,
        of any process, go on meanwhile. A folder that holds an earlier backup of this index gets only
        what is new, and then holds the new state alone. Everything is read back and checked.
        Raises InputError, LockedError while another backup is written there, CorruptFileError,
        StorageError.
        """
        with self._files():
            catch_up(self._root, self._database)
        return back_up(self._root, self._database, dest)

    def verify(self) -> list[str]:
        """The problems of the folder, one sentence each; empty when it is sound."""
        with self._files():
            return problems(self._root, self._database)

    def repair(self, *, progress: bool | Progress = False) -> list[str]:
        """Move damaged files into quarantine/, rebuild from the database, and return what was done.

        The list is empty for a sound folder, which stays as it is. Raises LockedError, and
        CorruptFileError, without any change, when the database itself is damaged.
        """
        self._database.require_writable()
        return repair(self._root, self._database, lambda: self.refresh(progress=progress))

    @contextmanager
    def _files(self) -> Iterator[None]:
        self._database.require_open()
        with disk_errors(self._root):
            yield

    def _request(
        self,
        k: int,
        where: Filter | None,
        scope: TenantScope,
        user_id: str | None,
        session_id: str | None,
        record: bool,
        kind: str = "retrieve",
        least: float | None = None,
        runs: Sequence[Sequence[str]] = (),
    ) -> Request:
        k, least = check_k(k), check_optional_chance("min_relevance", least)
        inside = within(scope, where)
        user = self._hidden(user_id)
        session = privacy.hashed_id(self._user_key, "session_id", session_id)
        record = record and not self._database.read_only
        if record and user is not None:
            with suppress(UnreachableError), self._database.reading() as conn:
                record = not users.opted_out(conn, [user])  # else asked before it is written
        stored = self._mask.filter(inside, but=self._config.tenant_key)
        words = self._config.store_queries == "text"
        return Request(
            k, inside, stored, scope.tenant, user, session, record, kind, least, words, runs
        )

    def _job(self, progress: Progress | None) -> Job:
        root, database, encoder = self._root, self._database, self._slot.get
        indexes = None if self._server is None else self._indexes
        config, published = self._config, self._published
        return Job(root, database, config, encoder, self.lookups, progress, indexes, published)

    def _rebuild(self, job: Job) -> Callable[[], RefreshReport]:
        return lambda: refresh_locked(job, When(), anew=True)

    def _terms(self, user_id: str | None, *, trust: float | None = None) -> Terms:
        """The terms under which a user's feedback counts. Raises InputError."""
        trust = self._trust_of(user_id) if trust is None else trust
        return Terms(trust, self._config.votes_per_day, self._config.corrections_per_day)

    def _trust_of(self, user_id: str | None) -> float:
        return check_trust(self._trust(user_id) if callable(self._trust) else self._trust)

    def _hidden(self, user_id: str | None) -> str | None:
        """The keyed hash that is stored for a user's id. Raises InputError."""
        return privacy.hashed_id(self._user_key, "user_id", user_id)

    def _scope(
        self, tenant: Tenant | None, all_tenants: bool, where: Filter | None = None
    ) -> TenantScope:
        return self._tenants.scope(tenant, all_tenants, where)

    def _scope_of_pin(
        self, method: str, where: Filter | None, tenant: Tenant | None, all_tenants: bool
    ) -> TenantScope:
        """Raises InputError when `where` names anything but the tenant."""
        self._require_tenant_alone(
            method, where, "a pin acts under any filter; name the tenant alone"
        )
        return self._scope(tenant, all_tenants, where)

    def _require_own(
        self, retrieval_ids: Sequence[object], tenant: Tenant | None, all_tenants: bool
    ) -> None:
        self._database.require_writable()
        scope = self._scope(tenant, all_tenants)
        self._postponed.wait_for(retrieval_ids)
        capture.require_own(self._database, retrieval_ids, scope)

    def _run(
        self,
        retrieval_id: str | None,
        run: str,
        tenant: Tenant | None,
        all_tenants: bool,
    ) -> Run:
        """The run that feedback names in place of a retrieval. Raises InputError, UnknownIdError."""
        if retrieval_id is not None:
            raise InputError(RUN_AND_RETRIEVAL)
        self._database.require_writable()
        scope = self._scope(tenant, all_tenants)
        hashed = privacy.hashed_run(self._user_key, "run", run)
        self._postponed.wait_for_all()
        return find_run(self._database, hashed, run, scope)

    def _require_tenant_alone(self, method: str, where: Filter | None, why: str) -> None:
        for key in plain_filter(where) if where is not None else ():
            if key != self._config.tenant_key:
                raise InputError(f"{method} cannot filter on {key!r}: {why}")

    def _live_queries(self) -> TextEncoder:
        return self._serving().queries()

    def _source(self) -> Source:
        return Source(self._slot.get(), self._config)

    def _drop_server(self) -> None:
        with self._lock:
            server, self._server = self._server, None
            self._indexes = SharedIndexes(self._published)
        if server is not None:
            server.close()

    def _serving(self) -> Server:
        with self._lock:
            if self._server is None:
                self._server = server_of(
                    self._root,
                    self._database,
                    self._config,
                    self._slot,
                    self.lookups,
                    self._postponed,
                    self._indexes,
                )
            return self._server


def _place(path: str | Path, cache: str | Path | None) -> tuple[Path, Address | None]:
    """The folder of an index, and the address of its database where that is a URL. Raises InputError."""
    if not is_url(path):
        if cache is not None:
            raise InputError(
                f"cache is {quoted(cache)}, and {quoted(path)} is a folder; expected cache= only with the "
                "URL of a PostgreSQL database"
            )
        return Path(path), None
    if cache is None:
        raise InputError(
            "no cache is given; expected cache=FOLDER (--cache FOLDER), for the settings and versions of an "
            "index on PostgreSQL"
        )
    return Path(cache), Address.of(str(path))
