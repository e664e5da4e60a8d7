"""Forgetting a user: nothing of them is left, and all is as if they had never been there."""

import json
import random
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import Phase, given
from hypothesis import strategies as st

from forgetting import (
    Log,
    assert_same,
    key_of,
    learned,
    log_of,
    opened,
    query_name,
    replay,
    rows,
    traces,
    user_hash,
)
from rag_flywheel import Flywheel, Passage, Vote
from rag_flywheel.rank.calibration import Calibration
from rag_flywheel.rank.parameters import Parameters
from thorough import thorough

USERS = ["ann-zürich-4711", "bob-4712", 'cleo "the cat" 4713']
WORDS = ["reset", "login", "refund", "secret", "page", "month"]
SHARED = ["reset login", "refund secret", "page month reset"]
START = [Passage(f"p{i}", f"{w} {WORDS[i - 1]} text{i}", w) for i, w in enumerate(WORDS)]
Op = tuple[Any, ...]


class Life:
    """A folder while things happen to it, and what each user gave it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fw = opened(root)
        self.corpus: list[Passage | str] = []
        self.asked: list[Any] = []
        self.given: dict[str, set[str | bytes]] = {user: {user} for user in USERS}
        self.n = 0
        for passage in START:
            self.change(passage)

    def change(self, change: Passage | str) -> None:
        self.corpus.append(change)
        if isinstance(change, Passage):
            self.fw.add([change])
        else:
            self.fw.remove([change])

    def ask(self, user: str, own: bool, which: int) -> None:
        query = SHARED[which]
        if own:
            query += f" of {user} alone {which}"
            self.given[user] |= {query, query_name(self.root, query)}
        session = f"session {self.n} {user}"
        answer = self.fw.retrieve(query, k=4, user_id=user, session_id=session)
        text = f"answer {self.n} to {user}"
        self.fw.answer(str(answer.id), text)
        self.given[user] |= {session, text}
        self.asked.append(answer)

    def vote(self, user: str, which: int, hit: int, verdict: str) -> None:
        if self.asked:
            answer = self.asked[which % len(self.asked)]
            passage = answer.hits[hit % len(answer.hits)].passage_id
            reason = f"reason {self.n} of {user}"
            self.given[user].add(reason)
            self.fw.feedback(answer.id, passage, verdict, user_id=user, reason=reason)  # type: ignore[arg-type]

    def judge(self, user: str, which: int, how: str, verdict: str) -> None:
        """A vote on a whole answer."""
        if self.asked:
            answer = self.asked[which % len(self.asked)]
            given: dict[str, Any] = {}
            if how == "text" and verdict != "retract":
                given["answer"] = f"{user} {self.n} reads: {answer.hits[0].text}"
                self.given[user].add(given["answer"])
            if how == "cited" and verdict != "retract":
                given["cited"] = [answer.hits[-1].passage_id]
            self.fw.answer_feedback(answer.id, verdict, user_id=user, **given)  # type: ignore[arg-type]

    def write(self, user: str, which: int, kind: str) -> None:
        """A correction, the answer in their words, or that it is missing."""
        if self.asked:
            answer, text = self.asked[which % len(self.asked)], f"text {self.n} of {user}"
            if kind == "missing":
                self.fw.missing(answer.id, text, user_id=user)
            elif kind == "text":
                self.fw.correct(answer.id, text=text, user_id=user)
            else:
                left = sorted(p.id for p in self.fw.passages())
                if left:
                    self.fw.correct(answer.id, left[which % len(left)], user_id=user)
                return
            self.given[user].add(text)

    def act(self, user: str, which: int, kind: str) -> None:
        """A signal."""
        if self.asked:
            answer, text = self.asked[which % len(self.asked)], f"final {self.n} of {user}"
            value = {"edited": text, "rating": which % 5 + 1}.get(kind)
            self.given[user].add(text)
            if kind == "adopted":
                self.fw.adopted(answer.id, used=bool(which % 2), why=text, user_id=user)
                return
            if kind == "edited" and not rows(
                self.root, "SELECT 1 FROM retrievals WHERE id = ? AND answer NOT NULL", answer.id
            ):
                return
            self.fw.signal(answer.id, kind, value, user_id=user)  # type: ignore[arg-type]

    def do(self, op: Op) -> None:
        self.n += 1
        kind, *more = op
        if kind in {"ask", "vote", "judge", "write", "act"}:
            getattr(self, kind)(*more)
        elif kind == "edit":
            words = START[more[0]].text.split()[:1]
            self.change(Passage(f"p{more[0]}", " ".join([*words, f"edited{self.n}"])))
        elif kind == "remove" and any(p.id == f"p{more[0]}" for p in self.fw.passages()):
            self.change(f"p{more[0]}")
        elif kind == "refresh":
            self.fw.refresh()
        elif kind == "rollback" and any(v.live and v.parent for v in self.fw.versions()):
            self.fw.rollback(hold=more[0])
        elif kind == "release":
            self.fw.release()


users = st.sampled_from(USERS)
asks = st.tuples(st.just("ask"), users, st.booleans(), st.integers(0, 2))
votes = st.tuples(
    st.just("vote"),
    users,
    st.integers(0, 30),
    st.integers(0, 3),
    st.sampled_from(["helpful", "helpful", "harmful", "retract"]),
)
judges = st.tuples(
    st.just("judge"),
    users,
    st.integers(0, 30),
    st.sampled_from(["text", "cited", "plain"]),
    st.sampled_from(["helpful", "harmful", "retract"]),
)
writes = st.tuples(
    st.just("write"), users, st.integers(0, 30), st.sampled_from(["missing", "text", "passage"])
)
acts = st.tuples(
    st.just("act"),
    users,
    st.integers(0, 30),
    st.sampled_from(["copied", "edited", "rating", "adopted"]),
)
changes = st.tuples(st.sampled_from(["edit", "remove"]), st.integers(0, 5))
moves = st.sampled_from(
    [("refresh",), ("refresh",), ("rollback", False), ("rollback", True), ("release",)]
)
histories = st.lists(
    st.one_of(asks, asks, votes, votes, judges, judges, writes, acts, changes, moves), max_size=24
)


def votes_behind_versions(root: Path) -> dict[str, int]:
    """{version: the last event whose vote counts in it}."""
    return {
        path.parent.name: json.loads(path.read_text())["votes_until"]
        for path in (root / "versions").glob("*/manifest.json")
    }


def counted(log: Log, user: str) -> tuple[int, int, int]:
    mine = {r["rid"] for r in log.retrievals if r["user_id"] == user}
    said = [*log.votes, *log.answers]
    own = sum(v["user_id"] == user for v in said)
    others = sum(v["rid"] in mine and v["user_id"] != user for v in said)
    return len(mine), own, others


@thorough(25, few=5, phases=(Phase.reuse, Phase.generate))
@given(histories, users)
def test_after_forgetting_all_is_as_if_the_user_had_never_been(
    history: list[Op], user: str
) -> None:
    with TemporaryDirectory() as folder:
        life = Life(Path(folder) / "kb")
        with life.fw as fw:
            for op in history:
                life.do(op)
            before, name = log_of(life.root), user_hash(life.root, user)
            held, built = fw.status().held, votes_behind_versions(life.root)
            if any(r["user_id"] == name for r in before.retrievals):
                assert traces(life.root, [name])
            report = fw.forget(user)
            assert (report.n_retrievals, report.n_votes, report.n_votes_of_others) == counted(
                before, name
            )
            remaining = before.without(name)
            assert log_of(life.root) == remaining
            known = bool(report.n_retrievals or report.n_votes or report.n_notes)
            if known:
                assert traces(life.root, [*life.given[user], name]) == []
                first = before.first_event_of(name)
                kept = {v for v, until in built.items() if until < first} | {report.version}
                assert {v.id for v in fw.versions()} == kept
            status = fw.status()
            assert (status.version, status.held) == (report.version, held)
            assert fw.verify() == []
            if known:
                until = remaining.until(status.frozen_at)
                other = Path(folder) / "fresh"
                with replay(other, life.corpus, until, key_of(life.root)) as fresh:
                    assert_same(life.root, fw, other, fresh, [*SHARED, "reset my text2", "month"])
            life.asked.clear()
            for op in history[:3]:  # life goes on
                life.do(op)
            assert fw.verify() == []


@pytest.mark.slow
def test_parameters_are_learned_again_without_the_user(tmp_path: Path) -> None:
    root, rng = tmp_path / "kb", random.Random(3)
    corpus = [
        Passage(f"{kind}{t}", f"topic{t} {word} about{t}")
        for t in range(30)
        for kind, word in (("answer", "fix"), ("decoy", "story"))
    ]
    with opened(root) as fw:
        fw.add(corpus)
        fw.refresh()
        for user, says in (("ann", "answer"), ("mallory", "decoy")):
            for n in range(100):
                shown = fw.retrieve(f"topic{n % 30} word{n} {user}{n % 7}", user_id=user)
                fw.feedback_many(
                    Vote(
                        shown.id,
                        hit.passage_id,
                        "helpful" if hit.passage_id == f"{says}{n % 30}" else "harmful",
                        user,
                    )
                    for hit in shown.hits[:3]
                    if rng.random() < 0.9
                )
        fw.refresh()
        with_both = learned(root, fw).parameters
        remaining = log_of(root).without(user_hash(root, "mallory"))
        assert fw.forget("mallory").n_retrievals == 100
        again = learned(root, fw).parameters
        assert again not in (Parameters(), with_both)
        with replay(tmp_path / "fresh", corpus, remaining, key_of(root)) as fresh:
            queries = [f"topic{t} word" for t in range(30)]
            assert_same(root, fw, tmp_path / "fresh", fresh, queries)
            assert fresh.status().version != fw.status().version


def test_too_little_left_to_learn_from_means_the_shipped_parameters(tmp_path: Path) -> None:
    root, corpus = tmp_path / "kb", [Passage(f"p{t}", f"topic{t} fix") for t in range(20)]
    with opened(root) as fw:
        fw.add(corpus)
        for n in range(90):
            shown = fw.retrieve(f"topic{n % 20} word{n}", user_id="ann")
            fw.feedback(shown.id, shown.hits[n % 3].passage_id, "helpful", user_id="ann")
            fw.feedback(shown.id, shown.hits[3].passage_id, "harmful", user_id="ann")
        fw.refresh()
        assert learned(root, fw).parameters.rates != Parameters().rates
        fw.forget("ann")
        found = learned(root, fw).parameters
        measured = replace(  # on the passages
            Calibration(), unrelated=found.relevance.unrelated, spread=found.relevance.spread
        )
        assert found == Parameters(relevance=measured)


@pytest.mark.slow
def test_nothing_is_left_in_the_pages_of_a_large_log(tmp_path: Path) -> None:
    root, rng = tmp_path / "kb", random.Random(1)
    with opened(root) as fw:
        fw.add(START)
        for n in range(600):
            user = rng.choice(["ann-4711", "bob"])
            query = f"reset {user} " + "word " * rng.randrange(60)
            shown = fw.retrieve(query, user_id=user, session_id=f"session of {user}")
            if rng.random() < 0.7:
                fw.answer(str(shown.id), f"told {user} " + "much " * rng.randrange(300))
            if rng.random() < 0.5:
                fw.feedback(shown.id, "p0", "helpful", user_id=user, reason=f"{user} " * (n % 40))
        assert traces(root, ["ann-4711"])
        fw.forget("ann-4711")
        assert traces(root, ["ann-4711"]) == []
        assert traces(root, ["told bob"])


def test_a_user_nobody_knows_changes_nothing(fw: Flywheel, help_desk: list[Passage]) -> None:
    fw.add(help_desk)
    version = fw.refresh().version
    shown = fw.retrieve("reset", user_id="ann")
    report = asdict(fw.forget("nobody"))
    assert report.pop("version") == version
    assert set(report.values()) == {0}
    assert fw.status().n_retrievals == 1
    assert [entry.kind for entry in fw.history()] == ["promoted"]
    fw.feedback(shown.id, "reset", "helpful", user_id="ann")
