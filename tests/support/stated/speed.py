"""What calls cost: speed.md and its laboratory notes."""

import functools

from rag_flywheel.capture.question_vectors import MOST_AT_ONCE
from rag_flywheel.encode import bert_encoder
from rag_flywheel.index.dense import GRAPH_FROM
from rag_flywheel.index.graph import LEAST_RECALL
from stated.page import Page
from stated.results import Json, named


def cost(page: Page) -> None:
    """docs/explanation/speed.md."""
    _cold_in_short(page)
    large = page.result("speed")["sizes"][-1]
    one, four = large["retrieve"]["threads_1"], large["retrieve"]["threads_4"]
    n = large["n_passages"]
    encoding, text = page.result("encoding"), page.result("speed_text")
    million = page.result("speed_million")["steps"]["ask"]["threads_1"]["ours"]
    page.says("default model, one thread | {:.1f} |", encoding["one_query"]["ours"]["p50_ms"])
    page.says(
        "`retrieve` over {:,} passages, query vector given, `record=False` | {:.1f} |",
        n,
        one["ours"]["p50_ms"],
    )
    page.says("| the same, recorded | {:.1f} |", one["ours_recorded"]["p50_ms"])
    page.says("one after the other, on the same data | {:.1f} |", one["floor"]["p50_ms"])
    recorded = text["rows"]["whole_call_recorded"]["p50_ms"]
    page.says("whole call with the query as text, recorded | {:.1f} |", recorded)
    page.says("over a million made-up passages | {:.1f} |", million["cpu_p50_ms"])
    page.says(
        "Four threads answer {:.0f} queries a second where one answers {:.0f}",
        four["ours"]["per_s"],
        one["ours"]["per_s"],
    )
    page.says("At {:,} passages a third of the time", n)
    page.lets("choice", "looks at the words of the 50 best candidates")
    page.says("Up to {:,} passages dense search", GRAPH_FROM)
    page.says("as it takes to find {:.0f} % of the nearest", 100 * LEAST_RECALL)
    _measured_again(page)
    _aims(page)
    hybrid = [p["times_ours"] for p in page.result("speed_peers")["peers"] if p["hybrid"]]
    page.says("`retrieve` took {:.3f} to {:.1f} of their time", 1 / max(hybrid), 1 / min(hybrid))
    _between_refreshes(page)
    votes_in_short(page)
    _many_votes(page)
    _imports(page)
    _refreshes(page, ("| nothing changed |", "| one vote |", "| 1 % of the passages changed |"))
    page.says("makes {:.0f} vectors of scientific", encoding["passages"]["ours_per_s"])
    _refresh_by_change(page)
    _one_vote(page)
    fit = page.result("fit_cost")
    page.says("The fit to {:,} votes on metatool", fit["n_votes"])
    page.says("take {:.0f} s and {:.1f} GB", fit["refresh_seconds"], fit["peak_mib_after"] / 1000)
    _swaps_in_short(page)
    _service(page)
    _growth(page)
    _opening(page)


def _measured_again(page: Page) -> None:
    for size in page.result("speed_query")["sizes"]:
        one = size["retrieve"]["threads_1"]
        page.says(
            "| {:,} | {:.2f} | {:.2f} | {:.2f} | {:.2f} | {:.2f} |",
            size["n_passages"],
            one["floor"]["cpu_p50_ms"],
            one["least"]["cpu_p50_ms"],
            one["ours"]["cpu_p50_ms"],
            one["ours"]["times_the_least"],
            one["ours_recorded"]["cpu_p50_ms"],
        )


