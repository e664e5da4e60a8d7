"""Reads what is known for certain of passage texts as answers: imported, pinned, and decided in review."""

from rag_flywheel.curate.opinions import question_of, standing_decisions
from rag_flywheel.records import QueryKey
from rag_flywheel.store import golden
from rag_flywheel.store.connection import Connection


def certain_texts(conn: Connection, until: int) -> dict[tuple[QueryKey, int], bool]:
    """Whether passage texts are known to be right, or to be wrong, as the answers of questions: by
    question and lineage, from what was said up to event number `until`."""
    found: dict[tuple[QueryKey, int], bool] = {}
    for answer in golden.answers_until(conn, until):
        place = question_of(answer), answer.lineage
        if answer.grade or answer.source != "pinned":
            found[place] = answer.grade > 0
        else:  # the pin was taken away
            found.pop(place, None)
    for decision in standing_decisions(golden.decisions_until(conn, until)):
        found[question_of(decision), decision.lineage] = decision.kind == "accept"
    return found
