"""Folders that are damaged or something else: one clear error, and a way back."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import WordEncoder
from folders import PASSAGES, QUERY, ids, opened, use
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.deploy.manifest import FORMAT_VERSION
from rag_flywheel.errors import (
    ConfigError,
    CorruptFileError,
    EncoderMismatchError,
    FlywheelError,
    NewerFormatError,
    NotAFlywheelError,
)
from rag_flywheel.rank.calibration import Calibration
from rag_flywheel.rank.parameters import Parameters, parse_parameters

MEMORY = ("queries.npy", "offsets.npy", "lineages.npy", "chances.npy", "tenants.json")


def refused(root: Path, kind: type[FlywheelError], *words: str) -> None:
    """Opening and asking raises exactly `kind`, with all of these words in its message."""
    with pytest.raises(FlywheelError) as caught:
        use(root)
    assert type(caught.value) is kind, caught.value
    assert [w for w in words if w not in str(caught.value)] == [], str(caught.value)


def live_folder(root: Path) -> Path:
    return root / "versions" / (root / "CURRENT").read_text().split()[0]


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def reseal(version: Path, name: str) -> None:
    """Make the manifest agree with a changed file, so that only its reader can complain."""
    data = (version / name).read_bytes()
    hashed = [sha256(data).hexdigest(), len(data)]
    edit_json(version / "manifest.json", lambda m: m["files"].update({name: hashed}))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


WHOLE = [pytest.param(each, 1, marks=pytest.mark.slow) for each in (truncate, flip, Path.unlink)]


@pytest.mark.parametrize(("damage", "one_in"), [(flip, 7), *WHOLE])
def test_a_damaged_version_file_is_named_serving_goes_on_and_refresh_repairs(
    sound: Path, tmp_path: Path, damage: Callable[[Path], None], one_in: int
) -> None:
    good = live_folder(sound)
    names = [p.relative_to(good).as_posix() for p in sorted(good.rglob("*")) if p.is_file()]
    assert len(names) >= 15
    parts = {f"{part}/{name}" for part in ("memory", "heard") for name in MEMORY}
    assert parts | {"tokens/titles.npy", "heard/votes.npy"} <= set(names)
    for i, name in enumerate(names[::one_in]):
        root = Path(shutil.copytree(sound, tmp_path / str(i)))
        broken = live_folder(root)
        with opened(root) as serving:
            before = ids(serving)
            damage(broken / name)
            if name.startswith("derived/") and not (broken / name).exists():
                assert ids(serving) == before == use(root)  # it is computed again
                assert serving.verify() == []
                continue
            refused(root, CorruptFileError, name, "refresh")
            assert ids(serving) == before
            found = serving.verify()
            assert len(found) == 1, found
            assert f"{broken.name}/{name}" in found[0]
            report = serving.refresh()
            assert (report.outcome, report.version != broken.name) == ("promoted", True)
            assert ids(serving) == before == use(root)
            assert [p for p in serving.verify() if broken.name not in p] == []


def test_a_file_of_another_size_is_named_with_both_sizes(folder: Path) -> None:
    path = live_folder(folder) / "vectors" / "pids.npy"
    n = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"?")
    refused(folder, CorruptFileError, f"pids.npy has {n + 1} bytes; its manifest says {n}")


def test_a_damaged_version_cannot_be_rolled_back_to(folder: Path) -> None:
    with opened(folder) as fw:
        older = fw.versions()[-1].id
        current = (folder / "CURRENT").read_text()
        flip(folder / "versions" / older / "tokens" / "ids-1.npy")
        for version in (older, None):
            with pytest.raises(
                CorruptFileError, match=r"cannot be rolled back to: .*tokens/ids-1\.npy"
            ):
                fw.rollback(version)
        assert (folder / "CURRENT").read_text() == current


def test_a_version_of_another_encoder_is_not_served(folder: Path) -> None:
    edit_json(live_folder(folder) / "manifest.json", lambda m: m.update(revision="2"))
    refused(folder, EncoderMismatchError, "was built with", "revision 2", "its own encoder")


def test_more_vectors_than_passages_are_named(folder: Path) -> None:
    """Of a version of 20 passages, with the vectors of one of 30."""
    newer = live_folder(folder)
    (older,) = (p for p in (folder / "versions").iterdir() if p.name != newer.name)
    for path in (newer / "vectors").iterdir():
        name = f"vectors/{path.name}"
        (older / name).unlink(missing_ok=True)  # which may be a link to the same file
        shutil.copy(path, older / name)
        reseal(older, name)
    with opened(folder) as fw:
        (said,) = fw.verify()
        assert f"{older.name}: " in said and "30 vectors; its manifest says 20" in said


def test_a_file_that_no_manifest_knows_is_named(folder: Path) -> None:
    expected = use(folder)
    (live_folder(folder) / "tokens" / "extra.npy").write_bytes(b"?")
    refused(folder, CorruptFileError, "tokens/extra.npy", "not in its manifest", "refresh")
    with opened(folder) as fw:
        assert ["tokens/extra.npy" in problem for problem in fw.verify()] == [True]
        assert fw.refresh().outcome == "promoted"
    assert use(folder) == expected


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense\n", b"\xff\xfe\x00", b"../../x\n", b"20200101T000000Z-00000\n"],
)
def test_current_that_cannot_be_used_is_shown_and_refresh_replaces_it(
    folder: Path, content: bytes
) -> None:
    expected = use(folder)
    with opened(folder) as serving:
        assert ids(serving) == expected
        (folder / "CURRENT").write_bytes(content)
        refused(folder, CorruptFileError, "CURRENT", "refresh")
        assert ids(serving) == expected
        assert any("CURRENT" in problem for problem in serving.verify())
        report = serving.refresh()
        assert (folder / "CURRENT").read_text() == f"{report.version}\n"
        assert serving.verify() == []
    assert use(folder) == expected


def test_a_live_version_that_is_gone_is_built_anew(folder: Path) -> None:
    expected = use(folder)
    with opened(folder) as serving:
        assert ids(serving) == expected
        gone = live_folder(folder)
        shutil.rmtree(gone)
        assert ids(serving) == expected
        refused(folder, CorruptFileError, gone.name, "refresh")
        assert serving.refresh().outcome == "promoted"
    assert use(folder) == expected


def test_without_current_everything_is_served_from_the_database(folder: Path) -> None:
    expected = set(use(folder)[:3])
    live = live_folder(folder).name
    (folder / "CURRENT").unlink()
    assert set(use(folder)[:3]) == expected
    with opened(folder) as fw:
        assert fw.status().version is None
        assert [("CURRENT is missing" in p, live in p) for p in fw.verify()] == [(True, True)]
        assert fw.refresh().outcome == "promoted"
        assert fw.verify() == []


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '"format_version": "1"', '"created": "yesterday"', '"dim": -1']
)
def test_a_manifest_that_cannot_be_used(folder: Path, text: str) -> None:
    path = live_folder(folder) / "manifest.json"
    if text.startswith('"'):  # one value of a sound manifest
        edit_json(path, lambda manifest: manifest.update(json.loads(f"{{{text}}}")))
    else:
        path.write_text(text)
    refused(folder, CorruptFileError, "manifest.json", "no usable manifest", "refresh")
    with opened(folder) as fw:
        assert ["manifest.json" in problem for problem in fw.verify()] == [True]
        assert len(fw.versions()) == 1  # the other one
        assert fw.refresh().outcome == "promoted"


def test_a_manifest_of_a_newer_release(folder: Path) -> None:
    newer = f"format {FORMAT_VERSION + 1}"
    edit_json(
        live_folder(folder) / "manifest.json",
        lambda m: m.update(format_version=FORMAT_VERSION + 1, new=1),
    )
    refused(folder, NewerFormatError, "manifest.json", newer, f"up to {FORMAT_VERSION}", "Upgrade")
    with opened(folder) as fw:
        assert [newer in problem for problem in fw.verify()] == [True]


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p["kernel"].update(theta=float("nan")),
        lambda p: p["weights"].update(dense=float("inf")),
        lambda p: p.update(candidate_spread=10**400),
        lambda p: p.pop("kernel"),
        lambda p: p["rates"].update(false_helpful=0.0),
        lambda p: p["rates"].update(false_harmful=1.0),
        lambda p: p["rates"].update(false_harmful="0.2"),
        lambda p: p.update(answers=0.0),
        lambda p: p.update(intercept=0.0),
        lambda p: p["weights"].pop("bm25"),
    ],
)
def test_parameters_that_cannot_be_used(
    folder: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    expected = use(folder)
    version = live_folder(folder)
    edit_json(version / "parameters.json", change)
    reseal(version, "parameters.json")
    refused(folder, CorruptFileError, "parameters.json", "refresh")
    with opened(folder) as fw:
        assert fw.refresh().outcome == "promoted"
    assert use(folder) == expected


def test_altered_parameters_are_not_carried_into_the_next_version(folder: Path) -> None:
    edit_json(live_folder(folder) / "parameters.json", lambda p: p["weights"].update(dense=99))
    with opened(folder) as fw:
        assert fw.refresh().outcome == "promoted"
        best = fw.retrieve(QUERY).hits[0]
        assert abs(best.explanation.terms["dense"]) <= Parameters().weights["dense"]
    text = (live_folder(folder) / "parameters.json").read_text()
    found = parse_parameters(text, name="the new ones")
    assert replace(found, relevance=Calibration()) == Parameters()


@pytest.fixture
def remembering(folder: Path) -> Path:
    """A folder whose live version remembers the past query with the vote, and a passage more."""
    with opened(folder) as fw:
        assert fw.refresh().outcome == "promoted"
        fw.add([Passage("more", "quite other things")])
    assert np.load(live_folder(folder) / "memory" / "queries.npy").shape == (1, 16)
    return folder


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tokens/titles.npy", lambda a: a[1:]),
        ("memory/queries.npy", lambda a: a[:, 1:]),
        ("memory/queries.npy", lambda a: np.concatenate([a, a])),
        ("memory/offsets.npy", lambda a: a[::-1].copy()),
        ("memory/offsets.npy", lambda a: a + 1),
        ("memory/lineages.npy", lambda a: a[1:]),
        ("memory/lineages.npy", lambda a: a.astype(np.int32)),
        ("memory/chances.npy", lambda a: np.full_like(a, np.nan)),
        ("memory/chances.npy", lambda a: a * 100),
        ("memory/chances.npy", lambda a: a.astype(object)),
        ("memory/tenants.json", "[3]"),
        ("memory/tenants.json", "{"),
        ("memory/tenants.json", "[null, null]"),
        ("heard/votes.npy", lambda a: a + 10**6),
    ],
)
def test_a_part_that_was_written_wrong_is_refused_and_refresh_repairs(
    remembering: Path, name: str, change: Any
) -> None:
    expected = use(remembering)
    version = live_folder(remembering)
    if isinstance(change, str):
        (version / name).write_text(change)
    else:
        np.save(version / name, change(np.load(version / name)), allow_pickle=True)
    reseal(version, name)
    refused(remembering, CorruptFileError, name.split("/")[0], "refresh")
    with opened(remembering) as fw:
        report = fw.refresh()
        assert (report.outcome, report.version != version.name) == ("promoted", True), report
    assert use(remembering) == expected


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ('format_version = 1\nencodr = "x"', ConfigError, ["encodr", "known keys", "encoder"]),
        ("format_version = 1\n= 3", ConfigError, ["not valid TOML", "line 2", "restore"]),
        ("format_version = 1\nkeep_versions = 1", ConfigError, ["keep_versions", "is 1", ">= 2"]),
        ("format_version = 1\nedit_keeps_votes = nan", ConfigError, ["is nan", ">= 0.0"]),
        ("format_version = 1\ntenant_key = 3", ConfigError, ["tenant_key is 3", "expected"]),
        ("keep_versions = 3", ConfigError, ["format_version = None", "expected 1"]),
        ("format_version = 2\nnew = 1", NewerFormatError, ["format 2", "up to 1", "Upgrade"]),
    ],
)
def test_settings_that_cannot_be_used(
    folder: Path, text: str, kind: type[FlywheelError], words: list[str]
) -> None:
    (folder / "flywheel.toml").write_text(text)
    refused(folder, kind, "flywheel.toml", *words)


def test_settings_that_differ_from_those_given(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"differs.*keep_versions=10.*keep_versions=3.*Edit"):
        Flywheel.open(folder, config=Config(encoder="", keep_versions=3))


@pytest.mark.parametrize("content", [b"not a database, but long enough" * 200, "half", b"", None])
def test_a_database_that_is_not_sound_is_never_taken_for_a_new_one(
    folder: Path, content: bytes | str | None
) -> None:
    path = folder / "flywheel.db"
    data = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else data[: len(data) // 2])
    refused(folder, CorruptFileError, "flywheel.db", "restore", "backup")


def test_a_database_of_a_newer_release(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "flywheel.db")) as conn, conn:
        conn.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) "
            "VALUES ('rag-flywheel', 'm999_from_the_future', '2030-01-01')"
        )
    conn.close()
    refused(folder, NewerFormatError, "m999_from_the_future", "newer release", "upgrade")


def test_a_folder_that_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.odt").write_text("words")
    refused(tmp_path, NotAFlywheelError, "thesis.odt", "no flywheel.toml", "Give an index folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.odt"]
    refused(tmp_path / "thesis.odt", NotAFlywheelError, "is a file", "expected an index folder")
    with pytest.raises(NotAFlywheelError, match=r"holds no index; make one by adding"):
        Flywheel.open(tmp_path / "missing", create=False)
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("kept", ["flywheel.toml", "flywheel.db"])
def test_a_folder_whose_making_was_cut_short_opens(tmp_path: Path, kept: str) -> None:
    opened(tmp_path / "kb").close()
    for path in (tmp_path / "kb").iterdir():
        if path.name != kept:
            path.unlink()
    (tmp_path / "kb" / ".flywheel.toml.77-0123abcd").write_text("format_ver")
    with opened(tmp_path / "kb") as fw:
        assert fw.add(PASSAGES).added == 30
        assert (fw.refresh().outcome, fw.verify()) == ("promoted", [])


@pytest.mark.parametrize(
    ("other", "word"),
    [({"name": "numbers"}, "'numbers'"), ({"revision": "2"}, "revision 2"), ({"dim": 8}, "8 wide")],
)
def test_another_encoder_is_refused(folder: Path, other: dict[str, Any], word: str) -> None:
    with Flywheel.open(folder, encoder=WordEncoder(**other)) as fw:
        for call in (lambda: fw.retrieve(QUERY), lambda: fw.add(PASSAGES)):
            with pytest.raises(EncoderMismatchError) as caught:
                call()
            said = str(caught.value)
            assert word in said and "'words', revision 1, 64 wide" in said
            assert "Open it with its own encoder" in said


def test_a_refresh_killed_before_it_replaced_current_leaves_a_sound_folder(folder: Path) -> None:
    live = live_folder(folder)
    (folder / "staging" / "20261121T093000Z-1-abcdef").mkdir(parents=True)
    (folder / ".CURRENT.77-0123abcd").write_text(live.name)
    with (
        closing(sqlite3.connect(folder / "flywheel.db")) as conn,
        conn,
    ):  # as deploy/rollback.py writes it
        conn.execute(
            "INSERT INTO moves (at, action, version) VALUES (1, 'promote', '20301121T093000Z-3f9c1')"
        )
    conn.close()
    with opened(folder) as fw:
        assert fw.verify() == []
        fw.add([Passage("new", "one more")])
        assert fw.refresh().outcome == "promoted"
    assert list((folder / "staging").iterdir()) == []
    assert not (folder / ".CURRENT.77-0123abcd").exists()
