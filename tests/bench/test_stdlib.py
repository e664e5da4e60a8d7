import difflib
import hashlib
import inspect
import json
import logging
import os
import subprocess
import sys
import warnings
from collections import Counter

import pytest

from rag_flywheel.bench.stdlib import (
    Need,
    load_needs,
    missing_answers,
    parse_needs,
    stdlib_passages,
)
from rag_flywheel.records import Passage

DIGEST = """
import hashlib
from rag_flywheel.bench.stdlib import stdlib_passages
whole = "\\0".join(f"{p.id}\\1{p.title}\\1{p.text}" for p in stdlib_passages())
print(hashlib.sha256(whole.encode()).hexdigest())
"""
GOOD = {"id": "n1", "phrasings": ["a b", "c d", "e f"], "answers": ["str.split"]}


@pytest.fixture(scope="module")
def passages() -> list[Passage]:
    return stdlib_passages()


@pytest.fixture(scope="module")
def needs() -> list[Need]:
    return load_needs()


def digest(passages: list[Passage]) -> str:
    whole = "\0".join(f"{p.id}\1{p.title}\1{p.text}" for p in passages)
    return hashlib.sha256(whole.encode()).hexdigest()


def test_about_two_thousand_passages_sorted_by_ids_of_their_own(passages):
    ids = [passage.id for passage in passages]

    assert 1_800 <= len(ids) <= 2_300
    assert ids == sorted(set(ids))


def test_each_passage_has_a_text_of_its_own_within_bounds(passages):
    assert max(Counter(passage.text for passage in passages).values()) == 1
    assert min(len(passage.text) for passage in passages) >= 15
    assert 1_000 < max(len(passage.text) for passage in passages) <= 2_000
    assert all(passage.text == passage.text.strip() for passage in passages)


def test_titles_begin_with_the_id_and_stay_short(passages):
    assert all(p.title.startswith(p.id) and len(p.title) <= 120 for p in passages)
    assert any(p.title == "textwrap.dedent(text)" for p in passages)


def test_no_memory_address_gets_into_a_title(passages):
    assert [p.id for p in passages if " at 0x" in p.title + p.text] == []


@pytest.mark.parametrize(
    ("name", "beginning", "kind", "module"),
    [
        ("os.path.join", "Join two or more pathname components", "function", "os.path"),
        ("str.split", "Return a list of the substrings in the string", "method", "builtins"),
        ("len", "Return the number of items in a container", "function", "builtins"),
        ("textwrap", "Text wrapping and filling", "module", "textwrap"),
        ("collections.Counter", "Dict subclass for counting", "class", "collections"),
        (
            "collections.Counter.most_common",
            "List the n most common elements",
            "method",
            "collections",
        ),
        ("functools.lru_cache", "Least-recently-used cache decorator", "function", "functools"),
    ],
)
def test_known_passages(passages, name, beginning, kind, module):
    passage = {p.id: p for p in passages}[name]

    assert passage.text.startswith(beginning)
    assert passage.metadata == {"module": module, "kind": kind}


@pytest.mark.parametrize(
    "name",
    [
        "posixpath.join",  # the same object as os.path.join
        "io.open",  # the same object as open
        "asyncio.TimeoutError",  # the same object as TimeoutError
        "bytes.split",  # says what str.split says
        "os.sched_yield",  # a bare system call
        "sys.excepthook",  # replaced by programs, test runners among them
        "subprocess.os",  # only imported there
    ],
)
def test_second_names_and_noise_are_left_out(passages, name):
    assert name not in {p.id for p in passages}


def test_a_long_docstring_is_cut_at_the_end_of_a_paragraph(passages):
    text = {p.id: p.text for p in passages}["difflib.SequenceMatcher"]
    whole = inspect.getdoc(difflib.SequenceMatcher)

    assert 1_000 < len(text) <= 2_000 < len(whole)
    assert whole.startswith(text + "\n\n")


def test_what_another_library_puts_into_a_class_is_left_out(passages, monkeypatch):
    def shout(self):
        """Say the message in capital letters, three times."""

    monkeypatch.setattr(logging.Logger, "shout", shout, raising=False)

    assert digest(stdlib_passages()) == digest(passages)


