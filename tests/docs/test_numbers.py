"""Every number that README and documentation state is compared with where it comes from.

Which number comes from where is in tests/support/stated/: a module for each group of pages.
"""

import re
import subprocess

import pytest

from rag_flywheel.bench.machine import commits_in
from stated import results
from stated.page import Page
from stated.pages import STATEMENTS, pages, read


@pytest.mark.parametrize("name", pages())
def test_every_number_is_as_measured_or_accounted_for(name: str) -> None:
    page = read(name)
    assert page.problems == []
    assert list(page.unaccounted()) == []


def test_no_list_is_of_a_page_that_is_gone() -> None:
    assert set(STATEMENTS) <= set(pages())


def test_every_result_file_is_used_and_names_its_commits() -> None:
    used = set().union(*(read(name).used for name in STATEMENTS))
    assert sorted(results.names() - used) == []
    assert [name for name in sorted(results.names()) if not results.commits(name)] == []


def test_every_commit_that_is_named_is_in_the_history() -> None:
    if not (results.ROOT / ".git").exists() or (results.ROOT / ".git" / "shallow").exists():
        pytest.skip("a source archive and a shallow clone have no history")
    command = ["git", "rev-list", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=results.ROOT, check=True)
    known = {commit[: results.SHOWN] for commit in done.stdout.split()}
    texts = [read(name).text for name in pages()]
    named = {c for text in texts for c in re.findall(r"at\s+commit\s+([0-9a-f]{7})", text)}
    assert named.union(*map(results.commits, results.names())) - known == set()


def test_no_result_is_of_files_that_differ_from_their_commit() -> None:
    every = {name: list(commits_in(results.result(name))) for name in results.names()}
    assert [name for name, commits in every.items() if any("+" in c for c in commits)] == []


def left(text: str) -> list[str]:
    """The numbers of a page that nothing accounts for."""
    return [line.split(" in “")[0].split(": ")[1] for line in Page("page", text).unaccounted()]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("nDCG@10 is 0.712, was .69, and 1,234 of 20,000 are 5 % of it", 5),
        ("it takes 3 ms, 2 times as long, on 8 GB", 3),
        ("one of 3 seeds, 12 questions, 13 answers", 1),
        ("Python 3.11.7, version 2.4.6, UTF-16, SQuAD11 and cycles-v2", 0),
        ("`0.712` and [a link](page-25.md#99) <!-- 0.5 -->", 0),
        ("```text\n0.712\n```\n", 0),
        ("```sh no-run\nmake it  # 20 minutes\n```\n0.5\n\n```sh\nmake 20\n```\n", 2),
        ("from −0.03 to +0.04, ±0.6", 3),
        ("a table\n\n| a | 0.5 |\n|---|---|\n| b | 17 |\n", 2),
    ],
)
def test_numbers_that_look_measured_are_found(text: str, numbers: int) -> None:
    assert len(left(text)) == numbers


def test_a_sentence_is_found_however_its_lines_are_wrapped() -> None:
    page = Page("page", "It gains\n  −0.035 (−0.1\nto 0.2) on 300 questions.")
    page.says("gains {:.3f} ({:.1f} to {:.1f}) on {} questions", -0.0346, -0.1, 0.2, 300)
    assert page.problems == [] and list(page.unaccounted()) == []


def test_another_number_is_a_problem_that_says_both() -> None:
    page = Page("page", "It gains 0.04 here.")
    page.says("gains {:.2f} here", 0.03)
    (problem,) = page.problems
    assert "should say: gains 0.03 here" in problem and "it says: gains 0.04 here" in problem
    assert len(list(page.unaccounted())) == 1


def test_numbers_of_the_template_itself_are_not_accounted_for() -> None:
    page = Page("page", "Of 300 questions 0.25 are answered.")
    page.says("Of 300 questions {:.2f}", 0.25)
    assert page.problems == [] and len(list(page.unaccounted())) == 1


@pytest.mark.parametrize(
    ("value", "shown"), [(0.395, "0.40"), (1.055, "1.06"), (0.6635, "0.66"), (17, "17.00")]
)
def test_halves_are_rounded_up(value: float, shown: str) -> None:
    page = Page("page", f"takes {shown} ms")
    page.says("takes {:.2f} ms", value)
    assert page.problems == []


def test_what_has_no_result_file_is_said_beside_it() -> None:
    once = "(measured once, at commit 1a2b3c4, no result file)"
    assert left(f"It gains 0.03\n{once}.\n\nAnother gains 0.04.") == ["0.04"]
    assert left(f"- gains 0.03 {once}\n- gains 0.04\n") == ["0.04"]
    assert left(f"Gains {once}:\n\n| a |\n|---|\n| 0.5 |\n\nand 0.6") == ["0.6"]
    section = f"# A\n\nThe numbers of this section are old {once}.\n\n0.1\n\n- 0.2\n\n## B\n\n0.3"
    assert left(section) == ["0.3"]
    assert left(f"0.1\n\nThe numbers of this page are old {once}.\n\n# A\n\n0.2") == []
    assert left("It gains 0.03 (measured once, no result file).") == ["0.03"]


def test_a_phrase_that_is_gone_is_a_problem() -> None:
    page = Page("page", "at p < 0.05")
    page.lets("design", "at p < 0.01")
    assert page.problems == ["page has no more: at p < 0.01 (design)"]


def test_a_page_names_the_commits_of_its_result_files() -> None:
    page = Page("page", "No numbers.\n")
    page.result("attacks")
    page.has_footer()
    (problem,) = page.problems
    line = problem.splitlines()[-1]
    assert "79734f4 (attacks)" in line
    named = Page("page", f"No numbers.\n\n{line}\n")
    named.result("attacks")
    named.has_footer()
    assert named.problems == [] and list(named.unaccounted()) == []
    needless = Page("page", f"No numbers.\n\n{line}\n")
    needless.has_footer()
    assert len(needless.problems) == 1
