"""The tests that ask for SQLite itself, by why: they are skipped where every index is on PostgreSQL."""

import re
from collections.abc import Mapping

REASONS: Mapping[str, str] = {}
"""Parts of the names of tests, as regular expressions, and why they are not for PostgreSQL."""


def why_skipped(test: str) -> str | None:
    """Why a test is not for PostgreSQL; None: it is."""
    return next((why for name, why in REASONS.items() if re.search(name, test)), None)
