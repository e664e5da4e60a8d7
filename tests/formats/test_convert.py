"""Documents of every format: no word is lost, structure is kept, and damage is named."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import documents
from documents import FORMATS, damaged
from rag_flywheel.errors import InputError
from rag_flywheel.formats import convert as module
from rag_flywheel.formats.convert import SUFFIXES, convert
from rag_flywheel.formats.documents import Cutting, read_passages
from rag_flywheel.records import Passage

WORDS = ["alpha", "bravo", "charlie", "delta", "echo", "golf"]
# letters of several scripts, none of which markup is made of
LETTERS = st.characters(categories=["Ll", "Lu", "Lo"], exclude_characters="ªº")
SIX = st.lists(st.text(LETTERS, min_size=3, max_size=12), min_size=6, max_size=6, unique=True)


def words(text: str) -> set[str]:
    return set(re.findall(r"[^\W\d_]+", text))


def passages(folder: Path, name: str, data: bytes, cutting: Cutting | None = None) -> list[Passage]:
    (folder / name).write_bytes(data)
    return list(read_passages(folder / name, name, cutting or Cutting()))


def text(found: list[Passage]) -> str:
    return " ".join(f"{p.title} {p.text}" for p in found)


def shown(data: str, suffix: str = ".html") -> str:
    return convert(data.encode(), suffix).text


@pytest.mark.parametrize("suffix", sorted(set(FORMATS) - {".pdf"}))
@given(six=SIX)
@settings(max_examples=25, deadline=None)
def test_every_word_is_in_some_passage(
    suffix: str, six: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = passages(tmp_path_factory.mktemp("d"), f"x{suffix}", FORMATS[suffix](six))
    assert {w for word in six for w in words(word)} <= words(text(found))


@given(six=st.lists(st.from_regex(r"[a-zA-Z]{3,12}", fullmatch=True), min_size=6, max_size=6))
@settings(max_examples=25, deadline=None)
def test_every_word_of_a_pdf_is_in_some_passage(
    six: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = passages(tmp_path_factory.mktemp("d"), "x.pdf", documents.pdf(six))
    assert set(six) <= words(text(found))


def test_documents_cover_every_ending() -> None:
    same = {".markdown": ".md", ".htm": ".html", ".xhtml": ".html", ".tsv": ".csv"}
    assert {same.get(suffix, suffix) for suffix in SUFFIXES} == set(FORMATS) - {".jsonl"}


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_a_damaged_document_is_read_or_named(suffix: str, seed: int, tmp_path: Path) -> None:
    data = damaged(FORMATS[suffix](WORDS), seed)
    try:
        found = passages(tmp_path, f"x{suffix}", data)
    except InputError as error:
        assert f"x{suffix}" in str(error)
    else:
        assert len({p.id for p in found}) == len(found)


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_text_in_a_word_document_is_read_or_named(seed: int, tmp_path: Path) -> None:
    marked = "".join(f"<w:t>{word}</w:t>" for word in WORDS).encode()
    data = documents.docx("title", [damaged(marked, seed).decode("latin-1").replace("\0", "")])
    try:
        passages(tmp_path, "x.docx", data)
    except InputError as error:
        assert "x.docx" in str(error)


# HTML


def test_html_is_read_as_browsers_read_it() -> None:
    page = documents.html(["Alpha", "bravo", "charlie", "Delta", "echo", "golf"])
    assert shown(page) == (
        "# Alpha\n\nbravo **charlie**\n\n## Delta\n\n- echo\n- golf \\<bravo> a < charlie\n\n"
        "| Alpha | bravo |\n| --- | --- |\n| charlie | Delta |\n\n```sh\necho | golf\n```\n\n"
        "Alpha\n:   bravo\n\ncharlie\n\nDelta\n\n> echo\n>\n> golf [Alpha](https://example.org/)  bravo"
    )
    assert convert(page.encode(), ".html").title == "Alpha"


def test_of_a_page_with_a_main_part_only_that_is_read() -> None:
    page = "<body><header>Logo</header><main><h1>T</h1>words</main><footer>Imprint</footer>"
    assert shown(page) == "# T\n\nwords"


def test_a_page_without_a_heading_has_its_title() -> None:
    assert shown("<title>Opening  hours</title><p>nine") == "# Opening hours\n\nnine"


def test_comments_and_scripts_are_no_text() -> None:
    assert shown("<p>a<!-- secret --><script>x()</script><style>y</style>b") == "ab"


def test_text_that_looks_like_markup_stays_text(tmp_path: Path) -> None:
    page = "<p># one</p><p>&lt;!-- two --&gt;</p><p>List&lt;three&gt;</p><hr><p>four</p><hr>"
    found = passages(tmp_path, "x.html", page.encode())
    assert {"one", "two", "three", "four"} <= words(" ".join(p.text for p in found))


@pytest.mark.parametrize("mark", ["```", "~~~~", "`````js"])
def test_marks_of_code_in_the_text_of_a_page_open_no_code_block(mark: str, tmp_path: Path) -> None:
    data = f"<main><p>{mark} alpha</p><h2>bravo</h2><p>charlie</p></main>"
    found = passages(tmp_path, "page.html", data.encode())
    assert [p.title for p in found] == ["", "bravo"]


def test_an_escaped_tag_is_text(tmp_path: Path) -> None:
    found = passages(tmp_path, "page.html", b"<p>&lt;xs:element alpha name='bravo'/&gt;</p>")
    assert {"element", "alpha", "bravo"} <= words(text(found))


def test_elements_nested_too_deeply_are_named() -> None:
    with pytest.raises(InputError, match="nested too deeply"):
        shown("<div>" * 5000 + "x")


# reStructuredText


def test_rst_of_sphinx_is_read_by_what_it_says() -> None:
    page = """\
