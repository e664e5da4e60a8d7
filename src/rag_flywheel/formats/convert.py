"""Turns the bytes of a document into Markdown or plain text, by the ending of its file.

The converters of HTML, reStructuredText, Word and PDF need the extra `formats`, and load when
first used.
"""

from collections.abc import Callable
from dataclasses import dataclass

from rag_flywheel.errors import InputError
from rag_flywheel.formats.decode import decode
from rag_flywheel.formats.docx import docx_to_html
from rag_flywheel.formats.html import html_to_markdown
from rag_flywheel.formats.mdx import mdx_to_markdown
from rag_flywheel.formats.notebook import notebook_to_markdown
from rag_flywheel.formats.pdf import pdf_text
from rag_flywheel.formats.rst import rst_to_html

TABLES = {".csv": None, ".tsv": "\t"}
"""Separators by the ending of a spreadsheet; None: what its first row has most of."""


@dataclass(frozen=True)
class Converted:
    """A document's text; markdown: whether it is Markdown; title: of the whole, "" without one."""

    text: str
    markdown: bool = True
    title: str = ""


def _html(data: bytes) -> Converted:
    text, title = html_to_markdown(decode(data, html=True))
    return Converted(text, title=title)


def _docx(data: bytes) -> Converted:
    return Converted(html_to_markdown(docx_to_html(data))[0])


def _rst(data: bytes) -> Converted:
    return Converted(html_to_markdown(rst_to_html(decode(data)))[0])


_CONVERTERS: dict[str, Callable[[bytes], Converted]] = {
    **dict.fromkeys((".md", ".markdown"), lambda data: Converted(decode(data))),
    ".txt": lambda data: Converted(decode(data), markdown=False),
    ".mdx": lambda data: Converted(mdx_to_markdown(decode(data))),
    ".ipynb": lambda data: Converted(notebook_to_markdown(decode(data))),
    **dict.fromkeys((".html", ".htm", ".xhtml"), _html),
    ".rst": _rst,
    ".docx": _docx,
    ".pdf": lambda data: Converted(pdf_text(data), markdown=False),
}
SUFFIXES = frozenset({*_CONVERTERS, *TABLES})
"""The endings, in lower case, of files that are cut into passages."""


def convert(data: bytes, suffix: str) -> Converted:
    """The text of a document. suffix: the ending of its file, in lower case, one of SUFFIXES.

    Raises InputError, whatever is in the file.
    """
    try:
        return _CONVERTERS[suffix](data)
    except InputError:
        raise
    except ImportError as error:
        raise InputError(
            f"reading {suffix} needs more packages ({error}); "
            "pip install 'rag-flywheel[formats]' brings them"
        ) from error
    except Exception as error:  # converters raise anything on damaged files
        what = " ".join(str(error).split())[:200]
        raise InputError(
            f"it cannot be read as {suffix} ({type(error).__name__}: {what})"
        ) from error
