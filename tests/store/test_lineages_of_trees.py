"""Random edits of a real tree of Markdown: votes and known answers stay with the texts they were given to.

The model knows paragraphs and what was done to them, and nothing of ids, hashes or near-identity.
"""

import random
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes import WordEncoder
from known import imported, table
from rag_flywheel import Flywheel, Passage

DOCS = Path(__file__).parents[2] / "docs"
OTHER_WORDS = ["amber", "basil", "cedar", "dill", "elder", "fennel", "ginger", "hazel", "iris"]


@dataclass(eq=False)
class Paragraph:
    """A paragraph as a writer sees it: it stays itself while its words are mended or moved."""

    text: str
    question: str = ""
    misspelt: bool = False


@dataclass
class Tree:
    """Files of sections of paragraphs: {file: [(heading, paragraphs)]}, and what was deleted."""

    files: dict[str, list[tuple[str, list[Paragraph]]]]
    deleted: list[Paragraph] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def paragraphs(self) -> Iterator[Paragraph]:
        for sections in self.files.values():
            for _, some in sections:
                yield from some

    def passages(self) -> list[Passage]:
        """As fragile as ids can be: they count the sections of a file, and paragraphs under a heading."""
        return [
            Passage(
                f"{name}#{re.sub(r'[^a-z0-9]+', '-', heading.lower())}-{s}-{i}", p.text, heading
            )
            for name, sections in self.files.items()
            for s, (heading, some) in enumerate(sections)
            for i, p in enumerate(some)
        ]


def read_tree(n_files: int, n_paragraphs: int) -> Tree:
    """Real paragraphs, from the documentation of this project."""
    files: dict[str, list[tuple[str, list[Paragraph]]]] = {}
    seen = set[str]()
    for path in sorted(DOCS.glob("explanation/*.md"))[:n_files]:
        sections: list[tuple[str, list[Paragraph]]] = [("Start", [])]
        for block in path.read_text(encoding="utf-8").split("\n\n"):
            if block.startswith("#"):
                sections.append((block.split("\n")[0].strip("# "), []))
            elif re.match(r"[A-Z][^|]{40,}$", block) and block not in seen:
                seen.add(block)
                sections[-1][1].append(Paragraph(block))
        kept = [(heading, some) for heading, some in sections if some]
        files[path.relative_to(DOCS).as_posix()] = kept[:n_paragraphs]
    return Tree(files)


def edit(tree: Tree, rng: random.Random) -> None:
    """One random edit: insert, delete, bring back, misspell, rewrite, move, copy files' names, headings."""
    name = rng.choice([n for n, sections in tree.files.items() if sections])
    sections = tree.files[name]
    s = rng.randrange(len(sections))
    some = sections[s][1]
    at = rng.randrange(len(some) + 1)

    def new_words(n: int) -> str:
        return " ".join(rng.choice(OTHER_WORDS) + str(rng.randrange(10**6)) for _ in range(n))

    def insert() -> None:
        some.insert(0, Paragraph(new_words(9)))

    def delete() -> None:
        if some and sum(1 for _ in tree.paragraphs()) > 10:
            tree.deleted.append(some.pop(at - 1))

    def bring_back() -> None:
        if tree.deleted:
            some.insert(at, tree.deleted.pop(rng.randrange(len(tree.deleted))))

    def misspell() -> None:
        for p in some[:1]:
            word = next(iter(re.findall(r"\b[a-z]{7,}\b", p.text)), None)
            if word is not None and not p.misspelt:
                p.text = p.text.replace(word, word[:2] + word[3] + word[2] + word[4:], 1)
                p.misspelt = True

    def rewrite() -> None:
        for p in some[-1:]:
            if p.question:
                tree.lost.append(p.question)
            p.text, p.question = new_words(12), ""

    def move() -> None:
        other = tree.files[rng.choice(list(tree.files))]
        if some and other:
            p = some.pop(at - 1)
            rng.choice(other)[1].append(p)

    def swap() -> None:
        some.reverse()

    def rename() -> None:
        tree.files[f"{rng.randrange(10**6)}/{name.split('/')[-1]}"] = tree.files.pop(name)

    def reword_heading() -> None:
        sections[s] = (f"About {new_words(1)}", some)

    def section_above() -> None:
        sections.insert(0, (new_words(2), [Paragraph(new_words(8))]))

    kinds: list[Callable[[], None]] = [insert, delete, bring_back, misspell, rewrite, move]
    rng.choice([*kinds, swap, rename, reword_heading, section_above])()


