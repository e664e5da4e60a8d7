"""Markdown becomes passages: which words they have, what they are called, where they are cut."""

import re
from typing import Any

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_flywheel import Passage
from rag_flywheel.formats.chunks import Chunking
from rag_flywheel.formats.markdown import cut

WORD = regex.compile(r"[\p{L}\p{M}]+")


def of(text: str, **more: Any) -> list[Passage]:
    return cut(text, "d.md", markdown=True, **more)


def shown(text: str, **more: Any) -> list[tuple[str, str]]:
    return [(p.title, p.text) for p in of(text, **more)]


def words(passages: list[Passage]) -> set[str]:
    return {word for p in passages for word in WORD.findall(f"{p.title} {p.text}")}


# ---- lines -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_a_line_ends_at_a_line_feed_alone(odd: str) -> None:
    text = f"# Alpha\n\nup{odd}down{odd}# left\n\n## Beta\n\nright{odd}\n\nlast\n"
    found = of(text)
    assert [(p.title, p.text.split()) for p in found] == [
        ("Alpha", ["up", "down", "#", "left"]),
        ("Alpha > Beta", ["right", "last"]),
    ]
    assert [(p.metadata["line"], p.metadata["last_line"]) for p in found] == [(3, 3), (7, 9)]


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_other_ends_of_lines_and_a_byte_order_mark_change_nothing(end: str) -> None:
    text = "---\ntitle: Page\n---\n# One\n\nfirst\n\n```py\nx = 1\n```\n"
    assert of("\ufeff" + text.replace("\n", end)) == of(text)


# ---- what is no word ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("::: warning Mind the gap\nLook down.\n:::\n", "Mind the gap\n\nLook down."),
        (":::tip[Hint]\nLook up.\n:::\n", "Hint\n\nLook up."),
        ("::: details More {open}\n- one\n:::\n", "More\n\n- one"),
        ('!!! note "Beware"\n    Of *dogs*.\n\n    And cats.\n\nEnd.',
         "Beware\n\nOf *dogs*.\n\nAnd cats.\n\nEnd."),
        ('=== "Linux"\n\n    ```sh\n    make\n    ```\n', "Linux\n\n```sh\nmake\n```"),
        ("/// note | Careful\n\nHot.\n\n///\n", "Careful\n\nHot."),
        ("//// tab | Python\nrun\n////\n", "Python\n\nrun"),
        ("import Tabs from '@theme/Tabs'\nimport {\n  a,\n} from './b'\n\nHello.\n", "Hello."),
        ("export const meta = {\n  a: 1,\n}\n\nHello.\n", "Hello."),
        ("Hello.\n\n<script setup>\nimport x from 'y'\n\nconst z = 1\n</script>\n", "Hello."),
        ("<!-- one\n\n## draft\n-->\n\nHello <!-- aside --> you.\n", "Hello  you."),
        ("<div align='center'>\n<p>Hello</p>\n<img src='a.png' alt='A cat'>\n</div>", "Hello\nA cat"),
        ("Hello.\n\n***\n\n<BlogIndex />\n\n```\n```\n\n[[toc]]\n", "Hello."),
        ("Read [this][a] and [b].\n\n[a]: https://x.org/a\n[B]: <https://x.org/b> 'Bee'\n",
         "Read [this](https://x.org/a) and [b](https://x.org/b 'Bee')."),
        ("$$\na\n=\nb\n$$\n", "$$\na\n=\nb\n$$"),
    ],
)  # fmt: skip
def test_marks_are_no_words(text: str, expected: str) -> None:
    assert shown(text) == [("", expected)]


@pytest.mark.parametrize(
    "text",
    [
        "export default settings to a file",
        "import the module first",
        "??? what now",
        "/// a comment of C sharp",
        "text `<!-- kept -->` text",
        "run foo <name> now",
        "<!-- never closed\n\n# Heading\n\nwords below",
        "<pre>\nnever closed\n\n# Heading\n\nwords below",
        "<div>\n```js\nopened in a block\n\nof tags",
        "a < b and c > d",
        "[^1]: The note.\n\nSee[^1].",
    ],
)
def test_what_looks_like_a_mark_stays(text: str) -> None:
    assert words(of(text)) >= set(WORD.findall(text)) - {"pre", "div"}


def test_a_fence_that_is_none_is_left_out() -> None:
    text = "<script>\n\n# A\n\n<div>\n```\none\n\ntwo\n</div>\n\n# B\n\n```\nthree\n"
    assert [t.count("```") for _, t in shown(text)] == [0, 2]


