"""Every record that the service answers with comes back as it was."""

import dataclasses
import math
from types import MappingProxyType
from typing import Any, get_args, get_origin

import msgspec
import pytest

from rag_flywheel import records
from rag_flywheel.client.decoding import decoded, hints_of
from rag_flywheel.errors import ServiceError
from rag_flywheel.records import Explanation, GoldenItem, Passage, Retrieval, Status, Vote
from rag_flywheel.report.gaps import Gap
from rag_flywheel.report.raters import Rater
from rag_flywheel.service.answers import encoded

INSIDE = {
    "EmbeddedText", "TenantScope", "Judgment", "Support", "Known", "Acting", "Current", "QueryKey",
    "ImportedHit", "ImportedRetrieval", "ImportedVote",
}  # fmt: skip
"""Records that no public method returns."""
RETURNED = [
    kind
    for name, kind in sorted(vars(records).items())
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and name not in INSIDE
] + [Gap, Rater]


def made(hint: Any, n: int) -> Any:
    """A value of a type, other for each n."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = hints_of(hint)
        return hint(
            **{f.name: made(hints[f.name], n + i) for i, f in enumerate(dataclasses.fields(hint))}
        )
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        return tuple(made(inner[0], n + i) for i in range(3))
    if origin is list:
        return [made(inner[0], n + i) for i in range(3)]
    if hint is bytes:
        return bytes([n % 256, 0, 255])
    if hint in (int, float, str, bool):
        return hint(n + 0.25) if hint is not str else f"ü{n}"
    if str(origin).endswith("Literal"):
        return inner[n % len(inner)]
    if "Mapping" in str(hint):
        key, each = inner if len(inner) == 2 else (str, Any)
        if each not in (int, float):
            return {"text": "x", "list": [1, None, True], "object": {"a": {"b": 1.5}}}
        return {made(key, n): made(each, n), made(key, n + 1): made(each, n + 1)}
    others = [kind for kind in inner if kind is not type(None)]
    assert others, hint
    return None if n % 3 == 0 else made(others[0], n)


@pytest.mark.parametrize("kind", RETURNED, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("n", range(3))
def test_a_record_comes_back_as_it_was(kind: Any, n: int) -> None:
    record = made(kind, n)
    back = decoded(kind, msgspec.json.decode(encoded(record)))
    assert back == record
    assert repr(back) == repr(record)


def test_bytes_are_hexadecimal_wherever_they_are_and_any_mapping_is_an_object() -> None:
    item = GoldenItem("q", b"\xfb\xff", b"\xfe", None, {"p": 1}, {7: 1}, ("pinned",))
    for given in (item, [item], {"items": (item,)}):
        assert b'"fbff"' in encoded(given)
        assert b'"lineages":{"7":1}' in encoded(given)
    passage = Passage("p", "t", metadata=MappingProxyType({"a": MappingProxyType({"b": 1})}))
    assert b'"metadata":{"a":{"b":1}}' in encoded([passage])
    with pytest.raises(TypeError, match="found object"):
        encoded([Passage("p", "t", metadata={"a": object()})])  # type: ignore[dict-item]


def test_bytes_that_equality_leaves_out_come_back_too() -> None:
    item = GoldenItem("q", b"\x00\xff", b"\x01", None, {"p": 1}, {7: 1}, ("pinned",))
    back = decoded(GoldenItem, msgspec.json.decode(encoded(item)))
    assert (back.query_hash, back.lineages) == (b"\x00\xff", {7: 1})


def test_what_is_no_number_is_one_no_longer_in_json() -> None:
    given = Explanation(math.nan, {"a": 1.0}, 0.0)
    assert math.isnan(decoded(Explanation, msgspec.json.decode(encoded(given))).intercept)


def test_later_and_earlier_releases_understand_each_other() -> None:
    vote = Vote("r", "p", "helpful")
    later = {"retrieval_id": "r", "passage_id": "p", "verdict": "helpful", "added_later": 1}
    assert decoded(Vote, later) == vote
    assert decoded(Passage, {"id": "p", "text": "t"}) == Passage("p", "t")


NO_HASH = {
    "query": "q", "query_hash": "zz", "digest": "", "tenant": None,
    "answers": {}, "lineages": {}, "sources": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Retrieval, []),
        (Retrieval, {"id": "a"}),
        (Passage, {"id": 1, "text": "t"}),
        (Passage, None),
        (Status, "ok"),
        (list[Passage], {"items": []}),
        (list[Passage], [1]),
        (dict[str, int], {"recorded": "1"}),
        (dict[str, int], {"recorded": True}),
        (GoldenItem, NO_HASH),
        (dict[str, float], {"score": 10**400}),
    ],
)  # fmt: skip
def test_what_is_no_such_record_is_an_error_of_the_service(kind: Any, value: Any) -> None:
    with pytest.raises(ServiceError, match="of which no"):
        decoded(kind, value)
