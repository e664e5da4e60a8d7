"""Counts that may leave the house: differentially private, by OpenDP's thresholded Laplace mechanism.

Each user counts once for a key, and for a limited number of keys; noise hides whether any one user is
there, and keys that few users have are left out. Needs the extra `dp`. OpenDP is 46 MB and loads when first
used.
"""

import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from rag_flywheel.checks import check_one_of, check_whole
from rag_flywheel.errors import ConfigError, InputError
from rag_flywheel.records import DpCount, DpCounts, TenantScope
from rag_flywheel.store import by_user
from rag_flywheel.store.by_user import UserKey
from rag_flywheel.store.database import Database

Key = tuple[str, ...]
WHAT: Mapping[str, Callable[..., Iterator[UserKey]]] = {
    "votes": by_user.votes_by_user,
    "questions": by_user.questions_by_user,
    "missing": by_user.missing_by_user,
}
_MOST_EPSILON, _MOST_DELTA = 10.0, 1e-3
_MOST_KEYS = 1_000
_MOST_THRESHOLD = 10**9


def dp_counts(
    database: Database,
    what: str,
    scope: TenantScope,
    *,
    epsilon: float,
    delta: float,
    most_keys: int,
) -> DpCounts:
    """Release counts by key of how many users have it, and record the privacy loss.

    what: "votes": by passage and verdict; "questions": by question asked; "missing": by question of which
        users reported that the answer is missing.
    epsilon, delta: the privacy loss of this release, of adding or removing one user.
    most_keys: for how many keys, chosen at random, one user counts.
    Raises InputError; ConfigError when the extra is not installed.
    """
    check_one_of("what", what, tuple(WHAT))
    most_keys = check_whole("most_keys", most_keys)
    _require_within("epsilon", epsilon, _MOST_EPSILON)
    _require_within("delta", delta, _MOST_DELTA)
    if not 1 <= most_keys <= _MOST_KEYS:
        raise InputError(f"most_keys is {most_keys}; expected 1 to {_MOST_KEYS}")
    _require_dp_extra()
    with database.snapshot() as conn:
        bounded = bounded_counts(WHAT[what](conn, scope), most_keys)
    release = _Mechanism(epsilon, delta, most_keys)
    with database.transaction() as conn:  # first: what is not on record must not be released
        by_user.record_release(conn, what, epsilon, delta)
        spent = by_user.released(conn)
    counts = release(bounded)
    return DpCounts(
        what=what,
        epsilon=epsilon,
        delta=delta,
        most_keys=most_keys,
        scale=release.scale,
        threshold=release.threshold,
        epsilon_spent=spent[0],
        delta_spent=spent[1],
        counts=tuple(DpCount(key, n) for key, n in sorted(counts.items())),
    )


def bounded_counts(given: Iterable[UserKey], most_keys: int) -> dict[Key, int]:
    """How many users have each key, every user counting once for each of at most `most_keys` of theirs,
    chosen at random."""
    keys: dict[str, set[Key]] = defaultdict(set)
    for user, key in given:
        keys[user].add(key)
    chosen, counts = random.SystemRandom(), Counter[Key]()
    for own in keys.values():
        some = own if len(own) <= most_keys else chosen.sample(sorted(own), most_keys)
        counts.update(some)
    return dict(counts)


class _Mechanism:
    """Adds Laplace noise to counts and leaves out those below a threshold.

    One user changes at most `most_keys` counts, each by one: distances of (most_keys, most_keys, 1) in
    L0, L1 and L-infinity. OpenDP computes the loss of a scale and a threshold; the threshold is the
    smallest that keeps it within delta.
    """

    def __init__(self, epsilon: float, delta: float, most_keys: int) -> None:
        import opendp.prelude as dp

        dp.enable_features("contrib")
        self._dp, self._bound = dp, (most_keys, most_keys, 1)
        self.scale = math.nextafter(most_keys / epsilon, math.inf)
        if self.scale > _MOST_THRESHOLD:
            raise InputError(
                f"epsilon is {epsilon}; expected more: no count would be above the noise"
            )

        def within(threshold: float) -> bool:
            loss = self._measurement(int(threshold)).map(self._bound)
            return bool(loss[0] <= epsilon and loss[1] <= delta)

        if not within(_MOST_THRESHOLD):
            raise InputError(
                f"delta is {delta} at epsilon {epsilon}; expected more: no threshold up to "
                f"{_MOST_THRESHOLD} keeps the loss within it"
            )
        self.threshold = (
            1 if within(1) else int(dp.binary_search(within, bounds=(1, _MOST_THRESHOLD), T=int))
        )

    def __call__(self, counts: Mapping[Key, int]) -> dict[Key, int]:
        given = {json.dumps(key): n for key, n in counts.items()}
        released = self._measurement(self.threshold)(given)
        return {tuple(json.loads(key)): int(n) for key, n in released.items()}

    def _measurement(self, threshold: int) -> Any:
        dp = self._dp
        domain = dp.map_domain(dp.atom_domain(T=str), dp.atom_domain(T=int))
        metric = dp.l01inf_distance(dp.absolute_distance(T=int))
        return dp.m.make_laplace_threshold(domain, metric, self.scale, threshold)


def _require_within(name: str, value: object, most: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0.0 < float(str(value)) <= most:
        raise InputError(f"{name} is {value!r}; expected a number above 0, at most {most:g}")


def _require_dp_extra() -> None:
    if find_spec("opendp") is None:
        raise ConfigError(
            "opendp is not installed; expected the packages of the extra dp: pip install 'rag-flywheel[dp]'"
        )
