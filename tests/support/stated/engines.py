"""Passages in Milvus."""

from rag_flywheel.config import Config
from rag_flywheel.errors import EngineError
from rag_flywheel.index import milvus
from rag_flywheel.index.dense import GRAPH_FROM
from rag_flywheel.service.problems import STATUSES
from stated.page import Page


def in_milvus(page: Page) -> None:
    """docs/how-to/milvus.md."""
    page.says("Above {:,} passages the nearest", GRAPH_FROM)
    assert GRAPH_FROM == milvus._EXACT_BELOW
    page.says("are in more than {:,} passages each", milvus._MOST)
    page.says("Milvus returns up to {:,} passages", milvus._MOST)
    page.lets("elsewhere", "`n_candidates` can be 10,000")  # tests/test_config.py
    page.says("the service answers {} and", STATUSES[EngineError])
    page.says("about {:.0f} MB of what was read", milvus._CACHED_BYTES / 2**20)
    _measured(page)
    assert Config().n_candidates <= milvus._MOST


def _measured(page: Page) -> None:
    found = page.result("speed_engine")
    memory, lite = found["in_memory"], found["in_milvus_lite"]
    page.says("{:,} passages of the AWS documentation", found["passages"])
    for name, key in (
        ("once it is loaded", "loaded_mb"),
        ("after {} questions", "after_queries_mb"),
    ):
        label = name.format(found["queries"]) if "{}" in name else name
        page.says(f"| {label} | {{:.0f}} MB | {{:.0f}} MB |", memory[key], lite[key])
    cpu = memory["retrieve"]["cpu_p50_ms"], lite["retrieve"]["cpu_p50_ms"]
    page.says("| processor time of a question, in this process | {:.1f} ms | {:.1f} ms |", *cpu)
    same = found["queries_with_the_same_hits"], found["queries"]
    page.says("{} of {} questions got the same hits", *same)