def test_marks_in_code_are_code() -> None:
    code = "::: tip\n<!-- x -->\nimport a from 'b'\n---\n!!! note\n# {#y}\n[a]: b"
    assert shown(f"```md\n{code}\n```\n") == [("", f"```md\n{code}\n```")]


@pytest.mark.parametrize(
    ("matter", "title", "metadata"),
    [
        ("---\ntitle: Reset\nyear: 2031\ndate: 2031-02-03\ntags: [a]\n---\n", "Reset",
         {"title": "Reset", "year": 2031, "date": "2031-02-03", "tags": ["a"]}),
        ("---\ntitle: Step 1: begin\nok: true\n---\n", "Step 1: begin",
         {"title": "Step 1: begin", "ok": "true"}),
        ('+++\ntitle = "Reset"\ndraft = false\n+++\n', "Reset", {"title": "Reset", "draft": False}),
        ("---\n---\n", "", {}),
    ],
)  # fmt: skip
def test_front_matter_is_metadata(matter: str, title: str, metadata: dict[str, object]) -> None:
    (found,) = of(matter + "Hold the button.\n")
    assert (found.title, found.text) == (title, "Hold the button.")
    assert {k: v for k, v in found.metadata.items() if k in metadata} == metadata


def test_what_stands_between_rules_is_no_front_matter() -> None:
    assert words(of("---\nJust some words here\n---\n\nMore.\n")) >= {"Just", "here", "More"}


# ---- titles, anchors and metadata -----------------------------------------------------------------------


def test_headings_are_plain_words() -> None:
    text = "# The `add()` **call** [see](https://x.org) {#add .big}\n\na\n\n"
    text += "## Data <dfn title='x'>sets</dfn>\n\nb\n"
    found = of(text)
    assert [p.title for p in found] == ["The add() call see", "The add() call see > Data sets"]
    assert [p.metadata["anchor"] for p in found] == ["add", "data-sets"]


def test_a_page_is_named_by_front_matter_then_by_its_heading_then_from_outside() -> None:
    assert shown("---\ntitle: Page\n---\n# Page\na\n## Part\nb\n")[1][0] == "Page > Part"
    assert shown("---\ntitle: Page\n---\n## Part\nb\n", name="Name")[0][0] == "Page > Part"
    assert shown("# Head\na\n", name="Name")[0][0] == "Head"
    assert shown("## Part\nb\n", name="Name")[0][0] == "Name > Part"


@pytest.mark.parametrize(
    ("site", "anchors", "url"),
    [
        ("github", ["über-uns-c", "über-uns-c-1", "日本"], "https://x.org/a%20b/d.md"),
        ("mkdocs", ["uber-uns-c", "uber-uns-c_1", "_1"], "https://x.org/a%20b/d/"),
        ("vitepress", ["uber-uns-c", "uber-uns-c-1", "日本"], "https://x.org/a%20b/d.html"),
    ],
)
def test_anchors_and_links_are_those_of_the_site(site: Any, anchors: list[str], url: str) -> None:
    text = "## Über uns: C\na\n## Über uns: C\nb\n## 日本\nc\n"
    found = cut(text, "a b/d.md", markdown=True, base_url="https://x.org", anchors=site)
    assert [p.metadata["anchor"] for p in found] == anchors
    assert [p.metadata["url"] for p in found] == [f"{url}#{anchor}" for anchor in anchors]


def test_headings_without_a_body_are_passages() -> None:
    text = "# FAQ\n\n## Open on Monday? No.\n\n## 2.1\n\n# Hours\n\n## Week\n\nNine to five.\n"
    assert shown(text) == [
        ("FAQ", "Open on Monday? No."),
        ("FAQ", "FAQ\n\n2.1"),
        ("Hours > Week", "Nine to five."),
    ]


def test_what_says_nothing_alone_has_its_heading() -> None:
    assert shown("# Limit\n\n42\n\n# Code\n\n{* ../a.py *}\n") == [
        ("Limit", "Limit\n\n42"),
        ("Code", "Code\n\n{* ../a.py *}"),
    ]


# ---- ids -----------------------------------------------------------------------------------------------

LONG = [
    f"Paragraph {n} speaks of thing{n}. "
    + f"It has word{n * 7 % 31} in it. " * 8
    + f"End of it{n}."
    for n in range(40)
]


