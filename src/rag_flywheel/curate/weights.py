"""The weight of each kind of feedback on a passage, before it is divided among passages.

docs/how-to/feedback.md shows the same table. It must not know how events are stored or counted.
"""

from collections.abc import Mapping

from rag_flywheel.rank.posterior import CORRECTION_WEIGHT
from rag_flywheel.store.event_types import Kind

WEIGHTS: Mapping[Kind, float] = {
    "correction": CORRECTION_WEIGHT,
    "vote": 1.0,
    "answer": 1.0,
    "adopted": 0.7,
    "task_done": 0.6,
    "rating": 0.6,
    "accepted": 0.5,
    "escalated": 0.5,
    "copied": 0.4,
    "judge": 0.4,
    "edited": 0.4,
    "regenerated": 0.3,
    "rephrased": 0.3,
    "abandoned": 0.1,
}
EXPLICIT: frozenset[Kind] = frozenset({"correction", "vote"})
"""Kinds of feedback on the passage itself: of these a user's last one stands."""
SAID: frozenset[Kind] = EXPLICIT | {"answer"}
"""Kinds in which a user states a verdict; the others are signals of what a user did, and verdicts of language
models, who are no users."""
