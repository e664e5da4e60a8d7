"""Chunks: as long as the encoder reads, with what their parts need to be understood, in linear time."""

import re
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from markdown_it import MarkdownIt

from rag_flywheel import FlywheelError
from rag_flywheel.formats.chunks import Chunking
from rag_flywheel.formats.markdown import cut
from rag_flywheel.formats.token_estimate import estimate_tokens

WORD = re.compile(r"\w+")


def by_words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) + 3 for text in texts]


def by_letters(texts: Sequence[str]) -> list[int]:
    return [len(text) for text in texts]


PROSE = " ".join(f"Sentence {n} has some words, and a clause; it ends here." for n in range(300))
TEXTS = {
    "prose": PROSE,
    "words": PROSE.replace(".", "").replace(",", "").replace(";", ""),
    "one word": "letters" * 900,
    "paragraphs": "\n\n".join(PROSE.split(". ")),
    "list": "\n".join(f"- item {n}\n\n  with a paragraph\n  1. and {n} more" for n in range(90)),
    "quote": "\n".join(f"> line {n} of it." for n in range(300)),
    "table": "| key | meaning |\n|---|---|\n"
    + "\n".join(f"| k{n} | {PROSE[:n]} |" for n in range(150)),
    "wide": "|" + " name |" * 300 + "\n|" + "-|" * 300 + "\n|" + " cell |" * 300,
    "code": "```js title='a.js'\n"
    + "\n".join(f"const v{n} = f({n});" for n in range(200))
    + "\n```",
    "unclosed": "~~~\n" + "\n".join(f"row {n}" for n in range(300)),
    "long heading": f"# {PROSE}\n\nbody\n\n## {PROSE}\n\n## Small\n\n{PROSE}",
    "thai": "บริษัทจ่ายค่าโรงแรมระหว่างเดินทางไปทำงานต่างจังหวัด" * 60,
    "han": "依赖预构建会把许多模块合并成一个文件，浏览器因此只需要一次请求就能拿到全部代码。" * 60,
}


@pytest.mark.parametrize(
    "count", [None, by_words, by_letters], ids=["estimate", "words", "letters"]
)
@pytest.mark.parametrize("overlap", [0, 20])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_chunk_is_longer_than_the_encoder_reads(
    text: str, overlap: int, count: Callable[[Sequence[str]], list[int]] | None
) -> None:
    chunking = Chunking(100, overlap, count)
    found = cut(f"# Title\n\n{text}", "d.md", markdown=True, chunking=chunking)
    counted = (count or estimate_tokens)([f"{p.title} {p.text}".strip() for p in found])
    assert max(counted) <= 100
    assert len(found) > 1
    said = {word for p in found for word in WORD.findall(f"{p.title} {p.text}")}
    if text not in {TEXTS["one word"], TEXTS["thai"], TEXTS["han"]}:
        assert set(WORD.findall(text)) <= said


def test_plain_text_is_cut_without_loss() -> None:
    words = [f"word{i}" for i in range(2000)]
    found = cut(" ".join(words), "a.txt", markdown=False)
    assert [w for p in found for w in p.text.split()] == words
    assert [p.text for p in cut("# no heading\n\n---\n", "a.txt", markdown=False)] == [
        "# no heading\n\n---"
    ]


def test_parts_of_a_table_have_its_header_and_parts_of_a_row_its_first_cell() -> None:
    table = "| code | meaning |\n|:--|--:|\n"
    rows = "".join(
        f"| E{n} | " + f"reason {n} of many, " * (60 if n == 7 else 3) + "|\n" for n in range(30)
    )
    found = cut(f"Intro:\n\n{table}{rows}", "d.md", markdown=True)
    assert all("| code | meaning |\n|:--|--:|\n" in p.text for p in found)
    assert all("| E7 |" in p.text for p in found if "reason 7 of" in p.text)
    assert sum("reason 7 of" in p.text for p in found) > 1


@pytest.mark.parametrize("fence", ["```", "~~~", "````"])
@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("before", ["", "- item\n\n  ", "> "])
def test_parts_of_code_have_its_fence_and_language(fence: str, closed: bool, before: str) -> None:
    indent = "" if not before else "> " if before == "> " else "  "
    lines = [
        f"{fence}py hl=1",
        *(f"x{n} = f({n})" for n in range(120)),
        *([fence] if closed else []),
    ]
    text = before + f"\n{indent}".join(lines)
    found = cut(text, "d.md", markdown=True)
    assert len(found) > 2
    for p in found:
        lines = [line.strip("> ") for line in p.text.split("\n")]
        fences = [line for line in lines if line.startswith(fence)]
        assert [f[: len(fence) + 2] for f in fences] == [f"{fence}py", fence]
    assert "hl=1" in found[0].text


def test_overlap_repeats_the_end_of_the_chunk_before_and_leaves_ids() -> None:
    plain, over = (
        cut(f"# H\n\n{PROSE}", "d.md", markdown=True, chunking=Chunking(64, n, by_words))
        for n in (0, 15)
    )
    for before, after in pairwise(over):
        shared = next(
            n for n in range(120, 0, -1) if after.text.startswith(before.text[-n:]) or n == 1
        )
        assert shared > 20
    assert plain[0].id.partition(".md")[0] == over[0].id.partition(".md")[0]


