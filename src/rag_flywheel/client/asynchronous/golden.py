"""Known answers of a service, which an application reaches as `client.golden`."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rag_flywheel.checks import as_python
from rag_flywheel.client.asynchronous.connection import AsyncConnection
from rag_flywheel.client.sending import as_json, params_of, tenant_body, tenant_query
from rag_flywheel.client.uploads import golden_files
from rag_flywheel.errors import InputError, quoted
from rag_flywheel.records import AddReport, GoldenItem

if TYPE_CHECKING:
    from rag_flywheel.store.tenants import Tenant


class AsyncGolden:
    """The queries of an index whose answers are known, with the methods of `GoldenSet`."""

    def __init__(self, to: AsyncConnection) -> None:
        self._to = to

    async def add(
        self,
        path: str | Path,
        *,
        split: str = "test",
        lenient: bool = False,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> AddReport:
        """Import known answers from files of this machine, all or none, as `GoldenSet.add`."""
        named = tenant_query(tenant, all_tenants)
        given = params_of(split=split, lenient=as_json(lenient).decode())
        found: AddReport = await self._to.upload(
            AddReport, "/golden/files", golden_files(path), {**given, **named}
        )
        return found

    async def add_answers(
        self,
        answers: Iterable[tuple[str, str, int]],
        *,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> AddReport:
        """Import known answers, all or none, as `GoldenSet.add_answers`."""
        rows = []
        for number, row in enumerate(answers, 1):
            if not isinstance(row, tuple | list) or len(row) != 3:
                raise InputError(
                    f"row {number} is {quoted(row)}; expected (query, passage id, grade)"
                )
            query, passage_id, grade = row
            rows.append({"query": query, "passage_id": passage_id, "grade": as_python(grade)})
        body = {"answers": rows, **tenant_body(tenant, all_tenants)}
        found: AddReport = await self._to.send(AddReport, "/golden", body)
        return found

    async def items(
        self, *, tenant: "Tenant | None" = None, all_tenants: bool = False
    ) -> list[GoldenItem]:
        """The queries with an answer that is in the index now, as `GoldenSet.items`."""
        named = tenant_query(tenant, all_tenants)
        found: list[GoldenItem] = await self._to.get(list[GoldenItem], "/golden", named)
        return found

    async def export(
        self, path: str | Path, *, tenant: "Tenant | None" = None, all_tenants: bool = False
    ) -> int:
        """Write the items to a new file or folder of this machine, as `GoldenSet.export`."""
        from rag_flywheel.formats.golden import write_answers  # where few callers need it

        if not isinstance(path, str | Path) or "\0" in str(path):
            raise InputError(f"path is {quoted(path)}; expected the name of a file or folder")
        items = await self.items(tenant=tenant, all_tenants=all_tenants)
        out = Path(path).resolve()
        write_answers(items, out, outside=out / "index")  # which is on another machine
        return len(items)
