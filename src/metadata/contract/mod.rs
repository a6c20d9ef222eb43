//! The contract of the metadata traits: one suite, run for every implementation.
//!
//! Every promise in the documentation of the traits has a test here. An implementation calls
//! [`node_index_contract!`] with an async function that gives a fresh, empty index.

pub(in crate::metadata) mod atomicity;
pub(in crate::metadata) mod content;
pub(in crate::metadata) mod holdings;
pub(in crate::metadata) mod images;
pub(in crate::metadata) mod imports;
pub(in crate::metadata) mod listings;
pub(in crate::metadata) mod pins;
pub(in crate::metadata) mod proofs;
mod samples;
pub(in crate::metadata) mod tags;
pub(in crate::metadata) mod verification;

use std::sync::Arc;

use super::NodeIndex;

pub(in crate::metadata) use samples::{at, blob, digest, proof, pull, repository};

/// An empty index, and what must outlive it (a folder, a server).
pub(in crate::metadata) struct Subject {
    pub(in crate::metadata) index: Arc<dyn NodeIndex>,
    pub(in crate::metadata) _keep: Box<dyn Send + Sync>,
}

/// Stamps the suite as tests in the module that calls it. `$open` is an `async fn() -> Subject`.
macro_rules! node_index_contract {
    ($open:path) => {
        crate::metadata::contract::node_index_contract! { @each $open;
            content::content_is_found_as_it_was_recorded
            content::a_known_item_keeps_its_segment_and_when_it_was_stored
            content::a_known_item_keeps_its_media_type_and_stays_a_manifest
            content::the_last_use_never_moves_back
            content::forgetting_content_is_idempotent
            content::bytes_are_summed_by_segment
            content::a_use_soon_after_the_first_does_not_promote
            content::uses_of_unknown_items_are_ignored
            content::the_least_used_come_first_and_segments_stay_apart
            content::demoted_items_are_the_most_recent_of_probation_in_the_order_given
            content::only_protected_items_are_demoted
            content::walks_see_every_item_once_in_digest_order
            content::a_new_index_was_never_rebuilt
            content::numbers_beyond_the_store_are_kept_as_the_largest
            proofs::proofs_hold_for_one_repository_and_one_kind
            proofs::a_proof_gains_what_a_later_one_knows_and_loses_nothing
            proofs::withdrawing_a_proof_is_idempotent
            proofs::upstreams_are_found_by_the_blob_that_they_have
            proofs::holders_are_those_that_have_shown_to_have_it
            proofs::repositories_are_listed_in_order_page_by_page
            tags::a_tag_is_found_as_it_was_last_observed
            tags::classes_of_one_tag_are_kept_apart_and_removed_together
            tags::tags_are_listed_once_in_lexical_order
            listings::pages_are_kept_apart_by_repository_kind_and_key
            listings::a_page_takes_the_place_of_the_earlier_one
            listings::the_oldest_of_too_many_pages_goes
            listings::old_pages_are_removed_oldest_first
            images::tags_and_stored_manifests_are_those_of_the_repository
            images::all_pages_of_a_kind_are_listed_with_their_keys
            images::children_are_remembered_while_their_index_is_known
            images::orders_are_unfinished_until_they_are_recorded_as_done
            holdings::holdings_are_found_by_every_part_of_a_filter
            holdings::holdings_are_summed_once_for_each_upstream
            holdings::what_a_repository_forgets_others_keep
            pins::pins_are_found_as_they_were_recorded
            pins::a_later_pin_takes_the_place_and_keeps_an_order
            pins::pinned_content_is_never_among_the_least_used
            pins::what_comes_later_is_covered_when_it_comes
            verification::what_was_verified_longest_ago_is_next
            verification::pinned_content_is_verified_first
            imports::an_import_is_recorded_whole_and_protected
            imports::an_import_takes_nothing_back_unless_it_is_told_to
            imports::an_import_takes_no_tag_back_that_another_accept_class_saw_later
            atomicity::a_pull_is_recorded_whole
            atomicity::a_pull_that_is_dropped_was_recorded_wholly_or_not_at_all
            atomicity::concurrent_writers_and_readers_never_fail_for_each_other
        }
    };
    (@each $open:path; $($module:ident :: $test:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let subject = $open().await;
                crate::metadata::contract::$module::$test(&subject.index).await;
            }
        )*
    };
}
pub(in crate::metadata) use node_index_contract;
