"""Turns the ids of users, sessions and runs into keyed hashes before they are stored."""

import hashlib

from rag_flywheel.checks import MOST_TRUST, check_name, check_optional_text, check_trust
from rag_flywheel.records import HashedUser, Vote

_BYTES = 16


def hashed(key: bytes, text: str) -> str:
    """32 hex digits that stand for an id: keyed BLAKE2b (RFC 7693) of its UTF-8 bytes.

    key: up to 64 bytes. Only with the key can a guess at the id be tried.
    """
    return hashlib.blake2b(text.encode(), key=key, digest_size=_BYTES).hexdigest()


def hashed_id(key: bytes, name: str, given: str | None) -> str | None:
    """The hash of an id that a caller gave as the argument `name`; None for None. Raises InputError,
    also for a blank one. A HashedUser is its own hash."""
    check_optional_text(name, given)
    if given is None:
        return None
    if isinstance(given, HashedUser):
        return str(given)
    return hashed(key, check_name(name, given, instead=", or None for nobody known"))


def hashed_run(key: bytes, name: str, given: str | None) -> str | None:
    """The hash of the id of a run that a caller gave as the argument `name`; None for None. Raises
    InputError, also for a blank one."""
    check_optional_text(name, given)
    if given is None:
        return None
    return hashed(key, check_name(name, given, instead=", or None for no run"))


def hashed_vote(key: bytes, vote: Vote, *, trust: float = 1.0) -> Vote:
    """The vote under its user's hash; trust: a factor for its own. Raises InputError."""
    user = hashed_id(key, "user_id", vote.user_id)
    own = vote.trust if trust == 1.0 else min(check_trust(vote.trust) * trust, MOST_TRUST)
    return Vote(vote.retrieval_id, vote.passage_id, vote.verdict, user, vote.reason, own)
