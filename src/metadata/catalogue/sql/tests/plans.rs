//! How the engines go about the statements.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::sync::Arc;

use tempfile::TempDir;

use super::{SqlCatalogue, database};
use crate::metadata::catalogue::contract::{self, at, digest, hosted, name, tag};
use crate::metadata::catalogue::{Catalogue, HostedBlobs as _, HostedManifests as _, HostedTags as _};

/// A statement, and the lines of the engine's plan for it.
pub(in crate::metadata::catalogue::sql) type Plan = (&'static str, Vec<String>);

tokio::task_local! {
    static PLANS: RefCell<Vec<Plan>>;
}

/// Whether the running test wants to know.
pub(in crate::metadata::catalogue::sql) fn are_wanted() -> bool {
    PLANS.try_with(|_| ()).is_ok()
}

/// Takes down a plan.
pub(in crate::metadata::catalogue::sql) fn note(statement: &'static str, plan: Vec<String>) {
    PLANS.with(|plans| plans.borrow_mut().push((statement, plan)));
}

/// What the engine was asked by `work`, and how it went about it.
async fn plans_of(work: impl Future<Output = ()>) -> Vec<Plan> {
    PLANS
        .scope(RefCell::default(), async {
            work.await;
            PLANS.with(RefCell::take)
        })
        .await
}

/// What is asked for a page of something, by the name of the method.
async fn plans_of_lists(catalogue: &SqlCatalogue) -> BTreeMap<&'static str, Plan> {
    let (here, subject, latest) = (name("large/one"), digest("10"), tag("v10"));
    let mut plans = BTreeMap::new();
    macro_rules! plan {
        ($method:ident($($argument:expr),*)) => {
            let asked = plans_of(async {
                let _page = catalogue.$method(&here $(, $argument)*).await.unwrap();
            });
            let asked = asked.await;
            // Before it, the repository is looked for.
            plans.insert(stringify!($method), asked.into_iter().next_back().unwrap());
        };
    }
    plan!(list_referrers(&subject, None, None, 1001));
    plan!(list_tags(Some(&latest), 101));
    plan!(list_tag_states(Some(&latest), 101));
    plan!(list_tag_history(&latest, None, 101));
    plan!(find_tag(&latest));
    plan!(find_tag_at(&latest, at(1)));
    plan!(find_manifest(&subject));
    plan!(find_blob(&subject));
    plans
}

#[tokio::test]
async fn a_list_is_read_where_its_page_begins_on_sqlite() {
    let folder = TempDir::new().unwrap();
    let catalogue = SqlCatalogue::open(&folder.path().join(SqlCatalogue::FILE_NAME)).await.unwrap();
    let here: Arc<dyn Catalogue> = Arc::new(catalogue.clone());
    hosted(&here, "large/one").await;
    let mut plans = String::new();
    for (method, (_, plan)) in plans_of_lists(&catalogue).await {
        writeln!(plans, "{method}: {}", plan.join("; ")).unwrap();
    }
    assert_eq!(plans, ON_SQLITE);
}

#[tokio::test]
async fn a_list_is_read_where_its_page_begins_on_postgres() {
    let Some((catalogue, server, url)) = super::connected().await else { return };
    let here: Arc<dyn Catalogue> = Arc::new(catalogue.clone());
    hosted(&here, "large/one").await;
    server.run(database(&url), MANY_ROWS).await;
    for (method, (_, plan)) in plans_of_lists(&catalogue).await {
        // PostgreSQL 13 shows how it would go about a condition for very many rows, too.
        let plan: Vec<_> = plan.into_iter().take_while(|line| line.trim() != "SubPlan 2").collect();
        let text = plan.join("\n");
        assert!(!text.contains("Seq Scan") && !text.contains("Hash"), "{method}: {text}");
        let (_, index, columns) = ON_POSTGRES.iter().find(|(known, ..)| *known == method).unwrap();
        let at = plan.iter().position(|line| line.contains(index));
        let condition = at.map_or_else(|| panic!("{method}: {text}"), |at| &plan[at + 1]);
        let is_by_all =
            condition.contains("Index Cond") && columns.iter().all(|column| condition.contains(column));
        assert!(is_by_all, "{method}: {text}");
    }
}

/// What says that a statement takes a bounded part of a repository, or counts all of it for somebody who wants that, or
/// makes sure that nothing is left.
const MAY_READ_REPOSITORIES: [&str; 3] =
    ["LIMIT", "SELECT COUNT(*) FROM manifest_link", "DELETE FROM repository WHERE id = $1"];

