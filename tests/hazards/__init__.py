"""Each hazard of a dependency and the tests that would see it come true; `test_the_list.py` checks that they exist."""

from __future__ import annotations

from typing import Final

_EXTRACT: Final = "tests/unit/engine/test_extract.py"
_IMPORT: Final = "tests/unit/engine/test_mem0_import.py"
_FAILURES: Final = "tests/unit/engine/test_failures.py"
_ADDING: Final = "tests/integration/memories/test_adding_and_finding.py"
_EXTRACTION: Final = "tests/integration/memories/test_extraction.py"
_TENANTS: Final = "tests/integration/index/test_index_tenants.py"
_INDEX: Final = "tests/integration/index/test_index_lifecycle.py"
_CATALOGUE: Final = "tests/integration/storage/test_catalogue.py"
_PRIVACY: Final = "tests/integration/embedded/test_embedded_privacy.py"
_PLACES: Final = "tests/integration/embedded/test_embedded_places.py"
_EGRESS: Final = "tests/promises/test_13_zero_egress.py"
_MEM0: Final = "tests/hazards/test_mem0.py"
_POSTGRES: Final = "tests/hazards/test_postgres.py"
_QUEUE: Final = "tests/hazards/test_queue.py"
_HALVES: Final = "tests/isolation/test_halves.py"
_TOOLS: Final = "tests/integration/mcp/test_mcp_tools.py"
_DOOR: Final = "tests/integration/mcp/test_mcp_door.py"

