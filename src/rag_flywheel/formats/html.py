"""Converts HTML to Markdown: the main part of a page, without navigation, scripts and styles."""

import re
import warnings
from typing import Any

from rag_flywheel.errors import InputError

_DROPPED = (
    "script, style, template, noscript, nav, [role=navigation], button, svg, hr, iframe, object"
)
_BLOCKS = [
    "address", "aside", "center", "details", "dialog", "fieldset", "figcaption", "figure", "footer", "form",
    "header", "hgroup", "legend", "menu", "optgroup", "option", "search", "select", "summary", "textarea",
]  # fmt: skip
"""Elements on lines of their own, which the converter would run together."""
_PERMALINK = {"", "#", "¶", "§", "🔗", "\uf0c1"}
_RAW = {"pre", "code", "kbd", "samp", "tt"}
_LANGUAGE = re.compile(r"(?:language|lang|highlight)-([\w+#.-]+)")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_BLOCK = re.compile(r"^(\s*)(#{1,6}(?=\s)|>(?=\s)|`{3}|~{3})")


def html_to_markdown(text: str) -> tuple[str, str]:
    """(Markdown, the page's title or "") of an HTML page, parsed as browsers do.

    Of a page with a <main> element, that is read; of any other, the body. Raises InputError.
    """
    from bs4 import BeautifulSoup

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of XHTML, and of texts that look like a file's name
        soup = BeautifulSoup(text, "html5lib")
    title = "" if soup.title is None else " ".join(soup.title.get_text().split())
    main = soup.select_one("main, [role=main]") or soup.body
    if main is None:
        return "", title
    try:
        return _markdown(main, title), title
    except RecursionError as error:
        raise InputError("its elements are nested too deeply to be read") from error


def _markdown(main: Any, title: str) -> str:
    from markdownify import MarkdownConverter

    for node in main.select(_DROPPED):
        node.decompose()
    for node in main.find_all(_BLOCKS):
        node.name = "div"
    for node in main.select("span.literal"):  # as docutils writes code
        node.name = "code"
    _tidy_links(main)
    for node in main.find_all("img"):
        node.replace_with(f" {node.get('alt') or ''} ")
    _escape(main)
    converter = MarkdownConverter(
        heading_style="ATX",
        bullets="-",
        escape_asterisks=False,
        escape_underscores=False,
        table_infer_header=True,
        code_language_callback=_language,
    )
    markdown = str(converter.convert_soup(main)).strip()
    markdown = re.sub(r"[ \t]+$", "", markdown, flags=re.MULTILINE)
    markdown = re.sub(r"\n{3,}", "\n\n", markdown)
    if title and main.find("h1") is None:
        return f"# {title}\n\n{markdown}"
    return markdown


def _tidy_links(main: Any) -> None:
    """Links within the site become their text; marks that link to the place itself go."""
    for link in main.find_all("a"):
        if link.get_text().strip() in _PERMALINK and link.find("img") is None:
            link.decompose()
        elif not str(link.get("href", "")).startswith(("http://", "https://", "mailto:")):
            link.unwrap()


def _escape(main: Any) -> None:
    """Text that Markdown would take for a tag, heading or fence is escaped; white space becomes a blank."""
    for node in list(main.find_all(string=True)):
        if type(node).__name__ != "NavigableString":
            node.extract()  # a comment
        elif not any(parent.name in _RAW for parent in node.parents):
            plain = re.sub(r"\s+", " ", str(node))
            plain = _TAG.sub(r"\\<", plain.replace("<!--", "&lt;!--"))
            node.replace_with(_BLOCK.sub(r"\1\\\2", plain))


def _language(node: Any) -> str | None:
    """The language of a code block, by the classes of it and of what it stands in."""
    inside = node.find("code")
    for element in (node, inside, *list(node.parents)[:2]):
        if element is not None and (found := _LANGUAGE.search(_classes(element))):
            return found[1]
        if element is not None and "code" in (names := _classes(element).split()):
            return next((name for name in names if name not in {"code", "literal-block"}), None)
    return None


def _classes(element: Any) -> str:
    found = element.get("class") or []
    return found if isinstance(found, str) else " ".join(found)