def write(fw: Flywheel, tree: Tree, rng: random.Random) -> None:
    """Bring the index to the tree: in one call, or in several, in either order."""
    wanted = tree.passages()
    before = {p.id: p for p in fw.passages()}
    gone = sorted(before.keys() - {p.id for p in wanted})
    kind = rng.randrange(4)
    if kind == 0:
        fw.add(wanted, remove=gone)
    elif kind == 1:
        fw.add(wanted)
        fw.remove(gone)
    elif kind == 2:
        fw.remove(gone)
        fw.add(wanted)
    else:  # file by file
        for name in sorted(tree.files, key=lambda _: rng.random()):
            fw.add([p for p in wanted if p.id.startswith(f"{name}#")])
        fw.remove(gone)


def texts_with_votes(fw: Flywheel) -> dict[str, set[str]]:
    """By question that was voted on: the texts of the index that its votes are on."""
    with closing(sqlite3.connect(Path(fw.status().path) / "flywheel.db")) as conn:
        rows = conn.execute(
            "SELECT r.query, now.text FROM votes v JOIN retrievals r ON r.rid = v.rid JOIN passages p "
            "ON p.pid = v.pid LEFT JOIN passages now ON now.lineage = p.lineage AND now.ended IS NULL"
        )
        found: dict[str, set[str]] = {}
        for query, text in rows:
            found.setdefault(query, set()).update([text] if text else [])
        return found


def check_edits(folder: Path, *, seed: int, n_edits: int, n_files: int = 8) -> None:
    rng, tree = random.Random(seed), read_tree(n_files, 6)
    with Flywheel.open(folder / "kb", encoder=WordEncoder()) as fw:
        fw.add(tree.passages())
        answers = {}
        ids = {p.text: p.id for p in tree.passages()}
        for number, p in enumerate(tree.paragraphs()):
            p.question = " ".join([f"question{number}", *re.findall(r"\w+", p.text)[:12]])
            shown = fw.retrieve(p.question, 100)
            fw.feedback(shown.id, ids[p.text], "helpful", user_id="ann")
            answers[p.question, ids[p.text]] = 1
        imported(fw, folder, table(answers))
        for n in range(n_edits):
            edit(tree, rng)
            write(fw, tree, rng)
            expected = {p.question: {p.text} for p in tree.paragraphs() if p.question}
            expected |= {p.question: set() for p in tree.deleted if p.question}
            expected |= {question: set() for question in tree.lost}
            assert texts_with_votes(fw) == expected, f"after edit {n}"
        texts = {p.id: p.text for p in fw.passages()}
        known = {item.query: {texts[i] for i in item.answers} for item in fw.golden.items()}
        there = {p.question: p for p in tree.paragraphs() if p.question}
        assert known == {question: {p.text} for question, p in there.items()}
        assert len(there) > 5
        for p in rng.sample(sorted(there.values(), key=lambda p: p.question), 5):
            hit = next(h for h in fw.retrieve(p.question, 100).hits if h.text == p.text)
            assert hit.explanation.votes and hit.explanation.known
        assert fw.verify() == []


@pytest.mark.parametrize("seed", range(2))
def test_votes_and_known_answers_stay_with_their_texts(tmp_path: Path, seed: int) -> None:
    check_edits(tmp_path, seed=seed, n_edits=20, n_files=5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 15))
def test_five_hundred_edits(tmp_path: Path, seed: int) -> None:
    check_edits(tmp_path, seed=seed, n_edits=100)