def _aims(page: Page) -> None:
    """The table of what was aimed at, and what is reached."""
    filters, edits, fresh = (page.result(f"speed_{n}") for n in ("filters", "edits", "fresh"))
    calls = filters["calls"]
    page.lets(
        "design",
        "| 15 ms |",
        "times a query without | 1.5 |",
        "next query with a filter | 1 ms |",
        "1 % edited, times none | 1.1 |",
        "asked before, 1 % edited, times none | 1.5 |",
        "| 50 ms |",
        "a question | 10 ms |",
        "| 1 s |",
        "the same: most memory | 1.2 GB |",
        "| 2 s |",
        "1 % of the passages | 0.1, 1 and 4 s |",
        "1 % changed from each to the next, times one | 2 |",
        "| 4 kB |",
        "| 2.5 s |",
        "`add`, most memory | 1.2 GB |",
        "at their tightest | 1.3 |",
        "one query over 2,000 passages | 0.6 ms |",
        "LlamaIndex's fusion of 8 and of 100 of each",
        "| 0.2 |",
        "| 1.15 |",
        "A refresh after 1 % of the passages changed",
        "as long for 2,000\npassages as for many",
    )
    page.lets("rough", "some hundred calls of numpy")
    page.lets("choice", "at the words of the 50 best candidates. They take")
    page.says("at {:,} passages with the vectors given, if", filters["n_passages"])
    never = [calls[n]["cpu_p50_ms"] for n in ("new_value", "new_range", "new_dates", "new_and_or")]
    page.says("never seen before | 15 ms | {:.1f} to {:.1f} ms |", min(never), max(never))
    shares = ("half", "fifth", "tenth", "twentieth", "thousandth")
    page.says("at most {:.2f} |", max(calls[n]["cpu_over_none"] for n in shares))
    votes = max(filters["a_vote_costs"][name] for name in ("half", "twentieth"))
    page.says("next query with a filter | 1 ms | {:.2f} ms |", votes)
    over = {name: call.get("cpu_over_none") for name, call in edits["calls"].items()}
    page.says("times none | 1.1 | {:.2f} and {:.2f} |", over["one_new"], over["percent_new"])
    page.says("times none | 1.5 | {:.2f} |", over["percent_again"])
    many = page.result("speed_many_votes")
    page.says("the question after {:,} votes", many["n_votes"])
    waiting = many["waiting"]
    page.says("| 50 ms | {:.0f} and {:.0f} ms |", waiting["first_ms"], waiting["again_ms"])
    opened = fresh["opened"]
    page.says("before the first refresh, {:,} passages", fresh["n_passages"])
    page.says("| 10 ms | {:.1f} ms |", opened["new"]["cpu_p50_ms"])
    page.says("| 1 s | {:.1f} s |", opened["first"]["cpu_s"])
    page.says("the same: most memory | 1.2 GB | {:.0f} MiB |", opened["peak_mib"])
    last = page.result("speed_learning")["sizes"][-1]
    page.says("{:,} past questions: learning | 2 s |", last["n_past"])
    page.says("learning | 2 s | {:.1f} s |", last["stored"]["cpu_s"])
    refresh = page.result("speed_refresh")
    spent, each = refresh["refresh"], refresh["bytes_a_passage"]
    page.says(
        "| {:.2f}, {:.2f} and {:.2f} s |",
        *(spent[name]["cpu_s"] for name in ("nothing", "one_vote", "1_percent")),
    )
    page.says("to the next, times one | 2 | {:.2f} |", refresh["ten_versions_times_one"]["all"])
    page.says("| 4 kB | {:.1f} kB |", (each["database"] + each["version"]) / 1000)
    cold = page.result("speed_cold")["commands"]["retrieve"]["cpu_s"]
    page.says("cold | 2.5 s | {:.2f} s |", cold)
    growth = page.result("speed_growth")
    largest = list(growth["sizes"].values())[-1]
    page.says("`add`, most memory | 1.2 GB | {:.1f} MiB |", largest["add_peak_mib"])
    small, large = (size["retrieve"]["threads_1"] for size in page.result("speed_query")["sizes"])
    page.says("at their tightest | 1.3 | {:.2f} |", large["ours"]["times_the_least"])
    page.says("| 0.6 ms | {:.2f} ms |", small["ours"]["cpu_p50_ms"])
    peers = {peer["name"]: peer["times_ours"] for peer in page.result("speed_peers")["peers"]}
    names = ("llama-index", "llama-index-deep")
    page.says("| 2 and 3 | {:.2f} and {:.2f} |", *(peers[name] for name in names))
    means = {peer["name"]: peer["cpu_times_ours"] for peer in page.result("speed_peers")["peers"]}
    page.says("it takes {:.1f} and {:.1f} times as long as ours", *(means[name] for name in names))
    page.lets("rough", "some hundred microseconds")
    times = page.result("speed_votes")["sizes"][0]["votes"]["times_raw"]
    page.says("on a disk | 2 | {:.1f} |", times)
    page.says("to the power of | 0.2 | {:.2f} |", growth["slope_of_a_new_question"])
    page.says("with texts | 1.15 | {:.3f} |", largest["memory_times_raw"])


def _between_refreshes(page: Page) -> None:
    edits = page.result("speed_edits")
    calls, n_edited = edits["calls"], edits["n_edited"]["percent"]
    page.says("Milliseconds of processor time over {:,} passages", edits["n_passages"])
    for row, name in (("none", "none"), ("one passage", "one")):
        new, again = (calls[f"{name}_{kind}"]["cpu_p50_ms"] for kind in ("new", "again"))
        page.says(f"| {row} | {{:.2f}} | {{:.2f}} |", new, again)
    new, again = (calls[f"percent_{kind}"]["cpu_p50_ms"] for kind in ("new", "again"))
    share = 100 * n_edited / edits["n_passages"]
    page.says("| {:.0f} %, {:,} passages | {:.2f} | {:.2f} |", share, n_edited, new, again)
    ratios = [
        calls[f"{n}_{kind}"]["cpu_over_none"]
        for kind in ("new", "again")
        for n in ("one", "percent")
    ]
    page.says(
        "{:.2f} and {:.2f} times a new question without edits, and {:.2f} and {:.2f} times one",
        *ratios,
    )
    page.says("after an edit takes {:.1f} ms", calls["first_after_edit"]["cpu_p50_ms"])
    _filters(page)
    fresh = page.result("speed_fresh")
    opened, added = fresh["opened"], fresh["added"]
    page.says("the {:,} passages of `speed_fresh.json`", fresh["n_passages"])
    page.says(
        "{:.1f} ms of processor time for a new question, {:.1f} for one asked before",
        opened["new"]["cpu_p50_ms"],
        opened["again"]["cpu_p50_ms"],
    )
    page.says("first answer of a process takes {:.1f} s", opened["first"]["cpu_s"])
    page.says("({:.1f} s for {:,}, vectors given)", added["add"]["cpu_s"], fresh["n_passages"])
    page.says("the next answer takes {:.2f} s", added["first"]["cpu_s"])
    page.says("{:.0f} MiB, and {:.0f} where it adds", opened["peak_mib"], added["peak_mib"])
    page.says("{:.0f} of these are its own copy", opened["peak_before_mib"])


