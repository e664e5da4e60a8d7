"""Flywheel: what an application holds. Every method is a few lines that call a room."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from rag_flywheel.capture import corrections
from rag_flywheel.capture import votes as capture
from rag_flywheel.capture.answer_votes import AnswerVote, append_answer_vote
from rag_flywheel.capture.signals import SignalGiven, append_adopted, append_signal, note_rephrased
from rag_flywheel.checks import check_text, check_whole, items
from rag_flywheel.config import Config
from rag_flywheel.curate.export import export
from rag_flywheel.curate.golden_set import GoldenSet
from rag_flywheel.curate.review import Review
from rag_flywheel.curate.source import Source
from rag_flywheel.curate.weights import WEIGHTS
from rag_flywheel.deploy import rollback
from rag_flywheel.deploy.current import reconcile
from rag_flywheel.deploy.folder import open_folder
from rag_flywheel.deploy.repair import repair
from rag_flywheel.deploy.verify import problems
from rag_flywheel.disk import disk_errors
from rag_flywheel.encode.encoder_slot import EncoderSlot
from rag_flywheel.encoder import Encoder
from rag_flywheel.errors import InputError
from rag_flywheel.privacy import ids as privacy
from rag_flywheel.privacy.forget import finish_forgetting, forget
from rag_flywheel.records import (
    AddReport,
    Candidate,
    ExportReport,
    Filter,
    ForgetReport,
    HistoryEntry,
    Hit,
    Passage,
    PastVotes,
    Progress,
    RefreshReport,
    Retrieval,
    Signal,
    Status,
    Verdict,
    VersionInfo,
    VersionStory,
    Vote,
)
from rag_flywheel.refresh.due import When
from rag_flywheel.refresh.job import Job
from rag_flywheel.refresh.refresh import refresh, refresh_locked
from rag_flywheel.report import status
from rag_flywheel.report.explain import story
from rag_flywheel.report.gaps import Gap, gaps
from rag_flywheel.report.progress import Bars, as_progress
from rag_flywheel.serve.answers import Request
from rag_flywheel.serve.live_version import current_of, server_of
from rag_flywheel.serve.lookups import Lookups
from rag_flywheel.serve.server import Server
from rag_flywheel.store import corpus, users
from rag_flywheel.store import votes as vote_store
from rag_flywheel.store.database import FILE_NAME, Database


class Flywheel:
    """An index folder: passages in, ranked passages out, votes in, better ranking out.

    Made by `Flywheel.open`. Thread-safe; any number of processes may hold the same folder, and
    what one of them commits acts on the next call of every other, but a version that `refresh` made
    elsewhere only when it is loaded. A context manager.
    Every method raises a FlywheelError, and nothing else, for what it can foresee.
    lookups: what is remembered of queries in memory; copies of one folder may share it as long as
    their passages do not change.
    """

    def __init__(
        self, root: Path, config: Config, database: Database, slot: EncoderSlot, user_key: bytes
    ) -> None:
        self._root = root
        self._user_key = user_key
        self._config = config
        self._database = database
        self._slot = slot
        self._server: Server | None = None
        self.lookups = Lookups(config.n_lookups)
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        encoder: Encoder | str | None = None,
        config: Config | None = None,
        create: bool = True,
    ) -> "Flywheel":
        """Open the index folder at `path`, made on first use.

        encoder: an object with the Encoder protocol, or "sentence-transformers:NAME_OR_PATH" or
        "module:factory"; None: the one that the folder's settings name. Models load when first
        needed. config: settings of a new folder. create=False: refuse a missing folder.
        Raises NotAFlywheelError, NewerFormatError, ConfigError, StorageError.
        """
        from rag_flywheel.store.migrations import migrate  # sqlite-utils takes 50 ms to load

        root = Path(path)
        new = (
            None if encoder is None else Config(encoder=encoder if isinstance(encoder, str) else "")
        )
        found = open_folder(root, config=config, new=new or Config(), create=create)
        database = Database(root / FILE_NAME)
        try:
            migrate(database, privacy.hashed)
            with database.reading() as conn:
                user_key = users.user_key(conn)
            with disk_errors(root):
                reconcile(root, database)
        except BaseException:
            database.close()
            raise
        given = encoder if encoder is not None else found.encoder
        return cls(root, found, database, EncoderSlot(database, given), user_key)

    def __enter__(self) -> "Flywheel":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the folder; every later call raises ClosedError."""
        self._database.close()
        self._drop_server()

    @property
    def config(self) -> Config:
        """The folder's settings."""
        return self._config

    def add(self, passages: Iterable[Passage], *, progress: bool | Progress = False) -> AddReport:
        """Add passages, or change those that are there under the same id: all of them, or none.

        They can be retrieved when this returns. A changed text loses the votes on the old one
        unless the two are near-identical. progress: True for bars on a terminal, or a callable
        (step, done, total). Raises InputError for blank text, an id twice, bad metadata.
        """
        with Bars() as bars:
            return corpus.add(
                self._database,
                self._slot.get(),
                passages,
                edit_keeps_votes=self._config.edit_keeps_votes,
                progress=as_progress(progress, bars),
            )

    def remove(self, ids: Sequence[str]) -> int:
        """Take passages out, all or none: no call that begins after this returns shows them.

        Returns how many. Raises UnknownIdError when one is not in the index.
        """
        return corpus.remove(self._database, ids)

    def passages(self, where: Filter | None = None) -> list[Passage]:
        """The passages that are in the index now and pass a metadata filter, in no set order."""
        return corpus.stored(self._database, where)

    def retrieve(
        self,
        query: str,
        k: int = 8,
        *,
        where: Filter | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        record: bool = True,
    ) -> Retrieval:
        """The k best passages for a query, the best first; fewer when there are not so many.

        where: a metadata filter, {"lang": "en", "year": {"gte": 2020}, "team": {"in": ["a", "b"]}},
        applied before the k best are taken. Of user_id and session_id only keyed hashes are kept.
        record=False writes nothing, and such an answer takes no votes; so it is for a user who
        opted out. Raises InputError.
        """
        asked = self._request(k, where, user_id, session_id, record)
        found = self._serving().retrieve([query], asked)[0]
        within = self._config.rephrased_within_s
        if found.id is not None and session_id is not None and within > 0:
            least, revision = self._serving().alike()
            note_rephrased(
                self._database,
                found.id,
                within_s=within,
                least_cosine=least,
                vectors=(revision, self._slot.get().dim),
            )
        return found

    def retrieve_many(
        self,
        queries: Sequence[str],
        k: int = 8,
        *,
        where: Filter | None = None,
        record: bool = True,
    ) -> list[Retrieval]:
        """`retrieve` for many queries at once, in their order."""
        given = items("queries", queries, str)
        return self._serving().retrieve(given, self._request(k, where, None, None, record))

    def rank_many(
        self, queries: Sequence[str], k: int = 8, *, where: Filter | None = None
    ) -> list[list[str]]:
        """The ids of the k best passages for each query, as `retrieve` would rank them.

        For evaluation: without texts and explanations, and never recorded. Raises InputError.
        """
        given = items("queries", queries, str)
        return self._serving().rank(given, self._request(k, where, None, None, record=False))

    def rerank(
        self,
        query: str,
        candidates: Sequence[Candidate],
        k: int = 8,
        *,
        where: Filter | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        record: bool = True,
    ) -> Retrieval:
        """The k best of an application's own candidates: in its order, moved by votes.

        Without votes on similar queries the order is that of the given scores. where: only to name
        the tenant when config.tenant_key is set. Raises InputError.
        """
        for key in where or {}:
            if key != self._config.tenant_key:
                raise InputError(
                    f"rerank cannot filter on {key!r}: candidates have no metadata; filter them in "
                    "your own retriever"
                )
        asked = self._request(k, where, user_id, session_id, record, kind="rerank")
        return self._serving().rerank(query, candidates, asked)

    def feedback(
        self,
        retrieval_id: str | None,
        passage_id: str,
        verdict: Verdict,
        *,
        user_id: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Keep one vote: "helpful", "harmful", or "retract" to take the user's last one back.

        It is on the disk when this returns, and acts on the next retrieval of similar queries.
        Nothing is kept of a user who opted out.
        Raises UnknownIdError, and InputError for a passage that the retrieval did not show.
        """
        self.feedback_many([Vote(retrieval_id, passage_id, verdict, user_id, reason)])

    def feedback_many(self, votes: Iterable[Vote]) -> int:
        """Keep votes in one commit, all or none; returns how many. Raises as `feedback` does."""
        given = items("votes", votes, Vote)
        hashed = [privacy.hashed_vote(self._user_key, vote) for vote in given]
        return capture.append_votes(self._database, hashed)

    def answer_feedback(
        self,
        retrieval_id: str | None,
        verdict: Verdict,
        *,
        answer: str | None = None,
        cited: Sequence[str] | None = None,
        user_id: str | None = None,
    ) -> None:
        """Keep one vote on a whole answer; its passages get parts of it, at most 1 in all.

        cited: the passages that the answer names share it, by how much of the answer each supports.
        Else all that were shown do. answer: the text, None: the one given to `answer`; only the
        parts are kept of it. Without text, by the chance that each was the answer. What a user says
        of a passage by `feedback` outranks this. Raises UnknownIdError, InputError.
        """
        user = self._hidden(user_id)
        vote = AnswerVote(retrieval_id, verdict, answer, cited, user)
        append_answer_vote(self._database, vote, self._slot.get)

    def relevance(
        self,
        retrieval_id: str | None,
        helpful: Mapping[str, bool],
        *,
        user_id: str | None = None,
    ) -> int:
        """Keep a vote on each of these hits, by passage id: helpful where True, else harmful.

        All in one commit, or none; returns how many. Hits that are left out get none. Raises as
        `feedback` does.
        """
        return self.feedback_many(capture.relevance_votes(retrieval_id, helpful, user_id))

    def adopted(
        self,
        retrieval_id: str | None,
        *,
        used: bool,
        why: str = "",
        user_id: str | None = None,
    ) -> None:
        """Keep whether an answer was used, and why: evidence that is shared as a vote on it is.

        Raises UnknownIdError, InputError.
        """
        user = self._hidden(user_id)
        append_adopted(self._database, retrieval_id, used, why, user, self._slot.get)

    def signal(
        self,
        retrieval_id: str | None,
        kind: Signal,
        value: object = None,
        *,
        passage_id: str | None = None,
        user_id: str | None = None,
    ) -> None:
        """Keep what a user did with an answer, or with one passage of it: weak evidence.

        kind: copied, accepted, edited (value: the final text, compared with the stored answer and
        not kept), regenerated, abandoned, rephrased, escalated, rating (value: 1 to 5, or 0.0 to
        1.0) or task_done (value False: it was not). Without passage_id it is shared as a vote on
        the answer is. What the user says outranks it. Raises UnknownIdError, InputError.
        """
        given = SignalGiven(retrieval_id, kind, value, passage_id, self._hidden(user_id))
        append_signal(self._database, given, self._slot.get)

    def votes_behind(self, hit: Hit) -> list[PastVotes]:
        """The votes on similar past queries that `hit.explanation.evidence` rests on, by query."""
        with self._database.snapshot() as conn:
            return vote_store.votes_by_number(conn, hit.explanation.votes, WEIGHTS)

    def correct(
        self,
        retrieval_id: str | None,
        passage_id: str | None = None,
        text: str | None = None,
        *,
        user_id: str | None = None,
    ) -> None:
        """Keep that a user names a passage as the answer, or writes it: one of the two.

        passage_id: whether it was shown or not; it counts as two votes, and a user's last one on a
        retrieval counts. text: waits in `review`, and becomes a passage if it is accepted. It is on
        the disk when this returns. Nothing is kept of a user who opted out. Raises UnknownIdError
        for a retrieval or passage that is not there, InputError.
        """
        user = self._hidden(user_id)
        if text is None:
            corrections.append_correction(self._database, retrieval_id, passage_id, user)
        elif passage_id is None:
            corrections.append_text(self._database, retrieval_id, text, user)
        else:
            raise InputError("found passage_id and text; expected one of them")

    def missing(
        self, retrieval_id: str | None, note: str = "", *, user_id: str | None = None
    ) -> None:
        """Keep that a user says the index has no answer to this; waits in `review`, and in `gaps`.

        Raises UnknownIdError, InputError.
        """
        user = self._hidden(user_id)
        corrections.append_missing(self._database, retrieval_id, note, user)

    def gaps(self, days: float = 30.0) -> list[Gap]:
        """What users ask in vain, by topic, those asked most in the last so many days first.

        Raises InputError.
        """
        self._database.require_open()
        return gaps(self._database, self._source(), days=days, noise=self._serving().noise())

    @property
    def golden(self) -> GoldenSet:
        """The queries whose answers are known: `add` imports some, `items`, `export`."""
        return GoldenSet(self._database, self._config, self._source)

    @property
    def review(self) -> Review:
        """The answers that a person has to decide: `next`, `accept`, `reject`, `undo`."""
        return Review(self._database, self._source, self._hidden, self.add)

    def answer(self, retrieval_id: str, text: str) -> None:
        """Keep the answer that the application gave from a retrieval. Raises UnknownIdError.

        Nothing is kept when the user who asked has opted out since.
        """
        capture.keep_answer(self._database, retrieval_id, text)

    def opt_out(self, user_id: str, *, out: bool = True) -> None:
        """From now on, in every process, record nothing of a user; out=False: record them again.

        They are answered as with record=False, and their votes are passed over. What is stored of
        them stays: `forget` deletes it. Raises InputError.
        """
        user = privacy.hashed(self._user_key, check_text("user_id", user_id))
        with self._database.transaction() as conn:
            users.set_opted_out(conn, user, out)

    def forget(self, user_id: str) -> ForgetReport:
        """Delete what is stored of a user, every version, and all that was learned from them.

        Their questions go with all votes on them, their votes, answers and reasons; a new version
        is learned from the remaining log alone. When this returns nothing of it is in the folder's
        bytes. What is left undone by a crash or an error, the next refresh does.
        Raises InputError, LockedError, StorageError.
        """
        user = privacy.hashed(self._user_key, check_text("user_id", user_id))
        try:
            self._slot.get()  # building anew needs it: better to fail before anything is deleted
            return forget(self._root, self._database, user, rebuild=self._rebuild(self._job(None)))
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
        """Build the next index version from everything so far, check it, and make it live: this object
        answers from it when this returns.

        if_votes: only when so many votes came since the last one; max_age_s: or when the live
        version is that old. tune: also teach the encoder of queries by the votes, when there are
        enough for another look of the gate; it takes minutes, and one that is killed goes on where
        it was. Raises LockedError when another process is refreshing, EncoderError when an encoder
        that cannot be tuned is to be.
        """
        when = When(if_votes, max_age_s)
        with Bars() as bars:
            job = self._job(as_progress(progress, bars))
            report = self._finish_forgetting(job) or refresh(job, when, tune=tune)
        if (server := self._server) is not None:
            server.renew()
        return report

    def versions(self) -> list[VersionInfo]:
        """The index versions on disk, the newest first."""
        with self._files():
            return status.versions(self._root)

    def explain_version(self, version: str) -> VersionStory:
        """How a version came to its parameters: what the gate weighed, and what it decided.

        Raises UnknownIdError, CorruptFileError.
        """
        with self._files():
            return story(self._root, version)

    def rollback(self, version: str | None = None, *, hold: bool = False) -> str:
        """Make a version live again (None: the one before the live one); returns its id.

        Votes that came after it was built stay stored and count again after `release`. Passages
        are not rolled back: what was added stays, what was removed stays away. hold: refreshes
        leave it live until `release`. Raises UnknownIdError, CorruptFileError, LockedError.
        """
        with self._files():
            return rollback.roll_back(self._root, self._database, version, hold=hold).version

    def release(self) -> bool:
        """Let votes and refreshes that a rollback held back go on; False when none were."""
        with self._files():
            return rollback.release(self._root, self._database)

    def status(self) -> Status:
        """The folder's state in numbers."""
        with self._files():
            return status.status(self._root, self._database, self._config)

    def history(self, n: int = 50) -> list[HistoryEntry]:
        """The n newest things that happened to the index, the newest first. Raises InputError.

        Promotions, rejected versions, rollbacks, releases, users forgotten, reviews, and what the
        gate decided.
        """
        check_whole("n", n)
        with self._files():
            return status.history(self._database, n)

    def export(self, path: str | Path) -> ExportReport:
        """Write passages, past queries and what votes say of them as a new BEIR folder at `path`.

        Without user ids, but with the texts of queries. Raises InputError for a folder that is
        not empty, StorageError.
        """
        self._database.require_open()
        live = current_of(self._root)
        last = live.frozen_at if live is not None else None
        return export(self._root, self._database, path, last=last)

    def verify(self) -> list[str]:
        """Everything found wrong with the folder, one sentence each; empty when it is sound."""
        with self._files():
            return problems(self._root, self._database)

    def repair(self, *, progress: bool | Progress = False) -> list[str]:
        """Move what is damaged into quarantine/, rebuild from the database, say what was done.

        A sound folder is left as it is: an empty list. Raises CorruptFileError, and changes
        nothing, when the database itself is damaged; LockedError.
        """
        self._database.require_open()
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
        user_id: str | None,
        session_id: str | None,
        record: bool,
        kind: str = "retrieve",
    ) -> Request:
        user = self._hidden(user_id)
        session = privacy.hashed_id(self._user_key, "session_id", session_id)
        tenant = self._serving().tenant(where)
        if record and user is not None:
            with self._database.reading() as conn:
                record = not users.opted_out(conn, [user])
        return Request(k, where, tenant, user, session, record, kind)

    def _job(self, progress: Progress | None) -> Job:
        config = self._config
        return Job(
            self._root,
            self._database,
            config,
            self._slot.get,
            self.lookups,
            progress,
        )

    def _rebuild(self, job: Job) -> Callable[[], RefreshReport]:
        return lambda: refresh_locked(job, When(), anew=True)

    def _finish_forgetting(self, job: Job) -> RefreshReport | None:
        report = finish_forgetting(self._root, self._database, rebuild=self._rebuild(job))
        if report is not None:
            self.lookups.clear()
        return report

    def _hidden(self, user_id: str | None) -> str | None:
        """What is stored of a user's id. Raises InputError."""
        return privacy.hashed_id(self._user_key, "user_id", user_id)

    def _source(self) -> Source:
        return Source(self._slot.get(), self._config)

    def _drop_server(self) -> None:
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.close()

    def _serving(self) -> Server:
        with self._lock:
            if self._server is None:
                self._server = server_of(
                    self._root, self._database, self._config, self._slot.get(), self.lookups
                )
            return self._server
