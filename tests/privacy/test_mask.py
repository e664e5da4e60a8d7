"""What a mask takes from texts is nowhere in the folder, and what it leaves is learned from as before."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from forgetting import forms
from rag_flywheel import Candidate, Config, Flywheel, InputError, Passage
from stored_bytes import stored_bytes

MAIL = re.compile(r"secret\d+@example\.org")
SHAPES = (
    "secret{}@example.org",
    "Zoë Müßlein-{}",
    "+49 30 {} 77",
    "DE89 3704 {} 0130 00",
    "https://desk.example/reset?token={}&u=1",
    "Bearer eyJhbGciOi{}.e30.c2ln",
    "C:\\Users\\ann{}\\letters",
    'the "{}" file',
    "l'adresse n° {}",
    "张伟{}号",
    "Иван Петров {}",
    "محمد {}",
    "\U0001f512{}\U0001f511",
    "<b>{}</b> & co",
    "{}" + "7" * 120,
    "ann{}%40example.org",
    "ＦＵＬＬ{}ＷＩＤＴＨ",
    "{{'id': {}}}",
    '=HYPERLINK("x{}")',
    "AB-{}/cd;drop",
)


def mask(text: str) -> str:
    return MAIL.sub("MAIL", text)


class Watched(WordEncoder):
    """An encoder that keeps every text it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def _encode(self, texts: Any) -> Any:
        self.seen += texts
        return super()._encode(texts)


def in_bytes(root: Path) -> set[str]:
    """The secrets that are in the bytes of a folder, as they are or escaped."""
    files = [data for _, data in stored_bytes(root)]
    return {name for name in SECRETS if any(form in file for form in forms(name) for file in files)}


def ask(fw: Flywheel, name: str, field: str) -> None:
    """Put a secret into one field of what a user does."""
    texts = dict.fromkeys(
        ("query", "filter", "answer", "reason", "note", "text", "why", "metadata", "user", "session"), ""
    )  # fmt: skip
    texts[field] = name
    where: Any = {"owner": {"ne": name}} if field == "filter" else None
    asked = fw.retrieve(
        f"reset password {texts['query']}",
        where=where,
        user_id=texts["user"] or "ann",
        session_id=texts["session"] or "one",
    )
    assert asked.id is not None
    fw.answer(asked.id, f"press reset {texts['answer']}")
    shown = asked.hits[0].passage_id
    fw.feedback(asked.id, shown, "helpful", user_id=texts["user"] or "ann", reason=texts["reason"])
    fw.answer_feedback(asked.id, "helpful", answer=f"press it {texts['answer']}", user_id="bob")
    fw.signal(asked.id, "edited", f"press reset now {texts['answer']}", user_id="cy")
    fw.adopted(asked.id, used=True, why=texts["why"], user_id="dan")
    fw.missing(asked.id, texts["note"], user_id="ann")
    fw.correct(asked.id, text=f"write to them {texts['text']}", user_id="ann")
    fw.pin(f"where to reset {texts['query']}", shown)
    given = [
        Candidate("x", f"a text of it {texts['metadata']}", 1.0, texts["metadata"], {"by": [name]}),
        Candidate("y", "another text", 0.5, "", {"in": {"deep": texts["metadata"]}}),
    ]
    found = fw.rerank(f"reset password {texts['query']}", given, user_id="ann")
    assert {h.passage_id: (h.text, h.title, h.metadata) for h in found.hits} == {
        c.passage_id: (c.text, c.title, c.metadata) for c in given
    }  # the caller has them as they were given
    fw.feedback(found.id, "x", "helpful", user_id="ann", reason=texts["reason"])


FIELDS = (
    "query",
    "filter",
    "answer",
    "reason",
    "note",
    "text",
    "why",
    "metadata",
    "user",
    "session",
)


