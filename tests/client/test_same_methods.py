"""The clients have what a Flywheel has, with the same parameters."""

import inspect
from typing import Any

import pytest

from rag_flywheel import Flywheel, GoldenSet, Review
from rag_flywheel.client import AsyncClient, Client
from rag_flywheel.client.asynchronous.golden import AsyncGolden
from rag_flywheel.client.asynchronous.review import AsyncReview
from rag_flywheel.client.not_served import NOT_SERVED
from rag_flywheel.client.synchronous import golden, review

PAIRS = [
    (Flywheel, Client),
    (Flywheel, AsyncClient),
    (GoldenSet, golden.Golden),
    (GoldenSet, AsyncGolden),
    (Review, review.Review),
    (Review, AsyncReview),
]


def public(kind: type) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    found = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in found]


@pytest.mark.parametrize(("library", "client"), PAIRS)
def test_a_client_has_every_public_member_with_the_same_parameters(
    library: type, client: type
) -> None:
    wanted = {name for name in public(library) if library is not Flywheel or name not in NOT_SERVED}
    assert set(public(client)) == wanted
    for name in wanted:
        ours, theirs = vars(library)[name], vars(client)[name]
        assert isinstance(theirs, property) == isinstance(ours, property), name
        if not isinstance(ours, property):
            assert parameters(theirs) == parameters(ours), name


def test_only_what_a_flywheel_has_is_listed_as_not_served() -> None:
    members = {*public(Flywheel), *vars(Flywheel.__init__)} | {"lookups"}
    assert set(NOT_SERVED) <= members


def test_the_methods_of_the_asynchronous_client_are_coroutines() -> None:
    for kind in (AsyncClient, AsyncGolden, AsyncReview):
        for name, member in public(kind).items():
            assert isinstance(member, property) or inspect.iscoroutinefunction(member), name


@pytest.mark.parametrize("name", sorted(NOT_SERVED))
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_what_a_service_cannot_do_says_what_to_do_instead(kind: Any, name: str) -> None:
    with pytest.raises(AttributeError, match="which a service does not have"):
        getattr(kind("http://127.0.0.1:1"), name)


def test_another_name_is_no_attribute() -> None:
    client = Client("http://127.0.0.1:1")
    assert not hasattr(client, "retreive")
    assert not hasattr(client, "backup")
