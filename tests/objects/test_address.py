"""What names a place in an object store, and what is said of anything else."""

import subprocess
import sys
from pathlib import Path

import pytest

from rag_flywheel.deploy.objects import Objects
from rag_flywheel.errors import ConfigError, InputError


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket",
        "s3://my-bucket.of.ours/kb/production",
        "gs://bucket/kb",
        "az://container/kb",
        "file:///srv/kb versions",
        "file:///srv/kb%20versions",
        "memory:///",
    ],
)
def test_a_place(url: str) -> None:
    assert str(Objects.at(url)) == url
    assert str(Objects.at(url.rstrip("/") + "/")) in (url, "memory:///")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "kb",
        "/srv/kb",
        "s3://",
        "s3:///kb",
        "s3://Bucket/kb",
        "s3://bucket/../kb",
        "s3://bucket/a//b",
        "s3://bucket/kb\n",
        "s3://bucket/käse",
        "file://host/kb",
        "file:///",
        "file:kb",
        "file:///srv/%00kb",
        "memory://kb",
        "http://127.0.0.1/kb",
        "postgresql://localhost/kb",
        "s3://[",
        None,
        7,
        Path("/srv/kb"),
        b"s3://bucket",
    ],
)
def test_no_place(url: object) -> None:
    with pytest.raises(InputError, match=r"object store .*expected s3://BUCKET/PREFIX"):
        Objects.at(url)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:hunter2@bucket/kb",
        "az://container/kb?sig=hunter2",
        "gs://bucket/kb#hunter2",
        "file://me:hunter2@host/kb",
        "s3://hunter2@bucket",
    ],
)
def test_secrets_are_refused_and_not_shown(url: str) -> None:
    with pytest.raises(InputError, match=r"credentials in the environment") as caught:
        Objects.at(url)
    assert "hunter2" not in str(caught.value)


def test_without_the_extra_the_error_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['obstore'] = None\n"
        "from rag_flywheel.deploy.objects import Objects\n"
        f"store = Objects.at('file://{tmp_path}')\n"
        "try: store.versions()\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(ConfigError.__name__)
    assert "pip install 'rag-flywheel[objects]'" in done.stdout


def test_nothing_of_it_is_imported_before_it_is_used() -> None:
    code = (
        "import sys; import rag_flywheel.flywheel; from rag_flywheel.deploy.objects import Objects\n"
        "Objects.at('s3://bucket/kb'); print('obstore' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_store_of_which_there_is_nothing_yet(tmp_path: Path) -> None:
    pytest.importorskip("obstore", reason="needs the extra objects: make test-objects")
    objects = Objects.at(f"file://{tmp_path}/not/there")
    assert (objects.versions(), objects.current()) == ([], ("", None))
    objects.delete(["20261121T093000Z-3f9c1"])
    assert not (tmp_path / "not").exists(), "reading makes no folder"
    objects.set_current("x", None)
    assert (tmp_path / "not" / "there").stat().st_mode & 0o077 == 0
