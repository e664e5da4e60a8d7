"""The records that are exchanged between rooms and returned to callers: frozen, without behaviour."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Vectors: TypeAlias = npt.NDArray[np.float32]
"""float32 (n, dim), rows of unit length."""
Scores: TypeAlias = npt.NDArray[np.float64]
"""float64 (n,), higher is better."""
Features: TypeAlias = npt.NDArray[np.float32]
"""float32 (n, number of features), a row for each candidate."""
Pids: TypeAlias = npt.NDArray[np.int64]
"""int64 (n,): numbers of stored passage texts; FAISS ids are these numbers."""

Scalar: TypeAlias = str | int | float | bool | None
GivenScalar: TypeAlias = Scalar | date | np.generic
"""What an application may give for a scalar: a date becomes ISO text, a scalar of numpy a number."""
MetadataValue: TypeAlias = "GivenScalar | Sequence[GivenScalar] | Mapping[str, MetadataValue]"
"""A scalar, a list of scalars, or an object of values."""
Filter: TypeAlias = Mapping[str, object]
"""A filter expression on metadata: {"lang": "en", "year": {"gte": 2020}, "team": {"in": ["a", "b"]}}.

All of its conditions must hold. docs/reference/filters.md has every operator."""
Verdict: TypeAlias = Literal["helpful", "harmful", "retract"]
Signal: TypeAlias = Literal[
    "copied", "accepted", "edited", "regenerated", "abandoned",
    "rephrased", "escalated", "rating", "task_done",
]  # fmt: skip
TrainingSet: TypeAlias = Literal[
    "pairs", "triplets", "labeled-pairs", "preferences", "kto", "dpo", "evaluation"
]
"""pairs, triplets, labeled-pairs: for sentence-transformers; preferences: of passages, for a reranker;
kto, dpo: of answers, for TRL; evaluation: for Ragas and its like."""
FileFormat: TypeAlias = Literal["jsonl", "parquet"]
"""Of the files of a training set."""
Tool: TypeAlias = Literal["langfuse", "phoenix", "langsmith", "ubi", "trec", "csv"]
"""Whose files `import_files` reads; csv: tables of one's own."""
Outcome: TypeAlias = Literal["promoted", "unchanged", "rejected"]
Progress: TypeAlias = Callable[[str, int, int], None]
"""Called as progress(step, done, total) now and then during long work."""

AUTO, NO_LANGUAGE, ENGLISH = "auto", "none", "english"
STEMMED = (
    "arabic", "catalan", "danish", "dutch", ENGLISH, "finnish", "french", "german", "greek", "hindi",
    "hungarian", "indonesian", "italian", "norwegian", "persian", "polish", "portuguese", "romanian",
    "russian", "spanish", "swedish", "turkish",
)  # fmt: skip
"""Languages whose stop words and word endings are known."""


class QueryKey(NamedTuple):
    """Names a past query: the 16-byte hash of its text, and its tenant as JSON, None: no tenant."""

    query_hash: bytes
    tenant: str | None


@dataclass(frozen=True)
class EmbeddedText:
    """The text of a query or passage, and its vector, float32 (dim,) of unit length.

    name: the hash of a query that is asked; None where nothing is looked up by it.
    """

    text: str
    vector: Vectors
    name: bytes | None = None


@dataclass(frozen=True)
class Passage:
    """A text to retrieve, under the caller's id."""

    id: str
    text: str
    title: str = ""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


Splitter: TypeAlias = Callable[[str, str], Iterable[Passage | str]]
"""Called as splitter(text, source): the texts, or passages, that a document is cut into."""


@dataclass(frozen=True)
class AddReport:
    """How many passages, or known answers, an `add` added, updated, and left unchanged.

    removed: passages that it removed.
    moved_votes, moved_answers: votes and known answers on texts that are under another id now, or came
        back.
    lost_votes, lost_answers: those on texts that are in the index no more. They count again when the
        text comes back, under whatever id.
    too_long: how many of the given passages have more tokens than the encoder reads; what is beyond is
        found by its words alone. 0 if the encoder does not say what it reads.
    left_out: of known answers, how many rows were left out, by reason; none unless lenient.
    """

    added: int
    updated: int
    unchanged: int
    removed: int = 0
    moved_votes: int = 0
    lost_votes: int = 0
    moved_answers: int = 0
    lost_answers: int = 0
    too_long: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SkippedFile:
    """A file or folder that `add_files` left out, and why; failed: it should have been read."""

    path: str
    reason: str
    failed: bool = False


