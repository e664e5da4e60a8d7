import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import pytest

from rag_flywheel.bench.report import write_report
from rag_flywheel.bench.report_charts import Interval, Line, interval_chart, lines_by_cycle
from rag_flywheel.bench.terminal import number, print_result, share, signed
from rag_flywheel.errors import InputError

Result = dict[str, Any]
HOSTILE = "<script>alert('id=\"x\"')</script> & $x$ #0060a8"
DASHES = ["–", "–", "–"]
APART = "Without test queries that nearly repeat a train query"
RANKINGS = "By nDCG@10; differences are to “hybrid”"
GINI = "Gini index of how often each passage was shown, by cycle"


def values(ndcg: float | None) -> Result:
    return {"nDCG@10": ndcg, "R@1": 0.5126, "P@8": 0.1234, "Judged@8": 0.1341, "harmful@8": 0.8766}


def difference(mean: float) -> Result:
    return {"mean": mean, "low": mean - 0.0123, "high": mean + 0.0211, "p": 0.0412}


def ranking(name: str, ndcg: float, differs: float | None, **other: Any) -> Result:
    return {
        **{"name": name, "what": f"what {name} is", "source": "", "weight": None, "chosen": None},
        **{"helped": 0.1234, "hurt": 0.0567, "untouched": 0.8199, "values": values(ndcg)},
        "without_near_duplicates": {"n": 211, "values": {"nDCG@10": ndcg - 0.1}},
        "difference": None if differs is None else difference(differs),
        "ahead": {"flywheel": difference(0.0456), "flywheel, fixed exposure": None},
        **other,
    }


def run(name: str, gain: float, *gini: float) -> Result:
    gains = (0.7004 + gain * i for i in range(3))
    cycles = [{"number": i, "n_votes": 1003 * i, "values": values(v)} for i, v in enumerate(gains)]
    return {"name": name, "what": f"what {name} is", "cycles": cycles, "exposure_gini": [*gini]}


def collection(name: str) -> Result:
    apart = {"n": 211, "values": {"nDCG@10": 0.4789}, "difference": difference(0.0333)}
    near = {"name": "near", "what": "alike", "n": 83, "static": 0.7111, "flywheel": 0.7545}
    far = {"name": "far", "what": "unlike", "n": 0, "static": None, "flywheel": None}
    return {
        **{"name": name, "vectors": "prepared", "dev": "split dev", "seconds": 100.1},
        **{"n_passages": 5183, "n_train": 809, "n_voted": 801, "n_dev": 161, "n_test": 303},
        **{"sha256": {"corpus.jsonl.gz": "ab12"}, "static": "hybrid"},
        "runs": [
            run("votes", 0.0111, 0.5151, 0.5252),
            run("fixed exposure", 0.0077),
            run("random votes", -0.0033, 0.5353, 0.5454),
            run("no votes", 0.0),
        ],
        "rankings": [
            ranking("flywheel", 0.7226, 0.0222, without_near_duplicates=apart),
            ranking("hybrid", 0.7004, None, weight=0.3, chosen="fixed", source="Someone 1999"),
            ranking("dense", 0.6543, -0.0461),
            ranking("Rocchio", 0.7101, 0.0097, weight=0.1, chosen="on dev"),
            ranking("oracle", 0.9512, 0.2508),
        ],
        "slices": [near | {"difference": difference(0.0434)}, far | {"difference": None}],
        "correction": {"n_wrong_at_first": 101, "n_corrected": 31, "median_cycle": 4.5},
    }


def with_nulls(name: str) -> Result:
    """A collection on which there was little to measure."""
    found = collection(name)
    for r in found["rankings"]:
        r["without_near_duplicates"] = {"n": 0, "values": {"nDCG@10": None}, "difference": None}
        r["difference"] = None
    found["rankings"][2]["values"]["nDCG@10"] = None
    for r in found["runs"]:
        r["exposure_gini"] = []
    found["runs"][0]["cycles"][1]["values"]["R@1"] = None
    lag = {"n_wrong_at_first": 0, "n_corrected": 0, "median_cycle": None}
    return found | {"slices": found["slices"][1:], "correction": lag}


def made() -> Result:
    users = {"eta": 0.75, "eps": 0.21, "trust": 0.0, "malicious": 0.0, "attack": "random"}
    protocol = {"name": "cycles-v1", "n_cycles": 2, "k": 8, "seed": 17, "max_test": None}
    return {
        "format": "rag-flywheel-bench-1",
        "protocol": {**protocol, "users": {**users, "answer_level": False}},
        "environment": {"commit": "abc<b>def", "versions": {"faiss-cpu": "1.9"}, "seconds": 512.3},
        "collections": [collection("scifact"), with_nulls(HOSTILE)],
    }


