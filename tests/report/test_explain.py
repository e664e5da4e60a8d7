"""How a version came to its parameters, as it is told: sentences, the numbers in them, damage."""

import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import WordEncoder
from plain_model import is_answer, phrasings, topics, vote_on
from rag_flywheel import Flywheel, Passage
from rag_flywheel.cli.app import main
from rag_flywheel.errors import CorruptFileError, UnknownIdError
from rag_flywheel.rank.parameters import parse_parameters

QUERIES = phrasings(0, 1)


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder())


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A closed index and its versions: "first", "new", and "kept" after a look that let nothing in."""
    root = tmp_path_factory.mktemp("told") / "kb"
    (root).mkdir()
    (root / "flywheel.toml").write_text('format_version = 1\nencoder = "fakes:word_encoder"\n')
    with opened(root) as fw:
        fw.add(topics())
        found = {"first": str(fw.refresh().version)}
        vote_on(fw, QUERIES, is_answer)
        report = fw.refresh()
        assert report.parameters == "new"
        found["new"] = str(report.version)
        rng = np.random.default_rng(1)
        more = phrasings(1, 2)  # a tenth of the votes on these is by mistake: nothing new to learn
        vote_on(fw, more, lambda q, p: is_answer(q, p) != (rng.random() < 0.1))
        report = fw.refresh()
        assert (report.parameters, report.scores["gate_look"]) == ("kept", 1.0)
        found["kept"] = str(report.version)
    return root, found


@pytest.fixture
def copied(told: tuple[Path, dict[str, str]], tmp_path: Path) -> tuple[Path, dict[str, str]]:
    return Path(shutil.copytree(told[0], tmp_path / "kb")), told[1]


def gate_of(root: Path, version: str) -> Any:
    return json.loads((root / "versions" / version / "gate.json").read_text())


def gains_of(sides: dict[str, list[float | None]]) -> Any:
    both = zip(sides["candidate"], sides["incumbent"], strict=True)
    return np.array([a - b for a, b in both if a is not None and b is not None])


def told_of(gains: Any) -> tuple[float, float, int, int, int]:
    """What a sentence says of differences: mean, standard error, how many better, worse, as before."""
    better, worse = int((gains > 1e-9).sum()), int((gains < -1e-9).sum())
    error = np.sqrt(((gains - gains.mean()) ** 2).sum() / (len(gains) - 1) / len(gains))
    return float(gains.mean()), float(error), better, worse, len(gains) - better - worse


def numbers_in(sentence: str) -> tuple[float, ...]:
    """Those after the colon."""
    return tuple(float(n) for n in re.findall(r"[+-]?\d+(?:\.\d+)?", sentence.split(": ")[1]))


def test_the_story_of_the_first_version_is_that_nothing_was_proposed(
    told: tuple[Path, dict[str, str]],
) -> None:
    root, ids = told
    with opened(root) as fw:
        story = fw.explain_version(ids["first"])
        assert (story.id, story.live, dict(story.scores)) == (ids["first"], False, {})
        made, kept = story.sentences
        assert re.fullmatch(
            r"300 passages, votes up to event \d+, made [\d-]+T[\d:]+Z, the first version", made
        )
        assert kept == "weights kept (shipped): not fitted: 0 of the 64 past queries it takes"


HOW = {"near": "near to", "related": "related to", "far": "far from"}


@pytest.mark.parametrize("name", ["new", "kept"])
def test_the_story_of_a_look_tells_its_numbers(
    told: tuple[Path, dict[str, str]], name: str
) -> None:
    root, ids = told
    gate = gate_of(root, ids[name])
    with opened(root) as fw:
        story = fw.explain_version(ids[name])
    assert story.live == (name == "kept")
    assert story.scores == gate["scores"]
    parent = ids["first" if name == "new" else "new"]
    assert story.sentences[0].endswith(f" after {parent}")
    decision = gate["decision"]
    beginning = "weights new: better: " if name == "new" else "weights kept (fitted): "
    assert story.sentences[1].startswith(beginning)
    assert story.sentences[1].endswith(f"{decision['outcome']}: {decision['why']}")
    assert f"{decision['mean']:+.4f} a query" in story.sentences[1]
    parts = {s.split(":")[0].strip(): s for s in story.sentences[2:]}
    votes = gains_of(gate["log_likelihood"])
    expected = {"log-likelihood of held-out votes": votes}
    expected |= {
        f"queries {HOW[part]} past ones": votes[rows]
        for part, rows in gate["slices"].items()
        if rows
    }
    expected["order of judged hits (nDCG)"] = gains_of(gate["condensed_ndcg"])
    for sentence, gains in expected.items():
        found = numbers_in(parts[sentence])
        assert found == pytest.approx(told_of(gains), abs=0.00006, nan_ok=True), sentence
    assert not any("golden" in sentence for sentence in parts)
    (shares,) = (s for s in story.sentences if "best 8 hits" in s)
    kept, judged, before = (gate["scores"][n] for n in ("kept_hits", "judged@8", "judged@8_before"))
    assert [f"{share:.1%}" for share in (kept, judged, before)] == re.findall(r"[\d.]+%", shares)


@pytest.mark.parametrize("name", ["new", "kept"])
def test_the_story_tells_the_candidate_beside_what_is_live(
    told: tuple[Path, dict[str, str]], name: str
) -> None:
    root, ids = told
    candidate = gate_of(root, ids[name])["candidate"]
    text = (root / "versions" / ids[name] / "parameters.json").read_text()
    live = parse_parameters(text, name="live")
    with opened(root) as fw:
        *_, weights, kernel, rates = fw.explain_version(ids[name]).sentences
    for feature, weight in candidate["weights"].items():
        beside = "" if weight == live.weights[feature] else f" ({live.weights[feature]:.3f})"
        assert f"{feature} {weight:.3f}{beside}" in weights.split(": ")[1].split(", ")
    assert ("dense" in weights) and (name == "new") == ("(" not in weights.split(": ")[1])
    for part in ("theta", "gamma", "n0", "neighbours"):
        assert f"{part} {candidate['kernel'][part]}" in kernel
    assert f"of a wrong passage: {candidate['rates']['false_helpful']:.1%}" in rates
    assert f"harmful of a right one: {candidate['rates']['false_harmful']:.1%}" in rates
    assert rates.endswith("one right passage a query")


def test_a_version_that_nobody_looked_at_keeps_the_fitted_parameters(
    copied: tuple[Path, dict[str, str]],
) -> None:
    root, _ = copied
    with opened(root) as fw:
        fw.add([Passage("edited", "one more passage")])
        report = fw.refresh()
        story = fw.explain_version(str(report.version))
    assert story.live
    assert "301 passages" in story.sentences[0]
    why = report.reason.split("; ", 1)[1]
    assert "votes so far, the next look is at" in why
    assert story.sentences[1:] == (f"weights kept (fitted): {why}",)


def test_after_a_rollback_the_story_stays_and_another_version_is_live(
    copied: tuple[Path, dict[str, str]],
) -> None:
    root, ids = copied
    with opened(root) as fw:
        before = fw.explain_version(ids["new"])
        fw.rollback(ids["new"])
        after = fw.explain_version(ids["new"])
        assert (before.live, after.live) == (False, True)
        assert (before.sentences, before.scores) == (after.sentences, after.scores)


@pytest.mark.parametrize("wrong", ["20200101T000000Z-00000", "nonsense", "../versions", ""])
def test_a_version_that_is_not_there_is_unknown(
    told: tuple[Path, dict[str, str]], wrong: str
) -> None:
    with opened(told[0]) as fw, pytest.raises(UnknownIdError, match="version"):
        fw.explain_version(wrong)


def resealed(root: Path, version: str, text: str) -> None:
    """A gate.json that its manifest vouches for, as one of another release would be."""
    folder = root / "versions" / version
    (folder / "gate.json").write_text(text)
    manifest = json.loads((folder / "manifest.json").read_text())
    data = text.encode()
    manifest["files"]["gate.json"] = [hashlib.sha256(data).hexdigest(), len(data)]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def cut(path: Path) -> None:
    path.write_text(path.read_text()[:-20])


def changed(path: Path) -> None:
    path.write_text(path.read_text().replace("better", "bettor"))


@pytest.mark.parametrize("damage", [cut, changed, Path.unlink], ids=["cut", "changed", "gone"])
def test_a_damaged_gate_file_is_named(
    copied: tuple[Path, dict[str, str]], damage: Callable[[Path], None]
) -> None:
    root, ids = copied
    damage(root / "versions" / ids["new"] / "gate.json")
    with opened(root) as fw:
        with pytest.raises(CorruptFileError, match=r"gate\.json is not what the manifest says"):
            fw.explain_version(ids["new"])
        assert fw.explain_version(ids["kept"]).live  # the others can be told
        assert any("gate.json" in problem for problem in fw.verify())


def with_(**changes: object) -> Callable[[Any], str]:
    return lambda good: json.dumps(good | changes)


MALFORMED: dict[str, Callable[[Any], str]] = {
    "nothing": lambda _: "",
    "no JSON": lambda _: "{",
    "a list": lambda _: "[]",
    "another format": with_(format_version=2),
    "no decision": lambda good: json.dumps({k: v for k, v in good.items() if k != "decision"}),
    "a decision of nothing": with_(decision={}),
    "uneven sides": with_(log_likelihood={"candidate": [1.0], "incumbent": []}),
    "sides of words": with_(log_likelihood={"candidate": ["a"], "incumbent": ["b"]}),
    "no scores": with_(scores={}),
    "scores of words": with_(scores={"kept_hits": "x", "judged@8": "x", "judged@8_before": "x"}),
    "nested too deep": lambda _: "[" * 200_000,
    "a row that is not there": with_(slices={"near": [10_000]}),
    "slices in a list": with_(slices=[1]),
    "weights in a list": with_(candidate={"weights": [], "kernel": {}}),
}


@pytest.mark.parametrize("text", [pytest.param(t, id=name) for name, t in MALFORMED.items()])
def test_a_gate_file_with_something_else_in_it_cannot_be_told(
    copied: tuple[Path, dict[str, str]], text: Callable[[Any], str]
) -> None:
    root, version = copied[0], copied[1]["new"]
    resealed(root, version, text(gate_of(root, version)))
    with opened(root) as fw, pytest.raises(CorruptFileError, match=r"gate\.json cannot be told"):
        fw.explain_version(version)


def run(root: Path, *words: str, code: int = 0) -> tuple[str, str]:
    """What a command prints, and what went to standard error."""
    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors), pytest.raises(SystemExit) as done:
        main(["versions", *words, "--index", str(root)])
    assert (done.value.code or 0) == code, output.getvalue() + errors.getvalue()
    return output.getvalue(), errors.getvalue()


def test_the_command_tells_the_story(
    copied: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    root, ids = copied
    with opened(root) as fw:
        stories = {name: fw.explain_version(version) for name, version in ids.items()}
    for name, story in stories.items():
        first, *lines = run(root, "--explain", ids[name])[0].splitlines()
        assert first == ids[name] + (", live" if name == "kept" else "")
        assert lines == [f"  {sentence}" for sentence in story.sentences]
        assert json.loads(run(root, "--explain", ids[name], "--json")[0]) == {
            "id": ids[name],
            "live": name == "kept",
            "sentences": list(story.sentences),
            "scores": dict(story.scores),
        }
    assert [v["id"] for v in json.loads(run(root, "--json")[0])] == sorted(ids.values())[::-1]


def test_the_command_names_what_is_wrong(copied: tuple[Path, dict[str, str]]) -> None:
    root, ids = copied
    cut(root / "versions" / ids["new"] / "gate.json")
    _, errors = run(root, "--explain", ids["new"], code=1)
    assert errors.startswith("error: ")
    assert "gate.json is not what the manifest says" in errors
    _, errors = run(root, "--explain", "20200101T000000Z-00000", code=1)
    assert errors.startswith("error: no version 20200101T000000Z-00000")
    assert len(errors.splitlines()) == 1