@dataclass(frozen=True)
class AddFilesReport:
    """What `add_files` did with passages, how many files it read, and what it left out.

    passages: those that the files hold, added, updated and unchanged; removed those that their files no
        longer have, or whose files are gone; their votes and known answers.
    skipped: what it left out of the folders, and files that cannot be read, whose earlier passages
        stay.
    """

    passages: AddReport
    n_files: int
    skipped: tuple[SkippedFile, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A passage found by an application's own retriever; `score` is that retriever's, higher is better.

    title, metadata: come back with the hit, as they were given.
    """

    passage_id: str
    text: str
    score: float
    title: str = ""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


@dataclass(frozen=True)
class KnownAnswer:
    """That a passage is known to answer a question: the one that was asked (same), or a similar one.

    sources: how it is known, among "imported", "pinned" and "review". grade: the higher the better.
    """

    same: bool
    sources: tuple[str, ...]
    grade: int


@dataclass(frozen=True)
class Explanation:
    """Why a hit has its score: intercept + sum(terms) + evidence == score, within 1e-6.

    intercept: the same for all hits of an answer; it normalises the chances to a sum of one.
    terms: the weighted features, by name.
    evidence: the contribution of votes and of known answers, on the same question and on similar past
        ones; below 0 where those on the same question speak against the passage.
    votes: the event numbers of the votes behind it.
    known: the known answers behind it.
    by_known: by how much known answers of the same question moved the score; a part of intercept and
        evidence.
    """

    intercept: float
    terms: Mapping[str, float]
    evidence: float
    votes: tuple[int, ...] = ()
    known: tuple[KnownAnswer, ...] = ()
    by_known: float = 0.0


@dataclass(frozen=True)
class Hit:
    """One passage of an answer. rank counts from 1.

    score: log of the chance that it is the answer; where a question may have several,
    log(−log(1 − chance)), which is next to that while the chance is small. It is shared out among the
        candidates, and ranks them.
    relevance: the chance that the passage answers the question, 0 to 1, however many copies of it there
        are; calibrated on votes at a refresh. It need not fall with the rank.
    explored: whether it took the last place from a better hit, so that users may judge it.
    """

    passage_id: str
    rank: int
    score: float
    text: str
    title: str
    metadata: Mapping[str, MetadataValue]
    explanation: Explanation
    relevance: float = 0.0
    explored: bool = False


@dataclass(frozen=True)
class Retrieval:
    """One answer to a query. `id` is None when it was not `recorded`, `version` before the first refresh.

    answerable: the chance that one of the k best passages answers the question, 0 to 1, and no less
        than the relevance of any; those that `min_relevance` left out count too. 0 without any passage.
    """

    id: str | None
    query: str
    version: str | None
    hits: tuple[Hit, ...]
    answerable: float = 0.0

    @property
    def recorded(self) -> bool:
        """Whether it was recorded, so that it takes votes."""
        return self.id is not None


@dataclass(frozen=True)
class Vote:
    """A user's verdict on one hit of a recorded retrieval (whose id is not None).

    trust: how much it weighs for the application, from 0, not at all, over 1, an ordinary user's vote,
    to 3. run: in place of retrieval_id, None, a run that was given as run_id: it is on the newest retrieval
    of the run that showed the passage.
    """

    retrieval_id: str | None
    passage_id: str
    verdict: Verdict
    user_id: str | None = None
    reason: str | None = None
    trust: float = 1.0
    run: str | None = None


@dataclass(frozen=True)
class RecordedHit:
    """A hit as it was shown. relevance: None where it was not recorded."""

    passage_id: str
    rank: int
    score: float
    relevance: float | None = None


class HashedUser(str):
    """The keyed hash under which a user is stored. Given as user_id, it is not hashed again."""

    __slots__ = ()


@dataclass(frozen=True)
class RecordedRetrieval:
    """A retrieval in the log.

    at: the time (UTC). query: "" where its words are not stored. tenant: as JSON, None: none.
    user, session: the keyed hashes of their ids. answer: the one that the application gave.
    source: the tool that it was imported from, None: it was recorded here; external_id: its id there,
    None where it was made anonymous.
    """

    id: str
    kind: Literal["retrieve", "rerank"]
    at: str
    query: str
    k: int
    where: Filter | None
    tenant: str | None
    version: str | None
    user: str | None
    session: str | None
    latency_ms: float
    hits: tuple[RecordedHit, ...]
    answerable: float | None = None
    answer: str | None = None
    source: str | None = None
    external_id: str | None = None


@dataclass(frozen=True)
class RecordedVote:
    """A vote, a verdict on a whole answer, a signal or a correction in the log.

    number: of the event; they grow with time. at: the time (UTC). passage_id: None: the whole answer.
    kind: vote, answer, adopted, correction, judge for a language model's, or the signal's. user: the
    keyed hash of the id. reason: in the user's words. trust: how much the application trusts the user.
    tenant: as JSON. source: the tool that it was imported from, None: it was recorded here.
    """

    number: int
    at: str
    retrieval_id: str
    passage_id: str | None
    kind: str
    verdict: Verdict
    user: str | None
    reason: str | None
    trust: float
    query: str
    tenant: str | None
    source: str | None = None


ImportedKind: TypeAlias = (
    Literal["vote", "answer", "correction", "text", "missing", "adopted", "judge"] | Signal
)
"""What an imported vote is: a verdict on a passage or on the answer, a named passage, the answer in a
user's own words, that it is missing, whether it was used, the verdict of a language model, or a signal."""


@dataclass(frozen=True)
class ImportedHit:
    """A passage that another tool showed; its place in the list is its rank, unless `rank` says another.

    passage_id: its id, or several that it may have: the first that is in the index is taken. Where none is,
    text, title or url has to be exactly that of one passage of the index alone; url is compared with the
    metadata "url" and "source".
    """

    passage_id: str | Sequence[str] | None = None
    rank: int | None = None
    text: str | None = None
    title: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class ImportedRetrieval:
    """A retrieval that another tool recorded.

    id: the tool's. hits: in the order shown; None: not known, so that it comes in only if other records of it
        say what it showed. at: when: seconds since 1970, a datetime, or ISO 8601, which is
        UTC where it says nothing else; None: not known.
    answer: the one that was given from it. tenant: whose it is, in an index with tenants.
    inside: ids of runs or traces that it was part of; a vote on one of them is a verdict on the answer.
    recorded_as: its id in this index, where it was recorded here: then only votes on it come in.
    """

    id: str
    query: str
    hits: Sequence[ImportedHit] | None = ()
    at: str | float | datetime | None = None
    user_id: str | None = None
    session_id: str | None = None
    answer: str | None = None
    tenant: str | int | None = None
    inside: Sequence[str] = ()
    recorded_as: str | None = None


@dataclass(frozen=True)
class ImportedVote:
    """Feedback that another tool recorded.

    id: the tool's. retrieval_id: of a retrieval, imported or recorded here, or of what one was inside of.
    passage_id, rank: the passage that it is on, by its id, as a hit, or by its rank from 1; None: the answer.
    kind: None: "vote" on a passage, "answer" on the answer. A "judge" is a language model, named by user_id.
    value: of a rating, 1 to 5 or 0.0 to 1.0. text: of the kinds "text" and "missing".
    shares: the part of each passage, by its id, in what is not a vote on one, 0 to 1; None: not known.
    trust: how much it weighs, from 0 over 1, an ordinary vote, to 3. at: as of ImportedRetrieval; None: when
        its retrieval was. tenant: whose retrieval it is on, where several tenants have one of this id.
    """

    id: str
    retrieval_id: str
    verdict: Verdict | None = None
    passage_id: str | ImportedHit | None = None
    rank: int | None = None
    kind: ImportedKind | None = None
    value: float | bool | None = None
    text: str | None = None
    shares: Mapping[str, float] | None = None
    user_id: str | None = None
    at: str | float | datetime | None = None
    reason: str | None = None
    trust: float = 1.0
    tenant: str | int | None = None


@dataclass(frozen=True)
class ImportReport:
    """What an import brought, or with dry_run would bring.

    retrievals: how many are new. votes: how many are new, by kind. unchanged: how many of both came in
    before. extended: retrievals that came in before, of which more passages are known now.
    left_out: how many retrievals, passages and votes could not be used, by reason.
    waiting: how many questions with votes now wait for the next refresh to embed them; until then these
        votes act where the same words are asked, and not on similar questions.
    """

    source: str
    retrievals: int
    votes: Mapping[str, int]
    unchanged: int
    extended: int
    left_out: Mapping[str, int]
    dry_run: bool = False
    waiting: int = 0


@dataclass(frozen=True)
class PassageJudgment:
    """What the votes on one passage for one question add up to, however often it was asked.

    query: "" where its words are not stored. tenant: as JSON, None: none.
    helpful, harmful: the sums of the weights of the votes. votes: their event numbers.
    """

    query: str
    tenant: str | None
    passage_id: str
    helpful: float
    harmful: float
    votes: tuple[int, ...]


@dataclass(frozen=True)
class QuestionSummary:
    """How often a question was asked, by whom, and how well it was served.

    query: "" where its words are not stored. tenant: as JSON, None: none.
    n: how often it was asked; n_people: by how many users, of those whose id was given.
    first, last: when (UTC). answerable: when it was asked last; None where that was not recorded.
    helpful, harmful: the sums of the weights of the votes on its passages, each person's last ones.
    disputed: the weight of the lesser side, over the passages that were voted on both ways.
    """

    query: str
    tenant: str | None
    n: int
    n_people: int
    first: str
    last: str
    answerable: float | None
    helpful: float
    harmful: float
    disputed: float


@dataclass(frozen=True)
class DayActivity:
    """What was asked and voted on one day (UTC, as 2026-11-30).

    helpful, harmful: votes on passages and verdicts on answers.
    """

    day: str
    retrievals: int
    helpful: int
    harmful: int


@dataclass(frozen=True)
class TenantScope:
    """Whose data a call may read or change.

    tenant: as JSON, None: all tenants'.
    where: the filter that the tenant's passages pass, None: all pass.
    """

    tenant: str | None = None
    where: Filter | None = None

    def holds(self, tenant: str | None) -> bool:
        """Whether what is recorded under a tenant, as JSON, is in the scope."""
        return self.tenant is None or tenant == self.tenant

    def sql(self, column: str) -> tuple[str, tuple[str, ...]]:
        """SQL to append to a condition, and its values: that a column with tenants is in the scope."""
        return ("", ()) if self.tenant is None else (f" AND {column} = ?", (self.tenant,))


ALL_TENANTS = TenantScope()


@dataclass(frozen=True)
class PastVotes:
    """How many votes there are on one passage for one past query, and of which kind.

    query: "" where its words are not stored.
    shared: the weight of verdicts on whole answers and of signals, helpful minus harmful.
    tenant: as JSON, None: the query was asked under none.
    """

    query: str
    passage_id: str
    helpful: int
    harmful: int
    shared: float = 0.0
    tenant: str | None = None


@dataclass(frozen=True)
class GoldenItem:
    """A query whose answers are known: {passage id: grade}, {lineage: grade}; 0 is no answer.

    query_hash: 16 bytes that name the query in this index alone, so items are equal without it; digest:
    16 bytes that depend on its text alone.
    tenant: as JSON. sources: where the answers come from, among
    "agreement", "correction", "imported", "pinned" and "review".
    """

    query: str
    query_hash: bytes = field(compare=False)
    digest: bytes
    tenant: str | None
    answers: Mapping[str, int]
    lineages: Mapping[int, int]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class ReviewItem:
    """A passage to review, because users or sources disagree whether it answers a query.

    Without a passage_id it is a text that a user wrote as the answer, or a note that it is missing.
    helpful, harmful: the number of users with this verdict.
    why: the reason, a sentence.
    tenant: as JSON, None: the query was asked under none.
    """

    id: str
    query: str
    passage_id: str
    text: str
    helpful: int
    harmful: int
    why: str
    tenant: str | None = None


@dataclass(frozen=True)
class Judgment:
    """The valid votes on one passage text for one past query.

    helpful, harmful: the sums of the weights of the votes.
    votes: their event numbers.
    retrieval: the row of the first retrieval that was voted on.
    named: the part of `helpful` by users who named the passage as the answer.
    chosen: the passage's largest share in a judged answer.
    """

    query: bytes
    tenant: str | None
    lineage: int
    helpful: float
    harmful: float
    votes: tuple[int, ...]
    retrieval: int = 0
    named: float = 0.0
    chosen: float = 0.0


@dataclass(frozen=True)
class Support:
    """What the votes on a past query say of a passage text.

    chance: the posterior probability that the text is the answer; 0 where it is small.
    log_odds: what the votes on the text itself add to the log-odds of that; 0 without any.
    named: whether a user named the text as the answer.
    """

    lineage: int
    chance: float
    log_odds: float = 0.0
    named: bool = False


@dataclass(frozen=True)
class Known:
    """A passage text that is known to answer a question; grade (1 or more), sources: as in KnownAnswer."""

    lineage: int
    grade: int
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Acting:
    """The known answers that act on ranking, by question: those whose text is in the index now.

    lineages: of every text that was imported, pinned or reviewed, whether it is there or not.
    """

    answers: Mapping[QueryKey, tuple[Known, ...]] = field(default_factory=dict)
    lineages: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Current:
    """Which version is live and, after a rollback, the event number that evidence is frozen at.

    held: whether it stays live until `release`, whatever refreshes come.
    """

    version: str
    frozen_at: int | None = None
    held: bool = False


@dataclass(frozen=True)
class RefreshReport:
    """The result of a refresh. `reason` is a sentence, `scores` the numbers that it rests on."""

    outcome: Outcome
    version: str | None
    parameters: Literal["new", "kept"]
    reason: str
    scores: Mapping[str, float]
    seconds: float
    encoder: Literal["new", "kept"] = "kept"  # of queries


@dataclass(frozen=True)
class PastRefresh:
    """A refresh that ended. at: when (UTC); the rest is as in its RefreshReport."""

    at: str
    outcome: Outcome
    version: str | None
    parameters: Literal["new", "kept"]
    reason: str
    scores: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class ChangedAnswer:
    """A question that two versions answer differently: the ids of the passages, the best first.

    n: how often it was asked. tenant: as JSON, None: none.
    """

    query: str
    tenant: str | None
    n: int
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """What two versions answer to the questions asked most, each with the votes up to its own build.

    n_questions: how many were compared; changed: those whose answers differ, the most asked first.
    """

    before: str
    after: str
    n_questions: int
    changed: tuple[ChangedAnswer, ...]


@dataclass(frozen=True)
class ForgetReport:
    """The result of forgetting a user: the numbers of deleted and of anonymised records.

    n_votes: deleted votes of the user.
    n_votes_of_others: deleted votes of other users on the user's questions.
    n_corrections_kept, n_reviews_kept: those that stay, without their author.
    version: the live version afterwards.
    n_notes: deleted texts for review, of the user or on the user's questions.
    """

    n_retrievals: int
    n_votes: int
    n_votes_of_others: int
    n_corrections_kept: int
    n_reviews_kept: int
    version: str | None
    n_notes: int = 0


@dataclass(frozen=True)
class PiiFinding:
    """Personal data of one kind in one field of what is stored.

    n: how many; records: the ids of the retrievals, the event numbers of votes and notes, or the row
    numbers of passages that hold them; texts: what was found, where that was asked for.
    """

    field: str
    kind: str
    n: int
    records: tuple[str, ...]
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class AuditReport:
    """The personal data that were found in what is stored. n_texts: how many texts were looked through."""

    n_texts: int
    findings: tuple[PiiFinding, ...]


@dataclass(frozen=True)
class DpCount:
    """How many users have a key, with noise. key: (passage id, verdict), or (question,)."""

    key: tuple[str, ...]
    n: int


@dataclass(frozen=True)
class DpCounts:
    """Differentially private counts of users by key, without the keys that few have.

    epsilon, delta: the privacy loss of this release, of one user's being there or not; epsilon_spent,
    delta_spent: of all releases of this index together. most_keys: for how many keys one user counts at
    most; scale: of the Laplace noise; threshold: counts that are not above it, with the noise, are left out.
    """

    what: str
    epsilon: float
    delta: float
    most_keys: int
    scale: float
    threshold: int
    epsilon_spent: float
    delta_spent: float
    counts: tuple[DpCount, ...]


@dataclass(frozen=True)
class HistoryEntry:
    """An event in the history of the index.

    at: the time (UTC).
    kind: promoted, rejected, begun, failed, rollback, release, found, forget, review, pin or look.
    text: a sentence.
    """

    at: str
    kind: str
    text: str


@dataclass(frozen=True)
class VersionInfo:
    """One index version on disk. `watermark` is the event number up to which it was built."""

    id: str
    live: bool
    parent: str | None
    created: str
    n_passages: int
    watermark: int


@dataclass(frozen=True)
class VersionStory:
    """How a version got its parameters, in sentences and in numbers."""

    id: str
    live: bool
    sentences: tuple[str, ...]
    scores: Mapping[str, float]


HealthState = Literal["ok", "degraded", "broken"]
"""ok; degraded: answers are right, but something needs attention; broken: answers are wrong or impossible."""


@dataclass(frozen=True)
class HealthCheck:
    """One thing that `health` looked at.

    found: how it is; expected: how it should be; to_do: what mends it, "" where it is as expected.
    """

    name: str
    state: HealthState
    found: str
    expected: str
    to_do: str = ""


@dataclass(frozen=True)
class Health:
    """Whether an index can be served and is being refreshed.

    state: the worst of the checks; version: the one that CURRENT names; seconds: what this took.
    """

    path: str
    state: HealthState
    checks: tuple[HealthCheck, ...]
    version: str | None
    seconds: float

    @property
    def problems(self) -> tuple[HealthCheck, ...]:
        """The checks that are not ok, those that are broken first."""
        wrong = [check for check in self.checks if check.state != "ok"]
        return tuple(sorted(wrong, key=lambda check: check.state != "broken"))


@dataclass(frozen=True)
class Status:
    """The state of an index folder in numbers.

    frozen_at: votes after this event do not count; None: all count.
    dense_recall: recall of the 10 nearest passages.
    health: as `health` tells it; problems: a sentence for each of its checks that is not ok, the worst
        first. version, and what depends on it, is None where it cannot be read.
    masked: how often each kind of personal data was masked in the stored texts of users.
    encoder_change: how far a change to another encoder is, or why the gate refused it; None: there is none.
    n_questions_waiting: questions with votes that the next refresh will embed; until then these votes act
        where the same words are asked.
    engine: the database of vectors that passages are found in; None: the memory of each process.
    objects: the place in an object store that hosts share versions in; None: one folder has them. Then
        live_version is what is live for all of them, and behind_since says since when that is another one
        than `version`, or in another way, UTC; None: it is not.
    """

    path: str
    encoder: str
    version: str | None
    frozen_at: int | None
    held: bool
    n_versions: int
    n_passages: int
    n_indexed: int
    n_waiting: int
    n_retrievals: int
    n_votes: int
    votes_since_refresh: int
    last_refresh: str | None
    bytes_on_disk: int
    dense_search: Literal["every passage", "a graph"] | None = None
    dense_recall: float | None = None
    health: HealthState = "ok"
    problems: tuple[str, ...] = ()
    masked: Mapping[str, int] = field(default_factory=dict)
    encoder_change: str | None = None
    n_questions_waiting: int = 0
    engine: str | None = None
    objects: str | None = None
    live_version: str | None = None
    behind_since: str | None = None


@dataclass(frozen=True)
class BackupReport:
    """What a backup holds.

    seq: the number of the newest event in it.
    version: the index version that is live in it; None: none was.
    n_files: its files, of n_bytes bytes; n_new_bytes: those that were not in the folder before.
    """

    path: str
    seq: int
    version: str | None
    n_files: int
    n_bytes: int
    n_new_bytes: int


@dataclass(frozen=True)
class CopyReport:
    """What a copy of an index holds.

    store: where its database is, a folder or the URL of a server; path: its folder.
    seq: the number of the newest event in it.
    version: the index version that is live in it; None: none was.
    """

    store: str
    path: str
    seq: int
    version: str | None


@dataclass(frozen=True)
class RestoreReport:
    """What a restore did.

    seq: the number of the newest event, as in the backup.
    version: the index version that is live; None: none was in the backup.
    moved: what was moved to quarantine/, one sentence each.
    """

    path: str
    seq: int
    version: str | None
    moved: tuple[str, ...]


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote, and what it left out.

    path: the file or folder. written, left_out: how many of each, by what they are, such as "votes" or
        "votes of people who opted out".
    version: names the content of a training set, the same for the same rows; None of other exports.
    """

    path: str
    written: Mapping[str, int]
    left_out: Mapping[str, int] = field(default_factory=dict)
    version: str | None = None
