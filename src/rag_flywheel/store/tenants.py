"""Whose data a call may read or change: that of one tenant, or of all of them."""

import json
from dataclasses import dataclass
from typing import TypeAlias

from rag_flywheel.checks import as_python, check_name
from rag_flywheel.errors import InputError, quoted
from rag_flywheel.records import ALL_TENANTS, Filter, Passage, TenantScope
from rag_flywheel.store import column_checks
from rag_flywheel.store.filters import PlainFilter, demanded, keys_of, passes, plain_filter

Tenant: TypeAlias = str | int
"""The value of the tenant key in the metadata of a tenant's passages."""


def shows(scope: TenantScope, passage: Passage) -> bool:
    """Whether a passage is in the scope."""
    return scope.where is None or passes(scope.where, passage.metadata)


def within(scope: TenantScope, where: Filter | None) -> PlainFilter | None:
    """The checked filter that a passage passes which is in the scope and passes `where`.

    Raises InputError.
    """
    plain = None if where is None else plain_filter(where)
    if scope.where is None:
        return plain
    if plain is None:
        return plain_filter(scope.where)
    (key,) = scope.where
    return plain if key in keys_of(plain) else {**plain, **scope.where}


def tenant_of_json(text: str) -> Tenant:
    """The tenant that is stored as JSON. Raises CorruptFileError."""
    found = column_checks.parsed("retrievals.tenant", text)
    if isinstance(found, bool) or not isinstance(found, str | int):
        column_checks.refuse("retrievals.tenant", text, "a string or whole number as JSON")
    return found


@dataclass(frozen=True)
class Tenants:
    """The metadata key that names the tenant, None: there is one tenant; required: whether a call has to
    name one or to ask for all."""

    key: str | None = None
    required: bool = True

    def scope(
        self, tenant: Tenant | None, all_tenants: bool, where: Filter | None = None
    ) -> TenantScope:
        """The scope of a call that names a tenant, by itself or in its filter, or asks for all.

        Raises InputError when it does neither, where that is required, and for two tenants.
        """
        if not isinstance(as_python(all_tenants), bool):
            raise InputError(f"all_tenants is {quoted(all_tenants)}; expected True or False")
        if self.key is None:
            if tenant is not None:
                raise InputError(
                    f"tenant is {quoted(tenant)}, but the index has no tenants (config tenant_key); "
                    "leave it out"
                )
            return ALL_TENANTS
        if tenant is not None and all_tenants:
            raise InputError(
                f"found tenant={quoted(tenant)} and all_tenants=True; expected one of them"
            )
        in_filter = None if where is None else _of_filter(self.key, where)
        if tenant is None:
            if in_filter is None and self.required and not all_tenants:
                raise InputError(
                    f"no tenant is named, and the index has tenants (config tenant_key = {self.key!r}); "
                    "expected tenant=..., or all_tenants=True for the data of all of them"
                )
            return ALL_TENANTS if in_filter is None else _scope_of(self.key, in_filter)
        named = _scope_of(self.key, tenant)
        if in_filter is not None and _scope_of(self.key, in_filter) != named:
            raise InputError(
                f"tenant is {quoted(tenant)}, and the filter asks for {self.key} = {quoted(in_filter)}; "
                "expected one tenant"
            )
        return named

    def scope_of_json(self, text: str | None) -> TenantScope:
        """The scope of the tenant that is stored as JSON, None: of none. Raises CorruptFileError."""
        if self.key is None or text is None:
            return ALL_TENANTS
        return _scope_of(self.key, tenant_of_json(text))


def _scope_of(key: str, tenant: object) -> TenantScope:
    value = as_python(tenant)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"tenant is {quoted(tenant)}; expected a string or whole number")
    if isinstance(value, str):
        check_name("tenant", value)
    return TenantScope(json.dumps(value), {key: value})


def _of_filter(key: str, where: Filter) -> Tenant | None:
    """The tenant that a filter asks for; None: it does not speak of tenants. Raises InputError."""
    plain = plain_filter(where)
    n = sum(each == key for each in keys_of(plain))
    if not n:
        return None
    values = [value for each, value in demanded(plain) if each == key]
    if len(values) < n or n > 1:
        raise InputError(
            f"the filter does not ask for one {key!r}, which is the tenant key; expected "
            f"{{{key!r}: a string or whole number}} once, alone or with conditions that must hold too"
        )
    value = values[0]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(
            f"filter {key!r} is {value!r}; as the tenant key it takes a string or whole number"
        )
    if isinstance(value, str):
        check_name(f"the tenant in filter {key!r}", value)
    return value