FILTERS = {
    "none": "none",
    "half of the texts pass": "half",
    "a fifth": "fifth",
    "a tenth": "tenth",
    "a twentieth": "twentieth",
    "a thousandth": "thousandth",
    "1,000 of the texts, never asked for before": "new_value",
    "a range, never asked for before": "new_range",
    "dates and a range, never asked for before": "new_dates",
    "`or` of two, never asked for before": "new_and_or",
}


def _filters(page: Page) -> None:
    found = page.result("speed_filters")
    calls, recalls = found["calls"], found["recall@10"].values()
    page.says(
        "({:.2f} s at {:,} passages; `fw.warm()`",
        found["first_calls"]["first_key"]["cpu_ms"] / 1000,
        found["n_passages"],
    )
    for label, name in FILTERS.items():
        row = calls[name]
        page.says(f"| {label} | {{:.1f}} | {{:.2f}} |", row["cpu_p50_ms"], row["cpu_over_none"])
    page.lets("design", "1,000 of the texts")
    more = (found["a_vote_costs"][name] for name in ("none", "half", "twentieth"))
    page.says(
        "takes {:.1f} ms more, {:.1f} with the filter that half pass and {:.1f} with the one that",
        *more,
    )
    page.says("alone finds {:.3f} to {:.3f} of the exact", min(recalls), max(recalls))
    page.says("{} of the 500 answers", found["answers_with_fewer_than_k"])
    page.lets("design", "of the 500 answers")


def _imports(page: Page) -> None:
    found = page.result("speed_imports")
    model, words = found["model"], found["words"]
    page.says(
        "{:,} retrievals of five documents each, with their texts, of {:,} different questions, and "
        "{:,} scores",
        *(found[name] for name in ("retrievals", "questions", "scores")),
    )
    page.says("({:.0f} MiB of JSONL)", model["log_mib"])
    page.says("vectors of the first {} questions with votes", MOST_AT_ONCE)
    for label, key, spec in (
        ("the import, s of the processor", "first_cpu_s", ".1f"),
        ("most memory of the process, MiB", "first_peak_mib", ",.0f"),
        ("questions that wait for the refresh", "waiting", ",d"),
        ("the next question, s of the processor", "next_question_cpu_s", ".1f"),
    ):
        page.says(f"| {label} | {{:{spec}}} | {{:{spec}}} |", model[key], words[key])
    each = [run["embedding_cpu_s"] / run["embedded"] for run in (model, words)]
    page.says(
        "embedding a question, ms of the processor | {:.1f} | {:.2f} |", *(1e3 * s for s in each)
    )
    page.says("at a load of {:.0f}", found["machine"]["load"])
    page.says("which takes it {:.0f} s of the processor", each[0] * model["waiting"])
    page.says("by the first {:,} of them", model["embedded"])
    page.says("all votes: {:.0f} s of the processor", words["refresh_cpu_s"])
    page.says("at most {:,} MiB, with the other encoder", words["refresh_peak_mib"])


def _many_votes(page: Page) -> None:
    found = page.result("speed_many_votes")
    now, before = found["waiting"], found["at_once"]
    page.says(
        "after {:,} votes on as many questions, over {:,}", found["n_votes"], found["n_passages"]
    )
    row = " {:.0f} | {:,.0f} | {:.0f} |"
    for label, name in (
        ("| none of the questions had a vote before |", "first"),
        ("| all of them had one |", "again"),
    ):
        key = f"{name}_ms"
        page.says(label + row, now[key], before[key], found[f"{name}_times"])
    page.says("a question without new votes took {:.1f}.)", now["quiet_ms"])
    page.says("took {:.1f} and {:.1f}, for it has", now["first_next_ms"], now["again_next_ms"])
    again = (("a disk", "speed_votes"), ("memory", "speed_query"))
    page.lets("design", "votes a second, 1,000 in one commit |\n|---|---|---|---|---|")
    for where, name in again:
        for size in page.result(name)["sizes"]:
            votes = size["votes"]
            page.says(
                f"| {where}, {{:,}} passages | {{:.3f}} | {{:.3f}} | {{:.1f}} | {{:,.0f}} |",
                size["n_passages"],
                votes["raw_commit"]["cpu_p50_ms"],
                votes["vote"]["cpu_p50_ms"],
                votes["times_raw"],
                votes["together_per_s"],
            )
    sizes = [size["n_passages"] for size in page.result("speed_votes")["sizes"]]
    page.says("on a disk ({:,} and {:,} passages", *sizes)


