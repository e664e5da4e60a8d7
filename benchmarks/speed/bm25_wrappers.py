"""The two BM25 libraries that bm25_libraries.py compares, behind the same few methods."""

import gzip
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

import bm25s
import numpy as np
import Stemmer
import tantivy
from bm25s.tokenization import Tokenizer

SEED, TOP, FRESH, LONG_WORDS, K1, B = 0, 100, 1000, 60, 1.2, 0.75
Hits = tuple[np.ndarray, np.ndarray]
EDGE_TEXTS = ["الكلب يجري في الحديقة", "ذَهَبَ مُحَمَّدٌ إلى السوق", "שָׁלוֹם עוֹלָם"]
EDGE_TEXTS += ["机器学习模型部署指南", "plan C++ code", "needle " + "hay stack " * 100_000]
EDGES = {  # query: (its name, the passages that hold it)
    "": ("empty query", []),
    "the of and": ("only stop words", []),
    "zebra": ("unknown word", []),
    "الحديقة": ("Arabic", [0]),
    "مُحَمَّدٌ": ("Arabic, vowel marks", [1]),
    "עוֹלָם": ("Hebrew, vowel marks", [2]),
    "机器学习模型部署指南": ("Chinese, whole run", [3]),
    "模型": ("Chinese, word inside", [3]),
    "c++": ("one letter and signs", [4]),
    "needle": ("1 MB passage", [5]),
}


def read(path: Path) -> dict[str, str]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return {row["_id"]: f"{row.get('title', '')} {row['text']}".strip() for row in rows}


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


class Bm25s:
    """bm25s: the score of every (term, passage) pair in a sparse matrix of plain arrays."""

    def __init__(self, english: bool = True, k1: float = K1) -> None:
        stemmer = Stemmer.Stemmer("english") if english else None
        self.tokenizer = Tokenizer(stopwords="en" if english else [], stemmer=stemmer)
        self.model = bm25s.BM25(method="lucene", k1=k1, b=B, csc_backend="scipy")

    def tokens(self, texts: list[str], grow: bool = False) -> Any:
        options: Any = {"update_vocab": grow, "show_progress": False, "allow_empty": False}
        return self.tokenizer.tokenize(texts, **options)

    def index(self, ids: list[list[int]]) -> Self:
        vocabulary = dict(self.tokenizer.get_vocab_dict())
        self.model.index((ids, vocabulary), create_empty_token=False, show_progress=False)
        return self

    def add(self, texts: list[str]) -> Self:
        return self.index(self.tokens(texts, grow=True))

    def open(self, path: Path, mmap: bool) -> Self:
        self.model = bm25s.BM25.load(path, mmap=mmap, load_vocab=False)
        self.tokenizer.stem_to_sid = json.loads((path / "vocab.index.json").read_text("utf-8"))
        return self

    def scores(self, query: str) -> Any:
        return self.model.get_scores_from_ids(self.tokens([query])[0])

    def retrieve(self, query: str) -> Hits:
        limit = min(TOP, self.model.scores["num_docs"])
        found = self.model.retrieve(self.tokens([query]), k=limit, show_progress=False)
        return found.documents[0], found.scores[0]

    def search(self, query: str) -> Hits:
        """The fastest way found: select among the passages that match, never among zeros."""
        scores = self.scores(query)
        match = np.flatnonzero(scores > 0)
        if len(match) > TOP:
            match = match[np.argpartition(scores[match], -TOP)[-TOP:]]
        match = match[np.argsort(-scores[match], kind="stable")]
        return match, scores[match]

    def given(self, query: str, wanted: np.ndarray) -> np.ndarray:
        """Look the wanted passages (ascending) up in the sorted column of each term."""
        held, out = self.model.scores, np.zeros(len(wanted), np.float32)
        for token in self.tokens([query])[0]:
            column = slice(held["indptr"][token], held["indptr"][token + 1])
            rows = held["indices"][column]
            at = np.minimum(np.searchsorted(rows, wanted), len(rows) - 1)
            out += np.where(rows[at] == wanted, held["data"][column][at], np.float32(0))
        return out


class Tantivy:
    """tantivy: an inverted index in memory-mapped files, written in segments."""

    def __init__(self, path: Path, english: bool = True) -> None:
        chain = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
        chain = chain.filter(tantivy.Filter.lowercase())
        if english:
            chain = chain.filter(tantivy.Filter.stopword("english"))
            chain = chain.filter(tantivy.Filter.stemmer("english"))
        self.analyzer = chain.build()
        builder = tantivy.SchemaBuilder().add_unsigned_field("id", indexed=True, fast=True)
        builder.add_text_field("body", tokenizer_name="en", index_option="freq")
        self.schema = builder.build()
        path.mkdir(parents=True, exist_ok=True)
        self.index = tantivy.Index(self.schema, path=str(path))  # opens an index that is there
        self.index.register_tokenizer("en", self.analyzer)
        self.searcher = self.index.searcher()

    def add(self, texts: list[str], first: int = 0, wait: bool = True) -> Self:
        writer = self.index.writer(heap_size=256_000_000 if wait else 50_000_000, num_threads=1)
        for number, text in enumerate(texts, first):
            row = {"id": number, "body": text}
            writer.add_document(tantivy.Document.from_dict(row, self.schema))
        writer.commit()
        if wait:
            writer.wait_merging_threads()
        self.index.reload()
        self.searcher = self.index.searcher()
        return self

    def query(self, text: str) -> tantivy.Query:
        term = partial(tantivy.Query.term_query, self.schema, "body", index_option="freq")
        words = self.analyzer.analyze(text)
        return tantivy.Query.boolean_query([(tantivy.Occur.Should, term(word)) for word in words])

    def run(self, query: tantivy.Query, limit: int) -> Hits:
        hits = self.searcher.search(query, limit=limit, count=False).hits
        ids = self.searcher.fast_field_values("id", [address for _, address in hits])
        return np.array(ids, np.int64), np.array([score for score, _ in hits], np.float32)

    def search(self, query: str) -> Hits:
        return self.run(self.query(query), TOP)

    def given(self, query: str, wanted: np.ndarray) -> np.ndarray:
        chosen = tantivy.Query.term_set_query(self.schema, "id", wanted.tolist())
        only = tantivy.Query.const_score_query(chosen, 0.0)
        ids, scores = self.run(self.query(query).and_must_match(only), len(wanted))
        out = np.zeros(len(wanted), np.float32)
        out[np.searchsorted(wanted, ids)] = scores
        return out
