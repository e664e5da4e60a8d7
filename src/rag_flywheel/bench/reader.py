"""A simulated application that writes its answer from one of the hits, without a language model."""

import re
from collections.abc import Mapping

import numpy as np

from rag_flywheel.index.lexical import tokenize
from rag_flywheel.records import Retrieval

CAREFUL = 0.8
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


def write(
    seen: Retrieval, helps: Mapping[str, bool], careful: float, rng: np.random.Generator
) -> tuple[str, str]:
    """Write an answer: (the id of the hit that it is written from, its text).

    With probability `careful` it is the first hit that helps, if one does; else any hit, drawn with
    probability proportional to 1/rank. The text is one or two sentences of the passage, word for
    word, with even chances: those that share most words with the question.
    """
    attentive, place, two = rng.random(3)
    right = [hit for hit in seen.hits if helps[hit.passage_id]]
    if right and attentive < careful:
        source = right[0]
    else:
        upto = np.cumsum([1.0 / hit.rank for hit in seen.hits])
        source = seen.hits[int(np.searchsorted(upto, place * upto[-1], side="right"))]
    return source.passage_id, sentences_for(seen.query, source.text, 2 if two < 0.5 else 1)


def sentences_for(query: str, text: str, n: int) -> str:
    """The n sentences of a text that share most words with the query, in the text's order."""
    asked = set(tokenize(query))
    found = [part for part in _SENTENCE.split(text) if part.strip()]
    shared = np.array([len(asked & set(tokenize(sentence))) for sentence in found])
    best = np.sort(np.argsort(-shared, kind="stable")[:n])
    return " ".join(found[i].strip() for i in best.tolist())