def votes_in_short(page: Page) -> None:
    """The table of votes by the number of passages."""
    votes = [size["votes"] for size in page.result("speed")["sizes"]]
    page.says("| | {:,} passages | {:,} | {:,} |", *_sizes(page))
    three = "{:.2f} | {:.2f} | {:.2f} |"
    page.says(f"| one vote, ms | {three}", *(v["vote"]["p50_ms"] for v in votes))
    page.says(f"on the same disk, ms | {three}", *(v["raw_commit"]["p50_ms"] for v in votes))
    after = [v["retrieve_after_a_vote"]["p50_ms"] for v in votes]
    page.says("right after a vote, ms | {:.1f} | {:.1f} | {:.1f} |", *after)
    together = [v["together_per_s"] for v in votes]
    page.lets("design", "votes a second, 1,000 in")
    page.says("votes a second, 1,000 in one commit | {:,.0f} | {:,.0f} | {:,.0f} |", *together)


def _sizes(page: Page) -> list[int]:
    return [size["n_passages"] for size in page.result("speed")["sizes"]]


def _refreshes(page: Page, labels: tuple[str, str, str]) -> None:
    times = [size["refresh"] for size in page.result("speed")["sizes"]]
    three = " {:.1f} | {:.1f} | {:.1f} |"
    page.says("| seconds | {:,} passages | {:,} | {:,} |", *_sizes(page))
    page.says(labels[0] + three, *(t["nothing"]["s"] for t in times))
    page.says(labels[1] + three, *(t["one_vote"]["s"] for t in times))
    page.says(labels[2] + three, *(t["1_percent"]["s"] for t in times))
    page.lets("design", labels[2])
    built = [t["from_stored_vectors"]["s"] for t in times]
    page.says("| everything built from stored vectors |" + three, *built)


def _refresh_by_change(page: Page) -> None:
    """The table of refreshes by what changed, and the room that versions take."""
    result = page.result("speed_refresh")
    n, spent = result["n_passages"], result["refresh"]
    page.says("Over {:,} passages, in seconds of processor time, by what changed", n)
    for label, name in (
        ("nothing", "nothing"),
        ("one vote, in the process that answers", "one_vote"),
        ("one vote, in a process that has loaded nothing", "one_vote_in_a_new_process"),
        ("1 % of the passages", "1_percent"),
    ):
        page.says(f"| {label} | {{:.2f}} |", spent[name]["cpu_s"])
    page.lets("design", "| 1 % of the passages |")
    page.lets("design", "most of the time for 1 %")
    ten, room, each = result["ten_versions_times_one"], result["bytes"], result["bytes_a_passage"]
    page.lets("design", "Ten versions with 1 % of the passages changed from each to the next")
    page.says(
        "take {:.2f} times the vectors of one, and {:.2f} times all of its files",
        ten["vectors"],
        ten["all"],
    )
    last, all_ten = room["last_version"], room["ten_versions"]
    added = {part: (all_ten[part] - last[part]) / 9e6 for part in last}
    page.says(
        "each one more adds {:.1f} MB of vectors, {:.0f} of words and {:.0f} of\nlinks of the graph",
        added["vectors"],
        added["lexical"] + added["tokens"] + added.get("derived", 0.0),
        added["graph"],
    )
    page.says(
        "A passage takes {:.1f} kB: {:.1f} in the database, {:.1f} of them its vector",
        (each["database"] + each["version"]) / 1000,
        each["database"] / 1000,
        room["database"]["vectors"] / n / 1000,
    )
    first = room["first_version"]
    page.says(
        "and {:.1f} in the version, {:.1f} of them its vector again",
        each["version"] / 1000,
        first["vectors"] / n / 1000,
    )


def _one_vote(page: Page) -> None:
    """The table of refreshes after one vote, by the number of past questions."""
    result = page.result("speed_learning")
    sizes = result["sizes"]
    each = " {:.1f} |" * len(sizes)
    page.says("Over {:,} passages, in seconds of processor time", result["n_passages"])
    page.says("| past questions |" + " {:,} |" * len(sizes), *(size["n_past"] for size in sizes))
    stored, anew = ([size[arm]["cpu_s"] for size in sizes] for arm in ("stored", "anew"))
    page.says("| with the candidates that the version before stored |" + each, *stored)
    page.says("| all questions looked up anew |" + each, *anew)
    page.says("with the questions to the power {:.2f}", result["exponent"]["stored"])
    last = sizes[-1]
    page.says("take {:.1f} MiB for {:,} questions", last["stored_mib"], last["n_past"])


def _swaps_in_short(page: Page) -> None:
    swaps = page.result("swaps")
    page.says(
        "was {:.0f} ms, against {:.0f} ms after a refresh",
        swaps["while_swapped_ms"]["p99"],
        swaps["same_spans_of_control_ms"]["p99"],
    )


