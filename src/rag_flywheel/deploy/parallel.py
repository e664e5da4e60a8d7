"""Does work that waits for others, some of it at once."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

AT_ONCE = 8
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def each_of(
    work: Callable[[_Item], _Result], items: Iterable[_Item], *, at_once: int = AT_ONCE
) -> Iterator[_Result]:
    """What the work makes of each item, as it is done; begun in their order, so many at once.

    The first error is raised once what is under way has ended; the rest is not begun.
    """
    with ThreadPoolExecutor(at_once, thread_name_prefix="objects") as pool:
        waiting = [pool.submit(work, item) for item in items]
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            for each in waiting:
                each.cancel()
