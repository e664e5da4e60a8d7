"""The commands that say what users thought of an answer, each one call on Flywheel."""

from typing import Annotated, get_args

import typer

from rag_flywheel.cli import show
from rag_flywheel.cli.options import KB, Index, Json, User, one_of, open_index
from rag_flywheel.records import Signal, Verdict

Said = Annotated[str, typer.Argument(metavar="VERDICT", help="helpful, harmful or retract.")]


def feedback(
    retrieval_id: str,
    passage_id: str,
    verdict: Said,
    user: Annotated[str | None, typer.Option(help="Who votes.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why, in words.")] = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Keep a vote on a passage that a retrieval showed."""
    said: Verdict = one_of(verdict, get_args(Verdict))
    with open_index(index) as fw:
        fw.feedback(retrieval_id, passage_id, said, user_id=user, reason=reason)
    show.count("kept", 1, as_json)


def answer_feedback(
    retrieval_id: str,
    verdict: Said,
    answer: Annotated[str | None, typer.Option(help="The answer's text.")] = None,
    cited: Annotated[
        list[str] | None, typer.Option(help="A passage that the answer cites; may be repeated.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Who votes.")] = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Keep a vote on a whole answer; the passages behind it share it."""
    said: Verdict = one_of(verdict, get_args(Verdict))
    with open_index(index) as fw:
        fw.answer_feedback(retrieval_id, said, answer=answer, cited=cited, user_id=user)
    show.count("kept", 1, as_json)


def relevance(
    retrieval_id: str,
    yes: Annotated[list[str] | None, typer.Option(help="A relevant hit; may be repeated.")] = None,
    no: Annotated[list[str] | None, typer.Option(help="One that is not; may be repeated.")] = None,
    user: User = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Keep a vote on each of several hits at once."""
    if both := sorted(set(yes or ()) & set(no or ())):
        raise typer.BadParameter(f"{both[0]!r} is given as relevant and as not")
    said = {**dict.fromkeys(yes or (), True), **dict.fromkeys(no or (), False)}
    with open_index(index) as fw:
        show.count("kept", fw.relevance(retrieval_id, said, user_id=user), as_json)


def adopted(
    retrieval_id: str,
    used: Annotated[bool, typer.Option("--used/--unused", help="Whether the answer was used.")],
    why: Annotated[str, typer.Option(help="Why, in words.")] = "",
    user: User = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Say whether an answer was used."""
    with open_index(index) as fw:
        fw.adopted(retrieval_id, used=used, why=why, user_id=user)
    show.count("kept", 1, as_json)


def signal(
    retrieval_id: str,
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(get_args(Signal))}.")],
    value: Annotated[
        str | None, typer.Argument(help="The final text, the rating, or false for task_done.")
    ] = None,
    passage: Annotated[str | None, typer.Option(help="Of one passage alone.")] = None,
    user: User = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Keep what a user did with an answer: weak evidence."""
    action: Signal = one_of(kind, get_args(Signal))
    with open_index(index) as fw:
        fw.signal(retrieval_id, action, _value(kind, value), passage_id=passage, user_id=user)
    show.count("kept", 1, as_json)


def _value(kind: str, given: str | None) -> str | int | float | bool | None:
    """What a word of the command line stands for."""
    if given is None or kind not in {"rating", "task_done"}:
        return given
    if kind == "task_done" and given in {"true", "false"}:
        return given == "true"
    try:
        return int(given) if given.isdigit() else float(given)
    except ValueError:
        return given


def correct(
    retrieval_id: str,
    passage_id: Annotated[str | None, typer.Argument(help="The right passage.")] = None,
    text: Annotated[str | None, typer.Option(help="Or the answer itself, for a reviewer.")] = None,
    user: User = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Name the passage that is the answer to a retrieval, whether it was shown or not; or write it."""
    with open_index(index) as fw:
        fw.correct(retrieval_id, passage_id, text, user_id=user)
    show.count("kept", 1, as_json)


def missing(
    retrieval_id: str,
    note: Annotated[str, typer.Option(help="What is missing, in words.")] = "",
    user: User = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Say that the index has no answer to a question."""
    with open_index(index) as fw:
        fw.missing(retrieval_id, note, user_id=user)
    show.count("kept", 1, as_json)


def gaps(
    days: Annotated[
        float, typer.Option(min=0.01, help="The period; the one before is the trend.")
    ] = 30.0,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """What users ask in vain, by topic, with how often, and how often in the period before."""
    with open_index(index) as fw:
        show.result(fw.gaps(days), as_json, show.gaps)


COMMANDS = (feedback, relevance, answer_feedback, adopted, signal, correct, missing, gaps)
