"""Prints results on the command line: tables for people, JSON for programs."""

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from rag_flywheel.errors import counted
from rag_flywheel.formats.printable import printable, printable_json, printable_line
from rag_flywheel.records import (
    AddFilesReport,
    AddReport,
    AuditReport,
    BackupReport,
    CopyReport,
    DpCounts,
    ExportReport,
    ForgetReport,
    GoldenItem,
    Health,
    HistoryEntry,
    Hit,
    ImportReport,
    PastVotes,
    RefreshReport,
    RestoreReport,
    Retrieval,
    ReviewItem,
    SkippedFile,
    Status,
    VersionInfo,
    VersionStory,
)

if TYPE_CHECKING:
    from rag_flywheel.bench.demo import DemoResult
    from rag_flywheel.report.coverage import Coverage
    from rag_flywheel.report.gaps import Gap
    from rag_flywheel.report.raters import Rater
    from rag_flywheel.store.service.keys import Key

T = TypeVar("T")
_EXCERPT = 160
_LEAST_TERM = 0.0005  # a smaller term would print as 0
_LARGEST_EXPONENT = 50.0
NO_WORDS = "(a question whose words are not stored)"
_LEAST_SHARED = 0.005  # a smaller share would print as 0
_MOST_FAILED = 20  # files that cannot be read, a line each
_MOST_NAMED = 3  # files left out, for each reason
_MOST_VOTES = 3  # past queries under each hit


def _json(value: object) -> None:
    print(printable_json(json.dumps(value, ensure_ascii=False, default=_plain)))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else str(value)  # type: ignore[arg-type]


def _say(line: str) -> None:
    """Print a line, or several, without characters that a terminal would obey."""
    Console(highlight=False, soft_wrap=True, markup=False, emoji=False).print(printable(line))


def imported(report: ImportReport) -> None:
    """Print what an import brought, then what it left out and why."""
    would = "would import" if report.dry_run else "imported"
    n = counted(sum(report.votes.values()), "vote")
    kinds = ", ".join(f"{kind} {n}" for kind, n in report.votes.items())
    by_kind = f": {kinds}" if set(report.votes) - {"vote"} else ""
    _say(f"{would} {counted(report.retrievals, 'retrieval')} and {n}{by_kind}")
    if report.unchanged:
        _say(f"came in before: {report.unchanged}")
    if report.extended:
        _say(f"came in before, with passages that are new: {report.extended}")
    if report.left_out:
        rows = sorted(report.left_out.items(), key=lambda each: (-each[1], each[0]))
        _table(["n", "left out"], ([str(n), reason] for reason, n in rows), numbers=["n"])
    if report.waiting and not report.dry_run:
        _say(
            f"{counted(report.waiting, 'question waits', 'questions wait')} for `rag-flywheel refresh` to be "
            "embedded: until then their votes act where the same words are asked, not on similar questions"
        )


def note(sentence: str) -> None:
    """Print a remark to standard error."""
    print(f"note: {printable_line(sentence)}", file=sys.stderr)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _excerpt(text: str) -> str:
    text = _one_line(text)
    return text if len(text) <= _EXCERPT else text[: _EXCERPT - 1] + "…"


def _table(
    columns: Sequence[str], rows: Iterable[Iterable[str]], *, numbers: Sequence[str] = ()
) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        justify: JustifyMethod = "right" if column in numbers else "left"
        table.add_column(column, justify=justify, overflow="fold")  # nothing is cut off
    for row in rows:
        table.add_row(*(Text(printable_line(cell)) for cell in row))
    Console(highlight=False).print(table)


def result(found: T, as_json: bool, show: Callable[[T], None]) -> None:
    """Print a result as JSON for programs, or as `show` prints it for people."""
    _json(found) if as_json else show(found)


def count(name: str, n: int, as_json: bool) -> None:
    """Print a number and the name of what it counts."""
    _json({name: n}) if as_json else _say(f"{name} {n}")


def value(name: str, found: object, as_json: bool) -> None:
    """Print a name and its value."""
    _json({name: found}) if as_json else _say(f"{name}: {printable_line(str(found))}")


def values(found: Mapping[str, object], as_json: bool) -> None:
    """Print names and their values, those that are None only in JSON."""
    if as_json:
        _json(found)
        return
    for name, value in found.items():
        if value is not None:
            _say(f"{name}: {printable_line(str(value))}")


def kept(n: int, as_json: bool) -> None:
    """Print how many votes are stored; none are of a user who opted out."""
    if as_json or n:
        count("kept", n, as_json)
    else:
        _say("kept 0: the user opted out, so nothing is stored")


