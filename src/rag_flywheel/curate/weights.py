"""What each kind of feedback weighs on a passage, before it is shared out: the one table of it.

docs/how-to/feedback.md shows the same table. It must not know how events are stored or counted.
"""

from collections.abc import Mapping

from rag_flywheel.rank.posterior import NAMING
from rag_flywheel.store.event_types import Kind

WEIGHTS: Mapping[Kind, float] = {
    "correction": NAMING,
    "vote": 1.0,
    "answer": 1.0,
    "adopted": 0.7,
    "task_done": 0.6,
    "rating": 0.6,
    "accepted": 0.5,
    "escalated": 0.5,
    "copied": 0.4,
    "edited": 0.4,
    "regenerated": 0.3,
    "rephrased": 0.3,
    "abandoned": 0.1,
}
EXPLICIT: frozenset[Kind] = frozenset({"correction", "vote"})
"""Kinds that are said of the passage itself: of these a user's last one stands."""
SAID: frozenset[Kind] = EXPLICIT | {"answer"}
"""Kinds that a user says; the others are signals, which only tell what a user did."""
