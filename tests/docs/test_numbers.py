"""Every number that README and documentation state is compared with where it comes from.

Which number comes from where is in tests/support/stated/: a module for each group of pages.
"""

import subprocess

import pytest

from stated import results
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
    nameless = [n for n in results.names() if not list(results.commits(results.result(n)))]
    assert nameless == []


def test_the_commits_of_results_are_in_the_history() -> None:
    if not (results.ROOT / ".git").exists():
        pytest.skip("the tests of a source archive have no history")
    command = ["git", "rev-list", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=results.ROOT, check=True)
    known = {commit[: results.SHOWN] for commit in done.stdout.split()}
    shallow = results.ROOT / ".git" / "shallow"
    if shallow.exists():
        pytest.skip("a shallow clone has only a part of the history")
    found = {
        commit[: results.SHOWN]
        for name in results.names()
        for commit in results.commits(results.result(name))
    }
    assert found - known == set()
