"""What is missing is said before any work is done."""

import pytest

from rag_flywheel import FlywheelError
from rag_flywheel.bench.extra import require_bench_extra


def test_a_missing_package_names_the_extra() -> None:
    require_bench_extra()
    with pytest.raises(FlywheelError, match=r"no_such_package is not installed.*\[bench\]"):
        require_bench_extra(("json", "no_such_package"))
