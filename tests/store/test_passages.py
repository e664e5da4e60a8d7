"""Which texts changed, by event number: an event is not after itself."""

from rag_flywheel import Flywheel, Passage
from rag_flywheel.store import passages


def test_what_changed_after_an_event(fw: Flywheel) -> None:
    fw.add([Passage("a", "alpha"), Passage("b", "beta")])  # event 1: rows 1 and 2
    fw.add([Passage("a", "quite another")])  # event 2: row 3, row 1 ends
    fw.remove(["b"])  # event 3: row 2 ends
    fw.add([Passage("c", "gamma")])  # event 4: row 4
    with fw._database.snapshot() as conn:
        assert passages.read_clock(conn) == 4
        changes = [passages.changed_since(conn, seq) for seq in range(6)]
        counts = [passages.count_changes(conn, seq) for seq in range(6)]
        last = [passages.last_change(conn, seq) for seq in range(6)]
        younger = [passages.count_passages(conn, seq) for seq in range(6)]
    born, ended = [list(one) for one, _ in changes], [sorted(two) for _, two in changes]
    assert born == [[3, 4], [3, 4], [4], [4], [], []]
    assert ended == [[1, 2], [1, 2], [2], [], [], []]
    assert counts == [4, 4, 2, 1, 0, 0]
    assert last == [0, 1, 2, 3, 4, 4]
    assert younger == [2, 2, 1, 1, 0, 0]
