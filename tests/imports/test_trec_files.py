"""What a file of TREC is, is known by its columns, whatever the questions are about."""

from pathlib import Path

import pytest

from rag_flywheel import Flywheel, InputError, Passage


@pytest.fixture
def fw(fw: Flywheel, help_desk: list[Passage]) -> Flywheel:
    fw.add(help_desk)
    return fw


@pytest.mark.parametrize("words", ["error 404", "apollo 11", "from 9 to 5", "a b 1 2.5 c", "score"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_questions_that_look_like_grades(
    fw: Flywheel, tmp_path: Path, words: str, end: str
) -> None:
    topics, qrels, run = (tmp_path / name for name in ("topics.tsv", "qrels.txt", "run.txt"))
    topics.write_text(f"1\t{words}{end}2\thow do I get a new password{end}", newline="")
    qrels.write_text(f"1 0 reset 1{end}2\t0\trefund\t0{end}", newline="")
    run.write_text(f"1 Q0 reset 1 2.5 mine{end}2\tQ0\trefund\t1\t2\tmine{end}", newline="")
    report = fw.import_files("trec", [qrels, topics, run])
    assert (report.retrievals, dict(report.votes), dict(report.left_out)) == (2, {"vote": 2}, {})
    assert [(j.query, j.passage_id) for j in fw.judgments()] == [
        (words, "reset"),
        ("how do I get a new password", "refund"),
    ]


def test_topics_in_another_form_are_refused(fw: Flywheel, tmp_path: Path) -> None:
    path = tmp_path / "topics.301"
    path.write_text("<top>\n<num> Number: 301\n<title> Crime\n</top>\n")
    with pytest.raises(InputError, match=r"line 1 has 1 column; expected the six of a run"):
        fw.import_files("trec", path)
