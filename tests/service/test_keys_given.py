"""How a request names its key, and who is served without one."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import access
from access import Served
from shared_state import state_options

PATH = "/v1/metadata-keys"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    with access.serve({"kb": access.make_index(tmp_path)}) as found:
        found.add_key("reader", "read")
        found.add_key("other", "read")
        yield found


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_is_written_in_any_case(service: Served, scheme: str) -> None:
    headers = {"authorization": f"{scheme} {service.keys['reader']}"}
    assert service.client.get(PATH, headers=headers).status_code == 200


def test_both_headers_may_name_the_same_key_and_not_two(service: Served) -> None:
    reader, other = service.keys["reader"], service.keys["other"]
    both = [("authorization", f"Bearer {reader}"), ("x-api-key", reader)]
    assert service.client.get(PATH, headers=both).status_code == 200
    for second in (other, "", "fw_unknown"):
        for pair in (
            [("authorization", f"Bearer {reader}"), ("x-api-key", second)],
            [("authorization", f"Bearer {second}"), ("x-api-key", reader)],
            [("authorization", f"Bearer {reader}"), ("authorization", f"Bearer {second}")],
            [("x-api-key", reader), ("x-api-key", second)],
        ):
            answer = service.client.get(PATH, headers=pair)
            assert answer.status_code == 401, pair
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Basic {key}"},
        {"authorization": "{key}"},
        {"authorization": "Bearer{key}"},
        {"authorization": "Bearer {key} x"},
        {"authorization": "Bearer {key}x"},
        {"authorization": "Bearer fw_{key}"},
        {"authorization": "Bearer \u00ff"},
        {"x-api-key": ""},
        {"x-api-key": "Bearer {key}"},
        {"x_api_key": "{key}"},
        {"cookie": "key={key}"},
    ],
)
def test_what_is_no_key_is_refused(service: Served, headers: dict[str, str]) -> None:
    key = service.keys["reader"]
    sent = {n.encode(): v.replace("{key}", key).encode("latin-1") for n, v in headers.items()}
    answer = service.client.get(PATH, headers=sent)
    assert answer.status_code == 401
    assert answer.json()["title"] == "Unauthorized"
    assert key not in answer.text


def test_the_key_is_looked_at_before_the_body(service: Served) -> None:
    for body in (b"{", b'{"query": 1}', b"\xff"):
        answer = service.client.post(
            "/v1/retrieve", content=body, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 401


def test_a_loopback_is_open_until_a_key_is_made_and_not_again_when_it_is_revoked(
    tmp_path: Path,
) -> None:
    folders = {"kb": access.make_index(tmp_path)}
    with access.serve(folders) as service:
        assert service.client.get(PATH).status_code == 200
        service.add_key("reader", "read")
        assert service.client.get(PATH).status_code == 401
        service.revoke("reader")
        assert service.client.get(PATH).status_code == 401
        assert service.call("reader", "GET", PATH).status_code == 401
    with access.serve(folders, open_access=True) as service:
        assert service.client.get(PATH).status_code == 200
        headers = {"x-api-key": "fw_unknown"}
        assert service.client.get(PATH, headers=headers).status_code == 401
    with access.serve(folders, open_access=False) as service:
        assert service.client.get(PATH).status_code == 401


def test_what_another_process_does_with_keys_holds_from_the_next_request_on(
    tmp_path: Path,
) -> None:
    folder = access.make_index(tmp_path)

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "rag_flywheel", "keys", *words, "--index", str(folder)]
        command += state_options(folder)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    body = {"query": "password", "record": False}
    with access.serve({"kb": folder}) as service:

        def status(key: str | None) -> int:
            headers = {} if key is None else {"authorization": f"Bearer {key}"}
            return service.client.post("/v1/retrieve", json=body, headers=headers).status_code

        assert [status(None) for _ in range(3)] == [200] * 3
        first, second = (
            json.loads(run("add", name, "--scope", "read", "--json")) for name in ("one", "two")
        )
        assert status(None) == 401
        assert [status(first["key"]), status(second["key"])] * 2 == [200] * 4
        run("revoke", first["id"])
        assert [status(first["key"]), status(second["key"])] == [401, 200]
        run("revoke", second["id"])
        assert [status(second["key"]), status(None)] == [401, 401]
    with access.serve({"kb": folder}) as service:  # opened anew
        assert [status(first["key"]), status(None)] == [401, 401]


def test_a_host_does_not_say_which_route_it_is(tmp_path: Path) -> None:
    with access.serve({"kb": access.make_index(tmp_path)}, host="0.0.0.0") as service:
        key = service.add_key("all", "read", "vote")
        headers = {"host": "x/v1/browser/feedback?"}
        answer = service.client.get(PATH, params={"key": key}, headers=headers)
        assert answer.status_code == 401
        assert "found no key" in answer.json()["detail"]


def test_the_file_of_the_keys_is_for_its_user_alone(service: Served) -> None:
    for path in service.folder.glob("service*.db*"):
        assert path.stat().st_mode & 0o077 == 0, path
    text = b"".join(path.read_bytes() for path in service.folder.glob("service*"))
    assert not any(key.encode() in text for key in service.keys.values())
