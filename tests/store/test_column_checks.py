"""Logged hits read at once, against reading each part by itself."""

import json

import pytest

from rag_flywheel.errors import CorruptFileError
from rag_flywheel.store import column_checks

SOUND = [
    "[]",
    '[[1,"a",2]]',
    '[[-3,"\\u00e9",-1.5,{"x":0.5,"y":{"z":1}}],[4611686018427387903,"",1e3,{},5]]',
    ' [ [1 , "a", 1e299] ] ',
]
UNSOUND = [
    '[[1.0,"a",2]]',
    '[[1,"a",true]]',
    '[[true,"a",1]]',
    '[[1,"a"]]',
    "[[]]",
    "[1]",
    "{}",
    '[{"pid":1,"name":"a","score":1}]',
    '[[1,2,3]]',
    '[["1","a",3]]',
    '[[1,"a",null]]',
    '[[1,"a",1e999]]',
    '[[1,"a",1e300]]',
    '[[1,"a",NaN]]',
    '[[4611686018427387904,"a",1]]',
    '[[99999999999999999999,"a",1]]',
    "[" * 5_000,
    '[[1,"a",2]',
    "nothing",
    "",
]  # fmt: skip


@pytest.mark.parametrize("text", SOUND)
def test_hits_are_read_as_they_were_logged(text: str) -> None:
    found = column_checks.hits("hits", text)
    assert found == [(row[0], row[1], float(row[2])) for row in json.loads(text)]
    assert all(type(score) is float for _, _, score in found)


@pytest.mark.parametrize("text", [*UNSOUND, None, 7, b"[]"])
def test_what_are_no_hits_is_refused(text: object) -> None:
    with pytest.raises(CorruptFileError, match="hits"):
        column_checks.hits("hits", text)
