"""The ranker of rag-flywheel, where Haystack looks for it when it reads a pipeline."""

from rag_flywheel.integrations.haystack import FlywheelRanker

__all__ = ["FlywheelRanker"]