fresh = pytest.fixture(made, name="result")


class Page(HTMLParser):
    """Tables by section and caption, as rows of cells; a cell's small print is kept apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[tuple[str, str], list[list[str]]] = {}
        self.attributes: list[tuple[str, str]] = []
        self.small, self.tags, self._open = list[str](), list[str](), list[str]()
        self._texts = {"h2": "", "caption": ""}
        self.text = text
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self._open.append(tag)
        if tag in self._texts:
            self._texts[tag] = ""
        elif tag == "tr":
            self._rows().append([])
        elif tag in ("th", "td"):
            self._rows()[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "small" in self._open:
            self.small.append(data)
        elif {"th", "td"} & set(self._open):
            self._rows()[-1][-1] += data
        elif self._open and self._open[-1] in self._texts:
            self._texts[self._open[-1]] += data

    def _rows(self) -> list[list[str]]:
        return self.tables.setdefault((self._texts["h2"], self._texts["caption"]), [])

    def body(self, section: str, caption: str) -> dict[str, list[str]]:
        """Cells by the name of their row, in the table's order."""
        return {row[0]: row[1:] for row in self.tables[section, caption][1:]}


def written(result: Result, path: Path) -> str:
    write_report(result, file := path / "report.html")
    return file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(written(made(), tmp_path_factory.mktemp("page")))


def charts(text: str) -> list[tuple[ElementTree.Element, list[str]]]:
    """Every chart, and all that is written in it."""
    found = [ElementTree.fromstring(svg) for svg in re.findall(r"(?s)<svg.*?</svg>", text)]
    name = "{http://www.w3.org/2000/svg}text"
    return [(chart, [element.text or "" for element in chart.iter(name)]) for chart in found]


def shown(cell: str, value: float | None, digits: int = 3, scale: float = 1.0) -> bool:
    """Whether a cell holds this value, neither less nor more exactly than so many digits."""
    if value is None or cell == "–":
        return value is None and cell == "–"
    cell = cell.replace(" %", "").replace("−", "-")
    exact = len(cell.partition(".")[2]) == digits
    return exact and abs(float(cell) - scale * value) <= 0.5 * 10**-digits + 1e-12


def difference_is_shown(cells: list[str], found: Result | None) -> bool:
    if found is None or cells == DASHES:
        return found is None and cells == DASHES
    low, high = cells[1].split(" to ")
    triple = zip((cells[0], low, high), (found[k] for k in ("mean", "low", "high")), strict=True)
    return shown(cells[2], found["p"], 4) and all(shown(c, v) and c[0] in "+−" for c, v in triple)


def test_the_rule_that_reads_cells_tells_right_from_wrong() -> None:
    assert shown("−0.012", -0.0124) and shown("12.3 %", 0.1234, 1, 100.0) and shown("–", None)
    for cell, value in [("0.012", -0.0124), ("0.013", 0.0124), ("0.01", 0.01), ("0.000", None)]:
        assert not shown(cell, value)
    assert [number(None), signed(float("nan")), share(None)] == DASHES
    assert not difference_is_shown(DASHES, difference(0.01))
    assert not difference_is_shown(["+0.010", "−0.002 to +0.031", "0.0413"], difference(0.01))


def test_the_headline_is_the_jsons(result: Result, page: Page) -> None:
    whole, apart = (page.body("All collections", c) for c in ("All test queries", APART))
    assert list(whole) == list(apart) == ["scifact", HOSTILE]
    for c in result["collections"]:
        ours, static = c["rankings"][:2]
        kept, before = (r["without_near_duplicates"] for r in (ours, static))
        assert [whole[c["name"]][0], apart[c["name"]][0]] == ["303", str(kept["n"])]
        for rows, old, new in [(whole, static, ours), (apart, before, kept)]:
            cells = rows[c["name"]]
            assert shown(cells[1], old["values"]["nDCG@10"])
            assert shown(cells[2], new["values"]["nDCG@10"])
            assert difference_is_shown(cells[3:], new["difference"])


