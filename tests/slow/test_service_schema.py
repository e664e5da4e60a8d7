"""The service against its own description: made-up requests of every kind, to every operation."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rag_flywheel import Flywheel, Passage
from rag_flywheel.store.service.keys import SCOPES, make_key
from rag_flywheel.store.service.state import open_state
from served import environment, served

N_EXAMPLES = int(os.environ.get("RAG_FLYWHEEL_REQUESTS", "60"))
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "ignored_auth",
    "unsupported_method",
)


def make(folder: Path) -> None:
    """An index in which every list has something."""
    with Flywheel.open(folder, encoder="fakes:WordEncoder") as fw:
        fw.add(
            [
                Passage("reset", "To get a new password, open Settings.", metadata={"lang": "en"}),
                Passage("refund", "Refunds are paid within 30 days.", "Refund policy"),
            ]
        )
        for n, user in enumerate("abcdef"):
            asked = fw.retrieve("a new password", user_id=user)
            fw.feedback(asked.id, "reset", "helpful" if n < 3 else "harmful", user_id=user)
            missed = fw.retrieve("bananas", user_id=user)
            fw.missing(missed.id, "nothing on bananas", user_id=user)
            fw.correct(missed.id, text=f"bananas are number{n}", user_id=user)
        fw.pin("paid back", "refund")
        fw.refresh()
        fw.add([Passage("hours", "The desk is open from 8 to 18.")])
        fw.refresh()


@pytest.mark.slow
def test_no_made_up_request_gets_an_answer_that_is_not_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "support"))
    make(tmp_path / "kb")
    database = open_state(tmp_path / "service.db")
    text, _ = make_key(database, "all", SCOPES)
    database.close()
    with served(tmp_path / "kb") as service:
        done = subprocess.run(
            [
                sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/v1/openapi.json",
                "--header", f"Authorization: Bearer {text}", "--max-examples", str(N_EXAMPLES),
                "--phases", "examples,coverage,fuzzing", "--checks", ",".join(CHECKS),
                "--continue-on-failure", "--seed", "1", "--no-color",
                "--report", "junit", "--report-dir", str(tmp_path / "report"),
            ],
            env={
                **environment(),
                "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
                "PYTHONPATH": f"{Path(__file__).parent}{os.pathsep}{environment()['PYTHONPATH']}",
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=1200,
        )  # fmt: skip
        log = service.log.read_text(encoding="utf-8")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Traceback" not in log
    generated = re.search(r"([\d,]+) generated", done.stdout)
    assert generated is not None, done.stdout[-2000:]
    print(json.dumps({"requests": int(generated[1].replace(",", ""))}))
    assert int(generated[1].replace(",", "")) >= 50 * N_EXAMPLES
