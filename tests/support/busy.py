"""Questions and passages of an index that several processes use."""

N_QUERIES = 80


def query(i: int) -> str:
    return f"common topic{i % N_QUERIES} word{i % 7}"


def text(i: int, edit: int) -> str:
    """Most of its words nobody asks with, so that votes do not move it for a query of all of them."""
    own = " ".join(f"own{i}x{n}" for n in range(12))
    return f"topic{i} common word{i % 7} edit{edit} {own}"
