"""Retrieval that gets better from the people who use it, safely.

Public names load when first asked for, so that importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rag_flywheel.config import Config
    from rag_flywheel.curate.golden_set import GoldenSet
    from rag_flywheel.curate.review import Review
    from rag_flywheel.encode.tower import TunableEncoder
    from rag_flywheel.encoder import Encoder
    from rag_flywheel.errors import *
    from rag_flywheel.export.export import Export
    from rag_flywheel.flywheel import Flywheel, copy, restore
    from rag_flywheel.records import *
    from rag_flywheel.report.coverage import Coverage, CoverageWeek
    from rag_flywheel.report.gaps import Gap
    from rag_flywheel.report.raters import Rater

    __version__: str

__all__ = [
    "AccessError", "AddFilesReport", "AddReport", "AuditReport", "BackupReport", "Candidate",
    "ChangedAnswer", "ClosedError", "Comparison", "Config", "ConfigError", "CopyReport",
    "CorruptFileError", "Coverage", "CoverageWeek", "DayActivity", "DiskFullError", "DpCount", "DpCounts",
    "Encoder", "EncoderError", "EncoderMismatchError", "EncoderNotFoundError", "EngineError", "Explanation",
    "Export", "ExportReport",
    "Filter", "Flywheel", "FlywheelError", "ForgetReport", "Gap", "GoldenItem", "GoldenSet",
    "HashedUser", "Health", "HealthCheck", "HistoryEntry", "Hit", "ImportReport", "ImportedHit",
    "ImportedRetrieval", "ImportedVote", "InputError", "KnownAnswer",
    "LockedError", "NewerFormatError", "NotAFlywheelError", "ObjectStoreError", "OlderFormatError", "Passage",
    "PassageJudgment", "PastRefresh", "PastVotes", "PiiFinding", "Progress", "QuestionSummary",
    "RateLimitedError", "Rater", "ReadOnlyError", "RecordedHit", "RecordedRetrieval",
    "RecordedVote", "RefreshReport", "RestoreReport", "Retrieval", "Review", "ReviewItem",
    "ServiceError", "Signal", "SkippedFile", "Status", "StorageError", "TunableEncoder",
    "UnknownIdError", "UnreachableError", "Verdict", "VersionInfo", "VersionStory", "Vote", "copy",
    "restore",
]  # fmt: skip
_HOMES = {
    "Config": "config",
    "Coverage": "report.coverage",
    "CoverageWeek": "report.coverage",
    "Encoder": "encoder",
    "Export": "export.export",
    "Flywheel": "flywheel",
    "Gap": "report.gaps",
    "GoldenSet": "curate.golden_set",
    "Rater": "report.raters",
    "Review": "curate.review",
    "TunableEncoder": "encode.tower",
    "copy": "flywheel",
    "restore": "flywheel",
}  # of the others: errors and records


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata  # 10 ms to load

        value = metadata.version("rag-flywheel")
    elif name in __all__:
        home = _HOMES.get(name, "errors" if name.endswith("Error") else "records")
        value = getattr(import_module(f"{__name__}.{home}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