def _service(page: Page) -> None:
    result = page.result("speed_service")
    load, one = result["under_load"], result["one_caller"]
    page.says(
        "Over {:,} passages with the vectors given, {} processes",
        result["n_passages"],
        result["workers"],
    )
    page.says(
        "answered {:.0f} questions a second from {} callers",
        load["retrieves_per_s"],
        load["callers"],
    )
    page.says("and took {:.0f} votes a second", load["votes_per_s"])
    page.says("took less than {:.1f} ms, 99 % less than {:.1f}", load["p50_ms"], load["p99_ms"])
    page.lets("design", "99 % less than")
    failed = sum(
        n for status, n in load["statuses"].items() if not status.split()[1].startswith("2")
    )
    page.says("{} calls failed", failed)
    page.says(
        "waits {:.1f} ms where the library takes {:.1f}",
        one["service_p50_ms"],
        one["library_p50_ms"],
    )
    dashboard = page.result("speed_dashboard")
    pages = dashboard["pages"].values()
    page.says(
        "over {:,} retrievals and {:,} votes", dashboard["n_retrievals"], dashboard["n_votes"]
    )
    paints = [each["first_paint_ms"] for each in pages]
    page.says("painted after {:.0f} to {:.0f} ms", min(paints), max(paints))
    page.says("has at most {:.0f} kB", max(each["bytes"] for each in pages) / 1000)
    page.says("after {:.1f} s at most", max(each["computed_after_s"] for each in pages))


def _growth(page: Page) -> None:
    """The table by the number of passages, and what is said of it."""
    result = page.result("speed_growth")
    sizes = list(result["sizes"].values())
    numbers = list(map(int, result["sizes"]))
    page.says(f"| passages |{' {:,} |' * len(numbers)}", *numbers)
    rows = (
        ("a new question, ms of processor time", "{:.1f}", ("new", "cpu_p50_ms")),
        ("a question asked before", "{:.2f}", ("again", "cpu_p50_ms")),
        ("the first answer of a process, s", "{:.1f}", ("first", "cpu_s")),
        ("memory above imports, MiB", "{:.0f}", ("above_imports_mib",)),
        ("times raw indexes with texts", "{:.2f}", ("memory_times_raw",)),
        ("`add`, s of processor time", "{:.1f}", ("add", "cpu_s")),
        ("most memory of the process that adds, MiB", "{:.1f}", ("add_peak_mib",)),
        ("the database, bytes a passage", "{:,}", ("database_bytes_each",)),
        ("a version, bytes a passage", "{:,}", ("version_bytes_each",)),
    )
    for label, form, keys in rows:
        values = [functools.reduce(dict.__getitem__, keys, size) for size in sizes]
        page.says(f"| {label} |" + f" {form} |" * len(values), *values)
    page.says("(`speed_growth.json`, {} rounds in turns", result["rounds"])
    page.says("to the power {:.2f}.", result["slope_of_a_new_question"])
    page.says("for {:,} passages {:.0f} MiB", numbers[-1], sizes[-1]["raw_bytes"] / 2**20)


def _opening(page: Page) -> None:
    opening = page.result("speed_opening")
    now = opening["medians"]["now"]
    page.says("With {:,} passages and {:,} past", opening["n_passages"], opening["n_past"])
    seconds = now["cpu_open_s"] + now["cpu_first_query_s"]
    page.says("took {:.1f} s of processor time and {:.0f} MiB", seconds, now["peak_mib"])


def _cold_commands(page: Page) -> None:
    """The table of both pages."""
    spent = page.result("speed_cold")["commands"]
    for label, name in (
        ("`rag-flywheel retrieve`", "retrieve"),
        ("the same by torch", "retrieve_by_torch"),
        ("the same with the model left to sentence-transformers", "retrieve_by_library"),
        ("`rag-flywheel status`", "status"),
        ("importing torch alone", "import_torch"),
    ):
        times = spent[name]
        page.says(f"| {label} | {{:.2f}} | {{:.2f}} |", times["wall_s"], times["cpu_s"])


def _cold_in_short(page: Page) -> None:
    _cold_commands(page)
    page.says("the first {} questions of a process", bert_encoder.FEW)
    page.says("(`speed_cold.json`, {} passages", page.result("speed_cold")["n_passages"])


def _cold(page: Page) -> None:
    _cold_commands(page)
    result = page.result("speed_cold")
    spent, vectors = result["commands"], result["as_the_library"]
    for label, name in (
        ("importing torch.export", "import_torch_export"),
        ("importing sentence-transformers", "import_sentence_transformers"),
    ):
        times = spent[name]
        page.says(f"| {label} | {{:.2f}} | {{:.2f}} |", times["wall_s"], times["cpu_s"])
    page.says("new processes, {} rounds in turns", result["rounds"])
    page.says("the index holds {} passages", result["n_passages"])
    machine = result["machine"]
    page.says("(load {:.0f} on {} cores)", machine["load"], machine["cores"])
    torch_s = spent["import_torch"]["cpu_s"]
    page.lets("design", "The aim was 2.5 s a query")
    page.says("it takes {:.2f} s of the processor's time", spent["retrieve"]["cpu_s"])
    page.says("importing torch alone took {:.2f} s", torch_s)
    page.says(
        "the import takes {:.2f} times that of torch",
        spent["import_torch_export"]["cpu_s"] / torch_s,
    )
    page.says(
        "least cosine of numpy's vectors to those of the library in float32 was {:.7f}",
        vectors["numpy_least_cosine_to_the_library_in_float32"],
    )
    page.says(
        "to those by torch in bfloat16 {:.4f}",
        vectors["numpy_least_cosine_to_our_encoder_by_torch"],
    )
    page.says("loads was {:.0f}, on queries", vectors["most_difference"])
    page.says("cosine was {:.4f}, which", vectors["least_cosine_to_the_library_in_float32"])
    page.lets("design", "the float32 form within 1e-6")


