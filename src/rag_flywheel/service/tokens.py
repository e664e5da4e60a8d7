"""Feedback tokens: what a browser needs to vote on one retrieval as the one who asked, for a while.

They are signed, not secret, and stored nowhere. A user is in them only as a keyed hash.
"""

import hashlib
import json
import re
from dataclasses import dataclass

from itsdangerous import BadData, SignatureExpired

from rag_flywheel.records import HashedUser
from rag_flywheel.service.problems import Refused
from rag_flywheel.service.signed import Clock, signed
from rag_flywheel.store import wall_clock
from rag_flywheel.store.tenants import Tenant

SECRET = "feedback tokens"
"""The name of the secret that they are signed with."""
_MOST_CHARS = 20_000
_SHAPE = re.compile(r"\.?[\w-]+\.[\w-]+\.[\w-]{64}", re.ASCII)
"""Python's base64 also reads "+" and "/", and skips what is no base64."""


@dataclass(frozen=True)
class Token:
    """What a token is for. tenant: the one the question was asked for; None: none, or all of them."""

    retrieval_id: str
    index: str
    tenant: Tenant | None
    user: HashedUser | None


class Tokens:
    """Makes and reads tokens.

    secret: that of the service; lasts_s: for how long they can be used; clock: by which that is told.
    """

    def __init__(self, secret: bytes, lasts_s: int, clock: Clock = wall_clock.now) -> None:
        self._lasts_s = lasts_s
        # 48 bytes are 64 characters exactly; with _SHAPE, no other text stands for the same signature
        self._signed = signed(
            secret,
            "rag-flywheel feedback token 1",
            clock,
            serializer=json,
            key_derivation="hmac",
            digest_method=hashlib.sha384,
        )

    def make(self, token: Token) -> str:
        """The text of a token, which holds from now on."""
        given = [token.retrieval_id, token.index, token.tenant, token.user]
        text = self._signed.dumps(given)
        return text.decode() if isinstance(text, bytes) else text

    def read(self, text: str) -> Token:
        """The token. Raises Refused with 401 for one that was not made here, was altered, or is too old."""
        try:
            if len(text) > _MOST_CHARS or not _SHAPE.fullmatch(text):
                raise BadData("another shape")
            retrieval_id, index, tenant, user = self._signed.loads(text, max_age=self._lasts_s)
        except SignatureExpired:
            raise _refused(
                "TokenExpired",
                f"this feedback token is older than {self._lasts_s} s; ask again for a new one",
            ) from None
        except (BadData, UnicodeError):
            raise _refused(
                "BadToken",
                "this feedback token was not made by this service, or it was altered; expected the "
                "feedback_token of an answer, unchanged",
            ) from None
        return Token(retrieval_id, index, tenant, None if user is None else HashedUser(user))


def _refused(name: str, message: str) -> Refused:
    return Refused(401, name, message, {"WWW-Authenticate": "Bearer"})
