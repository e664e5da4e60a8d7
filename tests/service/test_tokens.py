"""Feedback tokens: only what was signed here, for its time, its index and its tenant, is one."""

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from itsdangerous import URLSafeTimedSerializer

import access
from access import Served
from rag_flywheel.records import HashedUser
from rag_flywheel.service.problems import Refused
from rag_flywheel.service.tokens import Token, Tokens

TOKENS = Tokens(b"s" * 32, 60)
TOKEN = Token("1a22a862b98666d04f77696", "kb", "team-é", HashedUser("6a2b56f4"))
TEXT = TOKENS.make(TOKEN)
ANY = st.text() | st.text(alphabet="ABCDEFGHabcdefgh0123456789-_.=+/", max_size=200)


def refused(text: str, tokens: Tokens = TOKENS) -> str:
    with pytest.raises(Refused) as error:
        tokens.read(text)
    assert error.value.status == 401
    return error.value.name


@given(
    st.builds(
        Token,
        st.text(min_size=1),
        st.text(min_size=1),
        st.none() | st.text() | st.integers(),
        st.none() | st.builds(HashedUser, st.text(min_size=1)),
    ).filter(lambda token: _encodes(token))
)
def test_what_a_token_is_for_is_read_back(token: Token) -> None:
    read = TOKENS.read(TOKENS.make(token))
    assert read == token
    assert read.user is None or isinstance(read.user, HashedUser)


def _encodes(token: Token) -> bool:
    return all("\ud800" not in str(part) for part in vars(token).values())


@given(st.integers(0, len(TEXT) - 1), st.characters())
def test_a_token_with_another_character_is_none(at: int, character: str) -> None:
    altered = TEXT[:at] + character + TEXT[at + 1 :]
    if altered != TEXT:
        refused(altered)


def test_no_one_character_of_the_alphabet_can_stand_for_another() -> None:
    """Base64 has several texts for the same bytes unless their number is one of whole groups."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n"
    n = 0
    for at, was in enumerate(TEXT):
        for character in alphabet:
            if character != was:
                refused(TEXT[:at] + character + TEXT[at + 1 :])
                n += 1
    for at in range(len(TEXT)):
        refused(TEXT[:at] + TEXT[at + 1 :])  # one less
        refused(TEXT[:at])
    for more in ("=", "==", ".", "A", "\n", " ", "\x00"):
        refused(TEXT + more)
        refused(more + TEXT)
    assert n > 10_000


@given(ANY)
def test_any_other_text_is_none(text: str) -> None:
    refused(text)


def test_parts_of_two_tokens_are_none() -> None:
    other = TOKENS.make(Token("another", "kb", None, None))
    given_, at, signature = TEXT.split(".")
    given_2, at_2, signature_2 = other.split(".")
    refused(f"{given_}.{at_2}.{signature_2}")
    refused(f"{given_2}.{at}.{signature}")


def test_what_another_service_or_another_use_signed_is_none() -> None:
    refused(Tokens(b"t" * 32, 60).make(TOKEN))
    other_use = URLSafeTimedSerializer(b"s" * 32, salt="session").dumps(["r", "kb", None, None])
    refused(str(other_use))


def test_a_token_ends() -> None:
    tokens = Tokens(b"s" * 32, 1)
    text = tokens.make(TOKEN)
    assert tokens.read(text) == TOKEN
    time.sleep(2.1)  # the time in a token is in whole seconds
    assert refused(text, tokens) == "TokenExpired"


def test_a_text_that_would_unpack_to_much_is_none() -> None:
    refused("." + "eJzt" * 6000)
    refused("A" * 10**6)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("tokens")
    index = access.make_index(folder)
    other = access.make_index(folder, "other")
    with access.serve({"kb": index, "other": other}, votes_per_minute=0) as found:
        yield found


SENT = st.dictionaries(
    st.sampled_from(
        ["token", "passage_id", "verdict", "user_id", "retrieval_id", "tenant", "kind"]
    ),
    st.none() | st.text() | st.integers() | st.lists(st.text(), max_size=2),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ANY | SENT | st.binary(), st.sampled_from(["feedback", "answer-feedback", "signals", "missing"])
)
def test_nothing_that_is_sent_without_a_token_is_more_than_refused(
    service: Served, sent: object, path: str
) -> None:
    given_: dict[str, object] = {"json": sent}
    if isinstance(sent, bytes):
        given_ = {"content": sent, "headers": {"content-type": "text/plain"}}
    elif isinstance(sent, str):
        more = {"passage_id": "reset", "verdict": "helpful"} if path == "feedback" else {}
        given_ = {"json": {"token": sent, **more}}
    try:
        answer = service.client.post(f"/v1/browser/{path}", **given_)  # type: ignore[arg-type]
    except UnicodeEncodeError:  # this client cannot send it
        return
    assert answer.status_code in (401, 422)
    assert service.client.get("/v1/votes").json()["items"] == []


def test_a_token_of_another_index_is_refused(service: Served, tmp_path: Path) -> None:
    asked = {"query": "password", "feedback_token": True}
    token = service.client.post("/v1/retrieve", json=asked).json()["feedback_token"]
    body = {"token": token, "passage_id": "reset", "verdict": "helpful"}
    answer = service.client.post("/v1/indexes/other/browser/feedback", json=body)
    assert (answer.status_code, answer.json()["title"]) == (403, "Forbidden")
    foreign = access.make_index(tmp_path)
    with access.serve({"kb": foreign}) as other:
        answer = other.client.post("/v1/browser/feedback", json=body)
        assert (answer.status_code, answer.json()["title"]) == (401, "BadToken")


def test_an_answer_that_is_not_recorded_has_no_token(service: Served) -> None:
    asked = {"query": "password", "feedback_token": True, "record": False}
    answer = service.client.post("/v1/retrieve", json=asked).json()
    assert answer["id"] is None
    assert answer["feedback_token"] is None
    assert "feedback_token" not in service.client.post("/v1/retrieve", json={"query": "a"}).json()