def notes(page: Page) -> None:
    """docs/notes/speed-notes.md."""
    _cold(page)
    _one_query(page)
    _peers(page)
    _million(page)
    _encoding(page)
    _text(page)
    _votes_and_refreshes(page)
    _opening_before_and_now(page)
    _swaps(page)


PERCENTILES = "{:.2f} | {:.2f} | {:.2f} |"


def _percentiles(row: Json) -> list[float]:
    return [row[f"p{p}_ms"] for p in (50, 95, 99)]


def _one_query(page: Page) -> None:
    result = page.result("speed")
    large = result["sizes"][-1]
    asked = large["retrieve"]
    one, graph = asked["threads_1"], asked["graph"]
    page.says("all of it: {:,} to {:,} passages", *_ends(page))
    page.says("{} links, efSearch {}), and bm25s", graph["links"], graph["efSearch"])
    page.lets(
        "design",
        "100 of its queries and 300 cut from passages",
        "the 100 best of each, not put together",
        "--passages 10000 --only retrieve --past 1000",
    )
    page.says("k = 8, {} queries, one thread", asked["n_queries"])
    page.says("nothing else to do; {:,} passages:", large["n_passages"])
    for label, key in (
        ("faiss alone", "floor_dense"),
        ("bm25s alone", "floor_bm25"),
        ("floor: both", "floor"),
        ("least: both, sorted out as here", "least"),
        ("`retrieve`, `record=False`", "ours"),
        ("`retrieve`, recorded", "ours_recorded"),
    ):
        page.says(f"| {label} | {PERCENTILES}", *_percentiles(one[key]))
    ours, recorded = one["ours"], one["ours_recorded"]
    page.says(
        "`retrieve` takes {:.2f} times the floor, {:.1f} ms above it ({:.2f} times the least, {:.1f} "
        "ms above); recorded, {:.2f} times and {:.1f} ms above. p99 is {:.1f} times p50.",
        ours["times_the_floor"],
        ours["above_the_floor_ms"],
        ours["times_the_least"],
        ours["above_the_least_ms"],
        recorded["times_the_floor"],
        recorded["above_the_floor_ms"],
        ours["p99_over_p50"],
    )
    page.says(
        "Four threads answer {:.0f} queries a second, one thread {:.0f}",
        asked["threads_4"]["ours"]["per_s"],
        ours["per_s"],
    )
    page.says(
        "finds {:.1f} % of the 10 nearest to these queries; `status` says {:.1f} %",
        100 * graph["recall@10"],
        100 * asked["status_recall@10"],
    )
    page.says("as it takes to find {:.0f} % there", 100 * LEAST_RECALL)
    build = large["build"]
    page.says("took {:.0f} s and building the index {:.0f} s", build["add_s"], build["refresh_s"])
    page.says("Up to {:,} they are real passages", large["n_passages"])
    page.says("at {:,} passages: a third is the search", large["n_passages"])
    page.says("Up to {:,} passages dense search looks", GRAPH_FROM)
    page.lets("choice", "the words of the 50 best candidates")
    from rag_flywheel.rank.evidence import CODES_FROM

    page.says("From {:,} past questions on", CODES_FROM)


def _ends(page: Page) -> tuple[int, int]:
    sizes = _sizes(page)
    return sizes[0], sizes[-1]


PEERS = {
    "LlamaIndex, 8 of each | words and vectors": ("llama-index", "{:.1f}"),
    "LlamaIndex, 100 of each | words and vectors": ("llama-index-deep", "{:.1f}"),
    "LanceDB | words and vectors": ("lancedb", "{:.1f}"),
    "txtai | words and vectors": ("txtai", "{:.1f}"),
    "LangChain, EnsembleRetriever (50 queries) | words and vectors": (
        "langchain-ensemble",
        "{:,.0f}",
    ),
    "Milvus Lite (50 queries) | words and vectors": ("milvus-lite", "{:,.0f}"),
    "LangChain, FAISS | vectors alone": ("langchain-faiss", "{:.1f}"),
    "Chroma | vectors alone": ("chroma", "{:.1f}"),
}