def test_ids_of_repeated_headings_do_not_shift() -> None:
    log = "# Log\n\n## 2.1\n\n### Fixed\n\na\n\n### Added\n\nb\n\n## 2.0\n\n### Fixed\n\nc\n"
    newer = log.replace("## 2.1", "## 2.2\n\n### Fixed\n\nnew\n\n### Added\n\nmore\n\n## 2.1")
    before, after = ({p.text: p.id for p in of(text)} for text in (log, newer))
    assert before["a"] == "d.md#21/fixed" and before["c"] == "d.md#20/fixed"
    assert {after[text] for text in ("a", "c")} == {before["a"], before["c"]}


def test_ids_are_unique_whatever_is_repeated() -> None:
    body = "same words again. " * 200
    text = "top\n\n# Top\n\na\n\n# Top\n\na\n\n# !\n\n"
    text += f"# A/B\n\n{body}\n\n# A/B\n\n{body}\n\n## B {{#a-1}}\n\nc\n"
    found = [p.id for p in of(text)]
    assert len(found) == len(set(found)) > 8


@pytest.mark.parametrize("place", [0, 7, 20, 33, 40])
def test_an_insertion_leaves_the_passages_around_it(place: int) -> None:
    new = "Something new. " * 12
    text, longer = ("# H\n\n" + "\n\n".join(x) for x in (LONG, [*LONG[:place], new, *LONG[place:]]))
    before, after = ({(p.id, p.text) for p in of(t)} for t in (text, longer))
    assert len(before) > 12
    assert len(before - after) <= 3


def test_an_edit_within_a_part_leaves_its_id() -> None:
    text = "# H\n\n" + "\n\n".join(LONG)
    part = of(text)[4]
    old = part.text.split()[-1]
    assert text.count(old) == 1
    edited = {p.id: p.text for p in of(text.replace(old, "another."))}
    assert part.id in edited and edited[part.id] != part.text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("---\n# waax wbbx\n---", True),
        ("---\n\n## Opening hours\n\n---\nText.", True),
        ("+++\n# Opening hours\n+++\nText.", True),
        ("---\n# hours: of opening\n---\nText.", False),
        ("+++\n# hours = 8\n+++\nText.", False),
        ("---\ntitle: Desk\n# hours of opening\n---\nText.", False),
        ("---\n---\nText hours.", True),
    ],
)
def test_a_heading_between_two_rules_is_no_front_matter(text: str, kept: bool) -> None:
    said = " ".join(f"{p.title} {p.text}" for p in of(text)).lower()
    assert (("hours" in said) or ("waax" in said)) is kept


# ---- nothing is lost -----------------------------------------------------------------------------------

NAMES = st.integers(0, 400).map(lambda n: f"w{chr(97 + n % 26)}{chr(97 + n // 26)}x")
LINES = st.one_of(
    st.lists(NAMES, min_size=1, max_size=12).map(" ".join),
    st.tuples(
        st.sampled_from(
            ["# ", "## ", "> ", "- ", "  - ", "1. ", "    ", "\t", "> > ",
             "- > ", "[^1]: ", "| ", "::: ", "$$ "]
        ),
        NAMES,
        NAMES,
    ).map(lambda t: f"{t[0]}{t[1] if t[0] != '::: ' else 'tip'} {t[2]}"),
    st.sampled_from(
        ["", "", "```", "```js", "~~~", "---", "===", "| a | b |", "|---|---|", "<div>", "</div>", "$$",
         ":::", "///", "<!-- ", "> ```", "- ```", "  ```", "***", "<pre>", "\\", "`", "[", "](", "!!! note"]
    ),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(LINES, max_size=40), st.sampled_from([32, 64, 256]), st.sampled_from([0, 10]))
@pytest.mark.thorough
def test_no_word_is_lost_and_no_passage_is_empty(
    lines: list[str], tokens: int, overlap: int
) -> None:
    text = "\n".join(lines)
    found = of(text, chunking=Chunking(tokens, overlap))
    readable = re.sub(r"<!--.*?-->|::: tip", "", text, flags=re.DOTALL)
    wanted = set(re.findall(r"w..x", readable))
    assert wanted <= words(found)
    assert all(
        any(map(str.isalpha, p.text)) and p.text.strip() == p.text.strip("\n") for p in found
    )
    assert len({p.id for p in found}) == len(found)


def test_no_word_of_what_is_nested_too_deeply_is_lost() -> None:
    text = "".join("  " * n + f"- deep{chr(97 + n % 26)}{chr(97 + n // 26)}\n" for n in range(90))
    text += "\n" + ">" * 200 + " quoted\n\n" + "> " * 60 + "further\n"
    assert words(of(text)) == set(WORD.findall(text))
