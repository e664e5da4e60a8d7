"""Passages in Milvus or PostgreSQL."""

from rag_flywheel.errors import EngineError
from rag_flywheel.index import milvus, remote
from rag_flywheel.service.problems import STATUSES
from stated.page import Page


def elsewhere(page: Page) -> None:
    """docs/how-to/milvus.md."""
    page.says("Up to {:,} passages Milvus compares every vector", milvus.EXACT_BELOW)
    page.says("Milvus returns up to {:,} passages", milvus.MOST)
    page.says("the service answers {} and", STATUSES[EngineError])
    page.says("keeps {:.0f} MiB of what was read", remote.CACHED_BYTES / 2**20)
    found = page.result("speed_engine")
    memory, there = found["in_memory"], found["in_postgresql"]
    page.says("over {:,} passages of the AWS documentation", found["passages"])
    page.lets("design", "vectors of 384 numbers")
    page.says(
        "| once it is loaded | {:.0f} MB | {:.0f} MB |", memory["loaded_mb"], there["loaded_mb"]
    )
    page.says(
        "| after {} questions | {:.0f} MB | {:.0f} MB |",
        found["queries"],
        memory["after_queries_mb"],
        there["after_queries_mb"],
    )
    cpu = memory["retrieve"]["cpu_p50_ms"], there["retrieve"]["cpu_p50_ms"]
    page.says("| processor time of a question, in this process | {:.1f} ms | {:.1f} ms |", *cpu)
    wall = memory["retrieve"]["p50_ms"], there["retrieve"]["p50_ms"]
    page.says("| time of a question | {:.1f} ms | {:.1f} ms |", *wall)
    same = found["queries_with_the_same_hits"], found["queries"]
    page.says("{} of the {} questions have the same hits", *same)
