"""Retrieval that gets better from the people who use it, safely."""

from rag_flywheel.config import Config
from rag_flywheel.errors import FlywheelError
from rag_flywheel.flywheel import Flywheel
from rag_flywheel.index.encoder import Encoder
from rag_flywheel.records import Candidate, Hit, Passage, Retrieval, Vote

__all__ = [
    "Candidate",
    "Config",
    "Encoder",
    "Flywheel",
    "FlywheelError",
    "Hit",
    "Passage",
    "Retrieval",
    "Vote",
]
