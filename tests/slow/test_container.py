"""The image of deploy/Containerfile, where a builder and a network are at hand."""

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
BUILD_S = 1_800


def builder() -> str:
    """podman or docker, if it works here."""
    for name in ("podman", "docker"):
        if shutil.which(name) is not None:
            done = subprocess.run([name, "info"], capture_output=True, timeout=60)
            if done.returncode == 0:
                return name
    pytest.skip("no builder of images works here")


def test_the_image_is_built_and_runs_without_rights(tmp_path: Path) -> None:
    run = builder()
    build = [run, "build", "-f", "deploy/Containerfile", "-t", "rag-flywheel-test", "."]
    subprocess.run(build, cwd=ROOT, check=True, timeout=BUILD_S)
    rights = ["--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]
    command = [run, "run", *rights, "--entrypoint", "sh", "rag-flywheel-test"]
    words = "id -u && rag-flywheel --version && ! touch /usr/x 2>/dev/null && touch /data/x"
    done = subprocess.run([*command, "-c", words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "10001"
    asked = [run, "run", *rights, "rag-flywheel-test", "serve", "--host", "0.0.0.0"]
    refused = subprocess.run(asked, capture_output=True, text=True, timeout=120)
    assert refused.returncode != 0, "there is no index and no key yet"