SECRETS = [shape.format(100_000 + i) for i in range(len(FIELDS)) for shape in SHAPES]
FIELD_OF = {name: FIELDS[i // len(SHAPES)] for i, name in enumerate(SECRETS)}
_ANY = re.compile("|".join(map(re.escape, SECRETS)))


def mask_any(text: str) -> str:
    return _ANY.sub("MASKED", text)


def used(root: Path, names: Sequence[str], *, masked: bool, encoder: WordEncoder) -> None:
    config = Config(encoder="", rephrased_within_s=0.0)
    with Flywheel.open(
        root, encoder=encoder, config=config, mask=mask_any if masked else None
    ) as fw:
        fw.add([Passage("reset", "press reset for a new password", "", {"owner": "desk"})])
        fw.add([Passage("mail", "write a mail to the desk", "", {"owner": "mail"})])
        for name in names:
            ask(fw, name, FIELD_OF[name])
        known = root.parent / f"{root.name}.csv"
        with known.open("w", newline="", encoding="utf-8") as file:
            rows = [(f"how do I reset {name}", "reset") for name in names]
            csv.writer(file).writerows([("query", "passage_id"), *rows])
        fw.golden.add(known)
        fw.refresh()
        for item in fw.review.items()[:5]:
            fw.review.accept(item.id)


def test_no_secret_is_in_the_bytes_of_a_folder_or_seen_by_the_encoder(tmp_path: Path) -> None:
    encoder = Watched()
    used(tmp_path / "kb", SECRETS, masked=True, encoder=encoder)
    assert in_bytes(tmp_path / "kb") == set()
    assert len(SECRETS) == len(set(SECRETS)) == 200
    assert not [text for text in encoder.seen if _ANY.search(text)]
    assert [text for text in encoder.seen if "MASKED" in text]


def test_without_a_mask_the_same_use_leaves_them(tmp_path: Path) -> None:
    some = SECRETS[::9]  # of every shape
    used(tmp_path / "kb", some, masked=False, encoder=WordEncoder())
    assert in_bytes(tmp_path / "kb") == set(some)  # as known answers, all of them


def test_masked_queries_are_one_question(tmp_path: Path) -> None:
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), mask=mask) as fw:
        fw.add([Passage("reset", "press reset"), Passage("mail", "write a mail")])
        asked = fw.retrieve("letter of secret1@example.org", user_id="ann")
        assert asked.query == "letter of MAIL"
        fw.feedback(asked.id, "mail", "helpful", user_id="ann")
        again = fw.retrieve("letter of secret2@example.org", record=False).hits[0]
        assert (again.passage_id, len(again.explanation.votes)) == ("mail", 1)
        fw.pin("who is secret3@example.org", "reset")
        known = fw.retrieve("who is secret4@example.org", record=False).hits[0]
        assert [each.same for each in known.explanation.known] == [True]
        assert fw.unpin("who is secret5@example.org", "reset")


def test_the_tenant_and_what_a_filter_keeps_are_as_given(tmp_path: Path) -> None:
    config = Config(encoder="", tenant_key="owner")
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config, mask=mask) as fw:
        own = {"owner": "secret1@example.org"}
        fw.add(
            [Passage("p", "press reset", "", own), Passage("q", "press reset", "", {"owner": "x"})]
        )
        asked = fw.retrieve("reset", tenant="secret1@example.org")
        assert [hit.passage_id for hit in asked.hits] == ["p"]
        fw.feedback(asked.id, "p", "helpful", tenant="secret1@example.org")
        fw.correct(asked.id, "p", tenant="secret1@example.org")
        assert fw.gaps(tenant="x") == []


def raising(text: str) -> str:
    raise KeyError(text)


@pytest.mark.parametrize(
    ("broken", "message"),
    [(raising, "mask raised KeyError"), (lambda text: None, "mask returned NoneType")],
)
def test_a_broken_mask_stores_nothing_and_says_nothing_of_the_text(
    tmp_path: Path, broken: Any, message: str
) -> None:
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), mask=broken) as fw:
        fw.add([Passage("p", "press reset")])
        with pytest.raises(InputError, match=message) as raised:
            fw.retrieve("secret1@example.org")
        assert "secret1" not in str(raised.value)
        assert raised.value.__cause__ is None
        assert fw.status().n_retrievals == 0
