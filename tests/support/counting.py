"""Counts in a process of its own: python counting.py FILE N, which prints the highest sum that it saw."""

import sys
from pathlib import Path

from rag_flywheel.store.service.counts import FileCounts

if __name__ == "__main__":
    counts = FileCounts(Path(sys.argv[1]))
    print(max(counts.add("one key", 1, 60)[0] for _ in range(int(sys.argv[2]))))
    counts.close()
