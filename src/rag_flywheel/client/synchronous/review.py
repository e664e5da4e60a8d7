# Written by tests/support/synchronous.py from asynchronous/review.py: change that file.
"""The review queue of a service, which an application reaches as `client.review`."""

from typing import TYPE_CHECKING, Any

from rag_flywheel.checks import check_optional_text
from rag_flywheel.client.sending import in_path, tenant_body, tenant_query
from rag_flywheel.client.synchronous.connection import Connection
from rag_flywheel.records import ReviewItem

if TYPE_CHECKING:
    from rag_flywheel.store.tenants import Tenant


class Review:
    """The answers that need a human decision, with the methods of `Review`."""

    def __init__(self, to: Connection) -> None:
        self._to = to

    def next(
        self, *, tenant: "Tenant | None" = None, all_tenants: bool = False
    ) -> ReviewItem | None:
        """The item with the most votes that waits for a decision; None: nothing to decide."""
        return next(iter(self.items(tenant=tenant, all_tenants=all_tenants)), None)

    def items(
        self, *, tenant: "Tenant | None" = None, all_tenants: bool = False
    ) -> list[ReviewItem]:
        """Every item that waits, as `Review.items`."""
        named = tenant_query(tenant, all_tenants)
        found: list[ReviewItem] = self._to.get(list[ReviewItem], "/review", named)
        return found

    def accept(
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
        found = self._to.send(dict[str, Any], path, body)
        passage_id: str | None = found["passage_id"]
        return passage_id

    def reject(
        self,
        item_id: str,
        *,
        user_id: str | None = None,
        tenant: "Tenant | None" = None,
        all_tenants: bool = False,
    ) -> None:
        """Decide that the item's passage is no answer, as `Review.reject`."""
        path = f"/review/{in_path('item_id', item_id)}:reject"
        self._to.send(None, path, {"user_id": user_id, **tenant_body(tenant, all_tenants)})

    def undo(
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
        found = self._to.send(dict[str, Any], "/review:undo", body)
        return str(found["item_id"])
