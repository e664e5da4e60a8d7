"""Scifact and feedbackqa whole: a database finds what memory finds, under filters and after votes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lite import Both
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.bench.prepared import read_prepared
from rag_flywheel.formats.beir import Collection, read_beir

pytestmark = pytest.mark.slow
DATA = Path(os.environ.get("RAG_FLYWHEEL_DATA", "build/data"))
QUESTIONS = 100
TIES = 1e-4
"""How far scores differ where of passages that tie for the last place among the candidates another is taken,
for scores are logarithms of shares of all candidates."""


@pytest.fixture(scope="module", params=["scifact", "feedbackqa"])
def collection(request: pytest.FixtureRequest) -> Collection:
    folder = DATA / request.param
    if not folder.is_dir():
        pytest.skip(f"needs the collection {request.param} below RAG_FLYWHEEL_DATA")
    return read_beir(folder, lenient=True)


@pytest.fixture(scope="module", params=["milvus", "pgvector"])
def both(
    request: pytest.FixtureRequest,
    collection: Collection,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Both]:
    encoder = read_prepared(DATA / collection.name, collection)
    assert encoder is not None
    passages = [
        Passage(p.id, p.text, p.title, {"firm": "a" if i % 3 else "b", "shelf": i % 50})
        for i, p in enumerate(collection.passages)
    ]
    opened = []
    if request.param == "milvus":
        address = f"milvus:{request.getfixturevalue('server').uri}/{collection.name}"
    else:
        address = f"pgvector:{request.getfixturevalue('postgres')}#{collection.name}"
    for engine in (None, address):
        config = Config(
            encoder="", engine=engine, n_lookups=0, tenant_key="firm", tenant_required=False
        )
        folder = tmp_path_factory.mktemp(collection.name)
        opened.append(Flywheel.open(folder, encoder=encoder, config=config))
        opened[-1].add(passages)
        assert opened[-1].refresh().outcome == "promoted"
    yield Both(*opened)
    for fw in opened:
        fw.close()


def test_every_question_gets_the_same_hits(both: Both, collection: Collection) -> None:
    split = collection.splits["test"]
    asked = list(split.queries.items())[:QUESTIONS]
    for query_id, query in asked:
        both.same(query, within=TIES)
        for fw in (both.memory, both.elsewhere):
            shown = fw.retrieve(query, user_id="ann", all_tenants=True)
            good = split.qrels[query_id]
            for hit in shown.hits:
                verdict = "helpful" if good.get(hit.passage_id, 0) > 0 else "harmful"
                fw.feedback(shown.id, hit.passage_id, verdict, user_id="ann", all_tenants=True)
    for _, query in asked:  # with the votes
        both.same(query, within=TIES)
    for _, query in asked[:30]:
        of_a, of_b = (both.same(query, tenant=tenant, within=TIES) for tenant in ("a", "b"))
        assert of_a != of_b
        both.same(query, where={"shelf": {"in": [3, 7]}}, within=TIES)
        both.same(query, where={"shelf": {"ne": 3}}, tenant="b", within=TIES)
    gone = [p.id for p in collection.passages[:40]]
    new = [
        Passage(f"new{i}", query, metadata={"firm": "a"}) for i, (_, query) in enumerate(asked[:20])
    ]
    edited = [
        Passage(p.id, f"{p.text} Thus said.", p.title, {"firm": "b"})
        for p in collection.passages[40:60]
    ]
    both.do(lambda fw: fw.add([*new, *edited], remove=gone))
    for _, query in asked[:30]:
        both.same(query, within=TIES)
    reports = both.do(lambda fw: fw.refresh())
    assert reports[0].reason == reports[1].reason
    for (
        _,
        query,
    ) in asked:  # weights are fitted to votes in an order of chance, that of keyed hashes
        both.same(query, within=1e-3)
