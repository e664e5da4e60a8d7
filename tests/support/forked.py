"""What a process does that is forked from that of the tests."""

import os
import signal
import traceback
from collections.abc import Callable


def in_fork(check: Callable[[], object]) -> str:
    """What a forked process says of a check: "", or how it failed."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = ""
        try:
            signal.alarm(60)
            check()
        except BaseException:
            said = traceback.format_exc()
        os.write(write, said.encode()[-60_000:])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        said = file.read().decode()
    assert os.waitpid(pid, 0)[1] == 0
    return said
