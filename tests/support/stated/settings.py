"""Pages whose numbers are defaults, limits and constants of the code."""

import csv
import re

from rag_flywheel import checks
from rag_flywheel.bench.protocol import Traffic
from rag_flywheel.capture.answer_credit import EVEN, STEEPNESS
from rag_flywheel.capture.answer_votes import _LEAST as LEAST_CREDIT
from rag_flywheel.capture.runs import MOST_RETRIEVALS, MOST_RUNS
from rag_flywheel.config import _MOST_BYTES as MOST_TOML
from rag_flywheel.config import Config
from rag_flywheel.curate.golden import MOST_VOTED
from rag_flywheel.curate.groups import NEAR_DUPLICATE
from rag_flywheel.curate.trust import _PRIOR as TRUST_PRIOR
from rag_flywheel.curate.trust import MOST as MOST_TRUST
from rag_flywheel.curate.weights import WEIGHTS
from rag_flywheel.deploy import backup, current, loaded, manifest, objects, shared
from rag_flywheel.disk import _MOST_BYTES as MOST_FILE
from rag_flywheel.disk import MOST_JSON
from rag_flywheel.encode import cluster
from rag_flywheel.evaluate.gate import LEAST_JUDGED
from rag_flywheel.export.graded import SPLITS
from rag_flywheel.export.training_rows import MOST_NEGATIVES
from rag_flywheel.formats import beir, documents, front_matter, jsonl, passage_ids, rows, rules
from rag_flywheel.formats.chunks import Chunking
from rag_flywheel.improve.fit import LEAST_QUERIES
from rag_flywheel.index import known_items
from rag_flywheel.ingest import add_files
from rag_flywheel.privacy.ids import _BYTES as HASH_BYTES
from rag_flywheel.rank.evidence import CODES_FROM
from rag_flywheel.rank.parameters import Kernel
from rag_flywheel.rank.posterior import NAMED
from rag_flywheel.rank.score import POOL
from rag_flywheel.records import STEMMED
from rag_flywheel.report import coverage, gaps, health, health_of_refreshes, progress
from rag_flywheel.serve import postponed
from rag_flywheel.serve.candidates import _MOST_NAMED
from rag_flywheel.serve.server import _ALIKE as ALIKE
from rag_flywheel.service import rates
from rag_flywheel.service.settings import Settings
from rag_flywheel.store import embedding, filters, lineages, near_identical
from rag_flywheel.tracing import flywheel as tracing
from stated import results
from stated.page import Page


def least_for_new_weights() -> int:
    """Past questions from which new weights can go live, a third of them held out, in tens."""
    return round(max(LEAST_QUERIES * 3 / 2, LEAST_JUDGED * 3), -1)


