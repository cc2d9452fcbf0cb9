//! All cases, for each crate whose store has to keep the contract.

macro_rules! with_all_cases {
    ($run:ident) => {
        $run! {
            a_key_is_absent_then_written_then_gone,
            many_keys_are_answered_in_the_order_asked,
            more_keys_than_fit_into_one_request_are_all_answered,
            a_transaction_is_applied_all_or_nothing_and_names_the_operation_that_failed,
            checks_hold_within_the_transaction_that_changes_their_key,
            a_version_moves_by_one_per_write_and_begins_anew_after_deletion,
            an_impossible_write_is_refused_and_nothing_is_written,
            a_key_with_children_is_not_deleted,
            sequence_numbers_count_all_children_ever_created,
            what_is_kept_is_what_there_is,
            ephemeral_keys_go_when_their_session_is_closed,
            ephemeral_keys_go_and_the_epoch_moves_when_the_session_expires,
            ephemeral_keys_survive_a_short_loss_of_the_connection,
            a_watch_begins_with_resync_and_reports_what_is_at_and_below_its_path,
            a_watch_on_an_absent_key_reports_its_creation,
            events_of_what_was_read_are_in_the_watches_once_shown,
            events_of_a_commit_are_in_the_watches_when_it_returns,
            what_others_committed_is_shown_after_a_sync,
            many_watches_resync_after_a_cut_and_work_again,
            watches_survive_the_end_of_the_session,
            calls_during_an_outage_end_at_their_deadline,
            a_read_during_a_short_outage_is_answered_after_it,
            a_write_without_an_answer_is_unknown_and_can_be_looked_up_later,
            a_closed_store_says_so_at_once,
            transaction_ids_are_those_of_the_written_keys,
            what_the_leader_heard_moves_with_writes_and_sessions_only,
        }
    };
}
