"""Reports who votes, how far each is trusted, and who looks like one crowd."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rag_flywheel.deploy.current import live_of
from rag_flywheel.deploy.versions import version_folder
from rag_flywheel.rank.raters import load_raters
from rag_flywheel.store import mutes, votes
from rag_flywheel.store.database import Database


@dataclass(frozen=True)
class Rater:
    """A user who votes.

    user: the keyed hash that is stored in place of their id.
    name: their id, where the caller gave it; else None.
    weight: a factor for their votes, from 0 to 2, 1 for an ordinary voter's, as the last refresh
        estimated it.
    accuracy: the mean of how often they call right passages helpful and wrong ones harmful, by that
        estimate, near 0.5 for votes that tell nothing; None before a refresh has seen their votes.
    n_votes: how many votes they cast; n_questions: on how many questions.
    n_over: votes beyond what counts in a day, which weigh nothing.
    crowd: the number of the crowd they look like a part of; None: of none.
    muted: whether their votes are left out.
    """

    user: str
    name: str | None
    weight: float
    accuracy: float | None
    n_votes: int
    n_questions: int
    n_over: int
    crowd: int | None
    muted: bool


def raters_of(root: Path, database: Database, names: Mapping[str, str]) -> list[Rater]:
    """Every user who voted under an id, as the live version weighs them, crowds first, then those with the
    least weight.

    names: ids that the caller knows, by their hashes. Raises CorruptFileError.
    """
    live = live_of(root, database)
    stored = {} if live is None else load_raters(version_folder(root, live.version))
    with database.snapshot() as conn:
        muted, cast = mutes.muted(conn), votes.cast_by_user(conn)
    found = []
    for user, n in cast.items():
        rater = stored.get(user)
        found.append(
            Rater(
                user,
                names.get(user),
                1.0 if rater is None else rater.weight,
                None if rater is None else rater.accuracy,
                n.votes,
                n.questions,
                n.over,
                None if rater is None else rater.crowd,
                user in muted,
            )
        )
    return sorted(
        found, key=lambda r: (r.crowd is None, r.crowd or 0, r.weight, -r.n_votes, r.user)
    )