def test_building_the_passages_warns_of_nothing_and_prints_nothing(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stdlib_passages()

    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "imported_before"), [("1", ""), ("77", "import xml.dom, sqlite3")]
)
def test_another_process_with_another_hash_seed_gets_the_same(passages, seed, imported_before):
    environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", imported_before + DIGEST],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == digest(passages)
    assert done.stderr == ""


def test_the_shipped_needs_are_many_and_differ(needs):
    assert len(needs) >= 120
    assert len({need.id for need in needs}) == len(needs)
    assert len({frozenset(need.answers) for need in needs}) == len(needs)


def test_no_phrasing_is_used_twice(needs):
    asked = Counter(phrasing.casefold() for need in needs for phrasing in need.phrasings)

    assert [phrasing for phrasing, times in asked.items() if times > 1] == []
    assert len(asked) == 3 * len(needs)


def test_phrasings_have_4_to_18_words(needs):
    asked = [phrasing for need in needs for phrasing in need.phrasings]

    assert [phrasing for phrasing in asked if not 4 <= len(phrasing.split()) <= 18] == []


def test_no_place_among_the_phrasings_is_wordier_than_the_others(needs):
    words = [sum(len(n.phrasings[place].split()) for n in needs) / len(needs) for place in range(3)]

    assert max(words) - min(words) < 1.0


def test_few_phrasings_give_the_dotted_name_of_an_answer_away(needs):
    asked = [(need, phrasing) for need in needs for phrasing in need.phrasings]
    told = [
        phrasing for need, phrasing in asked if any(a in phrasing for a in need.answers if "." in a)
    ]

    assert told == []


def test_needs_have_few_answers_each(needs):
    counts = Counter(len(need.answers) for need in needs)

    assert min(counts) == 1
    assert max(counts) <= 12
    assert sum(times for count, times in counts.items() if count <= 4) >= 0.85 * len(needs)


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="answers were written against 3.11")
def test_every_answer_is_a_passage(needs, passages):
    assert missing_answers(needs, passages) == {}


def test_hardly_any_answer_is_missing_in_other_versions(needs, passages):
    missing = missing_answers(needs, passages)

    assert sum(map(len, missing.values())) <= 0.02 * sum(len(need.answers) for need in needs)


def test_missing_answers_are_told_by_need():
    here = [Passage("len", "Return the number of items in a container.")]
    asked = [Need("n1", ("a", "b", "c"), ("len", "gone")), Need("n2", ("d", "e", "f"), ("len",))]

    assert missing_answers(asked, here) == {"n1": ["gone"]}


def test_a_good_line_is_read():
    assert parse_needs([json.dumps(GOOD)]) == [Need("n1", ("a b", "c d", "e f"), ("str.split",))]


@pytest.mark.parametrize(
    ("line", "found", "expected"),
    [
        ("{not json", r"'\{not json'", "a JSON object"),
        ("", "''", "a JSON object"),
        ("[1, 2]", r"'\[1, 2\]'", "a JSON object"),
        ('"text"', "text", "a JSON object"),
        (json.dumps({"id": "n2", "phrasings": ["a", "b", "c"]}), "n2", "id, phrasings and answers"),
        (json.dumps(GOOD | {"id": "n2", "note": 1}), "n2", "id, phrasings and answers"),
        (json.dumps(GOOD | {"id": ""}), "''", "an id"),
        (json.dumps(GOOD | {"id": 7}), "7", "an id"),
        (json.dumps(GOOD), "'n1'", "an id not used before"),
        (json.dumps(GOOD | {"id": "n2", "phrasings": ["a", "b"]}), r"\['a', 'b'\]", "three"),
        (json.dumps(GOOD | {"id": "n2", "phrasings": ["a", "b", "a"]}), "'a'", "three different"),
        (json.dumps(GOOD | {"id": "n2", "phrasings": ["a", "b", " "]}), "' '", "none empty"),
        (json.dumps(GOOD | {"id": "n2", "answers": []}), r"\[\]", "one or more"),
        (json.dumps(GOOD | {"id": "n2", "answers": "len"}), "'len'", "one or more"),
    ],
)
def test_a_malformed_line_is_told_by_number_with_what_was_found_and_expected(line, found, expected):
    with pytest.raises(ValueError, match=rf"line 2: found .*{found}.*; expected .*{expected}"):
        parse_needs([json.dumps(GOOD), line])
