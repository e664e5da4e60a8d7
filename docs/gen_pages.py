"""Generates the reference pages that follow from the code, when mkdocs builds the site.

reference/command-line.md comes from the Typer app, reference/settings.md from the Config class,
reference/http-api.md from the OpenAPI description of the service.
"""

import dataclasses
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from rag_flywheel.config import Config
from rag_flywheel.service.app import create_app
from rag_flywheel.service.description import operations
from rag_flywheel.service.settings import Settings

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
        "reference/http-api.md": http_api_page(),
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


def http_api_page() -> str:
    """Every operation of the service: its scope, parameters, body, answer and problems; and all records."""
    schema = create_app(Settings(indexes={"kb": Path("kb")})).openapi()
    records = schema["components"]["schemas"]
    lines = ["# HTTP API", "", schema["info"]["description"], ""]
    key = next(iter(schema["components"]["securitySchemes"].values()))["description"]
    lines += [
        f"{key} It goes along as `Authorization: Bearer KEY` or `X-API-Key: KEY`. The service itself has "
        "this description, for tools, at `/v1/openapi.json`. [Run the service](../how-to/run-the-service.md) "
        "shows how it is used.",
        "",
    ]
    for tag in schema["tags"]:
        lines += [f"## {tag['name'].capitalize()}", "", tag["description"], ""]
        for path, method, operation in operations(schema):
            if operation["tags"][0] == tag["name"]:
                lines += _operation(path, method, operation, records)
    used = {name: record for name, record in sorted(records.items()) if "properties" in record}
    lines += ["## Records", "", "What bodies and answers consist of.", ""]
    for name, record in used.items():
        said = " ".join(record.get("description", "").split())
        lines += [f"### {name}", "", said, "", *_fields(record, records), ""]
    return "\n".join(lines)


def _operation(
    path: str, method: str, operation: dict[str, Any], records: dict[str, Any]
) -> Iterator[str]:
    yield from (f"### {method.upper()} {path}", "", operation["description"], "")
    if given := operation.get("parameters"):
        yield from ("| parameter | in | type | meaning |", "|---|---|---|---|")
        for each in given:
            name = f"`{each['name']}`" + (" (required)" if each.get("required") else "")
            said = _in_cell(each.get("description", ""))
            yield f"| {name} | {each['in']} | {_kind(each['schema'])} | {said} |"
        yield ""
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield from (f"Body: {_kind(content['schema'])}, as `{kind}`.", "")
        if content.get("example"):
            yield from ("```json", json.dumps(content["example"], indent=2), "```", "")
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            contents = response.get("content", {}).values()
            kinds = [_kind(content["schema"]) for content in contents if content["schema"]]
            headers = "".join(f", header `{name}`" for name in response.get("headers", {}))
            yield from (f"Answer {status}: {', '.join(kinds) or 'nothing'}{headers}.", "")
    problems = ", ".join(s for s in operation["responses"] if s >= "400")
    yield from (f"Problems: {problems or 'none'}.", "")


def _fields(record: dict[str, Any], records: dict[str, Any]) -> Iterator[str]:
    yield from ("| field | type | default | meaning |", "|---|---|---|---|")
    needed = record.get("required", [])
    for name, field in record["properties"].items():
        default = "" if name in needed else f"`{json.dumps(field.get('default'))}`"
        yield f"| `{name}` | {_kind(field)} | {default} | {_in_cell(field.get('description', ''))} |"


def _kind(schema: dict[str, Any]) -> str:
    """The type of a schema, with links to records."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_kind(schema['additionalProperties'])}"
    return str(schema.get("type", "any JSON"))


def _in_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
