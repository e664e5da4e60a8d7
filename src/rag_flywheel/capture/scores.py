"""What scores of other tools say: which names are verdicts, on which scale, and what words mean."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rag_flywheel.checks import items
from rag_flywheel.errors import InputError, quoted

VERDICT_NAMES = frozenset({
    "user_feedback", "feedback", "human_feedback", "user_rating", "rating", "user_score", "thumbs", "thumb",
    "thumbs_up", "user_thumbs", "helpful", "helpfulness", "relevance", "relevant", "document_relevance",
    "context_relevance", "retrieval_relevance", "correctness", "correct",
})  # fmt: skip
"""Scores of these names are verdicts, the higher the better, unless the caller names others."""
HELPFUL_WORDS = frozenset({
    "helpful", "good", "great", "yes", "true", "correct", "right", "relevant", "positive", "like", "liked",
    "up", "thumbs_up", "thumbsup", "upvote", "pass", "passed", "👍", "1",
})  # fmt: skip
HARMFUL_WORDS = frozenset({
    "harmful", "unhelpful", "not_helpful", "bad", "no", "false", "incorrect", "wrong", "irrelevant",
    "not_relevant", "unrelated", "negative", "dislike", "disliked", "down", "thumbs_down", "thumbsdown",
    "downvote", "fail", "failed", "👎", "0", "-1",
})  # fmt: skip
_SCALE = re.compile(r"(-?\d+(?:\.\d+)?)\.\.(-?\d+(?:\.\d+)?)", re.ASCII)


@dataclass(frozen=True)
class Scale:
    """The numbers that say the worst and the best."""

    worst: float
    best: float

    def level(self, value: float) -> float | None:
        """From -1, the worst, to 1, the best; None beyond them."""
        share = (value - self.worst) / (self.best - self.worst)
        return 2.0 * share - 1.0 if 0.0 <= share <= 1.0 else None


@dataclass
class Meanings:
    """What scores mean. names: those that are verdicts; scales: of those that have one; judges: those that a
    language model gave, whatever the tool says; seen: the least and greatest number of each name."""

    names: frozenset[str] = VERDICT_NAMES
    scales: Mapping[str, Scale] = field(default_factory=dict)
    judges: frozenset[str] = frozenset()
    seen: dict[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, scores: Sequence[str], judges: Sequence[str]) -> "Meanings":
        """Of what a caller gives: "NAME", or "NAME=WORST..BEST" such as "stars=1..5". Raises InputError."""
        by_people = [_named(given) for given in items("scores", scores, str)]
        by_models = [_named(given) for given in items("judges", judges, str)]
        scales = {name: scale for name, scale in (*by_people, *by_models) if scale is not None}
        models = frozenset(name for name, _ in by_models)
        names = frozenset(name for name, _ in by_people) or VERDICT_NAMES
        return cls(names | models, scales, models)

    def see(self, name: str, value: object) -> None:
        """Take note of a score, before the first is asked for."""
        name = plain_name(name)
        if name in self.names and isinstance(value, int | float) and not isinstance(value, bool):
            least, most = self.seen.get(name, (value, value))
            self.seen[name] = min(least, value), max(most, value)

    def level(
        self, name: str, value: float | str | bool | None, label: str | None = None
    ) -> float | str:
        """From -1, wholly against, to 1, wholly for; or the reason why the score cannot be used.

        label: a word beside a number, which counts where it is known.
        """
        plain = plain_name(name)
        shown = quoted(name[:60])
        if plain not in self.names:
            return f"the score {shown} is not known to be a verdict (name it: --score)"
        if label is not None and isinstance(found := _word(label, shown), float):
            return found
        if isinstance(value, bool):
            return 1.0 if value else -1.0
        if isinstance(value, str):
            return _word(value, shown)
        if value is None or value != value or abs(value) == float("inf"):
            return f"the score {shown} has no value"
        scale = self.scales.get(plain) or self._usual(plain)
        level = None if scale is None else scale.level(float(value))
        if level is None:
            return f"the score {shown} has numbers beyond its scale (give it: --score NAME=WORST..BEST)"
        return level

    def _usual(self, name: str) -> Scale | None:
        """0 to 1, or -1 to 1 where one was below 0; None where others came with it."""
        least, most = self.seen.get(name, (0.0, 1.0))
        if least >= 0.0 and most <= 1.0:
            return Scale(0.0, 1.0)
        return Scale(-1.0, 1.0) if least >= -1.0 and most <= 1.0 else None


def plain_name(name: str) -> str:
    """A name without what tools write differently: letters' case, hyphens and blanks."""
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


def _named(given: str) -> tuple[str, Scale | None]:
    name, equals, text = given.partition("=")
    match = _SCALE.fullmatch(text.strip())
    usable = match is not None and float(match[1]) != float(match[2])
    if not name.strip() or (equals and not usable):
        raise InputError(
            f"found the score {quoted(given)}; expected NAME, or NAME=WORST..BEST such as stars=1..5"
        )
    scale = Scale(float(match[1]), float(match[2])) if match is not None else None
    return plain_name(name), scale


def _word(value: str, shown: str) -> float | str:
    plain = re.sub(r"[\s_-]+", "_", value.strip().casefold()) if value.strip() != "-1" else "-1"
    if plain in HELPFUL_WORDS:
        return 1.0
    if plain in HARMFUL_WORDS:
        return -1.0
    return f"the score {shown} has words that are neither for nor against"
