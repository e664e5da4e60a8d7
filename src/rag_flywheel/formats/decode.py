"""Decodes text files: by a byte order mark, by the encoding that a file declares, else as UTF-8.

An encoding is never guessed: a file that is not what it says is refused.
"""

import codecs
import re

from rag_flywheel.errors import InputError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_XML = re.compile(rb"""\s*<\?xml\s[^>]{0,200}?encoding\s*=\s*["']([\w.:-]{1,40})["']""")
_META = re.compile(rb"""<meta\s[^>]{0,300}?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE)
_CODING = re.compile(rb"coding[:=][ \t]*([\w.-]{1,40})")  # as PEP 263 has it, in two first lines
_HEAD = 4096
_SPECIAL = {"idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined"}
_LATIN = {"ascii", "iso8859-1"}


def decode(data: bytes, *, html: bool = False) -> str:
    """The text of a file, with line ends as \\n.

    html: whether <meta charset> is read, and Latin-1 is meant as browsers take it (Windows-1252).
    Raises InputError for bytes that are not of the encoding, an unknown one, and NUL bytes.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            text = _decoded(data[len(mark) :], encoding, "its byte order mark says so")
            break
    else:
        encoding, why = _declared(data, html=html)
        text = _decoded(data, encoding, why)
    if "\0" in text:
        raise InputError("it holds NUL bytes; expected text: is it of another kind?")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _declared(data: bytes, *, html: bool) -> tuple[str, str]:
    """(encoding, why this one) of a file without a byte order mark."""
    first_lines = b"\n".join(data[:_HEAD].split(b"\n", 2)[:2])
    found = _XML.match(data[:_HEAD]) or (_META.search(data[:_HEAD]) if html else None)
    if found is None and not html:
        found = _CODING.search(first_lines)
    if found is None:
        return "utf-8", "it declares no other encoding"
    name = found[1].decode("ascii")
    try:
        encoding = codecs.lookup(name).name
    except LookupError:
        encoding = ""
    if not html and _CODING is found.re and (not encoding or encoding in _SPECIAL):
        return "utf-8", "it declares no other encoding"  # a sentence with "coding:" in it
    if not encoding or encoding in _SPECIAL:
        raise InputError(f"it declares the encoding {name!r}, which is not known; convert it first")
    if encoding.startswith(("utf-16", "utf-32")):  # it could not have been read so far
        return "utf-8", f"a file that declares {name} without a byte order mark is read as UTF-8"
    if html and encoding in _LATIN:
        encoding = "cp1252"
    return encoding, f"it declares {name}"


def _decoded(data: bytes, encoding: str, why: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "cp1252":  # browsers read the five bytes that it does not define as Latin-1
            return data.decode("latin-1")
        name = "UTF-8" if encoding == "utf-8" else encoding
        raise InputError(
            f"it is not {name} ({why}; {error.reason} at byte {error.start})"
        ) from error
    except LookupError as error:  # such as "hex", which decodes to no text
        raise InputError(
            f"{encoding!r} is no encoding of text ({why}); convert it first"
        ) from error
