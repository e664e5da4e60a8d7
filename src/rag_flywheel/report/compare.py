"""Compares what two versions answer to the questions that users ask most."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from rag_flywheel.config import Config
from rag_flywheel.deploy.loaded import SharedIndexes
from rag_flywheel.encoder import Encoders
from rag_flywheel.records import ALL_TENANTS, ChangedAnswer, Comparison, TenantScope
from rag_flywheel.serve.answers import Request
from rag_flywheel.serve.live_version import LastLoaded, server_at
from rag_flywheel.serve.lookups import Lookups
from rag_flywheel.store import log
from rag_flywheel.store.database import Database
from rag_flywheel.store.log import Askings
from rag_flywheel.store.tenants import Tenants, tenant_of_json, within

if TYPE_CHECKING:
    from rag_flywheel.deploy.published import Published

Rankings = dict[int, tuple[str, ...]]


def compare(
    root: Path,
    database: Database,
    config: Config,
    encoders: Encoders,
    lookups: Lookups,
    versions: tuple[str, str],
    *,
    n: int,
    k: int,
    published: "Published | None" = None,
) -> Comparison:
    """The questions among the n asked most, of those whose words are stored, that two versions answer with
    other passages, or in another order. k: how many passages of each answer are compared; published: the
    database of vectors that texts are found in.

    Each version answers with the votes up to its own build, and from the passages that are there now.
    Raises UnknownIdError, CorruptFileError, EncoderMismatchError.
    """
    with database.snapshot() as conn:
        every = log.askings(conn, ALL_TENANTS)
    asked = list(islice((each for each in every if each.query), n))
    last = LastLoaded(encoders, SharedIndexes(published))
    before, after = (
        _ranked(root, database, config, lookups, version, last, asked, k) for version in versions
    )
    changed = tuple(
        ChangedAnswer(each.query, each.question.tenant, each.n, before[i], after[i])
        for i, each in enumerate(asked)
        if before[i] != after[i]
    )
    return Comparison(*versions, len(asked), changed)


def _ranked(
    root: Path,
    database: Database,
    config: Config,
    lookups: Lookups,
    version: str,
    last: LastLoaded,
    asked: Sequence[Askings],
    k: int,
) -> Rankings:
    """The ids of the k best passages for each question by its place, each within its own tenant."""
    tenants = Tenants(config.tenant_key, required=False)
    of_tenant: dict[str | None, list[int]] = defaultdict(list)
    for place, each in enumerate(asked):
        of_tenant[each.question.tenant].append(place)
    found: Rankings = {}
    server = server_at(root, database, config, lookups, version, last)
    try:
        for tenant, places in of_tenant.items():
            scope = _scope(tenants, tenant)
            request = Request(k, within(scope, None), tenant=scope.tenant, record=False)
            ranked = server.rank([asked[place].query for place in places], request)
            found |= {place: tuple(ids) for place, ids in zip(places, ranked, strict=True)}
    finally:
        server.close()
    return found


def _scope(tenants: Tenants, tenant: str | None) -> TenantScope:
    if tenants.key is None or tenant is None:
        return ALL_TENANTS
    return tenants.scope(tenant_of_json(tenant), all_tenants=False)