def test_rankings_are_the_jsons_and_the_best_comes_first(result: Result, page: Page) -> None:
    for c in result["collections"]:
        rows = page.body(c["name"], RANKINGS)
        assert sorted(rows) == sorted(r["name"] for r in c["rankings"])
        for r in c["rankings"]:
            cells = rows[r["name"]]
            assert shown(cells[0], r["values"]["nDCG@10"])
            assert difference_is_shown(cells[1:4], r["difference"])
            for cell, kind in zip(cells[4:6], ("helped", "hurt"), strict=True):
                assert shown(cell, r[kind], 1, 100.0)
            assert cells[6] == ("–" if not r["ahead"]["flywheel"] else "+0.046, p 0.0412")
            assert cells[7] == ("–" if r["weight"] is None else str(r["weight"]))
    best_first = ["oracle", "flywheel", "Rocchio", "hybrid", "dense"]
    assert list(page.body("scifact", RANKINGS)) == best_first
    assert list(page.body(HOSTILE, RANKINGS))[-1] == "dense"  # it has no value
    assert {"what hybrid is; Someone 1999", "on dev", "fixed"} <= set(page.small)


def test_every_cycle_of_every_run_is_the_jsons(result: Result, page: Page) -> None:
    for c in result["collections"]:
        for r in c["runs"]:
            head, *rows = page.tables[c["name"], f"Run “{r['name']}”: {r['what']}"]
            assert sorted(head[2:]) == sorted(values(None))
            for cells, cycle in zip(rows, r["cycles"], strict=True):
                assert cells[:2] == [str(cycle["number"]), str(cycle["n_votes"])]
                for measure, cell in zip(head[2:], cells[2:], strict=True):
                    assert shown(cell, cycle["values"][measure])


def test_slices_lag_and_exposure_are_the_jsons(result: Result, page: Page) -> None:
    for c in result["collections"]:
        rows = page.body(c["name"], "Mean nDCG@10 by slice")
        assert list(rows) == [s["name"] for s in c["slices"]]
        for cells, s in zip(rows.values(), c["slices"], strict=True):
            assert cells[0] == str(s["n"])
            assert shown(cells[1], s["static"]) and shown(cells[2], s["flywheel"])
            assert difference_is_shown(cells[3:], s["difference"])
        lag = [v[0] for v in page.body(c["name"], "Correction lag in the run “votes”").values()]
        assert lag[:2] == [str(c["correction"][k]) for k in ("n_wrong_at_first", "n_corrected")]
        assert shown(lag[2], c["correction"]["median_cycle"], 1)
    gini = {"votes": ["0.515", "0.525"], "random votes": ["0.535", "0.545"]}
    assert page.body("scifact", GINI) == gini and (HOSTILE, GINI) not in page.tables


def test_protocol_environment_and_hashes_are_whole(page: Page) -> None:
    made: dict[str, list[str]] = {}
    for caption in ("Protocol", "Environment", "sha256 of files: scifact"):
        made |= page.body("How it was made", caption)
    wanted = {"users: eta": "0.75", "max_test": "–", "commit": "abc<b>def", "seconds": "512.3"}
    wanted |= {"versions: faiss-cpu": "1.9", "corpus.jsonl.gz": "ab12"}
    assert {name: made[name] for name in wanted} == {k: [v] for k, v in wanted.items()}


@pytest.mark.slow
def test_the_page_says_what_the_users_did(result: Result, tmp_path: Path) -> None:
    text = written(result, tmp_path)
    assert "r^−0.75" in text and "of the users attacks" not in text
    assert "with probability 0.21 the verdict is the wrong one" in text
    result["protocol"]["users"] |= {"malicious": 0.11, "told": "text", "careful": 0.8}
    result["protocol"]["users"]["answer_level"] = True
    text = written(result, tmp_path)
    assert "r^−" not in text and "A share of 0.11 of the users attacks" in text


def test_nothing_is_loaded_nothing_runs_and_every_reference_is_met(page: Page) -> None:
    assert not {"script", "link", "iframe", "img", "object", "b"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    links = [v for n, v in page.attributes if n in ("src", "href", "xlink:href", "data")]
    links += re.findall(r"url\(\s*([^)]*)", page.text)
    assert links and all(link.startswith("#") for link in links)
    assert "http" not in re.sub(r'xmlns(:xlink)?="http://www\.w3\.org/[^"]*"', "", page.text)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links} <= set(ids)


