"""Signed texts whose age is told by the clock of the service's records, which is one for all hosts."""

from collections.abc import Callable
from typing import Any, TypeAlias

from itsdangerous import TimestampSigner, URLSafeTimedSerializer

Clock: TypeAlias = Callable[[], float]
"""Seconds since 1970 UTC."""


class _ByClock(TimestampSigner):
    """Signs with the time of a clock that it is given."""

    def __init__(self, *given: Any, clock: Clock, **named: Any) -> None:
        super().__init__(*given, **named)
        self._clock = clock

    def get_timestamp(self) -> int:
        """The time now, in whole seconds."""
        return int(self._clock())


def signed(
    secret: bytes, salt: str, clock: Clock, *, serializer: Any = None, **signer: Any
) -> URLSafeTimedSerializer:
    """What signs and reads texts. salt: tells apart what they are for. signer: more for the signer."""
    return URLSafeTimedSerializer(
        secret,
        salt=salt,
        serializer=serializer,
        signer=_ByClock,
        signer_kwargs={"clock": clock, **signer},
    )
