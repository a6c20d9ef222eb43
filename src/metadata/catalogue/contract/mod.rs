//! The contract of the catalogue's traits: one suite, run on every engine.
//!
//! An engine calls [`catalogue_contract!`] with an async function that gives a fresh, empty catalogue, or `None` where
//! the engine is not installed.

pub(in crate::metadata::catalogue) mod accounts;
pub(in crate::metadata::catalogue) mod blobs;
pub(in crate::metadata::catalogue) mod changes;
pub(in crate::metadata::catalogue) mod collection;
pub(in crate::metadata::catalogue) mod interleavings;
pub(in crate::metadata::catalogue) mod manifests;
pub(in crate::metadata::catalogue) mod model;
pub(in crate::metadata::catalogue) mod repositories;
mod samples;
pub(in crate::metadata::catalogue) mod tags;
pub(in crate::metadata::catalogue) mod uploads;

use std::sync::Arc;

pub(in crate::metadata::catalogue) use samples::{
    at, blob, digest, hosted, keep_for, manifest, name, push, push_image, record_blob, stamp, tag,
};

use super::Catalogue;

/// An empty catalogue, and what must outlive it (a folder, a server).
pub(in crate::metadata::catalogue) struct Subject {
    pub(in crate::metadata::catalogue) catalogue: Arc<dyn Catalogue>,
    pub(in crate::metadata::catalogue) _keep: Box<dyn Send + Sync>,
}

/// Stamps the suite as tests in the module that calls it. `$open` is an `async fn() -> Option<Subject>`.
macro_rules! catalogue_contract {
    ($open:path) => {
        crate::metadata::catalogue::contract::catalogue_contract! { @each $open;
            repositories::what_is_deleted_is_unknown_until_it_is_restored
            repositories::a_repository_needs_a_namespace_that_is_there
            repositories::places_are_listed_in_order_page_by_page
            repositories::a_policy_belongs_to_a_namespace_that_is_there
            accounts::the_first_account_is_created_once_whoever_tries
            accounts::an_account_is_found_and_listed_as_it_was_created
            accounts::all_nodes_sign_with_the_same_key
            blobs::a_blob_belongs_to_repositories_that_it_was_pushed_or_mounted_to
            blobs::a_push_of_a_blob_ends_its_upload_and_may_be_repeated
            blobs::a_blob_of_another_size_is_refused
            manifests::a_manifest_is_found_as_it_was_pushed
            manifests::a_manifest_whose_blobs_are_not_all_there_leaves_nothing
            manifests::an_index_lacks_children_only_where_that_is_allowed
            manifests::a_deleted_manifest_takes_its_tags_along_and_comes_back_with_one
            manifests::referrers_are_listed_by_type_page_by_page
            manifests::thousands_of_blobs_are_recorded_with_one_manifest
            manifests::a_push_that_is_dropped_was_done_wholly_or_not_at_all
            tags::a_tag_is_what_its_last_row_says
            tags::a_push_that_changes_nothing_adds_no_row
            tags::tags_are_listed_in_lexical_order_page_by_page
            tags::a_tag_is_found_as_of_a_moment_even_where_clocks_went_back
            tags::a_tag_is_restored_only_to_what_it_pointed_to
            tags::a_tag_expires_when_it_was_last_said_to
            tags::an_immutable_tag_is_moved_by_no_push
            tags::a_tag_is_retracted_only_while_it_is_as_it_was_seen
            uploads::an_upload_moves_on_from_where_it_is
            uploads::the_longest_silent_upload_comes_first
            changes::every_change_is_logged_once_and_in_order
            changes::concurrent_changes_get_numbers_without_gaps
            collection::what_was_deleted_is_collected_after_its_time
            collection::what_is_needed_is_never_collected
            collection::a_blob_that_is_being_removed_is_linked_to_nothing
            collection::what_lost_its_last_tag_goes_with_all_that_it_held
            collection::a_manifest_without_a_tag_stays_where_a_policy_or_a_push_keeps_it
            collection::what_is_asked_for_begins_its_grace_time_again
            collection::a_place_that_was_deleted_long_ago_is_purged_for_good
            collection::a_namespace_that_is_created_while_it_is_purged_begins_with_nothing
            collection::content_that_is_unknown_is_condemned_unless_a_push_announced_it
            collection::a_lease_has_one_holder_until_it_ends
            interleavings::no_order_of_push_and_collection_loses_what_was_acknowledged
            interleavings::whatever_needs_content_gets_it_or_is_told_that_it_is_gone
            interleavings::pushes_beside_a_collector_without_mercy_lose_nothing
            model::random_histories_agree_with_the_model
        }
    };
    (@each $open:path; $($module:ident :: $test:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let Some(subject) = $open().await else { return };
                crate::metadata::catalogue::contract::$module::$test(&subject.catalogue).await;
            }
        )*
    };
}
pub(in crate::metadata::catalogue) use catalogue_contract;
