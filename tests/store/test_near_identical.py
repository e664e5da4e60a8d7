import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.store.near_identical import Words, is_copy, may_be_copy, near_identical, sketch

LONG = (
    "To reset the device hold the side button for ten seconds until the light blinks, and then let it "
    "go so that the machine restarts by itself and asks for the language."
)
CHINESE = "把设备重置后请等待指示灯亮起，然后再次打开电源并选择语言"


def judged(old: str, new: str, least: float = 0.95) -> bool:
    return near_identical(Words.of(old), Words.of(new), least)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Parking is fre on Sunday.", "Parking is free on Sunday."),  # one word of five
        ("hold teh button now please", "Hold the **button** now, please!"),
        ("Log in to the admin page", "Login to the admin page"),
        ("Open settings", "Open the settings"),  # a small word
        ("The café  opens\nearly", "the cafe\u0301 opens early"),
        (LONG, LONG.replace("machine", "device")),  # one of thirty
        (LONG, f"{LONG} Again."),
        (
            "把设备重置后请等待指示灯亮起，然后再次打开电源并选择语言",
            "把设备重置后请等待指示灯亮起，然后再次打开电源并选择语系",
        ),
    ],
)
def test_edits_that_keep_the_meaning(old: str, new: str) -> None:
    assert judged(old, new) and judged(new, old)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Parking is free on Sunday.", "Parking is free on Monday."),
        ("Parking is free on Sunday.", "Parking is not free on Sunday."),
        ("You can park here on Sunday", "You can't park here on Sunday"),
        ("Refunds are paid in 30 days.", "Refunds are paid in 90 days."),
        ("it is at -5 degrees", "it is at 5 degrees"),
        ("the value is valid here", "the value is invalid here"),  # another first letter
        ("the red cable fits", "the blue cable fits"),
        ("use a < b here please", "use a > b here please"),
        ("write it in C# for us", "write it in C++ for us"),
        (LONG, LONG.replace("ten", "five")),
        (LONG, LONG.replace("hold", "never hold")),
        (LONG, LONG.replace("until", "before")),
        (
            "按住按钮十秒钟直到指示灯闪烁为止然后松开按钮等待机器自动重新启动",
            "按住按钮五秒钟直到指示灯闪烁为止然后松开按钮等待机器自动重新启不",
        ),
        (LONG, "Refunds are paid."),
    ],
)
def test_edits_to_another_meaning(old: str, new: str) -> None:
    assert not judged(old, new) and not judged(new, old)


def test_a_clause_that_is_added_may_say_anything() -> None:
    long = " ".join([LONG] * 6)
    assert judged(long, f"{long} This does not work before 2031.")


@pytest.mark.parametrize("n", [20, 100, 2000, 4000])
def test_the_share_is_that_of_difflib(n: int) -> None:
    words = [f"{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676)}xy" for i in range(n)]
    changed = words[:]
    for i in range(0, n, 20):
        changed[i] = "zzzzzzz"  # 1 of 20: a ratio of exactly 0.95
    assert judged(" ".join(words), " ".join(changed), 0.95)
    assert not judged(" ".join(words), " ".join(changed), 0.96)
    assert not judged(" ".join(words), " ".join(changed), 1.0)
    assert judged(" ".join(words), " ".join(words).upper(), 1.0)


def test_copies_differ_by_marks_or_a_misspelt_word_but_by_no_name() -> None:
    def copies(one: str, other: str) -> bool:
        return is_copy(Words.of(one), Words.of(other))

    assert copies(LONG, LONG.upper().replace(",", " "))
    assert copies(LONG, LONG.replace("button", "buton"))
    assert not copies(LONG, LONG.replace("machine", "device"))
    ada = LONG.replace("machine", "Miller")
    assert not copies(ada, ada.replace("Miller", "Müller"))
    assert not copies("hold the button", "hold the buton")  # too short to be sure


def test_texts_without_words_are_told_apart() -> None:
    assert not judged("---", "***") and judged("---", "---")
    assert Words.of(" ").folded == ()


def test_sketches_find_edits_and_not_other_texts() -> None:
    rng = random.Random(0)
    vocabulary = [f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(600)]
    found = others = 0
    for _ in range(300):
        words = rng.choices(vocabulary, k=rng.randrange(5, 200))
        edited = words[:]
        edited[rng.randrange(len(words))] = "another"
        keys = set(sketch(Words.of(" ".join(words))))
        found += bool(keys & set(sketch(Words.of(" ".join(edited)))))
        others += bool(keys & set(sketch(Words.of(" ".join(rng.choices(vocabulary, k=30))))))
    assert found >= 297 and others <= 200


@pytest.mark.parametrize("n", [4_000, 20_000, 200_000])
def test_long_and_crafted_texts_take_little_time(n: int) -> None:
    one = Words.of("a b " * (n // 2))
    other = Words.of("b a " * (n // 2 - 1) + "c d")
    began = time.process_time()
    near_identical(one, other, 0.95)
    assert time.process_time() - began < 2.0


TEXTS = st.text(alphabet="aB0 1.,:/-+#'!<>=%$_~\n|é你\ufb01\u2019İ€\u0653", max_size=60)
SENTENCES = st.lists(
    st.sampled_from(["Hold", "the", "buton", "button", "bottom", "7", "c++"]), max_size=50
).map(" ".join)


@given(TEXTS)
def test_words_of_ascii_are_those_of_any_text(text: str) -> None:
    plain = text.encode("ascii", "ignore").decode()
    with_more = Words.of(f"{plain} é")
    if Words.of(plain).folded != tuple(plain.casefold().split()):  # there is some word
        assert Words.of(plain).folded == with_more.folded[:-1]
        assert Words.of(plain).raw == with_more.raw[:-1]


@given(st.one_of(st.tuples(TEXTS, TEXTS), st.tuples(SENTENCES, SENTENCES)), st.data())
def test_no_copy_is_ruled_out(texts: tuple[str, str], data: st.DataObject) -> None:
    one, other = texts
    at = data.draw(st.integers(0, len(one)))
    for new in (one, other, one.upper(), f"{one[:at]}x{one[at:]}", f"{one[:at]} ,{one[at:]}"):
        if is_copy(Words.of(one), Words.of(new)):
            assert may_be_copy(one, Words.of(new))


def test_texts_with_other_words_are_ruled_out() -> None:
    assert not may_be_copy(
        LONG, Words.of(LONG.replace("machine", "engine").replace("side", "rear"))
    )
    assert may_be_copy(LONG.upper(), Words.of(LONG))