HAZARDS: Final[dict[str, tuple[str, ...]]] = {
    # Mem0
    "telemetry is on at import": (
        f"{_IMPORT}::test_an_import_leaves_no_trace",
        f"{_IMPORT}::test_telemetry_that_is_already_on_is_refused",
        f"{_EGRESS}::test_no_packet_leaves_the_machine",
        f"{_MEM0}::test_no_client_and_no_thread_of_telemetry_lives_beside_the_engine",
    ),
    "the import writes into the home folder": (f"{_EGRESS}::test_nothing_is_written_outside_of_the_data_folder",),
    "the import changes loggers and warning filters": (f"{_IMPORT}::test_an_import_leaves_no_trace",),
    "the environment redirects the LLM": (
        "tests/unit/engine/test_environment.py::test_openrouter_is_refused_always",
        "tests/unit/engine/test_environment.py::test_a_base_url_comes_from_the_settings",
        "tests/process/test_bad_settings.py::test_in_the_environment",
    ),
    "models are downloaded at run time": (
        f"{_IMPORT}::test_spacy_is_not_asked_for_even_where_it_is_installed",
        f"{_EGRESS}::test_no_packet_leaves_the_machine",
    ),
    "a client's filter widens the scope": (
        f"{_ADDING}::test_two_tenants_with_the_same_user_never_meet",
        f"{_MEM0}::test_a_filter_cannot_widen_what_a_key_reaches",
    ),
    "`*` and an empty filter are no condition": (
        f"{_TENANTS}::test_a_filter_does_not_reach_another_tenant",
        f"{_MEM0}::test_a_filter_cannot_widen_what_a_key_reaches",
    ),
    "an id is enough to get, change and delete": (f"{_ADDING}::test_two_tenants_with_the_same_user_never_meet",),
    "metadata overwrites facts of the record": (f"{_MEM0}::test_metadata_cannot_pass_for_the_records_own_facts",),
    "last messages leak between tenants": (
        f"{_EXTRACT}::test_two_tenants_with_the_same_user_at_once_do_not_mix",
        f"{_MEM0}::test_the_last_messages_of_one_tenant_are_not_shown_for_another",
    ),
    "history and messages outlive a delete": (
        f"{_ADDING}::test_a_delete_takes_the_text_out_of_the_history_too",
        f"{_EXTRACTION}::test_deleting_a_memory_takes_its_source_messages_with_it",
    ),
    "deleted entities leave rows": (
        f"{_ADDING}::test_deleting_an_entity_leaves_nothing_and_the_name_can_be_used_again",
    ),
    "memory text in logs": (
        f"{_IMPORT}::test_all_of_mem0s_loggers_are_silent",
        "tests/promises/test_9_stolen_disks.py::test_no_content_is_in_logs_and_metrics",
    ),
    "a bad answer looks like nothing to remember": (
        "tests/unit/engine/test_answers.py::test_no_answer_is_not_nothing_to_remember",
        f"{_EXTRACTION}::test_what_stays_wrong_ends_failed_with_its_reason",
    ),
    "concurrent identical adds make duplicates": (f"{_ADDING}::test_concurrent_identical_adds_make_one_memory",),
    "lists have no order, expired rows stay readable": (
        f"{_ADDING}::test_paging_is_complete_and_newest_first",
        f"{_ADDING}::test_expired_memories_are_neither_found_nor_read",
    ),
    "threads of its own, and `close` breaks later calls": (f"{_FAILURES}::test_no_thread_stays_behind",),
    "a caller writes the prompt, roles are forged": (
        f"{_EXTRACT}::test_a_message_cannot_forge_a_speaker_or_a_section",
        f"{_EXTRACT}::test_system_messages_are_neither_extracted_nor_kept",
        f"{_MEM0}::test_a_caller_does_not_write_the_prompt",
    ),
    "success is reported for what failed": (f"{_FAILURES}::test_a_report_that_is_not_what_was_staged_is_not_believed",),
    "keyword-only hits are dropped": (
        "tests/integration/index/test_index_search.py::test_a_hit_by_words_alone_is_found_and_scored",
    ),
    "links are thrown away, the date is always today, MD5": (
        f"{_EXTRACT}::test_links_lead_to_the_memories_that_were_shown",
        f"{_EXTRACT}::test_the_observation_date_is_that_of_the_messages",
        f"{_IMPORT}::test_mem0_works_where_md5_is_forbidden",
    ),
    "importing takes seconds": (
        f"{_IMPORT}::test_loading_happens_in_the_background",
        "tests/process/test_first_start.py::test_search_is_served_while_mem0_is_still_being_imported",
    ),
    # ONNX Runtime
    "its import reports to its makers and writes into the home folder": (
        f"{_EGRESS}::test_no_packet_leaves_the_machine",
        f"{_EGRESS}::test_nothing_is_written_outside_of_the_data_folder",
    ),
    # MCP
    "both eras of the protocol": (f"{_DOOR}::test_the_handshake_era", f"{_DOOR}::test_the_stateless_era"),
    "the origin is not checked": (f"{_DOOR}::test_a_web_page_of_another_origin_is_refused",),
    "tools without annotations and schemas": (f"{_TOOLS}::test_every_tool_says_what_an_agent_must_know",),
    # Postgres and FastAPI
    "row-level security that is not forced": (
        f"{_CATALOGUE}::test_every_table_is_either_tenant_blind_or_behind_forced_row_level_security",
    ),
    "a tenant that is set for the session leaks through a pooler": (
        f"{_HALVES}::test_a_tenant_that_was_set_does_not_outlive_its_transaction",
        f"{_POSTGRES}::test_a_connection_comes_back_without_its_tenant_also_after_an_error",
    ),
    "no tenant set": (f"{_CATALOGUE}::test_without_a_tenant_nothing_is_seen_and_nothing_can_be_written",),
    "values in errors and in Postgres's log": (
        f"{_POSTGRES}::test_errors_of_statements_hold_no_values",
        f"{_PRIVACY}::test_no_content_gets_into_a_log_even_from_errors_and_crashes",
        "tests/integration/api/test_doorway.py::test_an_unknown_exception_answers_500_and_tells_nothing",
    ),
    "socket paths are short": (
        f"{_PLACES}::test_a_folder_too_deep_for_a_socket_gets_a_short_private_one",
        "tests/process/test_first_start.py::test_a_folder_too_deep_for_a_socket_leaves_no_socket_folder_behind",
    ),
    "a failure after the answer was made": (f"{_POSTGRES}::test_a_commit_that_fails_is_not_answered_with_success",),
    # Qdrant
    "tenancy inside a collection is ours to enforce": (
        f"{_TENANTS}::test_a_filter_does_not_reach_another_tenant",
        f"{_HALVES}::test_the_index_alone_keeps_tenants_apart",
    ),
    "deleted vectors stay on disk": (f"{_INDEX}::test_compaction_takes_deleted_vectors_off_the_disk",),
    "two tenants with the same id": (f"{_TENANTS}::test_the_same_id_in_two_tenants_is_two_memories",),
    "statistics of words are shared": (
        "tests/integration/index/test_index_search.py::test_keys_keep_statistics_of_tenants_apart",
    ),
    # procrastinate
    "job arguments are logged and not secured": (
        f"{_QUEUE}::test_the_queues_tables_hold_ids_only",
        "tests/unit/test_logs.py::test_a_line_of_the_queue_s_library_about_a_job_is_not_written",
    ),
    "deferred outside of the transaction": (f"{_QUEUE}::test_a_job_exists_only_with_the_commit_that_deferred_it",),
}
