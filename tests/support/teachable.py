"""A small encoder that can be taught, and a collection in which nothing else helps.

Each word has two passages about it, told apart by a word of sense; questions name the sense by
another word, which no passage has: neither the words nor past questions of other words say which
passage answers, but what is taught about the word of sense does.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from fakes import Vectors, WordEncoder
from rag_flywheel import Flywheel, Passage, Vote
from rag_flywheel.encode.tower import Tower

torch = pytest.importorskip("torch", reason="torch is not installed: nothing can be tuned")
SENSES = {"fruit": ("sweet", "sour", "ripe"), "machine": ("fast", "shiny", "loud")}
SLANG = {word: sense for sense, words in SENSES.items() for word in words}
RATE = 0.03


class TeachableModel(torch.nn.Module):
    """Vectors of words through two layers that change nothing until they are taught."""

    def __init__(self, words: WordEncoder) -> None:
        super().__init__()
        self.words = words
        self.prompts: Mapping[str, str] = {}
        self.default_prompt_name: str | None = None
        self.layers = torch.nn.ModuleList(
            torch.nn.Linear(words.dim, words.dim, bias=False) for _ in range(2)
        )
        for layer in self.layers:
            torch.nn.init.eye_(layer.weight)  # type: ignore[arg-type]

    def preprocess(self, texts: Sequence[str], prompt: str | None = None) -> dict[str, Any]:
        return {"words": torch.from_numpy(self.words.encode_queries(texts))}

    def forward(self, features: dict[str, Any], task: str) -> dict[str, Any]:
        found = features["words"]
        for layer in self.layers:
            found = layer(found)
        return {"sentence_embedding": found}


class TeachableEncoder(WordEncoder):
    """A WordEncoder whose queries can be taught."""

    def __init__(self, dim: int = 64) -> None:
        super().__init__(dim)
        self.n_towers = 0

    def tower(self) -> Tower:
        self.n_towers += 1
        return Tower(TeachableModel(WordEncoder(self.dim)), self.revision)

    def with_tower(self, tower: Tower) -> "TaughtQueries":
        return TaughtQueries(tower)


class TaughtQueries:
    """Queries through what was taught."""

    def __init__(self, tower: Tower) -> None:
        self.revision = tower.revision
        self._tower = tower

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        with torch.no_grad():
            found: Vectors = self._tower.vectors(texts).numpy()
        return found


def passages(n: int) -> list[Passage]:
    return [
        Passage(f"{sense}{i}", f"thing{i} {sense} of course")
        for i, sense in product(range(n), SENSES)
    ]


def questions(start: int, stop: int) -> list[str]:
    return [f"thing{i} {slang}" for i, slang in product(range(start, stop), SLANG)]


def answer(question: str) -> str:
    thing, slang = question.split()
    return f"{SLANG[slang]}{thing.removeprefix('thing')}"


def vote(fw: Flywheel, asked: Sequence[str], wrong: float = 0.1, seed: int = 3) -> int:
    """Every user votes on the two best hits, at times wrongly."""
    rng = np.random.default_rng(seed)
    votes = []
    for found in fw.retrieve_many(asked, 2):
        for hit in found.hits:
            right = (hit.passage_id == answer(found.query)) != (rng.random() < wrong)
            votes.append(Vote(found.id, hit.passage_id, "helpful" if right else "harmful"))
    return fw.feedback_many(votes)


def share_right(fw: Flywheel, asked: Sequence[str]) -> float:
    """How often the first hit is the answer."""
    found = fw.rank_many(asked, 1)
    return float(np.mean([ids[0] == answer(q) for q, ids in zip(asked, found, strict=True)]))
