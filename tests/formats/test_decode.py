"""Encodings: a byte order mark or a declaration is believed, nothing is guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.errors import InputError
from rag_flywheel.formats.decode import decode

TEXT = "Größe, café, Łódź, 日本, 😀\nsecond line"


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", b"\xef\xbb\xbf"),
        ("utf-16-le", b"\xff\xfe"),
        ("utf-16-be", b"\xfe\xff"),
        ("utf-32-le", b"\xff\xfe\x00\x00"),
        ("utf-32-be", b"\x00\x00\xfe\xff"),
    ],
)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r")))
def test_a_byte_order_mark_says_the_encoding(encoding: str, mark: bytes, text: str) -> None:
    if text.startswith("\0"):
        return
    assert decode(mark + text.encode(encoding)) == text


@pytest.mark.parametrize(
    ("head", "encoding", "html"),
    [
        ('<html><head><meta charset="{}"></head>', "shift_jis", True),
        ("<meta charset={}>", "windows-1251", True),
        ('<meta http-equiv=Content-Type content="text/html; charset={}">', "gb18030", True),
        ('<?xml version="1.0" encoding="{}"?>', "koi8-r", True),
        ("<?xml version='1.0' encoding='{}'?>", "big5", False),
        ("# -*- coding: {} -*-", "euc-jp", False),
        ("% !TEX\n% vim: set fileencoding={} :", "iso-8859-15", False),
        (".. coding: {}", "cp1250", False),
    ],
)
def test_a_declared_encoding_is_used(head: str, encoding: str, html: bool) -> None:
    words = {"windows-1251": "Привет", "koi8-r": "мир", "iso-8859-15": "œuvre €", "cp1250": "Łódź"}
    text = head.format(encoding) + "\n" + words.get(encoding, "日本")
    assert decode(text.encode(encoding), html=html) == text


def test_latin_1_in_html_is_what_browsers_make_of_it() -> None:
    head = b"<meta charset=iso-8859-1>"
    assert decode(head + b"\x93quoted\x94 \x80", html=True)[len(head) :] == "“quoted” €"
    assert decode(head + b"\x81", html=True)[-1] == "\x81"


def test_a_declaration_of_utf_16_without_a_mark_means_utf_8() -> None:
    assert decode(b"<meta charset=utf-16>\xc3\xa9", html=True)[-1] == "é"


def test_prose_about_coding_declares_nothing() -> None:
    assert decode("On coding: nonsense-9 is fine é".encode()).endswith("é")
    assert decode(b"coding: idna\nx") == "coding: idna\nx"


@pytest.mark.parametrize(
    ("data", "html", "message"),
    [
        ("café".encode("latin-1"), False, "not UTF-8 .*declares no other"),
        (b"<meta charset=utf-8>\xff", True, "not UTF-8 .*declares utf-8"),
        (b"<meta charset=klingon>x", True, "'klingon', which is not known"),
        (b"# coding: hex\n41", False, "no encoding of text"),
        (b"\xff\xfea", False, "byte order mark"),
        (b"a\0b", False, "NUL bytes"),
        ("a\0".encode("utf-16"), False, "NUL bytes"),
        ("UTF-16 without a mark".encode("utf-16-le"), False, "NUL bytes"),
    ],
)
def test_what_is_not_as_it_says_is_refused(data: bytes, html: bool, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode(data, html=html)


def test_line_ends_are_line_feeds() -> None:
    assert decode(b"a\r\nb\rc\n") == "a\nb\nc\n"
    assert decode(TEXT.encode()) == TEXT
