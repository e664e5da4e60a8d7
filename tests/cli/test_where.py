"""The option `--where`: conditions as people write them in a shell."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fakes import word_encoder
from rag_flywheel import Flywheel, Passage
from rag_flywheel.cli.app import app
from rag_flywheel.cli.where import filter_of, read
from rag_flywheel.errors import InputError
from rag_flywheel.store.filters import passes, plain_filter

KINDS = {
    "version": ["string"],
    "year": ["number"],
    "mixed": ["number", "string"],
    "roles": ["list"],
    "either": ["list", "string"],
    "ok": ["boolean"],
    "org.id": ["number"],
    "at": ["string"],
}


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], None),
        (["version=3.10"], {"version": "3.10"}),
        (['version="3.10"'], {"version": "3.10"}),
        (["version=true"], {"version": "true"}),
        (["version="], {"version": ""}),
        (["version = a = b "], {"version": "a = b"}),
        (["year=2031"], {"year": 2031}),
        (["year=2031.0"], {"year": 2031.0}),
        (["mixed=3.10"], {"mixed": {"in": ["3.10", 3.1]}}),
        (['mixed="3.10"'], {"mixed": "3.10"}),
        (["ok=true"], {"ok": True}),
        (["org.id=7"], {"org.id": 7}),
        (["roles=hr"], {"roles": {"contains": "hr"}}),
        (["roles=3"], {"roles": {"any": ["3", 3]}}),
        (["either=x"], {"or": [{"either": "x"}, {"either": {"contains": "x"}}]}),
        (["year=null"], {"year": None}),
        (["version=null"], {"version": {"in": [None, "null"]}}),
        (["version=a", "version=b"], {"version": {"in": ["a", "b"]}}),
        (["version=a", "version=a"], {"version": "a"}),
        (["roles=hr", "roles=it"], {"roles": {"any": ["hr", "it"]}}),
        (["version!=a"], {"not": {"version": "a"}}),
        (["version!=a", "version!=b"], {"not": {"version": {"in": ["a", "b"]}}}),
        (["year>=2020", "year<2024"], {"year": {"gte": 2020, "lt": 2024}}),
        (["year>=2020", "year>=2021"], {"and": [{"year": {"gte": 2020}}, {"year": {"gte": 2021}}]}),
        (["year>2", "year=3"], {"and": [{"year": {"gt": 2}}, {"year": 3}]}),
        (["mixed>=3"], {"or": [{"mixed": {"gte": "3"}}, {"mixed": {"gte": 3}}]}),
        (["at>=2031-02-03"], {"at": {"gte": "2031-02-03"}}),
        (['{"or": [{"a": 1}, {"b": 2}]}'], {"or": [{"a": 1}, {"b": 2}]}),
        (
            ['{"or": [{"a": 1}]}', '{"or": [{"b": 1}]}'],
            {"and": [{"or": [{"a": 1}]}, {"or": [{"b": 1}]}]},
        ),
        (['{"version": "a"}', "version=b"], {"and": [{"version": "a"}, {"version": "b"}]}),
    ],
)
def test_conditions_become_a_filter(conditions: list[str], expected: dict[str, Any] | None) -> None:
    found = filter_of(conditions, KINDS)
    assert found == expected
    if found is not None:
        assert plain_filter(found) == found


@pytest.mark.parametrize(
    "condition", ["version", "=3", " =3", "", "!a", '{"a": 1', "{a}", "{" * 99_999]
)
def test_other_words_are_refused(condition: str) -> None:
    with pytest.raises(InputError, match=r"--where .*expected"):
        filter_of([condition], KINDS)


def test_what_no_passage_has_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert filter_of(["yaer=2031"], KINDS) == {"yaer": 2031}
    assert "note: no passage has the metadata key 'yaer'; known keys: version, year" in err(capsys)
    assert filter_of(["year=soon"], KINDS) == {"year": "soon"}
    assert "note: the values at 'year' are of the kind number; 'soon' is not" in err(capsys)
    assert filter_of(["ok=1"], KINDS) == {"ok": "1"}
    assert "kind boolean; '1' is not" in err(capsys)
    assert filter_of(["year=2031", "roles=x"], KINDS) is not None
    assert err(capsys) == ""


def err(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_a_tenant_is_one_value() -> None:
    kinds = {"team": ["number", "string"]}
    assert filter_of(["team=7"], kinds, "team") == {"team": 7}
    assert filter_of(['team="7"'], kinds, "team") == {"team": "7"}
    assert filter_of(["team=7"], {"team": ["string"]}, "team") == {"team": "7"}
    assert filter_of(["team=acme"], kinds, "team") == {"team": "acme"}


texts = st.text(max_size=8) | st.sampled_from(
    ["3.10", "1e999", "NaN", "-0", "007", "[1]", "{}", "9" * 40]
)


@given(text=texts, kinds=st.sets(st.sampled_from(["string", "number", "boolean", "list", "null"])))
def test_any_text_finds_the_string_that_it_is(text: str, kinds: set[str]) -> None:
    stored = sorted({*kinds, "string"})
    values = read("x", text, {"x": stored})
    assert text in values or json.loads(text) in values
    assert all(isinstance(value, str | int | float | None) for value in values)


def test_in_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "kb").mkdir()
    (tmp_path / "kb" / "flywheel.toml").write_text(
        'format_version = 1\nencoder = "fakes:word_encoder"\n'
    )
    rows: list[dict[str, Any]] = [
        {"version": "3.10"},
        {"version": "3.1"},
        {"version": 3.1},
        {"tags": ["x"]},
    ]
    with Flywheel.open(tmp_path / "kb", encoder=word_encoder()) as fw:
        fw.add([Passage(f"p{i}", f"alpha {i}", "", row) for i, row in enumerate(rows)])

    def found(*where: str) -> list[str]:
        options = [word for each in where for word in ("--where", each)]
        done = CliRunner().invoke(
            app,
            ["retrieve", "alpha", *options, "--json", "--no-record", "-i", str(tmp_path / "kb")],
        )
        assert done.exit_code == 0, done.output
        notes.append(done.stderr)
        return sorted(hit["passage_id"] for hit in json.loads(done.stdout)["hits"])

    notes = list[str]()
    assert found("version=3.10") == ["p0", "p2"]  # a string, or the number 3.1
    assert found('version="3.10"') == ["p0"]
    assert found("version=3.1", 'version="3.10"') == ["p0", "p1", "p2"]
    assert found("tags=x") == ["p3"]
    assert found("tags!=x") == ["p0", "p1", "p2"]
    assert found('{"or": [{"tags": {"contains": "x"}}, {"version": {"prefix": "3.10"}}]}') == [
        "p0",
        "p3",
    ]
    assert not any(notes)
    assert found("lang=en") == []
    assert "no passage has the metadata key 'lang'; known keys: tags, version" in notes[-1]
    assert passes({"version": "3.10"}, rows[0])
