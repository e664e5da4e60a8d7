"""What each kind of feedback weighs on a passage, before it is shared out: the one table of it.

docs/feedback.md shows the same table. It must not know how events are stored or counted.
"""

from collections.abc import Mapping

from rag_flywheel.records import Kind

WEIGHTS: Mapping[Kind, float] = {
    "correction": 2.0,  # one passage out of all was named, not one of eight ticked
    "vote": 1.0,
    "answer": 1.0,
}
EXPLICIT: frozenset[Kind] = frozenset({"correction", "vote"})
"""Kinds that are said of the passage itself: of these a user's last one stands."""
