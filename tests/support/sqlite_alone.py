"""The tests that ask for SQLite itself, by why: they are skipped where every index is on PostgreSQL."""

import re
from collections.abc import Mapping

_FILE = "it looks at, damages or exchanges the file of SQLite"
_PROCESS = "it opens the copy of a folder in another process, which shares the schema of the first"
_TYPES = "it puts a value of another type into a column, which PostgreSQL refuses"
_STATEMENTS = "it acts at statements as sqlite3 has them, or runs some of SQLite alone"
_SERVERS = "it has servers and schemas of its own, and is run beside"
REASONS: Mapping[str, str] = {
    r"test_flywheel\.py::test_any_script_and_any_length": "its texts have NUL, which PostgreSQL refuses",
    r"test_beir\.py::test_odd_ids": "its texts have NUL, which PostgreSQL refuses",
    r"test_log_files\.py::test_one_that_fails_in_the_middle": _TYPES,
    r"test_hashed_questions\.py::test_a_refresh_that_dies_before_the_file": _FILE,
    r"deploy/test_damaged_folder\.py::test_a_database_(that_is_not_sound|of_a_newer)": _FILE,
    r"deploy/test_origin\.py": _FILE,
    r"deploy/test_verify_hostile_files\.py": _FILE,
    r"deploy/test_copy\.py": "it names the engine of each of its indexes, both among them",
    r"test_health\.py::test_damage_is_noticed": _FILE,
    r"test_health_command\.py::test_a_database_that_cannot": _FILE,
    r"report/test_health\.py::test_what_makes_answers_impossible": _FILE,
    r"report/test_health\.py::test_time_is_limited": "it stops a check of SQLite",
    r"test_dashboard\.py::test_a_tenant_is_chosen.*x00": "its texts have NUL, which PostgreSQL refuses",
    r"test_dashboard\.py::test_hostile_text_is_shown": "its texts have NUL, which PostgreSQL refuses",
    r"test_problems\.py::test_a_(damaged_database|folder_that_is_gone)": _FILE,
    r"test_pins\.py::test_damaged_rows_are_found\[at-now": _TYPES,
    r"test_flywheel_filters\.py::test_numbers_of_numpy": "it asks for types by a function of SQLite",
    r"test_version_log\.py::test_a_version_of_another_state": _FILE,
    r"test_forget\.py::test_after_forgetting_all": _FILE,
    r"test_forget_given\.py::test_the_texts_that_only": _FILE,
    r"privacy/test_bytes\.py": _FILE,
    r"test_failures\.py::test_a_refresh_that_cannot_open": _FILE,
    r"test_failures\.py::test_a_killed_refresh": _PROCESS,
    r"test_failures\.py::test_refreshes_with_nothing_to_do": "it expects an error of sqlite3",
    r"test_busy\.py::test_a_write_says_what_it_waited_for": "it expects the advice for SQLite",
    r"store/test_(cost_of_add|connections_closed|query_plans)\.py": _FILE,
    r"store/test_(postgres|text_copy)\.py": _SERVERS,
    r"serve/test_server_gone\.py": _SERVERS,
    r"test_interleavings\.py::.*'sql'": _STATEMENTS,
    r"test_interleavings\.py::test_a_passage_removed_in_the_middle": _STATEMENTS,
    r"test_interleavings\.py::test_a_restore_before_the_texts": "texts of an answer are read from a copy",
    r"test_interleavings\.py::test_a_vote_in_the_middle_of_folding": _STATEMENTS,
    r"test_next_version\.py::test_a_version_whose_vectors_are_lost": _STATEMENTS,
    r"test_lineages\.py::test_new_texts_are_added_with_few": _STATEMENTS,
    r"test_stored_evidence\.py::test_a_query_whose_votes_were_all_retracted": _STATEMENTS,
    r"test_stored_evidence\.py::test_it_is_not_used_(when_signals|beside_a_backup)": _STATEMENTS,
    r"test_vectors\.py::test_one_that_cannot_be_used.*(x'|zeroblob)": _TYPES,
    r"test_history\.py::test_each_kind_has_its_sentence\[reviews": _TYPES,
    r"test_history\.py::test_the_log_can_only_be_appended_to": "it expects an error of sqlite3",
    r"test_backup\.py::test_a_(database_with_pages|damaged_database|restore_mends_a_database)": _FILE,
    r"test_forgotten_exports\.py::test_what_is_kept_names_nobody": "a server keeps rows as they came",
    r"test_ids\.py::test_processes_that_open_a_new_folder_together": _PROCESS,
}
"""Parts of the names of tests, as regular expressions, and why they are not for PostgreSQL."""


def why_skipped(test: str) -> str | None:
    """Why a test is not for PostgreSQL; None: it is."""
    return next((why for name, why in REASONS.items() if re.search(name, test)), None)
