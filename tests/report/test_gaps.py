"""How unlikely an answer has to be for a gap, by how many people ask about the topic."""

import pytest

from rag_flywheel.records import QueryKey
from rag_flywheel.report.gaps import PEOPLE, UNLIKELY, _surely
from rag_flywheel.store.retrievals import AskedQuery

ONE, OTHER = QueryKey(b"1" * 16, None), QueryKey(b"2" * 16, None)


def asked(question: QueryKey, answerable: float | None, user: str | None) -> AskedQuery:
    return AskedQuery(question, "text", 0.0, answerable, user)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 9])
def test_the_odds_that_make_a_gap_grow_with_the_people_who_ask(n: int) -> None:
    odds = (min(n, PEOPLE) / PEOPLE) ** 3 * UNLIKELY / (1 - UNLIKELY)
    bound = odds / (1 + odds)
    for answerable, listed in ((bound - 1e-6, [ONE]), (bound + 1e-6, [])):
        times = [asked(ONE, answerable, f"user-{i}") for i in range(n)]
        assert _surely({ONE: times}, UNLIKELY) == listed


def test_a_person_who_asks_again_and_again_is_one_person() -> None:
    times = [asked(ONE, 0.2, "ann")] * 9
    assert _surely({ONE: times}, UNLIKELY) == []
    assert _surely({ONE: [asked(ONE, 0.2, None)] * 9}, UNLIKELY) == [ONE]  # nobody knows who


def test_people_who_ask_in_other_words_count_together_and_the_last_answer_decides() -> None:
    topic = {
        ONE: [asked(ONE, 0.9, "ann"), asked(ONE, 0.2, "bob")],
        OTHER: [asked(OTHER, 0.2, "cem"), asked(OTHER, 0.9, "dot")],
    }
    assert _surely(topic, UNLIKELY) == [ONE]


def test_the_ends_of_the_range() -> None:
    times = {ONE: [asked(ONE, 0.0, "ann")], OTHER: [asked(OTHER, 0.999, "ann")]}
    assert _surely(times, 0.0) == []
    assert _surely(times, 1.0) == [ONE, OTHER]