Title
=====

.. toctree::
   :maxdepth: 2

   install

.. comment that nobody sees

See :class:`~app.core.App`, :ref:`the guide <label>` and :kbd:`Ctrl+C`.

.. versionadded:: 2.0
   A flag.

.. confval:: html_theme
   :type: str
   :default: ``'alabaster'``

   The theme.

.. code-block:: python
   :emphasize-lines: 1

   print(1)

.. include:: /etc/passwd

.. raw:: html

   <b>x</b>
"""
    assert shown(page, ".rst") == (
        "# Title\n\nSee `app.core.App`, the guide and `Ctrl+C`.\n\nAdded in version 2.0: A flag.\n\n"
        "`html_theme`\n\nType: str\n\nDefault: `'alabaster'`\n\nThe theme.\n\n```python\nprint(1)\n```"
    )


def test_what_docutils_cannot_read_stays_as_it_is_written() -> None:
    page = "A\n=\n\n.. figure::\n\n   lost alpha\n\n=== ===\nbad table bravo\n\nB\n~\n\nC\n-\n\ncharlie\n"
    assert {"alpha", "bravo", "charlie"} <= words(shown(page, ".rst"))


def test_reading_rst_leaves_docutils_as_it_was() -> None:
    from docutils.parsers.rst import directives, roles

    before = dict(directives._directives), dict(roles._roles)
    shown(".. oddity:: x\n\n   :odd:`y`\n", ".rst")
    assert (directives._directives, roles._roles) == before


# Notebooks, MDX, spreadsheets, Word, PDF


def test_cells_of_a_notebook() -> None:
    page = documents.ipynb(["Alpha", "bravo", "c`x", "delta", "```", "golf"])
    assert shown(page, ".ipynb") == (
        "# Alpha\n\nbravo `c`x`\n\n````python\ndelta = 1  # ```\n````\n\ngolf"
    )


def test_a_code_block_that_a_cell_leaves_open_ends_with_it() -> None:
    cells = '[{"cell_type": "markdown", "source": "```\\nx"}, {"cell_type": "markdown", "source": "# T"}]'
    assert shown(f'{{"cells": {cells}}}', ".ipynb") == "```\nx\n```\n\n# T"


@pytest.mark.parametrize("opened", ["<!--", "> <!-- note", "- <pre>", "<SCRIPT>", "İ\n\n<style>"])
def test_a_comment_or_element_that_a_cell_leaves_open_ends_with_it(
    opened: str, tmp_path: Path
) -> None:
    sources = [f"alpha\n\n{opened} bravo", "charlie", "delta --> </pre></script></style> echo"]
    cells = [{"cell_type": "markdown", "source": source} for source in sources]
    found = passages(tmp_path, "n.ipynb", json.dumps({"cells": cells}).encode())
    assert words(text(found)) >= set(WORDS[:5])


def test_a_closed_comment_of_a_cell_goes_and_code_stays(tmp_path: Path) -> None:
    source = "alpha <!-- bravo -->\n\n<!--\ncharlie\n-->\n\n```html\n<!-- delta\n```"
    cells = [{"cell_type": "markdown", "source": source}]
    found = passages(tmp_path, "n.ipynb", json.dumps({"cells": cells}).encode())
    assert words(text(found)) & set(WORDS) == {"alpha", "delta"}
    assert "<!-- delta" in text(found)


@pytest.mark.parametrize("data", ["{", "[]", '{"a": 1}', "[" * 100_000])
def test_what_is_no_notebook_is_named(data: str) -> None:
    with pytest.raises(InputError, match="notebook"):
        shown(data, ".ipynb")


def test_components_of_mdx_go_and_what_they_hold_stays() -> None:
    page = documents.mdx(["Alpha", "bravo", "charlie", "delta", "echo", "Golf"])
    lines = [line for line in shown(page, ".mdx").split("\n") if line]
    assert lines == [
        "---", "title: Alpha", "---", "# Alpha", "**bravo**", "charlie",
        "```js", "delta()", "```", "echo `<Golf />`",
    ]  # fmt: skip


def test_an_export_may_go_on_over_blank_lines() -> None:
    page = "export const a = {\n  b: 1,\n\n  c: 2,\n};\n\nwords\n\nimports are words\n"
    assert shown(page, ".mdx").strip() == "words\n\nimports are words"


def test_an_export_that_is_never_closed_ends_with_its_paragraph() -> None:
    data = "alpha\n\nexport const a = {\n  b: 1,\n\nbravo\n\nexport const c = {\n\n# charlie\n"
    found = shown(data, ".mdx")
    assert words(found) & set(WORDS) == {"alpha", "bravo", "charlie"}
    assert "const" not in found


def test_each_row_of_a_spreadsheet_is_a_passage(tmp_path: Path) -> None:
    six = ["alpha", "bravo", "charlie", "delta", "echo", "golf"]
    found = passages(tmp_path, "x.csv", documents.csv(six).encode())
    assert [(p.id, p.text) for p in found] == [
        ("x.csv#row-1", "id: 1\nname: alpha\nlong, text: bravo, charlie"),
        ("x.csv#row-2", "id: 2\nname: delta\necho"),
        ("x.csv#row-3", "id: 3\nlong, text: golf"),
    ]
    assert found[0].metadata == {"source": "x.csv"}


@pytest.mark.parametrize(
    "data", ["a;b\n1;2,5\n", "sep=;\na;b\n1;2,5\n", "a\tb\n1\t2,5\n", "a|b\n1|2,5\n"]
)
def test_the_separator_is_that_of_the_first_row(tmp_path: Path, data: str) -> None:
    assert text(passages(tmp_path, "x.csv", data.encode())).split() == ["a:", "1", "b:", "2,5"]


def test_a_long_row_is_cut_and_a_lone_header_is_a_row(tmp_path: Path) -> None:
    long = " ".join(f"w{n}" for n in range(900))
    found = passages(tmp_path, "x.csv", f"a\n{long}\n".encode())
    assert [p.id for p in found][:2] == ["x.csv#row-1.1", "x.csv#row-1.2"]
    assert set(long.split()) <= set(text(found).split())
    assert [p.text for p in passages(tmp_path, "y.csv", b"just, words\n")] == ["just\nwords"]


def test_a_word_document_has_its_headings(tmp_path: Path) -> None:
    found = passages(tmp_path, "x.DOCX", documents.docx("Fees", ["Nine &amp; ten.", "Eleven."]))
    assert [(p.title, p.text.split("\n\n")) for p in found] == [
        ("Fees", ["Nine & ten.", "Eleven."])
    ]


def test_a_pdf_without_text_is_named() -> None:
    with pytest.raises(InputError, match="holds no text: it may be a scan"):
        convert(documents.pdf([]), ".pdf")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: bytes) -> module.Converted:
        raise ModuleNotFoundError("No module named 'docutils'")

    monkeypatch.setitem(module._CONVERTERS, ".rst", missing)
    with pytest.raises(InputError, match=r"docutils.*pip install 'rag-flywheel\[formats\]'"):
        convert(b"x", ".rst")


# A splitter of one's own


def test_a_splitter_gives_texts_or_passages(tmp_path: Path) -> None:
    def lines(text: str, source: str) -> list[str | Passage]:
        assert source == "x.md"
        return [
            *text.split("\n"),
            Passage("mine", "own", "", {"a": 1}),
            Passage(f"{source}#z", "z"),
        ]

    found = passages(tmp_path, "x.md", b"one\ntwo\n", Cutting(splitter=lines))
    assert [(p.id, p.text, dict(p.metadata)) for p in found] == [
        ("x.md#1", "one", {"source": "x.md"}),
        ("x.md#2", "two", {"source": "x.md"}),
        ("mine", "own", {"a": 1, "added_from": "x.md"}),
        ("x.md#z", "z", {"source": "x.md"}),
    ]


@pytest.mark.parametrize("parts", [None, "text", [1]])
def test_a_splitter_that_gives_something_else_is_named(tmp_path: Path, parts: object) -> None:
    with pytest.raises(InputError, match="the splitter returned"):
        passages(tmp_path, "x.md", b"one", Cutting(splitter=lambda *_: parts))  # type: ignore[arg-type, return-value]
