"""A large import leaves questions to the next refresh to embed, and everything works until then and after."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from fakes import Vectors, WordEncoder
from rag_flywheel import (
    Config,
    Flywheel,
    ImportedHit,
    ImportedRetrieval,
    ImportedVote,
    Passage,
    restore,
)
from rag_flywheel.capture.question_vectors import MOST_AT_ONCE
from rag_flywheel.cli import show
from rag_flywheel.errors import EncoderError
from waiting import (
    DAY,
    N_WAITING,
    PASSAGES,
    N,
    asked,
    files_of,
    helped,
    log_of,
    near,
    opened,
    question,
    voted,
)


def behind(fw: Flywheel, query: str, **more: str) -> int:
    """How many past questions' votes speak for passages of an answer."""
    hits = fw.retrieve(query, k=40, record=False, **more).hits
    return sum(len(fw.votes_behind(hit, **more)) for hit in hits)


class Breaking(WordEncoder):
    """Fails once it has encoded so many questions."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most
        self.n_questions = 0

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        if self.n_questions + len(texts) > self.most:
            raise EncoderError("the power is gone")
        self.n_questions += len(texts)
        return super().encode_queries(texts)


@pytest.fixture
def fw(tmp_path: Path) -> Iterator[Flywheel]:
    with opened(tmp_path / "kb") as fw:
        fw.add(PASSAGES)
        yield fw


def test_a_small_import_helps_similar_questions_at_once(fw: Flywheel) -> None:
    report = fw.import_votes(log_of(range(100)))
    assert (report.waiting, fw.status().n_questions_waiting) == (0, 0)
    assert behind(fw, near(99))


@pytest.mark.parametrize("refreshed", [False, True])
def test_a_large_import_helps_the_same_words_at_once_and_similar_ones_after_a_refresh(
    fw: Flywheel, *, refreshed: bool
) -> None:
    if refreshed:
        fw.refresh()
    last, best = N - 1, helped(N - 1)
    before = fw.rank_many([question(last)], 40)[0].index(best)
    report = fw.import_votes(log_of(range(N)))
    assert (report.waiting, fw.status().n_questions_waiting) == (N_WAITING, N_WAITING)
    assert behind(fw, question(last))  # though it has no vector
    assert fw.rank_many([question(last)], 40)[0].index(best) < before
    assert not behind(fw, near(last))
    assert behind(fw, near(0))  # of those that were embedded at once
    found = fw.refresh()
    assert (found.outcome, found.scores["n_questions_embedded"]) == ("promoted", N_WAITING)
    assert f"embedded {N_WAITING} questions" in found.reason
    assert fw.status().n_questions_waiting == 0
    assert behind(fw, near(last))
    assert fw.refresh().outcome == "unchanged"


def test_answers_do_not_wait_for_very_many_questions(tmp_path: Path) -> None:
    encoder = Breaking(10**9)
    with opened(tmp_path / "kb", encoder) as fw:
        fw.add(PASSAGES)
        fw.refresh()
        fw.import_votes(log_of(range(N)))
        before = encoder.n_questions
        fw.retrieve("something else", record=False)
        assert encoder.n_questions - before == 1
    encoder = Breaking(10**9)
    with opened(tmp_path / "kb", encoder) as fw:  # a process that starts
        fw.retrieve("something else", record=False)
        assert encoder.n_questions == 1


def test_few_questions_that_wait_are_embedded_by_whoever_answers(tmp_path: Path) -> None:
    encoder = Breaking(10**9)
    with opened(tmp_path / "kb", encoder) as fw:
        fw.add(PASSAGES)
        report = fw.import_votes(log_of(range(MOST_AT_ONCE + 5)))
        assert report.waiting == 5
        assert behind(fw, near(MOST_AT_ONCE + 4))


def test_importing_twice_changes_nothing_and_the_second_time_embeds_more(fw: Flywheel) -> None:
    fw.import_votes(log_of(range(N)))
    again = fw.import_votes(log_of(range(N)))
    assert (again.retrievals, again.votes, again.unchanged) == (0, {}, 2 * N)
    assert again.waiting == N_WAITING
    more = fw.import_votes([*log_of(range(N)), voted(N - 1, "harmful")])  # of a question that waits
    assert (more.votes, more.waiting) == ({"vote": 1}, N_WAITING - 1)


def test_a_dry_run_leaves_nothing_waiting(fw: Flywheel) -> None:
    assert fw.import_votes(log_of(range(N)), dry_run=True).waiting == 0


def test_retrievals_without_votes_do_not_wait(fw: Flywheel) -> None:
    assert fw.import_votes([asked(i) for i in range(N)]).waiting == 0
    first, *rest = map(voted, range(N))
    assert fw.import_votes([first]).waiting == 0
    assert fw.import_votes(rest).waiting == N - 1 - MOST_AT_ONCE


def test_a_refresh_that_dies_does_not_embed_again_what_it_did(tmp_path: Path) -> None:
    with opened(tmp_path / "kb") as fw:
        fw.add(PASSAGES)
        fw.import_votes(log_of(range(N)))
    with opened(tmp_path / "kb", Breaking(300)) as fw:  # 256, and dies in the next
        with pytest.raises(EncoderError, match="the power is gone"):
            fw.refresh()
        assert fw.status().n_questions_waiting == N_WAITING - 256
        assert fw.verify() == []
    encoder = Breaking(10**9)
    with opened(tmp_path / "kb", encoder) as fw:
        assert fw.refresh().scores["n_questions_embedded"] == N_WAITING - 256
        assert behind(fw, near(N - 1))


def test_what_is_learned_is_the_same_wherever_the_questions_were_embedded(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("whole", "parts", "killed")]
    with opened(paths[0]) as fw:
        fw.add(PASSAGES)
        fw.import_votes([asked(i) for i in range(N)])
    for path in paths[1:]:
        shutil.copytree(paths[0], path)
    found = []
    for path, parts in zip(paths, (1, 2, 1), strict=True):
        with opened(path) as fw:
            for some in np.array_split(np.arange(N), parts):
                report = fw.import_votes([voted(i) for i in some.tolist()])
            assert bool(report.waiting) == (parts == 1)
        if path.name == "killed":
            with opened(path, Breaking(300)) as fw, pytest.raises(EncoderError):
                fw.refresh()
        with opened(path) as fw:
            assert fw.refresh().outcome == "promoted"
        found.append(files_of(path))
    assert found[0] == found[1] == found[2]
    assert len(found[0]) > 5


def test_forgetting_a_user_takes_away_questions_that_wait(fw: Flywheel) -> None:
    fw.import_votes(log_of(range(N)))
    mine = [i for i in range(N) if i % 90 == 89]
    late = [i for i in mine if i >= MOST_AT_ONCE]
    assert late
    fw.forget("user89")
    assert fw.status().n_questions_waiting == 0  # it refreshes
    assert not behind(fw, question(late[0]))
    assert not behind(fw, near(late[0]))
    assert behind(fw, near(late[0] - 1))
    assert fw.verify() == []


def test_votes_that_were_taken_back_before_the_refresh_say_nothing(fw: Flywheel) -> None:
    fw.import_votes(log_of(range(N)))
    fw.import_votes([voted(i, "retract") for i in range(N)])
    fw.refresh()
    assert not behind(fw, question(N - 1))
    assert not behind(fw, near(N - 1))


def test_a_question_that_waits_and_is_asked_waits_no_more(fw: Flywheel) -> None:
    fw.import_votes(log_of(range(N)))
    answer = fw.retrieve(question(N - 1), user_id="kim")
    fw.feedback(str(answer.id), answer.hits[0].passage_id, "helpful", user_id="kim")
    assert fw.status().n_questions_waiting == N_WAITING - 1


def test_tenants_have_questions_of_their_own_that_wait(tmp_path: Path) -> None:
    config = Config(encoder="", tenant_key="team")
    passages = [
        Passage(f"{team}{p.id}", p.text, metadata={"team": team}) for team in "ab" for p in PASSAGES
    ]
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as fw:
        fw.add(passages)
        for team in "ab":
            records: list[ImportedRetrieval | ImportedVote] = []
            for i in range(N):
                name = f"{team}p{(i + 2) % 40}"
                own = question(i, team)
                records.append(ImportedRetrieval(f"r{i}", own, [ImportedHit(name)], at=DAY + i))
                records.append(ImportedVote(f"v{i}", f"r{i}", "helpful", name, at=DAY + i))
            fw.import_votes(records, tenant=team)
        assert fw.status().n_questions_waiting == 2 * N_WAITING
        assert behind(fw, question(N - 1, "a"), tenant="a")
        assert not behind(fw, question(N - 1, "a"), tenant="b")
        fw.refresh()
        assert behind(fw, near(N - 1, "a"), tenant="a")
        assert not behind(fw, near(N - 1, "a"), tenant="b")


def test_where_words_are_not_stored_the_import_embeds_all(tmp_path: Path) -> None:
    config = Config(encoder="", store_queries="hash")
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as fw:
        fw.add(PASSAGES)
        assert fw.import_votes(log_of(range(N))).waiting == 0
        assert behind(fw, near(N - 1))


def test_while_a_rollback_holds_votes_back_questions_wait_for_the_refresh(fw: Flywheel) -> None:
    fw.refresh()
    fw.import_votes(log_of(range(3)))
    fw.refresh()
    fw.rollback(hold=True)
    fw.import_votes(log_of(range(N)))
    assert fw.status().n_questions_waiting == N_WAITING - 3
    assert fw.refresh().outcome == "unchanged"  # it is held
    assert not behind(fw, question(N - 1))
    fw.release()
    assert behind(fw, question(N - 1))
    assert not behind(fw, near(N - 1))
    assert fw.refresh().outcome == "promoted"
    assert behind(fw, near(N - 1))


def test_votes_that_a_rollback_holds_back_are_embedded_by_the_refresh(fw: Flywheel) -> None:
    fw.refresh()
    fw.import_votes(log_of(range(3)))
    fw.refresh()
    fw.rollback()
    fw.import_votes(log_of(range(N)))
    assert fw.refresh().outcome == "promoted"
    assert fw.status().n_questions_waiting == 0
    assert not behind(fw, near(N - 1))
    fw.release()
    assert behind(fw, near(N - 1))


def test_a_read_only_index_answers_with_questions_that_wait(tmp_path: Path) -> None:
    with opened(tmp_path / "kb") as fw:
        fw.add(PASSAGES)
        fw.refresh()
        fw.import_votes(log_of(range(N)))
    encoder = Breaking(10**9)
    with opened(tmp_path / "kb", encoder, read_only=True) as fw:
        assert fw.status().n_questions_waiting == N_WAITING
        assert behind(fw, question(N - 1))
        assert encoder.n_questions == 1


def test_every_report_copes_with_questions_that_wait(fw: Flywheel, tmp_path: Path) -> None:
    fw.refresh()
    fw.import_votes(log_of(range(N)))
    assert fw.verify() == []
    assert fw.repair() == []
    assert fw.gaps(days=10_000) == []
    assert fw.coverage(days=10_000).n_votes == N
    assert len(fw.judgments()) == N
    assert fw.questions()
    fw.pin(question(N - 1), helped(N - 1))
    assert fw.export.training_set("pairs", tmp_path / "set").written
    assert {check.name for check in fw.health().problems} == {"votes that wait"}
    fw.backup(tmp_path / "backup")


def test_a_restored_backup_has_questions_that_wait(fw: Flywheel, tmp_path: Path) -> None:
    fw.refresh()
    fw.import_votes(log_of(range(N)))
    fw.backup(tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "again")
    with opened(tmp_path / "again") as again:
        assert again.status().n_questions_waiting == N_WAITING
        again.refresh()
        assert behind(again, near(N - 1))


def test_another_encoder_embeds_them_too(fw: Flywheel) -> None:
    fw.refresh()
    fw.import_votes(log_of(range(N)))
    report = fw.change_encoder(WordEncoder(name="other", revision="2", dim=96), force=True)
    assert report.outcome == "promoted"
    assert fw.status().n_questions_waiting == 0
    assert behind(fw, near(N - 1))


def test_a_refresh_that_is_not_due_says_how_many_wait(fw: Flywheel) -> None:
    fw.refresh()
    fw.import_votes(log_of(range(N)))
    found = fw.refresh(if_votes=N + 1)
    assert (found.outcome, f"{N_WAITING} questions will be embedded" in found.reason) == (
        "unchanged",
        True,
    )
    assert fw.refresh(if_votes=N).outcome == "promoted"


def test_the_command_says_how_many_wait(fw: Flywheel, capsys: pytest.CaptureFixture[str]) -> None:
    show.imported(fw.import_votes(log_of(range(N)), dry_run=True))
    show.status(fw.status())
    assert "embed" not in capsys.readouterr().out
    show.imported(fw.import_votes(log_of(range(N))))
    show.status(fw.status())
    said = " ".join(capsys.readouterr().out.split())
    assert f"{N_WAITING} questions wait for `rag-flywheel refresh` to be embedded" in said
    assert f"questions to embed {N_WAITING}" in said