def _peers(page: Page) -> None:
    result = page.result("speed_peers")
    peers = result["peers"]
    assert len(peers) == len(PEERS)
    for label, (name, form) in PEERS.items():
        peer = named(peers, name=name)
        ratio = "{:.0f} | {:.0f}" if peer["times_ours"] > 100 else "{:.2f} | {:.2f}"
        recall = peer["recall@10"]
        page.says(
            f"| {label} | {form} | {{:.1f}} | {ratio} | {{:.3f}} |",
            peer["peer"]["p50_ms"],
            peer["ours"]["p50_ms"],
            peer["times_ours"],
            peer["cpu_times_ours"],
            recall,
        )
        if "queries" in label:
            assert peer["n_queries"] == 50
            page.lets("design", label.split(" | ")[0])
    page.lets("design", "LlamaIndex, 100 of each")
    page.says("The same {:,} passages with their texts", result["n_passages"])
    page.says("the same {} queries", max(p["n_queries"] for p in peers))
    page.lets("design", "as narrowly as finds 97 % of the")
    page.says("as it sets itself ({:.1f} %)", 100 * peers[0]["recall@10_of_ours"])
    simple, chroma = named(peers, name="llama-index"), named(peers, name="chroma")
    page.says(
        "memory ({:.1f} GB; ours {:.1f}): its p95 is {:.1f} times its median (ours {:.1f} times)",
        simple["peer"]["resident_mib"] / 1000,
        simple["ours"]["resident_mib"] / 1000,
        simple["peer"]["p95_ms"] / simple["peer"]["p50_ms"],
        simple["ours"]["p95_ms"] / simple["ours"]["p50_ms"],
    )
    page.says(
        "Chroma found {:.0f} % with the widest search tried, {}",
        100 * chroma["recall@10"],
        chroma["width"],
    )


def _million(page: Page) -> None:
    result = page.result("speed_million")
    steps, compared = result["steps"], result["compared"]
    one, four = steps["ask"]["threads_1"], steps["ask"]["threads_4"]
    page.lets("design", "6 GiB of memory, 12 of disk", "clustered vectors of 384 numbers")
    page.says(
        "| one query, p50, ms | {:.1f} | {:.1f} | {:.2f} times |",
        one["floor"]["cpu_p50_ms"],
        one["ours"]["cpu_p50_ms"],
        one["ours"]["times_the_floor"],
    )
    page.says(
        "| recorded, p50, ms | | {:.1f} | {:.2f} times |",
        one["ours_recorded"]["cpu_p50_ms"],
        one["ours_recorded"]["times_the_floor"],
    )
    page.says(
        "| four threads, p50, ms | {:.1f} | {:.1f} | {:.2f} times |",
        four["floor"]["cpu_p50_ms"],
        four["ours"]["cpu_p50_ms"],
        four["ours"]["times_the_floor"],
    )
    recall = compared["recall@10"]
    n = steps["ask"]["n_queries"]
    page.says("| dense recall@10 of {} queries | {:.3f} | {:.3f} |", n, recall, recall)
    page.says(
        "| memory while answering, MiB | {:,.0f} | {:,.0f} | {:.2f} times |",
        steps["hold_raw"]["resident_mib"],
        steps["hold_ours"]["resident_mib"],
        compared["resident_times_raw"],
    )
    raw = steps["build_raw"]
    page.says(
        "| building from stored vectors, s | {:.0f} | {:.0f} | {:.2f} times |",
        sum(part["cpu_s"] for part in raw.values() if isinstance(part, dict)),
        steps["build_ours"]["refresh"]["cpu_s"],
        compared["refresh_cpu_times_raw"],
    )
    page.says("a search that keeps {:,} in view", steps["ask"]["graph"]["efSearch"])
    page.lets("design", "(97 % of these queries' nearest")
    page.says(
        "building took {:.2f} times the raw builds, at a load of {:.1f} against {:.1f}; adding the "
        "passages took another {:.0f} s",
        compared["refresh_times_raw"],
        steps["build_ours"]["load"],
        raw["load"],
        steps["build_ours"]["add"]["cpu_s"],
    )


def _encoding(page: Page) -> None:
    result = page.result("encoding")
    one, passages = result["one_query"], result["passages"]
    page.says("{} real queries of scifact", result["n_queries"])
    page.says("{} of scifact's passages", passages["n"])
    page.says(
        "| one query, p50 / p95 ms | {:.1f} / {:.1f} | {:.1f} / {:.1f} | {:.2f} of the time (rounds "
        "{:.2f} to {:.2f}) |",
        one["default"]["p50_ms"],
        one["default"]["p95_ms"],
        one["ours"]["p50_ms"],
        one["ours"]["p95_ms"],
        one["ratio"],
        min(one["ratios"]),
        max(one["ratios"]),
    )
    page.says(
        "| passages a second | {:.1f} | {:.1f} | {:.1f} times as many |",
        passages["default_per_s"],
        passages["ours_per_s"],
        passages["times_as_fast"],
    )
    same = result["same_numbers"]
    least = min(same["queries"]["cosine_min"], same["passages"]["cosine_min"])
    page.says("with a cosine of at least {:.4f} to the library's", int(least * 10_000) / 10_000)
    page.says("took {:.2f} of the library's", result["one_query_by_two_threads"]["ratio"])


def _text(page: Page) -> None:
    result = page.result("speed_text")
    rows = result["rows"]
    page.says("over the {:,} passages of above", result["n_passages"])
    for label, key in (
        ("encoding alone, sentence-transformers", "library_encoding"),
        ("encoding alone, here", "encoding"),
        ("encoding here, then raw faiss and bm25s", "encoding_and_floor"),
        ("`retrieve`, all of it", "whole_call"),
        ("`retrieve`, recorded", "whole_call_recorded"),
    ):
        row = rows[key]
        page.says(f"| {label} | {{:.1f}} | {{:.1f}} |", row["p50_ms"], row["p95_ms"])
    floor = rows["encoding_and_floor"]["p50_ms"] / rows["encoding"]["p50_ms"] - 1
    page.says("bm25s alone add {:.0f} %", 100 * floor)
    page.lets("design", "no more than 15 % to encoding was an aim")


