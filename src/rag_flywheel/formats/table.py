"""Reads and writes known answers as .csv and .tsv tables."""

from collections.abc import Sequence
from pathlib import Path

from rag_flywheel.checks import check_query
from rag_flywheel.errors import InputError, counted
from rag_flywheel.formats.beir import cell
from rag_flywheel.formats.lines import located
from rag_flywheel.formats.printable import cell_as_written, harmless_cell
from rag_flywheel.formats.rows import Row, RowsRead, is_tenant, parse_grade, read_rows
from rag_flywheel.records import GoldenItem

SEPARATORS = {".csv": ",", ".tsv": "\t"}
_COLUMNS = ("query", "passage_id", "grade", "tenant")
_NEEDED = {"query", "passage_id"}


def read_table(path: Path, most: int, into: RowsRead) -> list[Row]:
    """The rows of a .csv or .tsv file; problems and counts go into `into`."""
    tally = into.tally(path.name)
    records = read_rows(path, SEPARATORS[path.suffix])
    _, header = next(records, (1, []))
    if not set(header) >= _NEEDED or not set(header) <= {*_COLUMNS} or len({*header}) < len(header):
        shown = SEPARATORS[path.suffix].join(header)
        raise InputError(
            f"{path}, line 1 is {shown[:200]!r}; expected the header query, passage_id and "
            "perhaps grade and tenant"
        )
    tally.skip_header()
    rows = []
    for number, record in records:
        where = f"{path}, line {number}"
        with tally.refusing("no query, passage and grade", number):
            if len(record) != len(header):
                raise InputError(
                    f"{where} has {counted(len(record), 'column')}; expected {len(header)}"
                )
            cells = map(cell_as_written, record)
            rows.append(_row(dict(zip(header, cells, strict=True)), where, most))
            tally.use()
    into.lines.append(tally.report())
    return rows


def _row(cells: dict[str, str], where: str, most: int) -> Row:
    grade = parse_grade(cells.get("grade", "1"), where)
    tenant = cells.get("tenant") or None
    if not is_tenant(tenant):
        raise InputError(f'{where}: tenant is {tenant!r}; expected JSON such as "acme" or 7')
    with located(where):
        check_query(cells["query"], most)
    return Row(cells["query"], tenant, cells["passage_id"], grade, where)


def table_text(items: Sequence[GoldenItem], separator: str) -> str:
    """The text of a table of known answers, with a line for each graded passage.

    Cells that a spreadsheet would take for formulas have ' in front, which `read_table` takes away.
    """
    tenants = any(item.tenant is not None for item in items)
    lines = [separator.join(_COLUMNS if tenants else _COLUMNS[:3])]
    for item in items:
        if "\0" in item.query:
            raise InputError(f"query {item.query!r} has a NUL byte; export a BEIR folder instead")
        for passage, grade in item.answers.items():
            cells = [item.query, passage, str(grade), *([item.tenant or ""] if tenants else [])]
            lines.append(separator.join(cell(harmless_cell(text), separator) for text in cells))
    return "\n".join(lines) + "\n"