def sentences(found: Sequence[str], none: str, as_json: bool) -> None:
    """Print one sentence a line; none: the line when there is no sentence."""
    _json(found) if as_json else _say("\n".join(map(printable_line, found or [none])))


def added(report: AddReport, as_json: bool) -> None:
    """Print the result of adding known answers."""
    counts = {name: getattr(report, name) for name in ("added", "updated", "unchanged")}
    if as_json:
        _json({**counts, "left_out": dict(report.left_out)})
        return
    _say(", ".join(f"{name} {n}" for name, n in counts.items()))
    for reason, n in report.left_out.items():
        _say(f"left out {counted(n, 'row')}: {reason}")


def added_files(report: AddFilesReport, as_json: bool, *, dry_run: bool) -> None:
    """Print what could not be read, a line each, and at last what was done and what was left out."""
    if as_json:
        counts = dataclasses.asdict(report)
        _json({**counts.pop("passages"), **counts})
        return
    failed = [skip for skip in report.skipped if skip.failed]
    for skip in failed[:_MOST_FAILED]:
        _say(f"skipped {printable_line(skip.path)}: {_one_line(skip.reason)}")
    if len(failed) > _MOST_FAILED:
        _say(f"skipped {len(failed) - _MOST_FAILED} more that cannot be read; --json names all")
    for line in _followed(report.passages):
        _say(line)
    found = report.passages
    counts = {name: getattr(found, name) for name in ("added", "updated", "unchanged", "removed")}
    line = ", ".join(f"{name} {n}" for name, n in counts.items())
    why = f": {_reasons(report.skipped)}" if report.skipped else ""
    _say(f"{'dry run: ' if dry_run else ''}{line}, skipped {len(report.skipped)}{why}")


def _followed(report: AddReport) -> Iterator[str]:
    """What became of votes and known answers, and whether passages are too long, a line each."""
    followed = (
        (report.moved_votes, report.moved_answers, "followed their texts to other ids"),
        (report.lost_votes, report.lost_answers, "were on texts that are gone"),
    )
    for n_votes, n_answers, what in followed:
        if n_votes or n_answers:
            yield f"{n_votes} votes and {n_answers} known answers {what}"
    if report.too_long:
        yield f"{report.too_long} passages are longer than the encoder reads"


def _reasons(skipped: Sequence[SkippedFile]) -> str:
    """How many were left out for each reason, the most first, with the names of a few."""
    names: dict[str, list[str]] = {}
    for skip in skipped:
        reason = "cannot be read" if skip.failed else skip.reason
        name = skip.path.rstrip("/").rpartition("/")[2]
        names.setdefault(printable_line(reason), []).append(printable_line(name))
    found = sorted(names.items(), key=lambda item: -len(item[1]))
    return ", ".join(
        f"{len(those)} {reason} ({', '.join(those[:_MOST_NAMED])}"
        + (", ..." if len(those) > _MOST_NAMED else "")
        + ")"
        for reason, those in found
    )


Behind = Mapping[int, Sequence[PastVotes]]
"""The votes on similar past queries that the evidence of each hit rests on, by its rank."""


def retrieval(found: Retrieval, behind: Behind | None, as_json: bool, *, record: bool) -> None:
    """Print the hits of a retrieval; behind: also how each score is made, and these votes.

    record: whether it was to be recorded.
    """
    if as_json:
        _json(found if behind is None else _with_votes(found, behind))
        return
    seen = set[str]()
    for hit in found.hits:
        title = f"   {printable_line(_one_line(hit.title))}" if hit.title else ""
        why_here = "   explored" if hit.explored else ""
        name = printable_line(hit.passage_id)
        _say(f"{hit.rank:>3}. {name}   {hit.relevance:.2f}{title}{why_here}")
        if behind is not None:
            _say(f"     {_product_of(hit)}")
            for line in _known_and_votes(hit, behind[hit.rank]):
                if line not in seen:
                    _say(f"       {line}")
                seen.add(line)
        _say(f"     {_excerpt(hit.text)}")
    if found.hits:
        _say(f"chance that one of them answers the question: {found.answerable:.2f}")
    else:
        _say(f"no passage found; chance of an answer: {found.answerable:.2f}")
    if found.id is not None and found.hits:
        _say(f"to vote: rag-flywheel feedback {found.id} PASSAGE helpful|harmful")
    elif record and found.id is None:
        _say("not recorded, so it takes no votes: the user opted out, or the database was busy")


