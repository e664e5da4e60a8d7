"""Reads the text of PDF files, page by page."""

import re
import threading
from typing import Any

from rag_flywheel.errors import InputError

_LOCK = threading.Lock()  # PDFium is not thread-safe
_HYPHEN = re.compile("(?:\ufffe|\xad|\x02)\\n?")  # at the end of a line, in the middle of a word


def pdf_text(data: bytes) -> str:
    """The text of a PDF file, a blank line between pages; words cut at line ends are whole again.

    Raises InputError for a file that needs a password, is damaged, or holds no text, as scans do.
    """
    import pypdfium2

    with _LOCK:
        try:
            document = pypdfium2.PdfDocument(data)
        except pypdfium2.PdfiumError as error:
            if "password" in str(error).lower():
                raise InputError("it needs a password; save a copy without one") from error
            raise InputError(f"it is no PDF that can be read ({error})") from error
        try:
            pages = [_page_text(document, number) for number in range(len(document))]
        finally:
            document.close()
    text = "\n\n".join(filter(None, pages))
    if not text:
        raise InputError("it holds no text: it may be a scan; recognise its text (OCR) first")
    return text


def _page_text(document: Any, number: int) -> str:
    page = document[number]
    try:
        text_page = page.get_textpage()
        try:
            text = str(text_page.get_text_bounded())
        finally:
            text_page.close()
    finally:
        page.close()
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    return _HYPHEN.sub("", text).strip()
