"""Looks for personal data in what is stored, and counts what a mask put in their place."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from rag_flywheel.privacy.pii import find_pii, require_pii_extra
from rag_flywheel.records import AuditReport, PiiFinding
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database
from rag_flywheel.store.texts import BESIDE, PASSAGES, WRITTEN, texts_of

_MASKED = re.compile(
    r"\[(EMAIL|IBAN|CARD|PHONE|SSN|IP|PERSON|LOCATION|NRP|DATE_TIME|URL|CRYPTO|MEDICAL_LICENSE|"
    r"(?:[A-Z]{2}_[A-Z_]{2,30}))\]"
)
"""What the masks of this package put in the place of personal data."""


def audit(
    database: Database,
    *,
    regions: Sequence[str] = (),
    passages: bool = False,
    show: bool = False,
) -> AuditReport:
    """Look for personal data in every stored text.

    regions: as for `find_pii`; passages: also in titles and texts of passages; show: put what was found
    into the report. Raises ConfigError when the extra is not installed.
    """
    require_pii_extra()
    fields, n_texts = (*WRITTEN, *BESIDE, *(PASSAGES if passages else ())), 0
    records: dict[tuple[str, str], list[str]] = defaultdict(list)
    texts: dict[tuple[str, str], list[str]] = defaultdict(list)
    with database.snapshot() as conn:
        for field in fields:
            for record, text in texts_of(conn, field):
                n_texts += 1
                for found in find_pii(text, regions):
                    records[field.name, found.kind].append(record)
                    if show:
                        texts[field.name, found.kind].append(text[found.start : found.end])
    findings = (
        PiiFinding(*key, len(each), tuple(dict.fromkeys(each)), tuple(texts[key]))
        for key, each in records.items()
    )
    return AuditReport(n_texts, tuple(findings))


def count_masked(conn: Connection) -> Mapping[str, int]:
    """How often each kind of personal data was masked in what users wrote and is stored now."""
    counts: Counter[str] = Counter()
    for field in WRITTEN:
        for _, text in texts_of(conn, field, containing="["):
            counts.update(match[1] for match in _MASKED.finditer(text))
    return dict(sorted(counts.items()))
