"""Generates the reference pages that follow from the code, when mkdocs builds the site.

reference/command-line.md comes from the Typer app, reference/settings.md from the Config class.
"""

import dataclasses
import inspect
import re
import subprocess
import sys
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from rag_flywheel.config import Config

EXIT_CODES = (
    "Exit codes: 0 done; 1 error, or problems found by `verify` or `status`; 2 wrong usage; 3 a refresh "
    "built a version that failed its check; 75 another process holds the refresh lock. Those of `health`: 0 "
    "ok, 1 degraded, 2 broken."
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the files of the site."""
    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Remove the mark `no-run` from code blocks: it is meant for tests/docs/test_snippets.py."""
    return re.sub(r"^```(\w+) no-run$", r"```\1", markdown, flags=re.MULTILINE)


def pages() -> dict[str, str]:
    """The text of each generated page, by its path below docs/."""
    return {
        "reference/command-line.md": command_line_page(),
        "reference/settings.md": settings_page(),
    }


def command_line_page() -> str:
    """Every command with its arguments and options, as Typer writes them."""
    words = [sys.executable, "-m", "typer", "rag_flywheel.cli.app", "utils", "docs"]
    words += ["--name", "rag-flywheel", "--title", "Command line"]
    # a pipe has no width, and the help texts are wrapped by whoever shows them
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return done.stdout.replace("\n**Commands**:", f"\n{EXIT_CODES}\n\n**Commands**:", 1)


def settings_page() -> str:
    """Every setting with its type, default and meaning."""
    lines = [
        "# Settings",
        "",
        "Settings are read from `flywheel.toml` in the index folder. `Flywheel.open(path, config=...)` "
        "writes them when it creates the folder; later, edit the file. An unknown key is an error. "
        "A setting whose default is *none* is left out of the file.",
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    ]
    meanings = setting_meanings()
    for field in dataclasses.fields(Config):
        kind = str(field.type).replace(" | None", "")
        kind = getattr(field.type, "__name__", kind)
        default = "*none*" if field.default is None else f"`{field.default}`"
        meaning = meanings[field.name].replace("|", "\\|")
        lines.append(f"| `{field.name}` | {kind} | {default} | {meaning} |")
    return "\n".join([*lines, ""])


def setting_meanings() -> dict[str, str]:
    """What the docstring of Config says of each field; a field without a line is an error."""
    text = inspect.getdoc(Config) or ""
    names = [field.name for field in dataclasses.fields(Config)]
    parts = re.split(rf"^\s*({'|'.join(names)})(?: \([^)]*\))?: ", text, flags=re.MULTILINE)
    found = {
        name: " ".join(said.split()) for name, said in zip(parts[1::2], parts[2::2], strict=True)
    }
    if missing := set(names) - set(found):
        raise ValueError(f"the docstring of Config does not explain {', '.join(sorted(missing))}")
    return found
