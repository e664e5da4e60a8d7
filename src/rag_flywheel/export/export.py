"""Export, which an application reaches as `fw.export`: an index as files for other programs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rag_flywheel.checks import check_one_of, check_whole
from rag_flywheel.config import Config
from rag_flywheel.deploy.versions import version_folder
from rag_flywheel.disk import disk_errors, new_file, new_folder
from rag_flywheel.errors import InputError, quoted
from rag_flywheel.export import log_files
from rag_flywheel.export.allowed import Asked, AsText
from rag_flywheel.export.beir import write_beir
from rag_flywheel.export.questions import Counting
from rag_flywheel.export.training_rows import KINDS, MOST_NEGATIVES, Recipe
from rag_flywheel.export.training_set import FILE_FORMATS, write_training_set
from rag_flywheel.export.trec import write_trec
from rag_flywheel.export.ubi import write_ubi
from rag_flywheel.formats.row_files import ending_of
from rag_flywheel.rank.raters import load_raters, weights_of
from rag_flywheel.records import ExportReport, FileFormat, Progress, TrainingSet
from rag_flywheel.report.progress import Bars, as_progress
from rag_flywheel.serve.live_version import current_of
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database
from rag_flywheel.store.passages import read_clock
from rag_flywheel.store.period import Moment, Period
from rag_flywheel.store.tenants import Tenant, Tenants

WriteFile = Callable[[Connection, Asked, Path, str, Progress | None], log_files.Written]
WriteFolder = Callable[[Connection, Asked, Path, Progress | None], log_files.Written]


class Export:
    """Writes what an index knows as files and folders for other programs.

    Each export is of one moment, whatever other programs write meanwhile, and appears whole or not at all.
    It holds nothing of people who opted out or were forgotten, neither what they asked nor votes on it. The
    ids of users and sessions are the keyed hashes that are stored. Every method takes

    to: the new file, or the new or empty folder, outside the index folder.
    since, until: days or times such as "2026-11-30" or "2026-11-30T08:00Z": only what was from then on, and
        before then.
    tenant, all_tenants: whose data.
    overwrite: whether a file may take the place of another one.
    progress: True shows bars; a callable gets (step, done, total).

    and raises InputError, ConfigError where a package is missing, CorruptFileError and StorageError.
    """

    def __init__(
        self,
        root: Path,
        database: Database,
        config: Config,
        tenants: Tenants,
        masked: AsText,
        settle: Callable[[], None],
    ) -> None:
        """masked: a text that people wrote as it may be stored; settle: waits until answers that were given
        are recorded."""
        self._root = root
        self._database = database
        self._config = config
        self._tenants = tenants
        self._masked = masked
        self._settle = settle

    def retrievals(
        self,
        to: str | Path,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
        overwrite: bool = False,
        progress: bool | Progress = False,
    ) -> ExportReport:
        """Write the recorded retrievals, the oldest first, as .jsonl, .csv or .parquet."""
        asked = self._asked(since, until, tenant, all_tenants)
        return self._file(log_files.write_retrievals, asked, to, overwrite, progress)

    def votes(
        self,
        to: str | Path,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
        overwrite: bool = False,
        progress: bool | Progress = False,
    ) -> ExportReport:
        """Write votes, verdicts on answers, signals and corrections, the oldest first, as .jsonl, .csv or
        .parquet. Those of people who are muted are left out."""
        asked = self._asked(since, until, tenant, all_tenants)
        return self._file(log_files.write_votes, asked, to, overwrite, progress)

    def judgments(
        self,
        to: str | Path,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
        overwrite: bool = False,
        progress: bool | Progress = False,
    ) -> ExportReport:
        """Write what the votes on each passage for each question add up to, as .jsonl, .csv or .parquet."""
        asked = self._asked(since, until, tenant, all_tenants)
        return self._file(log_files.write_judgments, asked, to, overwrite, progress)

    def beir(
        self,
        to: str | Path,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
        progress: bool | Progress = False,
    ) -> ExportReport:
        """Write passages, past questions and the grades from their votes as a BEIR folder, for benchmarks."""
        asked = self._asked(since, until, tenant, all_tenants)
        return self._folder(write_beir, asked, to, progress)

    def trec(
        self,
        to: str | Path,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
        progress: bool | Progress = False,
    ) -> ExportReport:
        """Write run.trec, the newest ranking of each question with votes, qrels.trec and topics.tsv."""
        asked = self._asked(since, until, tenant, all_tenants)
        return self._folder(write_trec, asked, to, progress)

    def ubi(
        self,
        to: str | Path,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
        progress: bool | Progress = False,
    ) -> ExportReport:
        """Write retrievals and votes as queries and events of User Behavior Insights 1.3.0."""
        asked = self._asked(since, until, tenant, all_tenants)
        return self._folder(write_ubi, asked, to, progress)

    def training_set(
        self,
        kind: TrainingSet,
        to: str | Path,
        *,
        file_format: FileFormat = "jsonl",
        min_people: int = 1,
        most_negatives: int = MOST_NEGATIVES,
        unreviewed: bool = False,
        since: Moment | None = None,
        until: Moment | None = None,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
        progress: bool | Progress = False,
    ) -> ExportReport:
        """Write a training set, split as `beir` splits questions, with where each row comes from.

        Votes count by the weights of their voters in the live version, and passages that are in the index no
        more are in no row. The version of the report is the same for the same rows.

        kind: "pairs", "triplets" and "labeled-pairs" of questions and passages, for sentence-transformers;
            "preferences" between passages, for a reranker; "kto" and "dpo" of questions and answers, for TRL;
            "evaluation", for Ragas.
        file_format: "jsonl" or "parquet".
        min_people: how many people at least have to agree on a passage or answer.
        most_negatives: beside one right passage.
        unreviewed: for "dpo", also take corrections that no reviewer has accepted.
        """
        check_one_of("kind", kind, KINDS)
        check_one_of("file_format", file_format, FILE_FORMATS)
        ending_of(Path(f"train.{file_format}"))
        negatives = check_whole("most_negatives", most_negatives)
        people = check_whole("min_people", min_people)
        asked = self._asked(since, until, tenant, all_tenants)
        counting = Counting(self._weights(), self._config.memory_min_users, people)
        recipe = Recipe(counting, negatives, bool(unreviewed))
        version = ""

        def write(
            conn: Connection, asked: Asked, folder: Path, told: Progress | None
        ) -> log_files.Written:
            nonlocal version
            done = write_training_set(conn, kind, asked, recipe, folder, file_format, told)
            version = done.version
            return done.rows, done.left_out

        report = self._folder(write, asked, to, progress)
        return replace(report, version=version)

    def _asked(
        self, since: Moment | None, until: Moment | None, tenant: Tenant | None, all_tenants: bool
    ) -> Asked:
        self._database.require_open()
        scope = self._tenants.scope(tenant, all_tenants)
        live = current_of(self._root)
        last = None if live is None else live.frozen_at
        return Asked(self._root.resolve(), scope, Period.of(since, until), last, self._masked)

    def _weights(self) -> Mapping[str, float]:
        """What the votes of users weigh in the live version, by their hashes."""
        live = current_of(self._root)
        if live is None:
            return {}
        return weights_of(load_raters(version_folder(self._root, live.version)))

    def _file(
        self,
        write: WriteFile,
        asked: Asked,
        to: str | Path,
        overwrite: bool,
        progress: bool | Progress,
    ) -> ExportReport:
        out = _path(to, "a new file")
        ending = ending_of(out)
        put = new_file(out, outside=asked.root, overwrite=bool(overwrite))
        with self._reading(out, progress) as (conn, told), put as staged:
            return ExportReport(str(out), *write(conn, asked, staged, ending, told))

    def _folder(
        self, write: WriteFolder, asked: Asked, to: str | Path, progress: bool | Progress
    ) -> ExportReport:
        out = _path(to, "a new folder")
        put = new_folder(out, outside=asked.root)
        with self._reading(out, progress) as (conn, told), put as staged:
            return ExportReport(str(out), *write(conn, asked, staged, told))

    @contextmanager
    def _reading(
        self, out: Path, progress: bool | Progress
    ) -> Iterator[tuple[Connection, Progress | None]]:
        """A connection that sees the state of one moment, and who is told of the progress."""
        self._settle()
        with disk_errors(out), Bars() as bars, self._database.snapshot() as conn:
            read_clock(conn)  # from here on it sees this state alone
            yield conn, as_progress(progress, bars)


def _path(to: object, what: str) -> Path:
    if not isinstance(to, str | Path):
        raise InputError(f"to is {quoted(to)}; expected the name of {what}")
    if "\0" in str(to):
        raise InputError(f"to is {quoted(to)}, with a NUL byte; expected the name of {what}")
    return Path(to).resolve()
