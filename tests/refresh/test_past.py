"""Past queries are read once in a refresh, and judged again by the weights of users."""

import numpy as np

from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.curate.source import Source
from rag_flywheel.refresh.past import Past, read_past

EVERY = 2**62


def require_same(one: Past, other: Past) -> None:
    assert one.judged == other.judged
    assert list(one.judged) == list(other.judged)
    assert (one.filters, one.texts) == (other.filters, other.texts)
    assert one.vectors.keys() == other.vectors.keys()
    for name, vector in one.vectors.items():
        assert np.array_equal(vector, other.vectors[name])
    assert (list(one.every), one.n_without_words) == (list(other.every), other.n_without_words)


def test_what_was_read_is_judged_again_as_if_it_were_read_again(
    fw: Flywheel, encoder: WordEncoder, help_desk: list[Passage]
) -> None:
    fw.add(help_desk)
    asked = {"lost password": "ann bob", "refund please": "bob", "kittens": "cid"}
    for question, users in asked.items():
        for user in users.split():
            shown = fw.retrieve(question, where={"lang": "en"} if user == "cid" else None)
            fw.feedback(shown.id, shown.hits[0].passage_id, "helpful", user_id=user)
    source = Source(encoder, Config())
    first = read_past(fw._database, source, until=EVERY)
    assert len(first.judged) == 3 and len(first.votes) == 4
    users = {vote.user_id for vote in first.votes if vote.user_id is not None}
    for user in users:
        weights = {user: 0.0}
        again = read_past(fw._database, source, until=EVERY, weights=weights, again=first)
        require_same(again, read_past(fw._database, source, until=EVERY, weights=weights))
        assert again.judged != first.judged
        back = read_past(fw._database, source, until=EVERY, again=again)  # of what was left out too
        require_same(back, first)
