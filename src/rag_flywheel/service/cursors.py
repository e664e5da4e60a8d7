"""Pages of lists: a cursor says where the next one begins."""

import base64
import json
from typing import Any

from rag_flywheel.errors import InputError, quoted


def cursor(after: object) -> str:
    """The cursor of a page that begins after this."""
    return base64.urlsafe_b64encode(json.dumps(after).encode()).decode().rstrip("=")


def after(text: str | None, kind: type) -> Any:
    """Where a page begins, of this type; None: at the start. Raises InputError."""
    if text is None:
        return None
    try:
        padded = text + "=" * (-len(text) % 4)
        found = json.loads(base64.urlsafe_b64decode(padded.encode("ascii")))
    except (ValueError, UnicodeError, RecursionError):
        found = None
    if type(found) is not kind:
        raise InputError(
            f"cursor is {quoted(text)}; expected the next_cursor of an earlier answer, unchanged"
        )
    return found