def _with_votes(found: Retrieval, behind: Behind) -> dict[str, Any]:
    """The retrieval in the types of JSON, each hit with its past_votes."""
    plain = dataclasses.asdict(found)
    hits = [
        {**values, "past_votes": [dataclasses.asdict(votes) for votes in behind[hit.rank]]}
        for values, hit in zip(plain["hits"], found.hits, strict=True)
    ]
    return {**plain, "hits": hits}


def _known_and_votes(hit: Hit, behind: Sequence[PastVotes]) -> Iterator[str]:
    """The known answers and the votes that speak for or against a hit, a line each."""
    for answer in hit.explanation.known[:_MOST_VOTES]:
        question = "this question" if answer.same else "a similar question"
        sources = ", ".join(answer.sources)
        yield f"known answer of {question} ({sources}, grade {answer.grade})"
    yield from map(_past_votes, behind[:_MOST_VOTES])


def _product_of(hit: Hit) -> str:
    """What a hit is ranked by, as a product: scores are logarithms, so their parts are factors."""
    e = hit.explanation
    parts = [(v, name) for name, v in e.terms.items() if abs(v) >= _LEAST_TERM]
    factors = "".join(f" × {_exp(v)} {name}" for v, name in [*parts, (e.evidence, "evidence")])
    votes = f" from {counted(len(e.votes), 'vote')}" if e.votes else ""
    return f"{_exp(hit.score)} = {_exp(e.intercept)}{factors}{votes}"


def _exp(logarithm: float) -> str:
    """e to this power, without an exponent; with two digits at least."""
    found = math.exp(min(logarithm, _LARGEST_EXPONENT))
    if found >= 10.0:
        return f"{found:.1f}"
    return f"{found:.{min(max(3, 1 - math.floor(logarithm / math.log(10.0))), 20)}f}"


def _past_votes(votes: PastVotes) -> str:
    kinds = ((votes.helpful, "helpful"), (votes.harmful, "harmful"))
    parts = [f"{n} {kind}" for n, kind in kinds if n]
    if abs(votes.shared) >= _LEAST_SHARED:
        parts.append(f"{votes.shared:+.2f} from whole answers")
    query = f"“{printable_line(_one_line(votes.query)[:_EXCERPT])}”" if votes.query else NO_WORDS
    name = printable_line(votes.passage_id)
    return f"{query}: {', '.join(parts) or 'next to nothing'} on {name}"


def refreshed(report: RefreshReport) -> None:
    """Print the result of `refresh`."""
    _say(f"{report.outcome}: {report.reason}; live version {report.version}")


_NAMES = {
    "frozen_at": "votes that count",
    "held": "refreshes held back",
    "n_waiting": "passages since refresh",
    "n_questions_waiting": "questions to embed",
    "dense_search": "dense search looks at",
    "dense_recall": "dense recall@10",
}


def status(found: Status) -> None:
    """Print every number of the status."""
    values = dataclasses.asdict(found)
    for problem in values.pop("problems"):
        _say(f"{found.health}: {printable_line(problem)}")
    for name in ("encoder_change", "engine", "objects", "live_version", "behind_since"):
        if values[name] is None:
            del values[name]
    if not found.n_questions_waiting:
        del values["n_questions_waiting"]
    until = f"up to event {found.frozen_at}, until `rag-flywheel release`"
    values["frozen_at"] = "all" if found.frozen_at is None else until
    names = (_NAMES.get(name, name.removeprefix("n_").replace("_", " ")) for name in values)
    values["masked"] = ", ".join(f"{kind} {n}" for kind, n in found.masked.items()) or None
    shown = ("-" if value is None else str(value) for value in values.values())
    _table(("what", "value"), zip(names, shown, strict=True))


def health(found: Health) -> None:
    """Print the state, then what is wrong with what to do, then the other checks."""
    _say(f"{found.state}: {found.path}")
    for check in found.problems:
        _say(f"{check.state}: {check.name}: {printable_line(check.found)}")
        _say(f"  expected: {printable_line(check.expected)}; to do: {printable_line(check.to_do)}")
    fine = [check for check in found.checks if check.state == "ok"]
    if fine:
        _table(("ok", "found"), ((check.name, check.found) for check in fine))


def versions(found: Sequence[VersionInfo]) -> None:
    """Print the versions, the live one marked."""
    rows = (
        ("live" if v.live else "", v.id, v.created, str(v.n_passages), str(v.watermark))
        for v in found
    )
    numbers = ("passages", "events")
    _table(("", "version", "created", *numbers), rows, numbers=numbers)


