"""What is in deploy/: it parses, names only what there is, and keeps its promises."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from rag_flywheel.cli.app import app
from rag_flywheel.service import metrics

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARD = DEPLOY / "grafana" / "rag-flywheel.json"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
MONITORING = ROOT / "docs" / "how-to" / "monitoring.md"
DESCRIBED = {each.name: each for each in metrics.described()}
OF_HISTOGRAMS = {
    f"{name}_{part}": each
    for name, each in DESCRIBED.items()
    if each.kind == "histogram"
    for part in ("bucket", "sum", "count")
}
SAMPLES = {**{n: e for n, e in DESCRIBED.items() if e.kind != "histogram"}, **OF_HISTOGRAMS}
CLOSED = {"outcome", "kind", "verdict", "reason", "source"}


def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return read


def of_dashboard() -> list[str]:
    found = [
        target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())
    ]
    return [*found, *(each["definition"] for each in dashboard()["templating"]["list"])]


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


EXPRESSIONS = [*of_dashboard(), *(rule["expr"] for rule in rules())]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_names_metrics_and_labels_that_are_exported(expression: str) -> None:
    named = re.findall(r"\b(rag_flywheel_\w+|up)\b(\{[^}]*\})?", expression)
    assert named
    for name, selected in named:
        if name == "up":
            continue
        assert name in SAMPLES, f"{name} is not exported"
        labels = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selected))
        assert labels <= {*SAMPLES[name].labels, "le"}, (name, labels)
    known = {label for name, _ in named if name != "up" for label in SAMPLES[name].labels}
    for grouped in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
        assert {label.strip() for label in grouped.split(",")} <= {*known, "le"}
    assert expression.count("(") == expression.count(")")
    assert expression.count("{") == expression.count("}")


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_rates_are_of_counters_and_quantiles_of_buckets(expression: str) -> None:
    for name in re.findall(r"\b(?:rate|increase)\((rag_flywheel_\w+)", expression):
        assert SAMPLES[name].kind in ("counter", "histogram")
    if "histogram_quantile" in expression:
        assert "_bucket" in expression and re.search(r"by \([^)]*\ble\b", expression)


def test_words_that_rules_select_are_ones_that_are_exported() -> None:
    sources = "".join(
        (ROOT / "src" / "rag_flywheel" / name).read_text(encoding="utf-8")
        for name in ("service/observed.py", "store/journal.py", "records.py", "report/numbers.py")
    )
    selected = re.findall(r'(\w+)!?="(\w[\w ]*)"', "".join(EXPRESSIONS))
    words = {word for label, word in selected if label in CLOSED}
    assert words
    assert not [word for word in words if f'"{word}"' not in sources and f"'{word}'" not in sources]


def test_every_metric_is_on_the_dashboard() -> None:
    shown = set(re.findall(r"rag_flywheel_\w+", "".join(of_dashboard())))
    assert not [n for n in DESCRIBED if not any(s.startswith(n) for s in shown)]


def test_the_dashboard_asks_for_its_data_source_and_its_panels_do_not_overlap() -> None:
    read = dashboard()
    assert [given["name"] for given in read["__inputs"]] == ["DS_PROMETHEUS"]
    sources = re.findall(r'"uid": "(\$\{[^"]*)"', DASHBOARD.read_text(encoding="utf-8"))
    assert set(sources) == {"${DS_PROMETHEUS}"}
    ids = [panel["id"] for panel in read["panels"]]
    assert len(set(ids)) == len(ids)
    places: set[tuple[int, int]] = set()
    for panel in read["panels"]:
        at = panel["gridPos"]
        own = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24 and not own & places
        places |= own


def test_alerts_have_a_severity_and_say_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names) >= 10
    page = MONITORING.read_text(encoding="utf-8")
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]
        assert f"`{rule['alert']}`" in page, "docs/how-to/monitoring.md says what each means"


def test_the_page_on_monitoring_has_every_metric_as_it_is() -> None:
    rows = [
        f"| `{each.name}` | {each.kind} | {', '.join(each.labels) or '-'} | {each.text} |"
        for each in metrics.described()
    ]
    page = MONITORING.read_text(encoding="utf-8")
    assert "\n".join(rows) in page, "\n".join(rows)


def container() -> list[tuple[str, str]]:
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    lines = re.sub(r"^\s*#.*\n", "", text, flags=re.M).replace("\\\n", " ").splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line.strip()]


def test_the_container_is_not_root_and_says_how_it_is_checked() -> None:
    steps = container()
    stages = [i for i, (word, _) in enumerate(steps) if word == "FROM"]
    last = dict(steps[stages[-1] :])
    assert last["USER"] == "10001:10001"
    order = [word for word, _ in steps[stages[-1] :]]
    assert order.index("USER") > order.index("RUN"), "nothing is installed as that user"
    assert last["VOLUME"] == "/data"
    assert "/readyz" in last["HEALTHCHECK"] and "8000" in last["EXPOSE"]
    assert all(
        re.search(r":[\w.-]+$", image.split(" AS ")[0]) for word, image in steps if word == "FROM"
    )
    known = {
        "FROM", "RUN", "ENV", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL",
        "HEALTHCHECK", "ENTRYPOINT", "CMD",
    }  # fmt: skip
    assert {word for word, _ in steps} <= known


def test_what_the_container_copies_and_installs_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word, given in container():
        if word == "COPY" and "--from" not in given:
            assert all((ROOT / name).exists() for name in given.split()[:-1])
        for extras in re.findall(r"'\.\[([^\]]*)\]'", given):
            assert set(extras.split(",")) <= set(project["optional-dependencies"])
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert re.search(r"^torch==", pinned, re.M), (
        "the image takes the build for processors of this one"
    )


def test_a_linter_finds_nothing_in_the_container_file() -> None:
    linter = shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([linter, str(DEPLOY / "Containerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def command_lines() -> list[list[str]]:
    """The command lines of rag-flywheel in all files of deploy/."""
    steps = dict(container())
    found = [json.loads(steps["ENTRYPOINT"]) + json.loads(steps["CMD"])]
    for path in sorted(DEPLOY.rglob("*")):
        if path.is_file() and path.suffix in (".service", ".yaml", ".yml"):
            text = path.read_text(encoding="utf-8")
            found += [
                shlex.split(line)
                for line in re.findall(r"rag-flywheel (?:serve|refresh|keys)[^;'\n`]*", text)
            ]
    return [words[1:] for words in found]


@pytest.mark.parametrize("words", command_lines(), ids=" ".join)
def test_a_command_line_has_options_that_the_command_takes(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    options = {option for parameter in command.params for option in parameter.opts}
    given = {word for word in words if word.startswith("-")}
    assert given <= options, given - options


def test_the_compose_file_runs_both_without_rights_and_on_one_volume() -> None:
    read = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    assert set(read["services"]) == {"serve", "refresh"}
    for service in read["services"].values():
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert service["volumes"] == ["data:/data"]
        assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
        assert (ROOT / service["build"]["dockerfile"]).is_file()
    assert read["services"]["serve"]["ports"] == ["127.0.0.1:8000:8000"]


@pytest.mark.parametrize("path", sorted((DEPLOY / "systemd").iterdir()), ids=lambda p: p.name)
def test_a_unit_parses_and_names_itself(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    assert f"/etc/systemd/system/{path.name}" in text.splitlines()[0]
    assert unit["Unit"]["Description"]
    if path.suffix == ".service":
        assert unit["Service"]["User"] == "rag-flywheel"
        assert unit["Service"]["ProtectSystem"] == "strict"
        assert "/var/lib/" + unit["Service"]["StateDirectory"] in unit["Service"]["ExecStart"]
    else:
        assert (path.parent / f"{path.stem}.service").is_file()


def test_prometheus_reads_the_rules_that_are_beside_it() -> None:
    read = yaml.safe_load((ALERTS.parent / "prometheus.yml").read_text(encoding="utf-8"))
    assert read["rule_files"] == [ALERTS.name]
    (job,) = read["scrape_configs"]
    assert job["metrics_path"] == "/metrics"
    assert all(f'job="{job["job_name"]}"' in e for e in EXPRESSIONS if re.search(r"\bup\b", e))
