"""Who looks at the dashboard: a signed cookie that holds the id of a key, never the key itself."""

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, replace
from functools import partial

from fastapi import Request, Response
from itsdangerous import BadSignature

from rag_flywheel.service.signed import signed
from rag_flywheel.store.database import Database
from rag_flywheel.store.service.state import now, secret
from rag_flywheel.store.tenants import Tenant

COOKIE = "fw_session"
LASTS_S = 12 * 3600  # after which one has to sign in again
_SECRET = "dashboard"
_MOST_NOTICE = 400  # characters; a cookie has room for 4,000


@dataclass(frozen=True)
class Session:
    """What the cookie holds.

    id: random, so that forms can be bound to it. key_id: None: nobody has signed in.
    tenant: the one that a key of all tenants looks at, as JSON; None: all.
    notice: a sentence for the next page. changed: when this visitor last changed something, in seconds
        since 1970 by `Sessions.clock`.
    """

    id: str
    key_id: str | None = None
    tenant: str | None = None
    notice: str = ""
    changed: float = 0.0

    @property
    def chosen_tenant(self) -> Tenant | None:
        """The tenant that was chosen; None: all."""
        found: Tenant | None = None if self.tenant is None else json.loads(self.tenant)
        return found

    def with_notice(self, notice: str) -> "Session":
        """The session with a sentence for the next page."""
        return replace(self, notice=notice[:_MOST_NOTICE])

    def with_tenant(self, tenant: Tenant | None) -> "Session":
        """The session that looks at one tenant; None: at all."""
        return replace(self, tenant=None if tenant is None else json.dumps(tenant))


class Sessions:
    """Reads and writes the cookies of one service, whose processes and hosts share a secret and a clock."""

    def __init__(self, state: Database) -> None:
        """state: the service's own records."""
        self._secret = secret(state, _SECRET)
        self.clock = partial(now, state)
        self._signed = signed(self._secret, "session", self.clock)

    def read(self, request: Request) -> Session | None:
        """The session of a request; None where there is none that is signed and young enough."""
        try:
            return Session(*self._signed.loads(request.cookies.get(COOKIE, ""), max_age=LASTS_S))
        except (BadSignature, TypeError):
            return None

    def write(self, request: Request, response: Response, session: Session) -> None:
        """Set the cookie."""
        held = [session.id, session.key_id, session.tenant, session.notice, session.changed]
        forwarded = request.headers.get("x-forwarded-proto", "")
        response.set_cookie(
            COOKIE,
            str(self._signed.dumps(held)),
            max_age=LASTS_S,
            path=request.scope.get("root_path") or "/",
            secure="https" in (request.url.scheme, forwarded),
            httponly=True,
            samesite="strict",
        )

    def form_token(self, session: Session) -> str:
        """What every form of the session must send along, and no other site can know."""
        return hmac.new(self._secret, b"form:" + session.id.encode(), hashlib.sha256).hexdigest()

    def is_form_token(self, session: Session, token: object) -> bool:
        """Whether this is the token of the session's forms."""
        given = token.encode() if isinstance(token, str) else b""
        return hmac.compare_digest(self.form_token(session).encode(), given)


def new_session(key_id: str | None = None) -> Session:
    """A session that no form is bound to yet."""
    return Session(secrets.token_urlsafe(16), key_id)
