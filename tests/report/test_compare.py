"""Two versions side by side: each answers as it did right after its build."""

from pathlib import Path

import pytest

from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage, UnknownIdError

PASSAGES = [Passage(f"p{n}", f"parcels are sent by way{n}") for n in range(6)]


def opened(root: Path, config: Config | None = None) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder(), config=config)


def vote(fw: Flywheel, query: str, id_: str, **named: object) -> None:
    for user in ("ann", "bob", "cid"):
        shown = fw.retrieve(query, user_id=user, **named)  # type: ignore[arg-type]
        fw.feedback(shown.id, id_, "helpful", user_id=user, **named)  # type: ignore[arg-type]


def test_a_version_answers_with_the_votes_up_to_its_build(tmp_path: Path) -> None:
    with opened(tmp_path / "kb") as fw:
        fw.add(PASSAGES)
        fw.refresh()
        fw.retrieve("parcels way1")
        first = fw.rank_many(["how are parcels sent"])[0]
        vote(fw, "how are parcels sent", first[-1])
        fw.add([Passage("other", "invoices are paid by card")])
        fw.refresh()
        late = fw.rank_many(["parcels way1"])[0][-2]
        vote(fw, "parcels way1", late)  # in neither version
        after, before = (each.id for each in fw.versions())
        found = fw.compare(before, after)
        assert (found.before, found.after, found.n_questions) == (before, after, 2)
        (changed,) = (c for c in found.changed if c.query == "how are parcels sent")
        assert changed.n == 3
        assert changed.after[0] == first[-1]
        assert [id_ for id_ in changed.before if id_ != "other"] == first
        assert all(c.after[0] != late for c in found.changed if c.query == "parcels way1")
        fw.rollback(before)
        assert fw.rank_many([changed.query])[0] == list(changed.before)
        fw.rollback(after)
        assert fw.rank_many([changed.query])[0] == list(changed.after)
        assert fw.compare(after, after).changed == ()
        assert fw.compare(before, after, n=1, k=1).n_questions == 1
        assert fw.status().version == after


def test_each_question_is_answered_within_its_tenant(tmp_path: Path) -> None:
    with opened(tmp_path / "kb", Config(encoder="", tenant_key="team")) as fw:
        for team in ("one", "two"):
            fw.add(
                Passage(f"{team}{n}", f"parcels are sent by way{n} of {team}", "", {"team": team})
                for n in range(4)
            )
        fw.refresh()
        last = fw.rank_many(["how are parcels sent"], tenant="two")[0][-1]
        vote(fw, "how are parcels sent", last, tenant="two")
        fw.retrieve("how are parcels sent", tenant="one")
        fw.add([Passage("new", "invoices are paid", "", {"team": "one"})])
        fw.refresh()
        after, before = (each.id for each in fw.versions())
        found = fw.compare(before, after)
        assert found.n_questions == 2
        (changed,) = (c for c in found.changed if c.tenant == '"two"')
        assert changed.after[0] == last
        assert all(id_.startswith("two") for id_ in (*changed.before, *changed.after))


def test_a_version_that_is_not_there(tmp_path: Path) -> None:
    with opened(tmp_path / "kb") as fw:
        fw.add(PASSAGES)
        fw.refresh()
        (only,) = (each.id for each in fw.versions())
        with pytest.raises(UnknownIdError):
            fw.compare(only, "20200101T000000Z-00000")


def test_refreshes_are_listed_with_the_numbers_of_the_gate(tmp_path: Path) -> None:
    with opened(tmp_path / "kb") as fw:
        assert fw.refreshes() == []
        fw.add(PASSAGES)
        reports = [fw.refresh()]
        fw.add([Passage("other", "invoices are paid by card")])
        reports.append(fw.refresh())
        listed = fw.refreshes()
        assert [each.version for each in listed] == [r.version for r in reports[::-1]]
        assert [each.scores for each in listed] == [r.scores for r in reports[::-1]]
        assert listed[0].reason == reports[1].reason
        assert fw.refreshes(1) == listed[:1]