def story(found: VersionStory) -> None:
    """Print how a version got its parameters."""
    sentences_ = map(printable_line, found.sentences)
    _say("\n  ".join((f"{found.id}{', live' if found.live else ''}", *sentences_)))


def forgotten(report: ForgetReport) -> None:
    """Print what `forget` deleted."""
    _say(
        f"deleted: {counted(report.n_retrievals, 'retrieval')}, "
        f"{counted(report.n_votes, 'vote')} of the user, {report.n_votes_of_others} of others on their "
        f"questions, {counted(report.n_notes, 'text')} for review\n"
        f"kept without their author: {counted(report.n_corrections_kept, 'correction')}, "
        f"{counted(report.n_reviews_kept, 'review')}\nlive: {report.version}"
    )


def audited(report: AuditReport) -> None:
    """Print how much personal data was found in which field, and where."""
    rows = (
        (f.field, f.kind, str(f.n), _some(f.records), *([_some(f.texts)] if f.texts else []))
        for f in report.findings
    )
    columns: tuple[str, ...] = ("field", "kind", "found", "in records")
    if any(f.texts for f in report.findings):
        columns = (*columns, "texts")
    if report.findings:
        _table(columns, rows, numbers=("found",))
    n = sum(f.n for f in report.findings)
    _say(f"looked through {counted(report.n_texts, 'text')}: {n or 'nothing'} found")


_SHOWN = 5  # records of one finding; all are in the JSON


def _some(values: Sequence[str]) -> str:
    more = f", ... {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(values[:_SHOWN]) + more


def dp_counts(found: DpCounts) -> None:
    """Print differentially private counts, and what they cost in privacy."""
    _table(
        ("key", "users, with noise"),
        ((" ".join(c.key), str(c.n)) for c in found.counts),
        numbers=("users, with noise",),
    )
    _say(
        f"epsilon {found.epsilon:g}, delta {found.delta:g} for one user, who counts for at most "
        f"{found.most_keys} keys; Laplace noise of scale {found.scale:.3g}, counts up to "
        f"{found.threshold} left out; all releases together: epsilon {found.epsilon_spent:g}, delta "
        f"{found.delta_spent:g}"
    )


def history(found: Sequence[HistoryEntry]) -> None:
    """Print the history, one event a line."""
    _table(("at", "what", ""), ((entry.at, entry.kind, entry.text) for entry in found))


def exported(report: ExportReport) -> None:
    """Print what an export wrote, and what it left out."""
    written = ", ".join(f"{what}: {n:,}" for what, n in report.written.items())
    version = f"; version {report.version}" if report.version else ""
    _say(f"{printable_line(report.path)} ({written}{version})")
    for what, n in report.left_out.items():
        _say(f"left out: {what}: {n:,}")


def backed_up(report: BackupReport) -> None:
    """Print what `backup` wrote."""
    version = "no version" if report.version is None else f"version {report.version}"
    _say(
        f"{printable_line(str(report.path))}: event {report.seq}, {version}; {report.n_files} files of "
        f"{report.n_bytes:,} bytes, {report.n_new_bytes:,} of them new"
    )


def copied(report: CopyReport) -> None:
    """Print what `copy` did."""
    version = "no version" if report.version is None else f"version {report.version}"
    beside = (
        "" if report.store == report.path else f", with its folder {printable_line(report.path)}"
    )
    _say(f"{printable_line(report.store)}{beside}: event {report.seq}, {version}")


def restored(report: RestoreReport) -> None:
    """Print what `restore` did."""
    version = "no version is" if report.version is None else f"version {report.version} is"
    _say(f"{printable_line(str(report.path))}: restored to event {report.seq}; {version} live")
    for sentence in report.moved:
        _say(printable_line(sentence))


def golden(items: Sequence[GoldenItem]) -> None:
    """Print known answers, one query a line."""
    rows = []
    for item in items:
        answers = ", ".join(f"{id_} ({grade})" for id_, grade in item.answers.items())
        query = _one_line(item.query)[:_EXCERPT]
        rows.append((query, answers, ", ".join(item.sources)))
    _table(("query", "answers", "sources"), rows)
    _say(f"{counted(len(items), 'query', 'queries')} with known answers")


def review_item(item: ReviewItem | None) -> None:
    """Print an answer to review, and the commands that decide it."""
    if item is None:
        _say("nothing to review")
        return
    _say(f"{item.id}   {item.why}")
    _say(f"query:   {_one_line(item.query) or NO_WORDS}")
    if item.passage_id:
        _say(f"passage: {printable_line(item.passage_id)}")
    _say(f"         {_one_line(item.text)}")
    if item.passage_id:
        _say(f"votes:   {item.helpful} helpful, {item.harmful} harmful")
    _say(f"does it answer? rag-flywheel review accept|reject {item.id}")


