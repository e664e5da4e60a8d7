"""Passages that the encoder does not read to their end are counted."""

from collections.abc import Sequence
from pathlib import Path

from fakes import WordEncoder
from rag_flywheel import Flywheel, Passage
from rag_flywheel.encode.too_long import count_too_long


class ShortSighted(WordEncoder):
    """Reads 50 words."""

    max_tokens = 50

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]


def test_add_says_how_many_passages_are_too_long(tmp_path: Path) -> None:
    with Flywheel.open(tmp_path / "kb", encoder=ShortSighted()) as fw:
        at_the_limit = Passage("a", "w " * 48, "two words")
        longer = Passage("b", "w " * 49, "two words")
        assert fw.add([at_the_limit, longer, Passage("c", "short")]).too_long == 1
        (tmp_path / "x.csv").write_text("text\n" + "w " * 60 + "\n")
        report = fw.add_files(tmp_path / "x.csv", splitter=lambda text, _: [text])
        assert report.passages.too_long == 1


def test_an_encoder_that_does_not_say_what_it_reads() -> None:
    assert count_too_long(WordEncoder(), ["w " * 1000]) == 0