#[tokio::test]
async fn no_statement_reads_through_a_table_or_a_repository_on_sqlite() {
    let mut plans = BTreeMap::new();
    macro_rules! run {
        ($($module:ident :: $test:ident)*) => { $(
            let folder = TempDir::new().unwrap();
            let catalogue = SqlCatalogue::open(&folder.path().join(SqlCatalogue::FILE_NAME)).await.unwrap();
            let catalogue: Arc<dyn Catalogue> = Arc::new(catalogue);
            plans.extend(plans_of(contract::$module::$test(&catalogue)).await);
        )* };
    }
    run! {
        blobs::a_blob_belongs_to_repositories_that_it_was_pushed_or_mounted_to
        manifests::an_index_lacks_children_only_where_that_is_allowed
        manifests::a_deleted_manifest_takes_its_tags_along_and_comes_back_with_one
        manifests::referrers_are_listed_by_type_page_by_page
        tags::a_tag_is_restored_only_to_what_it_pointed_to
        tags::a_tag_expires_when_it_was_last_said_to
        uploads::the_longest_silent_upload_comes_first
        collection::what_is_needed_is_never_collected
        collection::what_lost_its_last_tag_goes_with_all_that_it_held
        collection::a_place_that_was_deleted_long_ago_is_purged_for_good
        collection::content_that_is_unknown_is_condemned_unless_a_push_announced_it
    }
    assert!(plans.len() > 60, "{}", plans.len());
    for (statement, plan) in plans {
        let may_read_repository = MAY_READ_REPOSITORIES.iter().any(|part| statement.contains(part));
        for line in &plan {
            // An index of few rows is an answer by itself.
            let is_through = LARGE.iter().any(|table| *line == format!("SCAN {table}"));
            let is_repository = line.ends_with("(repository_id=?)") && !may_read_repository;
            assert!(!is_through && !is_repository, "{statement}\n{}", plan.join("\n"));
        }
    }
}

/// The tables that are large.
const LARGE: [&str; 10] = [
    "manifest",
    "manifest_link",
    "manifest_edge",
    "tag",
    "tag_history",
    "blob",
    "blob_link",
    "content_use",
    "upload",
    "change",
];

/// The engine keeps no statistics here: it goes about it in this way, whatever the tables hold.
const ON_SQLITE: &str = "\
find_blob: SEARCH blob USING PRIMARY KEY (digest=?); \
SEARCH blob_link USING COVERING INDEX blob_link_by_digest (digest=? AND repository_id=?); \
SEARCH blob_location USING PRIMARY KEY (digest=?); USE TEMP B-TREE FOR ORDER BY
find_manifest: SEARCH manifest_link USING PRIMARY KEY (repository_id=? AND digest=?); \
SEARCH manifest USING INDEX sqlite_autoindex_manifest_1 (digest=?)
find_tag: SEARCH tag USING PRIMARY KEY (repository_id=? AND tag=?)
find_tag_at: SEARCH tag_history USING INDEX tag_history_by_tag (repository_id=? AND tag=?)
list_referrers: SEARCH manifest_link USING COVERING INDEX manifest_link_by_subject (repository_id=? AND subject=? AND digest>?); \
SEARCH manifest USING INDEX sqlite_autoindex_manifest_1 (digest=?)
list_tag_history: SEARCH tag_history USING INDEX tag_history_by_tag (repository_id=? AND tag=? AND id<?); \
CORRELATED SCALAR SUBQUERY 1; SEARCH link USING PRIMARY KEY (repository_id=? AND digest=?)
list_tag_states: SEARCH tag USING PRIMARY KEY (repository_id=? AND tag>?); \
SEARCH tag_history USING INTEGER PRIMARY KEY (rowid=?); \
SEARCH content_use USING PRIMARY KEY (repository_id=? AND digest=?) LEFT-JOIN
list_tags: SEARCH tag USING PRIMARY KEY (repository_id=? AND tag>?)
";

/// Which index has the rows, and which columns they are looked for by there.
const ON_POSTGRES: [(&str, &str, &[&str]); 8] = [
    ("list_referrers", "manifest_link_by_subject", &["repository_id", "subject", "digest"]),
    ("list_tags", "tag_pkey", &["repository_id", "tag"]),
    ("list_tag_states", "tag_pkey", &["repository_id", "tag"]),
    ("list_tag_history", "tag_history_by_tag", &["repository_id", "tag"]),
    ("find_tag", "tag_pkey", &["repository_id", "tag"]),
    ("find_tag_at", "tag_history_by_tag", &["repository_id", "tag"]),
    // Of few repositories, whichever they are.
    ("find_manifest", "manifest_link_", &["digest"]),
    ("find_blob", "blob_link_", &["digest"]),
];

/// A repository that is large enough for its tables to be no longer read through.
const MANY_ROWS: &str = "
    INSERT INTO manifest (digest, media_type, annotations, size_bytes, recorded_at, payload)
        SELECT 'sha256:' || encode(sha256(n::text::bytea), 'hex'), 'a/b', '{}', 1, 1, 'x'
        FROM generate_series(1, 5000) AS n;
    INSERT INTO manifest_link (repository_id, digest, subject, pushed_at, pushed_by)
        SELECT 1, 'sha256:' || encode(sha256(n::text::bytea), 'hex'),
            CASE WHEN n % 100 = 1 THEN 'sha256:' || encode(sha256((n - 1)::text::bytea), 'hex') END, 1, 'x'
        FROM generate_series(1, 5000) AS n;
    INSERT INTO blob (digest, size_bytes, recorded_at) SELECT digest, 1, 1 FROM manifest;
    INSERT INTO blob_location (digest, location, recorded_at) SELECT digest, 'local', 1 FROM manifest;
    INSERT INTO blob_link (repository_id, digest, linked_at) SELECT 1, digest, 1 FROM manifest;
    INSERT INTO tag_history (repository_id, tag, digest, changed_at, changed_by)
        SELECT 1, 'v' || n, 'sha256:' || encode(sha256(n::text::bytea), 'hex'), 1, 'x'
        FROM generate_series(1, 5000) AS n;
    INSERT INTO tag (repository_id, tag, digest, history_id)
        SELECT repository_id, tag, digest, id FROM tag_history;
    INSERT INTO content_use (repository_id, digest, used_at) SELECT 1, digest, 1 FROM manifest;
    ANALYZE";
