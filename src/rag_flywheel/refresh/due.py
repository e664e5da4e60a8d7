"""Decides whether a refresh of an index folder is due."""

from dataclasses import dataclass

from rag_flywheel.deploy.waiting import questions_waiting
from rag_flywheel.errors import counted
from rag_flywheel.records import AUTO
from rag_flywheel.refresh.start import Live
from rag_flywheel.store import passages, wall_clock
from rag_flywheel.store import votes as vote_store
from rag_flywheel.store.database import Database


@dataclass(frozen=True)
class When:
    """When a refresh is due, if anything changed: at this many new votes, or at this age.

    Neither given: whenever anything changed. Both: when either is reached.
    """

    if_votes: int | None = None
    max_age_s: float | None = None


def nothing_to_do(
    database: Database,
    live_now: Live,
    when: When,
    *,
    tune: bool = False,
    language: str = AUTO,
    lost: bool = False,
) -> str | None:
    """Why a refresh is not due; None when it is. Votes that a release made count again are new.

    tune: whether there is an encoder to tune though nothing is new. language: the setting; words are
    built anew when it is another one than before. lost: whether the live version is not in the database of
    vectors that it should be in.
    """
    live = live_now.manifest
    if live is None:
        return None
    if live_now.current is not None and live_now.current.held:
        return f"version {live.id} is held live until release"
    until = live.votes_until if live_now.frozen_at is None else live.watermark
    with database.snapshot() as conn:
        votes = vote_store.count_votes(conn, until)
        changes = passages.count_changes(conn, live.watermark)
        changes += passages.count_without_vector(conn, live.revision)
        waiting = questions_waiting(conn, live)
    if tune or lost or live.language != language:
        return None
    if not votes and not changes and not waiting:
        return "no passage and no vote since the live version was built"
    age_s = wall_clock.now() - live.created
    enough = when.if_votes is not None and votes >= when.if_votes
    old = when.max_age_s is not None and age_s >= when.max_age_s
    if enough or old or when == When():
        return None
    embeds = f"; {counted(waiting, 'question')} will be embedded by it" if waiting else ""
    return (
        f"not due: {counted(votes, 'new vote')} (asked for: {when.if_votes}), live version {age_s:.0f} s old "
        f"(asked for: {when.max_age_s}){embeds}"
    )
