"""Words of scripts without blanks, names by their parts, folded letters and stems by language."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.index.tokenizer import (
    is_one_name,
    stems_in,
    tokenize,
    tokenizer_for,
    tokenizer_of,
)
from thorough import thorough


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("発注書を", ["発注", "注書", "書を"]),
        ("カタログ", ["カタ", "タロ", "ログ"]),
        ("배송비는 무료", ["배송", "송비", "비는", "무료"]),
        ("税", ["税"]),
        ("ຕລາດ", ["ຕລ", "ລາ", "າດ", "ຕລາ", "ລາດ"]),
        ("ផ្សារ", ["ផ្", "្ស", "សា", "ារ", "ផ្ស", "្សា", "សារ"]),
        ("ဈေး", ["ဈေ", "ေး", "ဈေး"]),
        ("第12号は3GB", ["第", "12", "号は", "3gb", "gb"]),
        ("ＡＢＣ－４２", ["abc42", "abc", "42"]),
        ("ราคา๔๕บาท", ["รา", "าค", "คา", "ราค", "าคา", "45", "บา", "าท", "บาท"]),
        ("ﾊﾝﾊﾞｰｸﾞ", ["ハン", "ンバ", "バー", "ーグ"]),
    ],
)
def test_scripts_without_blanks_become_overlapping_pairs(text: str, expected: list[str]) -> None:
    assert tokenize(text) == expected


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("max_retry_count", {"maxretrycount", "max", "retri", "count"}),
        ("parseHttpHeader", {"parsehttphead", "pars", "http", "header"}),
        ("XMLReader", {"xmlreader", "xml", "reader"}),
        ("kube-proxy.service", {"kubeproxyservic", "kube", "proxi", "servic"}),
        ("/var/log/app.log", {"varlogapplog", "var", "log", "applog", "app"}),
        ("QX-T88R5", {"qxt88r5", "qx", "t88r5", "t88", "88r", "r5", "88"}),
        ("v4.17.2", {"v4.17.2", "v4", "17", "2"}),
        ("python3", {"python3"}),
        ("serial20317", {"serial20317", "serial", "20317"}),
        ("APIs", {"api"}),
    ],
)
def test_a_name_is_indexed_joined_and_by_its_parts(name: str, parts: set[str]) -> None:
    assert set(tokenize(name)) == parts


@pytest.mark.parametrize("other", ["QXT88R5", "qx_t88r5", "QX.T88R5", "qx/t88r5", "(QX-T88R5)"])
def test_a_name_in_another_spelling_has_its_joined_form(other: str) -> None:
    assert "qxt88r5" in tokenize("QX-T88R5") and "qxt88r5" in tokenize(other)


@pytest.mark.parametrize(
    ("word", "plain"),
    [
        ("Gdańsk", "Gdansk"),
        ("Tromsø", "Tromso"),
        ("Đakovo", "Dakovo"),
        ("Œdipe", "Oedipe"),
        ("Þingvellir", "Thingvellir"),
        ("Iğdır", "Igdir"),
        ("Strauß", "Strauss"),
        ("Færøerne", "Faeroerne"),
        ("Αθήνα", "Αθηνα"),
        ("ёлка", "елка"),
        ("pass\u00adword", "password"),
        ("ﬁle", "file"),
        ("non\u2011stop", "non-stop"),
    ],
)
def test_letters_are_found_without_their_marks(word: str, plain: str) -> None:
    for language in ("english", "none"):
        assert tokenizer_of(language).tokenize(word) == tokenizer_of(language).tokenize(plain)


def test_a_letter_with_a_mark_that_is_another_letter_stays() -> None:
    assert tokenize("йод") != tokenize("иод")


@pytest.mark.parametrize(
    ("language", "texts"),
    [
        ("german", ["Die Häuser", "das Haus ist in den Häusern"]),
        ("french", ["des maisons", "la maison"]),
        ("russian", ["ключи", "ключами"]),
        ("dutch", ["de boeken", "het boek"]),
        ("spanish", ["las cuentas", "una cuenta"]),
        ("turkish", ["kitaplar", "kitap"]),
    ],
)
def test_forms_of_a_word_are_one_stem_and_stop_words_none(language: str, texts: list[str]) -> None:
    first, second = (set(tokenizer_of(language).tokenize(text)) for text in texts)
    assert len(first) == 1 and first == second


def test_without_a_language_words_are_as_they_are() -> None:
    assert tokenizer_of("none").tokenize("The Cats are here") == ["the", "cats", "are", "here"]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("english", "How do I get to the desk? It is on the left of the door, and open from nine."),
        ("german", "Wie komme ich an den Schalter? Er ist links von der Tür und ab neun offen."),
        ("dutch", "Hoe kom ik bij de balie? Die is links van de deur en open vanaf negen uur."),
        ("french", "Comment aller au guichet ? Il est à gauche de la porte, et ouvre à neuf."),
        ("spanish", "¿Cómo llego a la ventanilla? Está a la izquierda de la puerta y abre a las."),
        ("italian", "Come arrivo allo sportello? È a sinistra della porta e apre alle nove."),
        ("portuguese", "Como chego ao balcão? Fica à esquerda da porta e abre às nove, não antes."),
        ("polish", "Jak dojść do okienka? Jest na lewo od drzwi i jest czynne od dziewiątej."),
        ("swedish", "Hur kommer jag till disken? Den är till vänster om dörren och öppnar nio."),
        (
            "russian",
            "Как пройти к стойке? Она слева от двери и открыта с девяти, но не в выходные.",
        ),
        ("english", "窗口在门的左边，九点开门。"),
        ("english", "창구는 문 왼쪽에 있으며 아홉 시에 엽니다."),
        ("english", "Reset 4711. Error 12-A. OK."),
        ("english", ""),
    ],
)
def test_the_language_is_found_by_stop_words(language: str, text: str) -> None:
    assert tokenizer_for("auto", [text]).language == language
    assert tokenizer_for("french", [text]).language == "french"


@pytest.mark.parametrize(
    "text",
    [
        "文" * 350_000,
        "ก" * 350_000,
        "a" * 1_000_000,
        "aB" * 500_000,
        "B" * 1_000_000,
        "a1" * 500_000,
        "a-" * 500_000,
        "a/" * 500_000,
        "." * 1_000_000,
        "x\u0301" * 500_000,
        "Ab1_" * 250_000,
    ],
    ids=lambda text: repr(text[:4]),
)
def test_a_megabyte_without_blanks_takes_at_most_seconds(text: str) -> None:
    began = time.process_time()
    words = tokenize(text)
    assert time.process_time() - began < 5.0
    assert all(len(word) <= 130 for word in words)


@thorough(100, few=25)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), st.text(max_size=20))
def test_a_text_has_the_words_of_its_parts(text: str, more: str) -> None:
    assert tokenize(f"{text} {more}") == tokenize(text) + tokenize(more)
    folded = unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)
    assert tokenize(folded[0]) == tokenize(folded[1])
    words = tokenize(text)
    wanted = list(dict.fromkeys(words))
    assert list(stems_in([text], wanted, tokenizer_of("english"))) == [(len(wanted), len(words))]


@pytest.mark.parametrize(
    "query", ["QX-T88R5", " 20317 ", "password?", "発注書", "โรงแรม", "getUser"]
)
def test_one_name(query: str) -> None:
    assert is_one_name(query)


@pytest.mark.parametrize("query", ["reset password", "発注書はどこで受け取れますか", "", "x" * 100])
def test_no_one_name(query: str) -> None:
    assert not is_one_name(query)