def _votes_and_refreshes(page: Page) -> None:
    sizes = page.result("speed")["sizes"]
    votes = [size["votes"] for size in sizes]
    page.says("| | {:,} passages | {:,} | {:,} |", *_sizes(page))
    for label, key in (("raw durable commit", "raw_commit"), ("one vote", "vote")):
        pairs = [v[key][p] for v in votes for p in ("p50_ms", "p99_ms")]
        cells = " | ".join(["{:.2f} / {:.2f}"] * 3)
        page.says(f"| {label}, p50 / p99 ms | {cells} |", *pairs)
    processor = [v["vote"]["cpu_p50_ms"] for v in votes]
    page.says("| of it the processor's, p50 ms | {:.2f} | {:.2f} | {:.2f} |", *processor)
    after = [v["retrieve_after_a_vote"]["p50_ms"] for v in votes]
    page.says("right after a vote, p50 ms | {:.1f} | {:.1f} | {:.1f} |", *after)
    together = [v["together_per_s"] for v in votes]
    page.lets("design", "votes a second, 1,000 in")
    page.says("votes a second, 1,000 in a commit | {:,.0f} | {:,.0f} | {:,.0f} |", *together)
    besides = [v["vote"]["p50_ms"] - v["raw_commit"]["p50_ms"] for v in votes]
    page.says("takes {:.1f} to {:.1f} ms besides", min(besides), max(besides))
    head = "| s | {:,} passages | of the raw builds | {:,} | of the raw builds | {:,} |"
    page.says(head, *_sizes(page))
    times = [size["refresh"] for size in sizes]
    alone = "{:.1f} | | {:.1f} | | {:.1f} |"
    page.says(f"with the same settings | {alone}", *(t["raw"]["hnsw"]["s"] for t in times))
    page.says(f"tokenise and index | {alone}", *(t["raw"]["bm25s"]["s"] for t in times))
    page.says(f"| refresh, nothing changed | {alone}", *(t["nothing"]["s"] for t in times))
    page.says(f"| refresh, one vote | {alone}", *(t["one_vote"]["s"] for t in times))
    beside = " | ".join(["{:.1f} | {:.2f}"] * 3)
    for label, key in (
        ("refresh, 1 % of the passages changed", "1_percent"),
        ("refresh, all built from stored vectors", "from_stored_vectors"),
    ):
        pairs = [t[key][which] for t in times for which in ("s", "times_raw_s")]
        page.says(f"| {label} | {beside} |", *pairs)
    page.lets("design", "refresh, 1 % of the passages changed")


def _opening_before_and_now(page: Page) -> None:
    opening = page.result("speed_opening")
    sides = [opening["medians"][side] for side in ("before", "now")]
    page.says("{:,} passages and {:,} past questions", opening["n_passages"], opening["n_past"])
    page.says("reading {:,} vectors from the database", opening["n_past"])
    seconds = [s["cpu_open_s"] + s["cpu_first_query_s"] for s in sides]
    page.says("| open and first answer, s of processor | {:.1f} | {:.1f} |", *seconds)
    page.says("| most memory, MiB | {:.0f} | {:.0f} |", *(s["peak_mib"] for s in sides))
    from rag_flywheel.refresh.past import MOST_PAST_QUERIES

    page.says("of all but the {:,} newest questions", MOST_PAST_QUERIES)


def _swaps(page: Page) -> None:
    swaps, waiting = page.result("swaps"), page.result("swaps_waiting")
    page.lets("design", "an index of 2,086 passages and 200 past votes", "an edit of 20 passages")
    page.says("nothing else at work (`swaps.json`, {} rounds)", swaps["rounds"])
    page.says("benchmarks/results/swaps.json # {} rounds", swaps["rounds"])
    page.says("`swaps_waiting.json`, {} rounds", waiting["rounds"])
    page.says(
        "had {:.0f} % more after {} rounds", 100 * waiting["memory_growth"], waiting["rounds"]
    )
    for label, row, form in (
        ("readers wait", waiting, "{:.0f}"),
        ("loaded aside", swaps, "{:.1f}"),
    ):
        page.says(
            f"| during a swap, {label} | {form} | {{:.0f}} | {{:.0f}} | {{:.1f}} | {{:.0f}} | "
            "{:.1f} |",
            row["while_swapped_ms"]["p50"],
            row["while_swapped_ms"]["p99"],
            row["same_spans_of_control_ms"]["p99"],
            row["p99_ratio_to_control"],
            row["all_other_calls_ms"]["p99"],
            row["p99_ratio"],
        )
    page.says("No call failed, and in {:,} answers nothing was wrong", swaps["answers"])
    assert not swaps["errors"] and not swaps["wrong_answers"]
    first, last = swaps["after_round_10"], swaps["after_the_last"]
    page.says(
        "had {:.1f} MB after round 10 and {:.1f} MB after the last ({:.1f} and {:.1f} after",
        first["rss_mb"],
        last["rss_mb"],
        first["rss_trimmed_mb"],
        last["rss_trimmed_mb"],
    )
