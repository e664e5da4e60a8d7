"""The review queue of a service, which an application reaches as `client.review`."""

from typing import TYPE_CHECKING, Any

from rag_flywheel.checks import check_optional_text
from rag_flywheel.client.asynchronous.connection import AsyncConnection
from rag_flywheel.client.sending import in_path, tenant_body, tenant_query
from rag_flywheel.records import ReviewItem

if TYPE_CHECKING:
    from rag_flywheel.store.tenants import Tenant


class AsyncReview:
    """The answers that need a human decision, with the methods of `Review`."""

    def __init__(self, to: AsyncConnection) -> None:
        self._to = to

    async def next(
        self, *, tenant: "Tenant | None" = None, all_tenants: bool = False
    ) -> ReviewItem | None:
        """The item with the most votes that waits for a decision; None: nothing to decide."""
        return next(iter(await self.items(tenant=tenant, all_tenants=all_tenants)), None)

    async def items(
        self, *, tenant: "Tenant | None" = None, all_tenants: bool = False
    ) -> list[ReviewItem]:
        """Every item that waits, as `Review.items`."""
        named = tenant_query(tenant, all_tenants)
        found: list[ReviewItem] = await self._to.get(list[ReviewItem], "/review", named)
        return found

    async def accept(
        self,
        item_id: str,
        *,
        text: str | None = None,
        user_id: str | None = None,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> str | None:
        """Decide that the item's passage is an answer, as `Review.accept`; returns the passage's id."""
        path = f"/review/{in_path('item_id', item_id)}:accept"
        body = {"text": text, "user_id": user_id, **tenant_body(tenant, all_tenants)}
        found = await self._to.send(dict[str, Any], path, body)
        passage_id: str | None = found["passage_id"]
        return passage_id

    async def reject(
        self,
        item_id: str,
        *,
        user_id: str | None = None,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> None:
        """Decide that the item's passage is no answer, as `Review.reject`."""
        path = f"/review/{in_path('item_id', item_id)}:reject"
        await self._to.send(None, path, {"user_id": user_id, **tenant_body(tenant, all_tenants)})

    async def undo(
        self,
        item_id: str | None = None,
        *,
        user_id: str | None = None,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> str:
        """Take back the decision on an item, or the last one, as `Review.undo`; returns the item's id."""
        check_optional_text("item_id", item_id)
        body = {"item_id": item_id, "user_id": user_id, **tenant_body(tenant, all_tenants)}
        found = await self._to.send(dict[str, Any], "/review:undo", body)
        return str(found["item_id"])