def keys_and_limits(page: Page) -> None:
    """docs/how-to/keys-and-limits.md."""
    page.says("`--calls-per-minute` | {:,} | key", rates.CALLS)
    page.says("`--votes-per-minute` | {:,} | user", rates.VOTES)
    page.says("used for {} hours", Settings().token_s // 3600)
    page.lets("a status of HTTP", "401", "403", "404", "409", "422", "429")
    page.lets("example", "30 days")


def limits(page: Page) -> None:
    """docs/reference/limits.md."""
    page.says("in the [settings](settings.md), {:,} characters", Config().max_query_chars)
    page.says('"edited", ...)` | {:,} characters', checks.MOST_ANSWER_CHARS)
    page.says("`why` of `adopted` | {:,} characters", checks.MOST_NOTE_CHARS)
    page.says("and review items | {:,} characters", checks.MOST_ID_CHARS)
    page.says("candidate, and its title | {:,} characters", checks.MOST_TEXT_CHARS)
    page.says("a key of metadata | {:,} characters", checks.MOST_KEY_CHARS)
    assert checks.MOST_NAME_CHARS == checks.MOST_KEY_CHARS
    page.says(
        "metadata of a passage | {:,} values, {} objects in one another",
        checks.MOST_VALUES,
        checks.MOST_DEPTH,
    )
    page.says(
        "a filter | {:,} conditions, {:,} values in lists, {} levels",
        filters.MOST_CONDITIONS,
        checks.MOST_VALUES,
        checks.MOST_DEPTH,
    )
    assert documents.MOST_BYTES == jsonl.MOST_BYTES
    page.says("a line of JSONL | {:.0f} MiB", documents.MOST_BYTES / 2**20)
    _known_answers_limits(page, "{:,} rows, {:.0f} MB a line, {:.0f} MB a file")
    page.says("progress every {:.0f} seconds", progress._NEXT_LINE_S)


def _known_answers_limits(page: Page, template: str) -> None:
    line, file = rows.LIMITS.n_line_bytes, rows.LIMITS.n_bytes
    assert file is not None
    page.says(template, rows.MOST_ROWS, line / 1e6, file / 1e6)


def files(page: Page) -> None:
    """docs/reference/files.md."""
    page.lets("elsewhere", "new ones have mode 0600, folders 0700")  # tests/test_private_files.py
    page.says("at least {:.0f} % of the words stay", 100 * Config().edit_keeps_votes)
    page.says("the {} best, the last one and those shown", POOL)
    page.says("depth | {:,}; 4 folders", manifest.MOST_FILES)
    page.says(
        "`parameters.json` | {:.0f} MB, {:.0f} kB, {} bytes, {:.0f} MB |",
        manifest.MOST_BYTES / 1e6,
        MOST_TOML / 1e3,
        current._MOST_CURRENT,
        loaded._MOST_PARAMETERS / 1e6,
    )
    page.says("one JSON file | {:.0f} GiB; {:.0f} GiB |", MOST_FILE / 2**30, MOST_JSON / 2**30)
    assert manifest.MOST_PASSAGES == 2**31
    page.says("passages of a version | {:,}; 2³¹ |", manifest.MOST_DIM)
    page.lets("fact", "format 1.0 of `.npy`")
    page.says("a text file to add | {:.0f} MiB |", jsonl.MOST_BYTES / 2**20)
    page.says(
        "at most {} times its size, or {:.0f} MiB",
        beir._MOST_PACKED,
        beir._ALWAYS_UNPACKED / 2**20,
    )


def filter_page(page: Page) -> None:
    """docs/reference/filters.md."""
    page.says(
        "There may be {} levels of them, and in a filter {:,} conditions and {:,} values",
        checks.MOST_DEPTH,
        filters.MOST_CONDITIONS,
        checks.MOST_VALUES,
    )
    page.lets("example", "but 1 is 1.0", "the string 3.10", "the number 3.1 ")
    page.lets("example", "`version=3.10`", "`--where 'version=\"3.10\"'`")
    page.lets("fact", "beyond 2<sup>53</sup>", "whole ones of 64 bits")
    page.says("up to {} in one another", checks.MOST_DEPTH)
    page.says("may have any characters, at most {:,}.", checks.MOST_KEY_CHARS)


def backups(page: Page) -> None:
    """docs/how-to/backup.md."""
    page.says("in parts of {:.0f} KiB", backup._PART_BYTES / 2**10)
    page.lets("elsewhere", "(exit code 75)")  # tests/cli


def postgresql(page: Page) -> None:
    """docs/how-to/postgresql.md."""
    found = page.result("postgres")
    page.lets("fact", "Tested with PostgreSQL 18")
    page.says("(up to {:,} of a process;", postponed.MOST)
    page.lets("elsewhere", "of a named user 5.")  # tests/store/test_text_copy.py
    page.says("| scifact, {:,} passages, k = {} |", found["n_passages"], found["k"])
    kinds = ("`record=False`", "record=False"), ("recorded", "recorded")
    for name, row in (*kinds, ("recorded, of a named user", "recorded, of a named user")):
        of = found[f"retrieve, {row}"]
        values = (of[store]["p50"] for store in ("sqlite", "postgresql"))
        page.says(f"| `retrieve`, {name}, ms | {{:.1f}} | {{:.1f}} |", *values)
    for name, n in (("one in a call", 1), ("ten in a call", 10)):
        of = found[f"votes a second, {n} a call, 8 processes"]
        values = (of[store]["votes"] for store in ("sqlite", "postgresql"))
        page.says(f"{name} | {{:,}} | {{:,}} |", *values)
    page.says("Medians over {} questions", found["n_queries"])
    page.says("(a load of {:.0f}, that of the eight processes)", found["machine"]["load"])


def object_store(page: Page) -> None:
    """docs/how-to/versions-in-an-object-store.md."""
    assert shared._FETCH_S == 3_600.0  # "stays for an hour"
    assert (objects.GRACE_S, shared._LATELY_S) == (86_400.0, 2 * 86_400.0)  # "a day", "two days"
    page.lets("example", "from 8 to 18")
    found = page.result("speed_objects")
    s3, folder, edits = found["s3"], found["folder"], found["edits"]
    page.says("| {:,} passages of the AWS documentation", found["n_passages"])
    for key, row in (
        ("first", "the first version"),
        ("one_edit", f"after {edits['one_edit']} edit"),
        ("percent_edited", f"after {edits['percent_edited']:,} edits"),
    ):
        page.lets("example", row)
        times = (of[key][step] for of in (s3, folder) for step in ("publish_s", "fetch_s"))
        page.says(
            f"| {row} | {{:.1f}} | {{:.1f}} | {{:.1f}} | {{:.1f}} | {{:.1f}} |",
            s3[key]["sent_bytes"] / 1e6,
            *times,
        )
    one = s3["one_edit"]
    page.says("Of {:.1f} MB only what changed moves", one["bytes"] / 1e6)
    page.says("{} of {} files after one edit", one["sent_files"], one["files"])


def cron(page: Page) -> None:
    """docs/how-to/cron-and-systemd.md."""
    page.lets("example", "when 50 votes came")
    page.lets("elsewhere", "| 75 | another process holds the lock")  # tests/cli


def embed_on_many_machines(page: Page) -> None:
    """docs/how-to/embed-on-many-machines.md."""
    page.says("batches of {} texts", embedding.AT_ONCE)
    assert (cluster._PATIENCE_S, cluster._AHEAD) == (120.0, 2)  # "two minutes", "two batches"
    page.lets("rough", "Ten million passages take one core weeks")
    page.lets(
        "example", "--port 8786", "tcp://scheduler:8786", "--nthreads 1", "tls://scheduler:8786"
    )
    found = page.result("speed_dask")
    taken = found["seconds_by_workers"]
    page.says(
        "embed {:,} passages of SQuAD with the default model {:.2f} times as fast as one ({:.1f} s against "
        "{:.1f}; without a cluster {:.1f}; medians of {} rounds",
        found["n_passages"],
        found["two_against_one"]["median"],
        taken["2"],
        taken["1"],
        taken["0"],
        found["rounds"],
    )


def change_encoder(page: Page) -> None:
    """docs/how-to/change-encoder.md."""
    page.says("beside** the live version, {} at a time", embedding.AT_ONCE)
    page.says("(`keep_versions`, {} by default)", Config().keep_versions)
    page.says("where {} [golden]", LEAST_JUDGED)
    page.lets("elsewhere", "(exit code 75)", "(exit code 3)")  # tests/cli
    widths = {"better": (32, 384), "worse": (384, 32), "as good": (384, 512)}
    page.says(
        "has {} numbers, its first {} alone, and the same turned at random in {}", 384, 32, 512
    )
    rows, known = page.result("change_encoder")["changes"], page.result("change_encoder_known")
    for row in rows:
        made = row["change"]
        page.says(
            "| " + row["collection"] + " | {} | {} | {:.3f} | {:.3f} | {}, p {:.4f} |",
            *widths[row["which"]],
            made["before"]["test"],
            made.get("forced", made["after"])["test"],
            made["report"]["outcome"],
            made["report"]["scores"]["gate_p"],
        )
        assert made["same_judgments"]
    (scifact,) = (r for r in rows if (r["collection"], r["which"]) == ("scifact", "better"))
    n_held_out = scifact["change"]["report"]["scores"]["n_held_out"]
    assert {known["changes"][0]["change"]["report"]["outcome"]} == {"rejected"}
    page.says(
        "on scifact {:.0f} held-out questions do not, nor do {} known answers",
        n_held_out,
        known["n_known"],
    )
    page.says("took {:.0f} MB at most", max(r["change"]["most_mb"] for r in rows))
    page.says("the same passages {:.0f} MB", max(r["rebuild"]["most_mb"] for r in rows))


def changing(page: Page) -> None:
    """docs/how-to/changing-documents.md."""
    page.says("a difflib ratio of {}", Config().edit_keeps_votes)
    page.says("leads to the {} newest texts", lineages._BUCKET)
    page.lets("arithmetic", "in common, 996 of 1,000)")  # 1 − (1 − 1/2)⁸
    page.says("with {} of the same words under other", lineages._SAME_BODY)
    page.says("more than {:,} words are compared without", near_identical._IN_DETAIL)
    page.says("more than {:,} are the same only", near_identical.MOST_WORDS)


def languages(page: Page) -> None:
    """docs/how-to/languages.md."""
    page.says("({} at most), whatever the encoder", _MOST_NAMED)
    page.says("of up to {} passages are searched", known_items._QUERIES)


def dependencies(page: Page) -> None:
    """docs/explanation/dependencies.md."""
    page.says("stems of {} languages", len(STEMMED))


def privacy(page: Page) -> None:
    """docs/how-to/privacy-requests.md."""
    page.lets("example", "longer than 90 days")
    page.says("and of the {} best candidates", POOL)
    page.says("(BLAKE2b, {} bytes", HASH_BYTES)
    page.lets("elsewhere", "plants 200 secrets")  # tests/privacy/test_mask.py
    page.says("Of {:,} past questions and more it also holds short codes", CODES_FROM)


def watching(page: Page) -> None:
    """docs/how-to/watch-an-index.md."""
    page.says("one runs for {:.0f} hours", health_of_refreshes._LONG_S / 3600)
    page.says("less than one version and {} MiB", health._ROOM // 2**20)
    page.says("`record_wait_s` ({} s)", Config().record_wait_s)
    page.says("At most {:,} records wait in a process", postponed.MOST)
    page.says("`close` waits for {:.0f} seconds", postponed.CLOSE_WAIT_S)


def running(page: Page) -> None:
    """docs/how-to/run-it.md."""
    given = Settings()
    page.says("at port {:.0f}, and", given.port)
    timer = (results.ROOT / "deploy/systemd/rag-flywheel-refresh.timer").read_text(encoding="utf-8")
    page.says("starts it every {} minutes", re.findall(r"OnUnitInactiveSec=(\d+)min", timer)[0])
    page.lets("example", "-p 127.0.0.1:8000:8000")
    page.lets("example", "reverse_proxy 127.0.0.1:8000")
    page.lets("example", "Host 127.0.0.1:8000")
    page.lets("fact", "-m 0700")


def monitoring(page: Page) -> None:
    """docs/how-to/monitoring.md."""
    given = Settings()
    page.says("read every {:.0f} seconds", given.numbers_s)
    page.says("coverage every {:.0f} minutes", given.coverage_s / 60)
    page.says("had a relevance of {} or more", coverage.EASY)
    page.says("At\nmost {:,} questions are read", coverage.MOST_ASKED)
    page.says("and {} on either side are compared", coverage.MOST_COMPARED)
    page.says("among the last {:,} of the process", tracing.MOST_LINKED)
    page.lets("elsewhere", "in the last 30 days")
    page.lets("fact", "200 while the process answers", "200 once the model", "else 503, with what")


def known(page: Page) -> None:
    """docs/how-to/known-answers.md."""
    page.says("(cosine {} and above", NEAR_DUPLICATE)
    page.says("only the {:,} voted on last", MOST_VOTED)
    page.lets("arithmetic", "all wrong once in 125 times, two once in 25")
    page.says("with a chance of up to {:.0f} %", 100 * Kernel().same)
    page.says("from 0 to {}, 1 without that column", rows.HIGHEST_GRADE)
    page.says("(1 to {}, 1 without it)", rows.HIGHEST_GRADE)
    _known_answers_limits(page, "Limits: {:,} rows, {:.0f} MB a line, {:.0f} MB a file")
    page.says("`.csv` or `.tsv` {:,}", csv.field_size_limit())


def adding(page: Page) -> None:
    """docs/how-to/documents.md."""
    page.says("A document may have {:.0f} MiB", documents.MOST_BYTES / 2**20)
    page.says("deeper than {} levels", rules.MOST_NESTING)
    page.says("more than {:,} characters as well", front_matter._MOST_CHARS)
    page.says("of the first {} characters", passage_ids._START)
    page.lets("fact", "some 25 MB without models", "The default model reads 256 tokens")
    page.says("{} tokens are estimated", Chunking().tokens)
    page.says("added some {} at a time", round(add_files.Options().at_once, -2))


def _low_enough(people: int) -> float:
    """The chance of a question's best hit below which it is a gap, by who asked."""
    odds = gaps.UNLIKELY / (1 - gaps.UNLIKELY) * (people / gaps.PEOPLE) ** 3
    return odds / (1 + odds)


SIGNALS = {
    "`copied` | |": ("copied", "{}"),
    "`accepted` | |": ("accepted", "{}"),
    "so from all for to all against |": ("edited", "±{}"),
    "`regenerated` | |": ("regenerated", "−{}"),
    "`abandoned` | |": ("abandoned", "−{}"),
    "`rephrased` | |": ("rephrased", "−{}"),
    "`escalated` | |": ("escalated", "−{}"),
    "The middle weighs nothing |": ("rating", "±{}"),
    "`False`: it was not done |": ("task_done", "±{}"),
}


def feedback(page: Page) -> None:
    """docs/how-to/feedback.md."""
    page.says("From {} voted questions on", LEAST_QUERIES)
    page.says("(some {} before new weights", least_for_new_weights())
    page.says("that you have**, up to {}, not", POOL)
    page.says("at most the {} newest", MOST_RETRIEVALS)
    page.says("belongs to at most {} runs", MOST_RUNS)
    page.says("| {}, shared as a vote on the answer is", WEIGHTS["adopted"])
    page.says("exp({:.0f} · (support − {}))", STEEPNESS, EVEN)
    page.says("Parts below {} are dropped", LEAST_CREDIT)
    page.says("had a chance of {:.0f} % before", 100 * NAMED)
    page.says("from a chance of {:.0f} %, and half", 100 * gaps.UNANSWERED)
    page.says("Below {:.0f} % (`min_relevance=`)", 100 * gaps.UNLIKELY)
    few = [100 * _low_enough(people) for people in (1, 2)]
    page.says("a 64th of that ({:.1f} %), an eighth for two ({:.0f} %)", *few)
    page.says("the {:,} asked most", gaps.MOST_QUESTIONS)
    for label, (kind, sign) in SIGNALS.items():
        page.says(f"{label} {sign} |", WEIGHTS[kind])
    page.says("verdicts-of-language-models) | {:.1f}, and then", WEIGHTS["judge"])
    page.lets("choice", "others from 0.0 to 1.0: a share")
    page.says("within {:.0f} s (`rephrased_within_s`", Config().rephrased_within_s)
    page.says("cosine at least {} of the way", ALIKE)
    page.says("worth {:.0f} comparisons)", TRUST_PRIOR)
    page.says("weighs 2 p − 1, from 0 to {}", MOST_TRUST)


def training_sets(page: Page) -> None:
    """docs/how-to/training-sets.md."""
    train, dev, all_of_it = SPLITS.values()
    page.says("{} % train, {} % dev and {} % test", train, dev - train, all_of_it - dev)
    page.says("at most {} beside a right passage", MOST_NEGATIVES)
    (run,) = page.result("exported_training")["runs"]
    page.says("each of the {:,} train questions", run["n_asked"])
    page.says("on the {:,} triplets of the split", run["rows"]["train"])
    page.says("for the {:,} test questions", run["n_test"])
    for name, of in (("nDCG@10", "nDCG@10"), ("recall@8", "R@8")):
        found = run["measures"][of]
        gain = found["difference"]
        numbers = found["before"], found["after"], gain["mean"], gain["low"], gain["high"]
        page.says("| " + name + " | {:.3f} | {:.3f} | +{:.3f} ({:.3f} to {:.3f}) |", *numbers)
    page.lets("design", "with its 95 % interval over questions")


def own_data(page: Page) -> None:
    """docs/how-to/own-data-in-the-benchmark.md."""
    traffic = Traffic()
    page.says("{} of them (`--users`)", traffic.n_users)
    page.says("(`--willingness`, {} on average)", traffic.willingness)
    train, dev, all_of_it = SPLITS.values()
    split = (train, dev - train, all_of_it - dev)
    page.says("({} % train, {} % dev, {} % test", *split)
    page.lets("choice", "the 98 % quantile of random pairs")
    page.says("with a fixed weight of {}, the best", page.result("memory_constants")["chosen"])
    spreads = (0.12, 0.32)
    page.lets("design", "0.12 when two rankings mostly agree, 0.32 when they do not")
    page.says("With 300 test questions that is {:.3f} to {:.3f}", *(s / 300**0.5 for s in spreads))
    page.says("({:.3f} to {:.3f}) only a gain", *(s / 50**0.5 for s in spreads))
    page.lets(
        "arithmetic",
        "With 300 test questions",
        "a gain below 0.02",
        "With 50 questions",
        "a gain near 0.1 says anything; with 2,000, one of 0.01 to 0.015 does",
    )
