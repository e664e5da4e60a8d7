"""The lines of a BEIR folder as this package writes them.

It must not know what the queries and grades in them mean.
"""

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path

QRELS_HEADER = ("query-id", "corpus-id", "score")


def query_id(query: bytes, tenant: str | None) -> str:
    """The id of a query: the hash of its text and, under a tenant key, one of the tenant (JSON)."""
    if tenant is None:
        return query.hex()
    return f"{query.hex()}-{blake2b(tenant.encode(), digest_size=8).hexdigest()}"


def query_line(id_: str, text: str, tenant: str | None) -> Mapping[str, object]:
    """A line of queries.jsonl; tenant: as JSON, it goes into the metadata."""
    more = {} if tenant is None else {"metadata": {"tenant": json.loads(tenant)}}
    return {"_id": id_, "text": text, **more}


def write_lines(path: Path, lines: Iterable[Mapping[str, object]]) -> None:
    """Write one JSON object a line."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def write_qrels(path: Path, rows: Iterable[tuple[str, str, int]]) -> None:
    """Write a header, and (query id, passage id, grade) of each row."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join(QRELS_HEADER) + "\n")
        for query, passage, grade in rows:
            file.write(f"{query}\t{cell(passage)}\t{grade}\n")


def cell(text: str, separator: str = "\t") -> str:
    """As csv readers expect it; the csv module's own writer leaves a lone carriage return bare."""
    if not any(character in text for character in f'"{separator}\r\n'):
        return text
    return '"' + text.replace('"', '""') + '"'
