"""The retriever of rag-flywheel, where Haystack looks for it when it reads a pipeline."""

from rag_flywheel.integrations.haystack import FlywheelRetriever

__all__ = ["FlywheelRetriever"]
