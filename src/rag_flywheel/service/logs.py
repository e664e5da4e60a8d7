"""What the service logs: a line for each request, as JSON or as text, and what the library says.

No question, user or passage is in a line: of an address only the template of its route is written.
"""

import logging
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import msgspec

LogFormat: TypeAlias = Literal["json", "text"]
ACCESS = "rag_flywheel.access"
FIELDS = ("route", "method", "status", "ms", "index", "key", "request_id")
"""What the line of a request says besides the time."""
_FORMATS: Mapping[LogFormat, dict[str, Any]] = {
    "json": {"()": "rag_flywheel.service.logs.JsonLines"},
    "text": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"},
}


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the fields that came with it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line: dict[str, object] = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if record.name == ACCESS:
            line |= {name: getattr(record, name, None) for name in FIELDS}
        else:
            line["message"] = record.getMessage()
        if record.exc_info:
            line["error"] = "".join(traceback.format_exception(*record.exc_info))
        return msgspec.json.encode(line).decode()


def _utc(seconds: float) -> str:
    at = datetime.fromtimestamp(seconds, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def config(form: LogFormat) -> dict[str, Any]:
    """The settings of logging, for all processes of the service: everything goes to standard error."""
    to_stderr = {"handlers": ["stderr"], "level": "INFO", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": _FORMATS[form]},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "loggers": dict.fromkeys(("uvicorn", "rag_flywheel", ACCESS), to_stderr),
        "root": {"handlers": ["stderr"], "level": "WARNING"},
    }
