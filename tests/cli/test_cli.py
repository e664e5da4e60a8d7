"""The command line, run as people and cron run it."""

import io
import json
import math
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import pytest

from rag_flywheel import Config, EncoderNotFoundError, Flywheel
from rag_flywheel.cli.app import app, main
from rag_flywheel.deploy.lock import refresh_lock
from rag_flywheel.records import AddReport, Tool

SUPPORT = Path(__file__).parents[1] / "support"


class Shell:
    """Runs commands on one index folder with the word encoder."""

    def __init__(self, folder: Path) -> None:
        self.index = folder / "kb"
        self.folder = folder
        self.index.mkdir()
        (self.index / "flywheel.toml").write_text(
            'format_version = 1\nencoder = "fakes:word_encoder"\n'
        )

    def run(self, *words: str, code: int = 0) -> str:
        """In this process: what it prints; `errors` is what went to standard error."""
        output, errors = io.StringIO(), io.StringIO()
        with redirect_stdout(output), redirect_stderr(errors), pytest.raises(SystemExit) as done:
            main([*words, "--index", str(self.index)])
        self.errors = errors.getvalue()
        assert (done.value.code or 0) == code, output.getvalue() + self.errors
        return output.getvalue()

    def run_as_cron(self, *words: str) -> subprocess.CompletedProcess[str]:
        """In a process of its own, without a terminal."""
        path = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
        return subprocess.run(
            [sys.executable, "-m", "rag_flywheel", *words, "--index", str(self.index)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self.run(*words, "--json", code=code))


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return Shell(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        "--index one status",
        "status -i one",
        "-i other status --index one",
        "--json -i one status",
        "--index other golden --index one list",
        "golden list --index one",
    ],
)
def test_the_folder_may_be_named_before_the_command_or_after_it(
    words: str, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.index.rename("one")
    monkeypatch.setenv("RAG_FLYWHEEL_INDEX", "from-the-environment")
    with redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as done:
        main(words.split())
    assert not done.value.code
    assert [path.name for path in shell.folder.iterdir()] == ["one"]


def test_commands_say_that_no_words_of_questions_are_stored(shell: Shell) -> None:
    with (shell.index / "flywheel.toml").open("a", encoding="utf-8") as settings:
        settings.write('store_queries = "hash"\n')
    lines = [{"id": f"p{i}", "text": f"reset password number{i}"} for i in range(4)]
    (shell.folder / "kb.jsonl").write_text("\n".join(map(json.dumps, lines)))
    shell.run("add", "kb.jsonl")
    asked = shell.json("retrieve", "reset password", "--user", "ann")
    shell.run("feedback", asked["id"], "p3", "harmful", "--user", "ann")
    shell.run("missing", asked["id"], "--note", "not there", "--user", "ann")
    assert "1 past query is stored as a hash" in shell.run("refresh")
    for command in (["gaps"], ["review", "list"], ["review", "next"]):
        assert "words are not stored" in shell.run(*command), command
        assert shell.json(*command)
    again = shell.run("retrieve", "--explain", "reset password", "--no-record")
    assert "words are not stored" in again and "1 harmful" in again
    left_out = "questions whose words are not stored"
    assert f"left out: {left_out}: 1" in shell.run("export", "beir", "--to", "out")
    assert shell.json("export", "beir", "--to", "out2")["left_out"] == {left_out: 1}
    assert shell.run("verify") and shell.run("log") and shell.run("status")
    assert "store_queries is 'hash'" in (shell.run("refresh", "--tune", code=1), shell.errors)[1]


def test_an_explored_hit_is_marked(shell: Shell) -> None:
    with (shell.index / "flywheel.toml").open("a", encoding="utf-8") as settings:
        settings.write("explore = 0.5\n")
    lines = [{"id": f"p{i}", "text": f"reset password number{i}"} for i in range(6)]
    (shell.folder / "kb.jsonl").write_text("\n".join(map(json.dumps, lines)))
    shell.run("add", "kb.jsonl")
    found = [shell.json("retrieve", "reset password", "-k", "2")["hits"] for _ in range(30)]
    assert {hits[0]["explored"] for hits in found} == {False}
    assert {hits[1]["explored"] for hits in found} == {False, True}
    printed = [shell.run("retrieve", "reset password", "-k", "2") for _ in range(30)]
    lasts = [text.splitlines()[2] for text in printed]
    assert 0 < sum(last.endswith("   explored") for last in lasts) < 30


def test_the_whole_loop(shell: Shell) -> None:
    lines = [
        {"id": "a", "text": "reset your password in settings", "metadata": {"lang": "en"}},
        {"id": "b", "text": "change the login password on the page", "metadata": {"year": 2021}},
    ]
    (shell.folder / "kb.jsonl").write_text("\n".join(map(json.dumps, lines)))
    added = shell.json("add", "kb.jsonl")
    assert added == {**asdict(AddReport(2, 0, 0)), "n_files": 1, "skipped": []}
    assert shell.json("add", "kb.jsonl")["unchanged"] == 2
    found = shell.json("retrieve", "password page", "--user", "ann")
    assert [h["passage_id"] for h in found["hits"]] == ["b", "a"]
    assert shell.json("feedback", found["id"], "a", "helpful", "--user", "ann") == {"kept": 1}
    after = shell.json("retrieve", "password page", "--no-record")
    scores = {h["passage_id"]: h["score"] for h in after["hits"]}
    assert scores["a"] > next(h["score"] for h in found["hits"] if h["passage_id"] == "a")
    assert after["id"] is None
    only = shell.json("retrieve", "password", "--where", "year>=2020", "--where", "year<2022")
    assert [h["passage_id"] for h in only["hits"]] == ["b"]
    report = shell.json("refresh")
    assert (report["outcome"], report["parameters"]) == ("promoted", "kept")
    n = int(report["scores"]["n_fitted"])  # one past query, unless it is held out
    assert n <= 1
    assert f"not fitted: {n} of the 64 past queries it takes" in report["reason"]
    assert shell.json("refresh")["outcome"] == "unchanged"
    assert shell.json("remove", "a") == {"removed": 1}
    assert shell.json("refresh", "--if-votes", "1")["outcome"] == "unchanged"
    assert shell.json("refresh")["outcome"] == "promoted"
    assert [v["live"] for v in shell.json("versions")] == [True, False]
    assert shell.json("rollback") == {"live": report["version"]}
    frozen_at = shell.json("status")["frozen_at"]
    assert f"up to event {frozen_at}, until `rag-flywheel release`" in shell.run("status")
    assert shell.json("status")["dense_search"] == "every passage"
    assert shell.json("release") == {"released": True}
    assert re.search(r"votes that count +all\b", shell.run("status"))
    assert shell.json("verify") == []
    assert "sound" in shell.run("verify")


@pytest.mark.slow
def test_refresh_logs_each_step_for_cron(shell: Shell) -> None:
    (shell.folder / "kb.jsonl").write_text('{"id": "a", "text": "one two"}\n')
    shell.run("add", "kb.jsonl")
    done = shell.run_as_cron("refresh")
    assert done.returncode == 0
    assert done.stdout.startswith("promoted: 1 passage;")
    assert len([line for line in done.stderr.splitlines() if " refresh: " in line]) >= 4
    assert "\x1b" not in done.stderr  # no progress bar where there is no terminal


def test_errors_are_one_line_and_no_traceback(shell: Shell) -> None:
    done = shell.run_as_cron("remove", "nobody")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no passage 'nobody' is in this index")
    assert len(done.stderr.splitlines()) == 1


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert done.value.code in {0, None}
    assert capsys.readouterr().out == f"rag-flywheel {version('rag-flywheel')}\n"


def test_exit_codes(shell: Shell) -> None:
    shell.run("add", "missing.jsonl", code=1)
    assert shell.errors.startswith("error: no file or folder missing.jsonl; expected")
    shell.run("retrieve", "x", "-k", "0", code=2)
    shell.run("feedback", "r", "p", "perhaps", code=2)
    shell.run("feedback", "r", "p", "helpful", code=1)
    assert "no retrieval 'r' is recorded" in shell.errors
    shell.run("refresh", "--max-age", "soon", code=2)
    with refresh_lock(shell.index):
        shell.run("refresh", code=75)
    shell.run("refresh")
    (next((shell.index / "versions").iterdir()) / "parameters.json").write_text("{}")
    assert "parameters.json" in shell.run("verify", code=1)


def test_forget_opt_out_and_log(shell: Shell) -> None:
    (shell.folder / "kb.jsonl").write_text('{"id": "a", "text": "one two"}\n')
    shell.run("add", "kb.jsonl")
    shell.run("refresh")
    found = shell.json("retrieve", "two words", "--user", "ann")
    shell.run("feedback", found["id"], "a", "helpful", "--user", "ann")
    assert shell.json("opt-out", "ann") == {"opted out": True}
    assert shell.json("retrieve", "two words", "--user", "ann")["id"] is None
    assert shell.json("opt-out", "ann", "--undo") == {"opted out": False}
    report = shell.json("forget", "ann")
    assert (report["n_retrievals"], report["n_votes"]) == (1, 1)
    assert shell.json("versions")[0]["id"] == report["version"]
    assert "deleted: 0 retrievals, 0 votes of the user" in shell.run("forget", "ann")
    log = shell.json("log")
    assert {"at", "kind", "text"} == set(log[0])
    assert shell.json("log", "-n", "2") == log[:2]
    assert "a user with 1 retrieval " in shell.run("log")


def test_commands_other_than_add_make_no_folder(tmp_path: Path) -> None:
    errors = io.StringIO()
    with redirect_stderr(errors), pytest.raises(SystemExit) as done:
        main(["status", "--index", str(tmp_path / "no")])
    assert done.value.code == 1
    assert "holds no index; make one by adding passages" in errors.getvalue()
    assert not (tmp_path / "no").exists()


def test_explain_multiplies_to_what_a_hit_is_ranked_by(shell: Shell) -> None:
    lines = [{"id": "a", "text": "one two", "title": "Numbers"}]
    (shell.folder / "kb.jsonl").write_text("\n".join(map(json.dumps, lines)))
    shell.run("add", "kb.jsonl")
    first, line, *_ = shell.run("retrieve", "--explain", "two").splitlines()
    ranked_by, _, product = line.partition(" = ")
    (intercept,), *factors = (part.split() for part in product.split(" × "))
    found = math.prod([float(intercept), *(float(number) for number, *_ in factors)])
    assert found == pytest.approx(float(ranked_by), rel=0.06)
    name, relevance, title = first.split()[1:]
    assert (name, title) == ("a", "Numbers")
    assert 0.0 < float(relevance) < 1.0
    assert [words[0] for _, *words in factors][:2] == ["dense", "bm25"]
    (hit,) = shell.json("retrieve", "two", "--no-record")["hits"]
    assert {"dense", "bm25"} <= set(hit["explanation"]["terms"])


def test_explain_in_json_has_the_votes_that_people_see(shell: Shell) -> None:
    lines = [{"id": id_, "text": f"reset password {id_}"} for id_ in ("a", "b")]
    (shell.folder / "kb.jsonl").write_text("\n".join(map(json.dumps, lines)))
    shell.run("add", "kb.jsonl")
    for user in ("ann", "bob"):
        id_ = shell.json("retrieve", "reset password", "--user", user)["id"]
        shell.run("feedback", id_, "a", "helpful", "--user", user)
    printed = shell.run("retrieve", "reset password", "--explain")
    votes = [line for line in printed.splitlines() if "“" in line]
    assert len(set(votes)) == len(votes) >= 1
    hits = shell.json("retrieve", "reset password", "--explain")["hits"]
    behind = next(hit for hit in hits if hit["passage_id"] == "a")["past_votes"]
    (found,) = behind
    counts = {"helpful": 2, "harmful": 0, "shared": 0.0}
    assert found == {"query": "reset password", "passage_id": "a", **counts, "tenant": None}
    plain = shell.json("retrieve", "reset password")["hits"]
    assert all("past_votes" not in hit for hit in plain)


def error_of(shell: Shell, *words: str, code: int) -> dict[str, str]:
    shell.run(*words, code=code)
    found: dict[str, str] = json.loads(shell.errors)["error"]
    assert set(found) == {"type", "message"}
    return found


def test_json_stands_anywhere_and_errors_are_json_too(shell: Shell) -> None:
    assert json.loads(shell.run("--json", "verify")) == []
    assert json.loads(shell.run("review", "--json", "list")) == []
    assert json.loads(shell.run("--json", "golden", "list")) == []
    assert error_of(shell, "--json", "remove", "x", code=1)["type"] == "UnknownIdError"
    assert error_of(shell, "status", "--nope", "--json", code=2)["type"] == "UsageError"
    assert error_of(shell, "nope", "--json", code=2)["type"] == "UsageError"
    with refresh_lock(shell.index):
        shell.run("refresh", "--json", code=75)
    assert json.loads(shell.errors.splitlines()[-1])["error"]["type"] == "LockedError"
    shell.run("remove", "--index", str(shell.index), "--", "--json", code=1)  # an id
    assert shell.errors.startswith("error: ")


def test_nothing_is_said_to_be_kept_of_a_user_who_opted_out(shell: Shell) -> None:
    (shell.folder / "kb.jsonl").write_text('{"id": "a", "text": "one two"}\n')
    shell.run("add", "kb.jsonl")
    id_ = shell.json("retrieve", "two")["id"]
    shell.run("opt-out", "ann")
    for words in (
        ("feedback", id_, "a", "helpful"),
        ("answer-feedback", id_, "helpful"),
        ("relevance", id_, "--yes", "a"),
        ("adopted", id_, "--used"),
        ("signal", id_, "copied"),
        ("correct", id_, "a"),
        ("correct", id_, "--text", "so"),
        ("missing", id_),
    ):
        said = shell.run(*words, "--user", "ann")
        assert said == "kept 0: the user opted out, so nothing is stored\n", words
        assert shell.json(*words, "--user", "ann") == {"kept": 0}
        assert shell.json(*words, "--user", "bob") == {"kept": 1}
    assert "not recorded, so it takes no votes" in shell.run("retrieve", "two", "--user", "ann")
    assert "not recorded" not in shell.run("retrieve", "two", "--no-record")


def command_lines() -> list[list[str]]:
    """Each command that opens an index, with arguments that it takes."""
    more = {
        "retrieve": ["q"], "feedback": ["r", "p", "helpful"], "answer-feedback": ["r", "helpful"],
        "relevance": ["r", "--yes", "p"], "adopted": ["r", "--used"], "signal": ["r", "copied"],
        "correct": ["r", "p"], "missing": ["r"], "remove": ["p"], "mute": ["u"],
        "backup": ["copy"], "change-encoder": ["fakes:word_encoder"],
        "forget": ["u"], "opt-out": ["u"], "golden add": ["g.csv"], "golden pin": ["q", "p"],
        "keys add": ["n", "--scope", "read"], "keys revoke": ["i"],
        "export votes": ["--to", "v.csv"], "export judgments": ["--to", "j.csv"],
        "export retrievals": ["--to", "r.csv"], "export beir": ["--to", "out"],
        "export trec": ["--to", "out"], "export ubi": ["--to", "out"],
        "export training-set": ["pairs", "--to", "out"],
        "golden unpin": ["q", "p"], "golden export": ["g.csv"], "review accept": ["i"],
        "review reject": ["i"],
        **{f"import {tool}": ["v.csv"] for tool in get_args(Tool)},
    }  # fmt: skip
    groups = [(group.name, group.typer_instance) for group in app.registered_groups]
    every = [("", app), *groups]
    names = [
        f"{group or ''} {c.name or str(getattr(c.callback, '__name__', '')).replace('_', '-')}".strip()
        for group, commands in every
        if commands is not None
        for c in commands.registered_commands
    ]
    return [
        [*n.split(), *more.get(n, [])]
        for n in names
        if n not in {"add", "restore", "copy", "demo", "bench", "health"}
    ]


@pytest.mark.parametrize("words", command_lines(), ids=" ".join)
def test_a_mistyped_path_is_an_error_that_names_it_and_makes_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        main([*words, "--index", str(tmp_path / "typo")])
    assert done.value.code == 1
    said = capsys.readouterr().err
    assert f"{tmp_path / 'typo'} holds no index" in said
    assert "rag-flywheel add" in said
    assert list(tmp_path.iterdir()) == []


def test_an_add_that_fails_leaves_no_new_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(
        "torch", reason="torch is not installed: a new index loads the default model"
    )
    monkeypatch.chdir(tmp_path)
    for words in (["gone.md"], ["--anchors", "none", "gone.md"]):
        with pytest.raises(SystemExit):
            main(["add", *words, "--index", "kb"])
        assert list(tmp_path.iterdir()) == []
    assert "no file or folder gone.md" in capsys.readouterr().err


@pytest.mark.parametrize(
    "encoder", ["fakes:word_encodre", "no_such_module:x", "sentence-transformers:/no/model", "what"]
)
def test_a_mistyped_encoder_leaves_no_folder(encoder: str, tmp_path: Path) -> None:
    with pytest.raises(EncoderNotFoundError):
        Flywheel.open(tmp_path / "kb", encoder=encoder)
    with pytest.raises(EncoderNotFoundError):
        Flywheel.open(tmp_path / "kb", config=Config(encoder=encoder))
    assert list(tmp_path.iterdir()) == []


def test_help_has_groups_with_the_first_four_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    places = [said.index(f" {name} ") for name in ("add", "retrieve", "feedback", "refresh")]
    assert places == sorted(places)
    groups = ["Begin with", "Feedback", "Passages", "Versions and safety", "Users", "Measurement"]
    assert [said.index(f"─ {name} ─") for name in groups] == sorted(
        said.index(f"─ {name} ─") for name in groups
    )
    assert said.index("─ Begin with ─") < places[0] < places[-1] < said.index("─ Feedback ─")
    assert "--install-completion" in said


def test_review_list_shows_all_that_waits(shell: Shell) -> None:
    (shell.folder / "kb.jsonl").write_text('{"id": "a", "text": "one two"}\n')
    shell.run("add", "kb.jsonl")
    assert "0 items to review" in shell.run("review", "list")
    for question in ("one two", "two"):
        id_ = shell.json("retrieve", question)["id"]
        shell.run("missing", id_, "--note", f"more on {question}")
    items = shell.json("review", "list")
    assert [item["text"] for item in items] == ["more on one two", "more on two"]
    printed = shell.run("review", "list")
    assert "2 items to review" in printed
    assert all(item["id"] in printed for item in items)
    assert "2 items to review, of which 1 are shown" in shell.run("review", "list", "-n", "1")


def test_a_refresh_with_nothing_to_embed_loads_no_model(shell: Shell) -> None:
    lines = '{"id": "a", "text": "one two"}\n{"id": "b", "text": "three"}\n'
    (shell.folder / "kb.jsonl").write_text(lines)
    shell.run("add", "kb.jsonl")
    shell.run("refresh")
    shell.run("remove", "b")
    toml = shell.index / "flywheel.toml"
    toml.write_text(toml.read_text().replace("fakes:word_encoder", "fakes:gone"))
    assert shell.json("refresh")["outcome"] == "promoted"
    shell.run("retrieve", "two", code=1)
    assert "encoder 'fakes:gone' cannot be made" in shell.errors


@pytest.mark.parametrize("url", ["postgresql://ann@db.example.org/app?schema=kb", "postgres://h/d"])
def test_the_url_of_a_database_is_no_folder(shell: Shell, url: str) -> None:
    assert not Path(url.partition("/")[0]).exists()
    with pytest.raises(SystemExit) as done, redirect_stderr(io.StringIO()) as errors:
        main(["status", "--index", url])
    assert done.value.code == 2
    assert "expected the folder that knows it" in " ".join(errors.getvalue().split())