@pytest.mark.parametrize(
    ("tokens", "overlap", "message"),
    [
        (31, 0, "chunk_tokens is 31; expected a whole number, 32 or more"),
        (True, 0, "chunk_tokens is True"),
        (100, 51, "chunk_overlap is 51; expected a whole number from 0 to 50"),
        (100, -1, "chunk_overlap is -1"),
    ],
)
def test_bad_sizes_are_refused(tokens: int, overlap: int, message: str) -> None:
    with pytest.raises(FlywheelError, match=message):
        Chunking(tokens, overlap)


class Silent:
    name = "silent"


class Counting(Silent):
    max_tokens = 120

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return by_words(texts)


def test_chunks_are_as_long_as_the_encoder_reads() -> None:
    silent, counting = Silent(), Counting()
    assert Chunking.for_encoder(silent) == Chunking(256, 0, None)  # type: ignore[arg-type]
    assert Chunking.for_encoder(counting).tokens == 120  # type: ignore[arg-type]
    assert Chunking.for_encoder(counting, tokens=50, overlap=9).overlap == 9  # type: ignore[arg-type]
    with pytest.raises(FlywheelError, match="chunk_tokens is 121; expected at most 120"):
        Chunking.for_encoder(counting, tokens=121)  # type: ignore[arg-type]


LARGE = {
    "words": lambda n: "some words to read " * (n // 19),
    "no blanks": lambda n: "x" * n,
    "han": lambda n: "依赖预构建会把许多模块" * (n // 33),
    "code": lambda n: "```\n" + "a = b " * (n // 6),
    "headings": lambda n: "# A\n\nb\n" * (n // 16),
    "row": lambda n: "|a|b|\n|-|-|\n|x|" + "cell " * (n // 5) + "|",
    "comments": lambda n: "<!-- a\n" * (n // 7),
    "math": lambda n: "$$ a\n" * (n // 5),
    "links": lambda n: "[a" * (n // 2),
    "labels": lambda n: "".join(f"[a{i}]: b{i}\n" for i in range(n // 40)),
    "backticks": lambda n: "` `` ``` x " * (n // 11),
    "tags": lambda n: "<a href=' " * (n // 10),
    "quotes": lambda n: ">" * n + " a",
    "nested": lambda n: "".join("  " * min(i, 60) + "- a\n" for i in range(n // 120)),
    "blanks": lambda n: "a" + " \n" * (n // 2) + "b",
}


@pytest.mark.slow
@pytest.mark.parametrize("make", LARGE.values(), ids=LARGE)
def test_time_grows_with_the_length(make: Callable[[int], str]) -> None:
    seconds = []
    for size in (100_000, 800_000):
        text = make(size)
        start = time.process_time()
        cut(text, "d.md", markdown=True)
        seconds.append(time.process_time() - start)
    assert seconds[1] < 8 * 2.5 * max(seconds[0], 0.05)


@pytest.mark.slow
def test_one_line_of_ten_megabytes_is_cut() -> None:
    start = time.process_time()
    found = cut("some words to read, " * 500_000, "d.md", markdown=True)
    assert len(found) > 10_000
    assert time.process_time() - start < 20


def open_fences(text: str) -> list[str]:
    """The marks of the code blocks that a text does not close, as CommonMark reads it."""
    lines = text.split("\n")
    found = []
    for token in MarkdownIt("commonmark").parse(text):
        if token.type == "fence" and token.map is not None:
            last = lines[token.map[1] - 1].strip(" \t>")
            if token.map[1] - token.map[0] < 2 or set(last) != {token.markup[0]}:
                found.append(token.markup)
    return found


CODE = "\n".join(f"call({n}, 'of {n}')" for n in range(60))
FENCED = {
    "long fence": f"{'`' * 40}py\n{CODE}\n{'`' * 40}",
    "long info": f"```py title='{'a name ' * 20}'\n{CODE}\n```",
    "one long line": f"~~~\n{CODE.replace(chr(10), ' ')}\n~~~",
    "in a list": "- item\n\n"
    + "\n".join(f"  {line}" for line in ["```js", *CODE.split("\n"), "```"]),
    "indented": "\n".join(f"    {line}" for line in CODE.split("\n")),
    "marks in a line": "Words go on and on ``` and a mark ~~~ within them. " * 40,
}


@pytest.mark.parametrize("overlap", [0, 10, 30])
@pytest.mark.parametrize("text", FENCED.values(), ids=FENCED)
def test_each_code_block_of_a_chunk_is_closed_and_nothing_is_doubled(
    text: str, overlap: int
) -> None:
    document = f"# Title\n\nBefore it.\n\n{text}\n\nBehind it."
    for tokens in (60, 80, 120):
        found = cut(document, "d.md", markdown=True, chunking=Chunking(tokens, overlap))
        assert [mark for p in found for mark in open_fences(p.text)] == []
        said = {word for p in found for word in WORD.findall(f"{p.title} {p.text}")}
        assert set(WORD.findall(document)) <= said
        if not overlap:
            assert sum(p.text.count("call(7,") for p in found) <= 1


def test_a_heading_opens_no_code_block() -> None:
    (found,) = cut("# ```JSON", "d.md", markdown=True)
    assert (found.text, found.title) == ("JSON", "")
