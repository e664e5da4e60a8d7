"""Crowds: many newcomers on one question, and voters who push one passage."""

from collections.abc import Iterable

import numpy as np

from rag_flywheel.improve.crowds import NEWCOMERS, contradicted, crowds_of
from rag_flywheel.improve.raters import Ballots

Cast = tuple[str, str, str, bool, float]
"""Who, on which question, on which passage, whether helpful, when in seconds."""


def crowds(cast: Iterable[Cast], chance: float = 0.05) -> tuple[list[set[str]], list[bool]]:
    """The crowds by name, and whether each is contradicted; chance: of every passage."""
    rows = list(cast)
    voters = {who: i for i, who in enumerate(dict.fromkeys(r[0] for r in rows))}
    places = {p: i for i, p in enumerate(dict.fromkeys((r[1], r[2]) for r in rows))}
    needs = {q: i for i, q in enumerate(dict.fromkeys(q for q, _ in places))}
    texts = {p: i for i, p in enumerate(dict.fromkeys(p for _, p in places))}
    k = len(places)
    ballots = Ballots(
        np.array([voters[r[0]] for r in rows]),
        np.array([places[r[1], r[2]] for r in rows]),
        np.array([r[3] for r in rows]),
        np.ones(len(rows)),
        np.full(k, chance),
        np.full(k, np.nan),
    )
    need = np.array([needs[q] for q, _ in places])
    text = np.array([texts[p] for _, p in places])
    found = crowds_of(ballots, need, text, np.array([r[4] for r in rows]))
    names = list(voters)
    return (
        [{names[i] for i in members.tolist()} for members in found],
        [contradicted(ballots, members, need) for members in found],
    )


def newcomers(n: int, every_s: float = 5.0) -> list[Cast]:
    return [(f"new{i}", "how much", "junk", True, every_s * i) for i in range(n)]


STRANGERS: list[Cast] = [(f"h{i}", "how much", "right", True, 90_000.0 * i) for i in range(4)]
HONEST: list[Cast] = [
    *STRANGERS,
    *((f"h{i}", "where", "answer", True, 90_000.0 * i + 5.0) for i in range(4)),
]


def test_many_newcomers_within_an_hour_are_one_crowd() -> None:
    found, against = crowds([*newcomers(1_000, 0.5), *HONEST])
    assert found == [{f"new{i}" for i in range(1_000)}]
    assert against == [True]


def test_only_those_who_vote_on_several_questions_contradict_them() -> None:
    assert crowds([*newcomers(20), *STRANGERS])[1] == [False]


def test_a_passage_that_only_some_call_helpful_makes_no_crowd() -> None:
    """A popular question within an hour: a third of its askers look far enough to find the answer."""
    cast = newcomers(30)
    cast += [(f"other{i}", "how much", "first hit", i % 2 == 0, 5.0 * i) for i in range(60)]
    assert crowds(cast)[0] == []


def test_the_same_over_weeks_are_none() -> None:
    assert crowds([*newcomers(40, 86_400.0), *HONEST])[0] == []


def test_few_are_none() -> None:
    assert crowds([*newcomers(NEWCOMERS - 1), *HONEST])[0] == []


def test_many_who_find_what_was_likely_anyway_are_none() -> None:
    assert crowds(newcomers(50), chance=0.6)[0] == []


def test_without_others_nobody_contradicts_them() -> None:
    assert crowds(newcomers(50))[1] == [False]


def test_voters_who_push_one_passage_over_many_questions_are_one_crowd() -> None:
    cast: list[Cast] = []
    for pusher in ("p1", "p2"):
        for q in range(6):
            cast += [(pusher, f"q{q}", "mine", True, 9e4 * q), (pusher, f"q{q}", "a", False, 0.0)]
    for honest in ("h1", "h2", "h3"):
        cast += [(honest, f"q{q}", f"answer {q}", True, 9e4 * q) for q in range(6)]
        cast += [(honest, f"q{q}", "mine", False, 9e4 * q) for q in range(6)]
    assert crowds(cast) == ([{"p1", "p2"}], [True])


def test_nobody_is_in_two_crowds() -> None:
    cast = [
        *newcomers(20),
        *((f"new{i}", "how much", "other junk", True, 5.0 * i) for i in range(20)),
    ]
    found, _ = crowds(cast)
    assert sorted(who for some in found for who in some) == sorted({r[0] for r in cast})
