"""The commands that record feedback on answers, each one call on Flywheel."""

from typing import Annotated, get_args

import typer

from rag_flywheel.cli import show
from rag_flywheel.cli.options import (
    KB,
    Index,
    Json,
    TenantName,
    User,
    of_tenant,
    one_of,
    open_index,
)
from rag_flywheel.records import Signal, Verdict

VerdictWord = Annotated[str, typer.Argument(metavar="VERDICT", help="helpful, harmful or retract.")]

Of = Annotated[
    str,
    typer.Argument(metavar="RETRIEVAL", help="The id of a retrieval, or of a run: see --run."),
]
OfRun = Annotated[
    bool, typer.Option("--run", help="RETRIEVAL is the id of a run, as given to retrieve by --run.")
]


def _about(named: str, run: bool) -> dict[str, str]:
    """What feedback is about, as the library takes it."""
    return {"run" if run else "retrieval_id": named}


def feedback(
    retrieval: Of,
    passage_id: str,
    verdict: VerdictWord,
    run: OfRun = False,
    user: User = None,
    reason: Annotated[str | None, typer.Option(help="Why, in words.")] = None,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Record a vote on a passage that a retrieval showed."""
    word: Verdict = one_of(verdict, get_args(Verdict))
    with open_index(index) as fw:
        n = int(
            fw.feedback(
                **_about(retrieval, run),
                passage_id=passage_id,
                verdict=word,
                user_id=user,
                reason=reason,
                **of_tenant(fw, tenant),
            )
        )
    show.kept(n, as_json)


def answer_feedback(
    retrieval: Of,
    verdict: VerdictWord,
    answer: Annotated[str | None, typer.Option(help="The answer's text.")] = None,
    cited: Annotated[
        list[str] | None, typer.Option(help="A passage that the answer cites; may be repeated.")
    ] = None,
    uncited: Annotated[
        bool, typer.Option("--uncited", help="The answer cites no passage: none gets a share.")
    ] = False,
    run: OfRun = False,
    user: User = None,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Record a vote on a whole answer; it is divided among the passages of the answer."""
    word: Verdict = one_of(verdict, get_args(Verdict))
    if cited and uncited:
        raise typer.BadParameter("--cited and --uncited exclude each other")
    named = [] if uncited else cited or None
    with open_index(index) as fw:
        n = int(
            fw.answer_feedback(
                **_about(retrieval, run),
                verdict=word,
                answer=answer,
                cited=named,
                user_id=user,
                **of_tenant(fw, tenant),
            )
        )
    show.kept(n, as_json)


def relevance(
    retrieval: Of,
    yes: Annotated[list[str] | None, typer.Option(help="A relevant hit; may be repeated.")] = None,
    no: Annotated[
        list[str] | None, typer.Option(help="An irrelevant hit; may be repeated.")
    ] = None,
    run: OfRun = False,
    user: User = None,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Record a vote on each of several hits at once."""
    if both := sorted(set(yes or ()) & set(no or ())):
        raise typer.BadParameter(f"{both[0]!r} is given as relevant and as not")
    if not yes and not no:
        raise typer.BadParameter("found neither --yes nor --no; expected the id of a hit at least")
    helpful = {**dict.fromkeys(yes or (), True), **dict.fromkeys(no or (), False)}
    with open_index(index) as fw:
        about = _about(retrieval, run)
        n = fw.relevance(**about, helpful=helpful, user_id=user, **of_tenant(fw, tenant))
    show.kept(n, as_json)


def adopted(
    retrieval: Of,
    used: Annotated[bool, typer.Option("--used/--unused", help="Whether the answer was used.")],
    why: Annotated[str, typer.Option(help="Why, in words.")] = "",
    cited: Annotated[
        list[str] | None, typer.Option(help="A passage that it was made of; may be repeated.")
    ] = None,
    run: OfRun = False,
    user: User = None,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Record whether an answer was used."""
    with open_index(index) as fw:
        n = int(
            fw.adopted(
                **_about(retrieval, run),
                used=used,
                why=why,
                cited=cited or None,
                user_id=user,
                **of_tenant(fw, tenant),
            )
        )
    show.kept(n, as_json)


def signal(
    retrieval: Of,
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(get_args(Signal))}.")],
    value: Annotated[
        str | None, typer.Argument(help="The final text, the rating, or false for task_done.")
    ] = None,
    passage: Annotated[str | None, typer.Option(help="The passage it was about.")] = None,
    run: OfRun = False,
    user: User = None,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Record what a user did with an answer, as weak evidence."""
    action: Signal = one_of(kind, get_args(Signal))
    with open_index(index) as fw:
        given = _value(kind, value)
        of = of_tenant(fw, tenant)
        about = _about(retrieval, run)
        n = int(
            fw.signal(**about, kind=action, value=given, passage_id=passage, user_id=user, **of)
        )
    show.kept(n, as_json)


def _value(kind: str, text: str | None) -> str | int | float | bool | None:
    """The value of a signal of this kind, from its text on the command line."""
    if text is None or kind not in {"rating", "task_done"}:
        return text
    if kind == "task_done" and text in {"true", "false"}:
        return text == "true"
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        return text


def correct(
    retrieval: Of,
    passage_id: Annotated[str | None, typer.Argument(help="The right passage.")] = None,
    text: Annotated[str | None, typer.Option(help="Or the answer's text, to review.")] = None,
    run: OfRun = False,
    user: User = None,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Name the passage that is the answer, whether it was shown or not, or write the answer."""
    with open_index(index) as fw:
        about = {**_about(retrieval, run), "passage_id": passage_id, "text": text}
        n = int(fw.correct(**about, user_id=user, **of_tenant(fw, tenant)))
    show.kept(n, as_json)


def missing(
    retrieval: Of,
    note: Annotated[str, typer.Option(help="A description of what is missing.")] = "",
    run: OfRun = False,
    user: User = None,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Report that the index has no answer to a question."""
    with open_index(index) as fw:
        about = _about(retrieval, run)
        n = int(fw.missing(**about, note=note, user_id=user, **of_tenant(fw, tenant)))
    show.kept(n, as_json)


def gaps(
    days: Annotated[
        float, typer.Option(min=0.01, help="Length of the period; the one before shows the trend.")
    ] = 30.0,
    min_relevance: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="List questions less likely to have an answer; default 0.4."
        ),
    ] = None,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """List topics without a good answer, with how often they were asked, and in the period before."""
    with open_index(index) as fw:
        show.result(
            fw.gaps(days, min_relevance=min_relevance, **of_tenant(fw, tenant)), as_json, show.gaps
        )


def coverage(
    days: Annotated[float, typer.Option(min=0.01, help="Length of the period.")] = 30.0,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Tell whether votes fall where they help, what nobody is shown, and whether questions change."""
    with open_index(index) as fw:
        show.result(fw.coverage(days, **of_tenant(fw, tenant)), as_json, show.coverage)


OTHERS = (relevance, answer_feedback, adopted, signal, correct, missing)
