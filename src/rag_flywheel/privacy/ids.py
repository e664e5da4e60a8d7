"""Turns the ids of users, sessions and runs into keyed hashes before they are stored."""

import hashlib

from rag_flywheel.capture.runs import MOST_RUNS
from rag_flywheel.checks import (
    MOST_TRUST,
    check_name,
    check_optional_text,
    check_trust,
    is_list,
)
from rag_flywheel.errors import InputError, counted, quoted
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


def hashed_run(key: bytes, name: str, given: object) -> str:
    """The hash of the id of a run that a caller gave as the argument `name`. Raises InputError, also for a
    blank one."""
    return hashed(key, check_name(name, given, instead=", or None for no run"))


def hashed_runs(key: bytes, given: object) -> tuple[str, ...]:
    """The hashes of the ids of runs that a caller gave as `run_id`: one, a list of them, or None for none;
    each once, in their order. Raises InputError, also for more than MOST_RUNS."""
    if given is None:
        return ()
    if isinstance(given, str):
        return (hashed_run(key, "run_id", given),)
    if not is_list(given):
        raise InputError(f"run_id is {quoted(given)}; expected a string, a list of them, or None")
    found = dict.fromkeys(hashed_run(key, "run_id", each) for each in given)  # type: ignore[attr-defined]
    if len(found) > MOST_RUNS:
        raise InputError(
            f"run_id has {len(found)} ids; expected at most {MOST_RUNS}, those of runs of the application "
            "and not of each of its steps"
        )
    return tuple(found)


def hashed_runs_of_each(key: bytes, given: object, n: int) -> tuple[tuple[str, ...], ...]:
    """The same for n questions: the ids of one run, which all belong to, or a list with what `hashed_runs`
    takes for each of them; () where no run is given. Raises InputError."""
    if given is None:
        return ()
    if isinstance(given, str):
        return (hashed_runs(key, given),) * n
    if not is_list(given):
        raise InputError(
            f"run_id is {quoted(given)}; expected a string, or a list with the runs of each query"
        )
    each = [hashed_runs(key, one) for one in given]  # type: ignore[attr-defined]
    if len(each) != n:
        raise InputError(
            f"run_id has {counted(len(each), 'item')}; expected one for each of the {n} queries, or the "
            "id of one run as a string"
        )
    return tuple(each)


def hashed_vote(key: bytes, vote: Vote, *, trust: float = 1.0) -> Vote:
    """The vote under its user's hash; trust: a factor for its own. Raises InputError."""
    user = hashed_id(key, "user_id", vote.user_id)
    own = vote.trust if trust == 1.0 else min(check_trust(vote.trust) * trust, MOST_TRUST)
    return Vote(vote.retrieval_id, vote.passage_id, vote.verdict, user, vote.reason, own, vote.run)