def review_items(items: Sequence[ReviewItem], most: int) -> None:
    """Print what waits for a decision, one item a line."""
    rows = (
        (i.id, str(i.helpful), str(i.harmful), i.why, _excerpt(i.query) or NO_WORDS, i.passage_id)
        for i in items[:most]
    )
    numbers = ("helpful", "harmful")
    _table(("item", *numbers, "why", "query", "passage"), rows, numbers=numbers)
    more = f", of which {most} are shown" if len(items) > most else ""
    _say(f"{counted(len(items), 'item')} to review{more}")


def gaps(found: Sequence["Gap"]) -> None:
    """Print topics without a good answer, one a line."""
    columns = ("asked", "before", "missing", "harmful", "unlikely")
    rows: list[tuple[str, ...]] = []
    for gap in found:
        counts = (gap.n, gap.n_before, gap.missing, gap.harmful, gap.unlikely)
        examples = "; ".join(_one_line(example)[:_EXCERPT] for example in gap.examples)
        rows.append((*map(str, counts), examples or NO_WORDS))
    _table((*columns, "such as"), rows, numbers=columns)
    _say(f"{counted(len(found), 'topic')} without a good answer")


def coverage(found: "Coverage") -> None:
    """Print the numbers of a coverage, its weeks, and what they mean."""
    shares = {
        "near a question with votes": found.near_share,
        "asking the same as one with votes": found.same_share,
        "without a good answer": found.unanswered_share,
        "easy, of those asked": found.easy_asked_share,
        "easy, of those voted on": found.easy_votes_share,
        "passages never shown": found.unshown_share,
        "passages never voted on": found.unvoted_share,
        "exposure Gini": found.exposure_gini,
        "drift": found.drift,
        "p of the drift": found.drift_p,
    }
    rows = [(name, "-" if share is None else f"{share:.3f}") for name, share in shares.items()]
    _say(
        f"since {found.since}: {counted(found.n_asked, 'question')}, {found.n_questions} different; "
        f"{counted(found.n_votes, 'vote')}; {counted(found.n_passages, 'passage')}"
    )
    _table(("share of questions, votes or passages", ""), rows, numbers=("",))
    _table(
        ("week from", "asked", "votes", "per question"),
        [
            (
                week.begins[:10],
                str(week.asked),
                str(week.votes),
                "-" if week.votes_per_question is None else f"{week.votes_per_question:.2f}",
            )
            for week in found.weeks
        ],
        numbers=("asked", "votes", "per question"),
    )
    _say("\n".join(found.findings) or "nothing stands out")


def demo(result: "DemoResult") -> None:
    """Print nDCG@10 of each group of questions by cycle, and the demo's remarks."""
    columns = ("cycle", "votes so far", *(curve.name for curve in result.curves))
    rows = []
    for cycles in zip(*(curve.cycles for curve in result.curves), strict=True):
        number, n_votes = cycles[0].number, cycles[0].n_votes
        values = (f"{cycle.values['nDCG@10']:.3f}" for cycle in cycles)
        rows.append(("static" if number == 0 else str(number), str(n_votes), *values))
    _table(columns, rows, numbers=columns)
    _say("\n".join(result.remarks))


def raters(found: Sequence["Rater"]) -> None:
    """Print users who vote."""
    columns = "user", "weight", "accuracy", "votes", "questions", "over", "crowd", ""
    rows = (
        (
            rater.name or rater.user,
            f"{rater.weight:.2f}",
            "" if rater.accuracy is None else f"{rater.accuracy:.2f}",
            str(rater.n_votes),
            str(rater.n_questions),
            str(rater.n_over),
            "" if rater.crowd is None else str(rater.crowd),
            "muted" if rater.muted else "",
        )
        for rater in found
    )
    _table(columns, rows, numbers=columns[1:7])


def keys(found: Sequence["Key"]) -> None:
    """Print the API keys of the service."""
    if not found:
        _say("no keys")
        return
    rows = [
        [
            key.id,
            key.name,
            ", ".join(key.scopes) + (" (public)" if key.public else ""),
            "all" if key.indexes is None else ", ".join(key.indexes),
            "any" if key.tenant is None else json.dumps(key.tenant, ensure_ascii=False),
            "revoked" if key.revoked is not None else "",
        ]
        for key in found
    ]
    _table(["id", "name", "scopes", "indexes", "tenant", ""], rows)
