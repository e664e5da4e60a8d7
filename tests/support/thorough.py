"""Property tests that try a few examples in the fast stage and all of theirs in the slow one."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import settings

ALL = "all examples"  # the hypothesis profile of the slow stage
FEW = "few examples"
Test = TypeVar("Test", bound=Callable[..., None])


def register_profiles() -> None:
    """Make both profiles known; that of the fast stage holds unless --hypothesis-profile names one."""
    for name in (ALL, FEW):
        settings.register_profile(name, deadline=None)  # a first call may load a library
    settings.load_profile(FEW)


def thorough(n: int, few: int, **others: Any) -> Callable[[Test], Test]:
    """Settings of a property test that runs in both stages.

    n: how many examples it tries in the slow stage
    few: how many in the fast one
    others: more settings of hypothesis
    """
    in_full = settings.get_current_profile_name() == ALL
    chosen = settings(max_examples=n if in_full else few, **others)

    def mark(test: Test) -> Test:
        marked: Test = pytest.mark.thorough(chosen(test))
        return marked

    return mark