def test_every_chart_has_axis_labels_and_a_legend(page: Page) -> None:
    cycle = "cycle (votes cast, index refreshed)"
    gain = "difference in mean nDCG@10, flywheel − static hybrid"
    interval = [gain, "no difference", "95 % interval", "mean difference"]
    runs = ["votes", "fixed exposure", "random votes", "no votes"]
    quality = ["mean nDCG@10 of test queries (0 to 1)", cycle, "static hybrid", *runs]
    others = ["mean R@1 (0 to 1)", cycle, "before any vote", "votes", "P@8: higher is better"]
    empty = ["slice (test queries)", gain, "no difference"]
    exposure = ["Gini index of exposure (0 to 1)", cycle, "votes", "random votes"]
    first = [quality, others, ["slice (test queries)", *interval], exposure]
    wanted = [["collection (test queries)", *interval], *first, quality, others, empty]
    for (chart, words), needed in zip(charts(page.text), wanted, strict=True):
        assert set(needed) <= set(words)
        assert chart.get("role") == "img" and chart.get("aria-label")
    assert ["fixed exposure" in words for _, words in charts(page.text)].count(True) == 2
    assert {f"{HOSTILE} (303): no value", "scifact (303)"} <= set(charts(page.text)[0][1])


def test_marks_are_drawn_where_the_values_are() -> None:
    mark = r'<use [^>]*x="([\d.]+)" y="([\d.]+)"[^>]*line-1'
    stroke = r'd="M ([\d.]+) ([\d.]+) \nL ([\d.]+) \2 \n" [^>]*'
    lines = [Line("up", [0.25, None, 1.0])]
    svg = lines_by_cycle(lines, cycles=[0, 1, 2], y_label="y", key="k", level=("half", 0.5))
    (_, low), (_, high), _legend = [(float(x), float(y)) for x, y in re.findall(mark, svg)]
    level = re.findall(stroke + "dasharray", svg)[0]
    assert float(level[1]) == pytest.approx(low - (low - high) / 3, abs=1e-3)
    rows = [Interval("a", 0.1, 0.0, 0.4), Interval("none", None, None, None)]
    svg = interval_chart(rows, x_label="x", y_label="y", key="k")
    left, _, right = (float(x) for x in re.findall(stroke + "line-1", svg)[0])
    assert float(re.findall(mark, svg)[0][0]) == pytest.approx(left + (right - left) / 4, abs=1e-3)


def test_charts_neither_heed_nor_change_the_settings_of_matplotlib() -> None:
    with matplotlib.rc_context(theirs := {"axes.linewidth": 9.0, "svg.fonttype": "path"}):
        svg = lines_by_cycle([Line("a", [1.0])], cycles=[0], y_label="y", key="k")
        assert {name: matplotlib.rcParams[name] for name in theirs} == theirs
    assert svg == lines_by_cycle([Line("a", [1.0])], cycles=[0], y_label="y", key="k")


@pytest.mark.slow
def test_the_same_result_gives_the_same_bytes(result: Result, tmp_path: Path) -> None:
    assert written(made(), tmp_path) == (first := written(result, tmp_path))
    result["collections"][0]["slices"][0]["flywheel"] = 0.8
    assert written(result, tmp_path) != first


def test_the_terminal_prints_every_collection_and_its_difference(
    result: Result, capsys: pytest.CaptureFixture[str]
) -> None:
    result["collections"][1]["name"] = "[bold]quora"
    print_result(result)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    names = ("hybrid", "Rocchio", "flywheel", "oracle")
    for c in result["collections"]:
        start = next(i for i, line in enumerate(lines) if line.startswith(c["name"]))
        for line, name in zip(lines[start : start + 4], names, strict=True):
            row = re.split(r"  +", line.removeprefix(c["name"]).strip())
            found = next(r for r in c["rankings"] if r["name"] == name)
            assert row[0] == ("best other: Rocchio" if name == "Rocchio" else name)
            assert shown(row[1], found["values"]["nDCG@10"])
            assert difference_is_shown(row[2:5], found["difference"])
            assert shown(row[5], 0.1234, 1, 100.0) and shown(row[6], 0.0567, 1, 100.0)
    near = next(re.sub(" +", " ", line) for line in lines if " near " in line)
    assert near.endswith("near 83 0.711 0.754 +0.043 +0.031 to +0.065 0.0412")
    assert sum(" random votes " in line for line in lines) == 2


def test_a_result_of_another_format_is_refused(result: Result, tmp_path: Path) -> None:
    result["format"] = "other-2"
    for show in (print_result, lambda other: written(other, tmp_path)):
        with pytest.raises(InputError, match="'other-2'; expected 'rag-flywheel-bench-1'"):
            show(result)
