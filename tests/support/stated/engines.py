"""Passages in Milvus or PostgreSQL."""

from rag_flywheel.errors import EngineError
from rag_flywheel.index import milvus, remote
from rag_flywheel.service.problems import STATUSES
from rag_flywheel.store import vector_tables
from stated.page import Page


def elsewhere(page: Page) -> None:
    """docs/how-to/milvus.md."""
    page.says("Up to {:,} passages Milvus compares every vector", milvus.EXACT_BELOW)
    page.says("Milvus returns up to {:,} passages", milvus.MOST)
    page.says("the service answers {} and", STATUSES[EngineError])
    page.says("keeps {:.0f} MiB of what was read", remote.CACHED_BYTES / 2**20)
    page.says("(above {:,} passages, as exactly as the graph of Milvus", milvus.EXACT_BELOW)
    page.says("at most {:,} and less than about a fifth of all", remote.LISTED)
    page.says("given up after {:.0f} s (Milvus)", milvus.TIMEOUT_S + milvus.QUERY_S)
    page.says("or {} s (PostgreSQL", vector_tables.ANSWER_S + vector_tables.HANGS_AFTER_S)
    page.says("ends a long search itself after {} s)", vector_tables.ANSWER_S)
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
    _under_filters(page)
    _learned(page)
    _refreshed(page)


def _under_filters(page: Page) -> None:
    page.lets("design", "| 0.1 % |", "| 10 % |", "| 50 % |", "| 90 % |", "on a host with 64 GB")
    found = page.result("speed_engine_filters")
    page.says("over {:,} passages, of which", found["passages"])
    wall = (found[kind]["retrieve"]["p50_ms"] for kind in ("in_memory", "in_postgresql"))
    same = found["queries_with_the_same_hits"], found["queries"]
    page.says("| all | {:.1f} ms | {:.1f} ms | {} of {} |", *wall, *same)
    for name, says in (
        ("1 of 1000", "| 0.1 % | {:.1f} ms | {:.1f} ms | {} of {} |"),
        ("100 of 1000", "| 10 % | {:.1f} ms | {:.1f} ms | {} of {} |"),
        ("500 of 1000", "| 50 % | {:.1f} ms | {:.1f} ms | {} of {} |"),
        ("900 of 1000", "| 90 % | {:.1f} ms | {:.1f} ms | {} of {} |"),
    ):
        own = (found[kind]["filters"][name]["p50_ms"] for kind in ("in_memory", "in_postgresql"))
        page.says(says, *own, found["same_under_filters"][name], found["queries"])


def _learned(page: Page) -> None:
    found = page.result("stores")
    votes = found["places"]["SQLite"]["nDCG@10"]["votes"]
    page.says(
        "{} questions are voted on in ten cycles, {} others", found["n_train"], found["n_test"]
    )
    page.says("from {:.4f} to {:.4f} in every one of the four", votes[0], votes[-1])
    page.says("are at most {:.4f} apart", found["furthest"])
    assert len(found["places"]) == 4 and all(
        len(run) == 11 for place in found["places"].values() for run in place["nDCG@10"].values()
    )


def _refreshed(page: Page) -> None:
    for one in page.result("speed_engine_build")["refreshes"]:
        memory, there = one["in_memory"], one["in_postgresql"]
        page.says(
            "| {:,} | {:.0f} MB | {:.0f} MB |", one["passages"], memory["peak_mb"], there["peak_mb"]
        )
        kb = there["peak_mb"] * 1_000 / one["passages"]
    page.says("some {:.1f} kB a passage", kb)
    page.says("{:.0f} million passages on a host with 64 GB", 64e6 / kb / 1e6)
