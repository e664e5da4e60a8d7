"""What the command line says on standard error: errors, warnings and log lines, safe for any terminal."""

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import typer

from rag_flywheel.errors import EncoderError, FlywheelError
from rag_flywheel.formats.printable import printable_line

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""What Typer raises for a command line that it cannot read."""
_log = logging.getLogger("rag_flywheel")


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what standard error is now, one line a message."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        return printable_line(super().format(record))


@contextmanager
def messages_to_stderr() -> Iterator[None]:
    """Print warnings, and what this package logs as one, as lines on standard error in this block."""
    before, level = _log.handlers[:], _log.level
    handler = _Stderr()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    _log.handlers[:] = [handler]
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            yield
        finally:
            _log.handlers[:] = before
            _log.setLevel(level)


def log_each_step() -> None:
    """Print what this package logs with the time, for the logs of cron."""
    for handler in _log.handlers:
        handler.setLevel(logging.INFO)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    _log.setLevel(logging.INFO)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {printable_line(str(message))}", file=sys.stderr)


def failed(error: FlywheelError, as_json: bool) -> None:
    """Print an error: one line, or one JSON object {"error": {"type", "message"}}; of an encoder that
    failed also why, to whoever runs it."""
    message, cause = str(error), error.__cause__
    if type(error) is EncoderError and cause is not None:
        message += f" (cause: {str(cause)[:500]})"
    _print_error(type(error).__name__, message, as_json)


def usage_failed(error: Exception, as_json: bool) -> None:
    """Print an error in the command line itself. Nothing, where the help has been printed instead."""
    if type(error).__name__ == "NoArgsIsHelpError" and not as_json:
        return
    context = getattr(error, "ctx", None)
    if context is not None and not as_json:
        print(printable_line(context.get_usage()), file=sys.stderr)
    described = getattr(error, "format_message", error.__str__)()
    _print_error("UsageError", described, as_json)


def _print_error(kind: str, message: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": {"type": kind, "message": message}}), file=sys.stderr)
    else:
        print(f"error: {printable_line(message)}", file=sys.stderr)
