"""What is in the index folders of tests of damage, and the first use of one."""

from pathlib import Path

from fakes import WordEncoder
from rag_flywheel import Flywheel, Passage

QUERY = "word3 common"
PASSAGES = [Passage(f"p{i}", f"common word{i} and word{i + 1}", f"Title {i}") for i in range(30)]
Ids = list[str]
Entries = dict[str, tuple[int, bytes | str]]


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder())


def ids(fw: Flywheel) -> Ids:
    return [hit.passage_id for hit in fw.retrieve(QUERY, record=False).hits]


def use(root: Path) -> Ids:
    """What an application does first: open, and ask."""
    with opened(root) as fw:
        return ids(fw)


def state(folder: Path) -> Entries:
    """Everything in a folder: kind and permissions, and the bytes of files or the targets of links."""
    found: Entries = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        content = (
            str(path.readlink())
            if path.is_symlink()
            else path.read_bytes()
            if path.is_file()
            else b""
        )
        found[str(path.relative_to(folder))] = mode, content
    return found
