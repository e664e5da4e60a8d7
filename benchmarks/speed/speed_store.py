"""What `speed_peers.py` gives to each store, and what it asks of it."""

import json
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

K, NEAREST = 8, 10
LINKS, EF_CONSTRUCTION = 32, 40


class Given:
    """Passages, queries and their vectors, as `speed_peers.py` has written them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def passages(self) -> list[dict[str, str]]:
        """id, title, text."""
        lines = (self.folder / "passages.jsonl").read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line]

    @cached_property
    def texts(self) -> list[str]:
        """Title and text of each passage."""
        return [f"{p['title']} {p['text']}".strip() for p in self.passages]

    @cached_property
    def vectors(self) -> np.ndarray:
        """float32 (n, dim)."""
        found: np.ndarray = np.load(self.folder / "vectors.npy")
        return found

    @cached_property
    def queries(self) -> list[str]:
        """Their texts."""
        found: list[str] = json.loads((self.folder / "queries.json").read_text(encoding="utf-8"))
        return found

    @cached_property
    def query_vectors(self) -> np.ndarray:
        """float32 (n, dim)."""
        found: np.ndarray = np.load(self.folder / "query-vectors.npy")
        return found

    def forget(self) -> None:
        """Keep only the queries; a store that needs the rest has its own."""
        for name in ("passages", "texts", "vectors"):
            self.__dict__.pop(name, None)


class Peer:
    """A store of passages. hybrid: answers come from words and vectors; widths: how widely dense
    search may look, the quickest first (none: it cannot be set)."""

    packages: tuple[str, ...] = ()
    hybrid = False
    persistent = True  # else it is built in the process that serves
    setting = ""
    widths: tuple[int, ...] = (48, 64, 96, 128, 200, 256, 320, 400, 512, 800)
    k = K

    def __init__(self, given: Given, folder: Path) -> None:
        self.given = given
        self.folder = folder
        self.width = 0

    def build(self) -> None:
        raise NotImplementedError

    def open(self) -> None:
        raise NotImplementedError

    def ask(self, i: int) -> list[str]:
        """The texts of the k hits for a query."""
        raise NotImplementedError

    def dense(self, i: int) -> list[int]:
        """Which 10 passages dense search alone finds."""
        raise NotImplementedError

    def set_width(self, width: int) -> None:
        self.width = width

    def said(self) -> dict[str, Any]:
        return {
            "version": {name: version(name) for name in self.packages},
            "hybrid": self.hybrid,
            "setting": self.setting,
            "widths": self.widths,
            "built_where_it_serves": not self.persistent,
        }

    def close(self) -> None:
        pass
