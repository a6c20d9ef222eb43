//! The contract on both kinds of `SQLite` database, and what only files can suffer.

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::SqliteIndex;
use crate::metadata::contract::{Subject, at, blob, digest, proof, pull, repository};
use crate::metadata::{
    AccessProofs, ContentIndex, ContentKind, IndexCare, MetadataError, Pins, PullRecords, TagObservations,
};
use crate::oci::AcceptClass;
use crate::runtime::Clock;

mod in_memory {
    use super::*;

    async fn open() -> Subject {
        Subject { index: Arc::new(SqliteIndex::in_memory().await.unwrap()), _keep: Box::new(()) }
    }

    crate::metadata::contract::node_index_contract!(open);
}

mod on_disk {
    use super::*;

    async fn open() -> Subject {
        let folder = TempDir::new().unwrap();
        let index = open_in(folder.path()).await;
        Subject { index: Arc::new(index), _keep: Box::new(folder) }
    }

    crate::metadata::contract::node_index_contract!(open);
}

async fn try_open_in(folder: &Path) -> crate::metadata::Result<SqliteIndex> {
    SqliteIndex::open(&folder.join(SqliteIndex::FILE_NAME), &Clock::manual(at(0))).await
}

async fn open_in(folder: &Path) -> SqliteIndex {
    try_open_in(folder).await.unwrap()
}

/// Copies the database as a killed process leaves it: while it is open, with its log.
fn copy_as_killed(from: &Path, to: &Path) {
    for suffix in ["", "-wal"] {
        let name = format!("{}{suffix}", SqliteIndex::FILE_NAME);
        std::fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_was_recorded_is_there_after_reopening() {
    let folder = TempDir::new().unwrap();
    let (here, image) = (repository("docker.io", "a"), pull("image", "v1"));
    let nested = folder.path().join("made/on/the/way");
    let first = open_in(&nested).await;
    assert!(first.is_new());
    first.record_pull(&here, &image).await.unwrap();
    first.close().await;
    let second = open_in(&nested).await;
    assert!(!second.is_new());
    assert_eq!(second.find_content(&digest("image")).await.unwrap(), Some(image.content));
    let tag = image.tag.unwrap();
    let seen = second.find_tag(&here, &tag.tag, &AcceptClass::Any).await.unwrap();
    assert_eq!(seen, Some(tag.observation));
    second.close().await;
    assert_eq!(names_in(&nested), [SqliteIndex::FILE_NAME], "closing folds the log into the file");
    assert!(matches!(second.find_content(&digest("x")).await, Err(MetadataError::Failed(_))));
}

#[tokio::test]
async fn a_killed_writer_loses_nothing_that_was_acknowledged() {
    let (folder, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let here = repository("docker.io", "a");
    let index = open_in(folder.path()).await;
    for number in 0..20 {
        let image = pull(&format!("image {number}"), "v1");
        index.record_pull(&here, &image).await.unwrap();
        copy_as_killed(folder.path(), copy.path());
        let after = open_in(copy.path()).await;
        assert_eq!(after.find_content(&image.content.digest).await.unwrap(), Some(image.content));
        after.close().await;
    }
}

#[tokio::test]
async fn a_write_that_was_torn_is_gone_as_a_whole() {
    let folder = TempDir::new().unwrap();
    let here = repository("docker.io", "a");
    let index = open_in(folder.path()).await;
    index.record_pull(&here, &pull("whole", "v1")).await.unwrap();
    let log = folder.path().join(format!("{}-wal", SqliteIndex::FILE_NAME));
    let whole_bytes = std::fs::metadata(&log).unwrap().len();
    index.record_pull(&here, &pull("torn", "v2")).await.unwrap();
    let torn_bytes = std::fs::metadata(&log).unwrap().len();
    assert!(torn_bytes > whole_bytes);
    for cut_at in (whole_bytes..torn_bytes).step_by(1999) {
        let copy = TempDir::new().unwrap();
        copy_as_killed(folder.path(), copy.path());
        let log = copy.path().join(format!("{}-wal", SqliteIndex::FILE_NAME));
        std::fs::OpenOptions::new().write(true).open(log).unwrap().set_len(cut_at).unwrap();
        let after = open_in(copy.path()).await;
        assert!(after.find_content(&digest("whole")).await.unwrap().is_some());
        assert_eq!(after.find_content(&digest("torn")).await.unwrap(), None, "cut at {cut_at}");
        let lost = after.find_proof(&here, ContentKind::Blob, &digest("torn one")).await.unwrap();
        assert_eq!(lost, None);
        after.close().await;
    }
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_a_new_index_begun() {
    for damage in ["no database", "header", "cut off"] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(SqliteIndex::FILE_NAME);
        let index = open_in(folder.path()).await;
        index.record_content(&[blob("x", 1, 0)]).await.unwrap();
        index.close().await;
        let mut bytes = std::fs::read(&path).unwrap();
        match damage {
            "no database" => bytes = b"this is no database, whatever its name says".repeat(100),
            "header" => bytes[..100].fill(0xff),
            _ => bytes.truncate(5000),
        }
        std::fs::write(&path, &bytes).unwrap();

        let index = open_in(folder.path()).await;
        assert!(index.is_new(), "{damage}");
        assert_eq!(index.find_content(&digest("x")).await.unwrap(), None);
        index.record_content(&[blob("y", 1, 0)]).await.unwrap();
        let kept = folder.path().join(format!("index.sqlite3.damaged-{}", at(0).as_millis()));
        assert_eq!(std::fs::read(kept).unwrap(), bytes, "{damage}: kept as it was");
    }
}

#[tokio::test]
async fn a_damaged_file_takes_its_log_along() {
    let (folder, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let index = open_in(folder.path()).await;
    index.record_content(&[blob("x", 1, 0)]).await.unwrap();
    copy_as_killed(folder.path(), copy.path());
    let path = copy.path().join(SqliteIndex::FILE_NAME);
    let log = copy.path().join(format!("{}-wal", SqliteIndex::FILE_NAME));
    let header = std::fs::read(&log).unwrap()[..32].to_vec();
    std::fs::write(path, [0xff; 8192]).unwrap();
    // A log that is not to be played either: its header alone.
    std::fs::write(log, header).unwrap();
    let opened = open_in(copy.path()).await;
    assert!(opened.is_new());
    let kept = names_in(copy.path());
    assert!(kept.iter().any(|name| name.contains("damaged")), "{kept:?}");
    assert_eq!(opened.find_content(&digest("x")).await.unwrap(), None);
}

#[tokio::test]
async fn a_folder_in_the_files_place_is_set_aside() {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join(SqliteIndex::FILE_NAME)).unwrap();
    assert!(open_in(folder.path()).await.is_new());
}

#[tokio::test]
async fn an_empty_file_is_a_new_index() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join(SqliteIndex::FILE_NAME), "").unwrap();
    assert!(open_in(folder.path()).await.is_new());
    assert!(!names_in(folder.path()).iter().any(|name| name.contains("damaged")));
}

#[tokio::test]
async fn an_index_that_a_newer_version_used_is_opened() {
    let folder = TempDir::new().unwrap();
    let index = open_in(folder.path()).await;
    index.record_content(&[blob("x", 1, 0)]).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', TRUE, x'00', 1)",
    )
    .execute(&index.writer)
    .await
    .unwrap();
    index.close().await;
    let index = open_in(folder.path()).await;
    assert!(index.find_content(&digest("x")).await.unwrap().is_some());
}

#[tokio::test]
async fn an_index_that_lacks_a_migration_in_the_middle_gets_it() {
    let folder = TempDir::new().unwrap();
    let index = open_in(folder.path()).await;
    index.record_content(&[blob("x", 1, 0)]).await.unwrap();
    for statement in
        ["DROP TABLE pin_content", "DROP TABLE pin", "DELETE FROM _sqlx_migrations WHERE version = 3"]
    {
        sqlx::query(statement).execute(&index.writer).await.unwrap();
    }
    index.close().await;
    let index = open_in(folder.path()).await;
    assert!(!index.is_new() && index.find_content(&digest("x")).await.unwrap().is_some());
    assert_eq!(index.sum_pinned().await.unwrap().pins, 0);
}

#[tokio::test]
async fn rows_that_cannot_be_read_are_errors_that_name_the_column() {
    for (column, change) in [
        ("kind", "UPDATE content SET kind = 'chart'"),
        ("segment", "UPDATE content SET segment = ''"),
        ("size_bytes", "UPDATE content SET size_bytes = -1"),
        ("stored_at", "UPDATE content SET stored_at = -5"),
        ("media_type", "UPDATE content SET media_type = 'no type'"),
    ] {
        let index = SqliteIndex::in_memory().await.unwrap();
        index.record_content(&[blob("x", 1, 0)]).await.unwrap();
        sqlx::query(change).execute(&index.writer).await.unwrap();
        match index.find_content(&digest("x")).await {
            Err(MetadataError::Unreadable { column: found }) => assert_eq!(found, column),
            other => panic!("{column}: {other:?}"),
        }
    }
    let index = SqliteIndex::in_memory().await.unwrap();
    index.record_content(&[blob("x", 1, 0)]).await.unwrap();
    index.record_proofs(&repository("docker.io", "a"), &[proof("x", ContentKind::Blob)]).await.unwrap();
    for change in ["UPDATE content SET digest = 'md5:1'", "UPDATE repository SET name = '../etc'"] {
        sqlx::query(change).execute(&index.writer).await.unwrap();
    }
    let listed = index.list_content(None, 5).await;
    assert!(matches!(listed, Err(MetadataError::Unreadable { column: "digest" })), "{listed:?}");
    let listed = index.list_repositories(None, 5).await;
    assert!(matches!(listed, Err(MetadataError::Unreadable { column: "name" })), "{listed:?}");
}

#[tokio::test]
async fn hot_look_ups_search_and_never_scan() {
    let index = SqliteIndex::in_memory().await.unwrap();
    for query in [
        "EXPLAIN QUERY PLAN SELECT size_bytes FROM content WHERE digest = 'x'",
        "EXPLAIN QUERY PLAN SELECT size_bytes FROM proof WHERE repository_id =
            (SELECT id FROM repository WHERE upstream = 'u' AND name = 'n') AND digest = 'd' AND kind = 'k'",
        "EXPLAIN QUERY PLAN SELECT digest FROM tag WHERE repository_id =
            (SELECT id FROM repository WHERE upstream = 'u' AND name = 'n') AND tag = 't' AND class = ''",
        "EXPLAIN QUERY PLAN SELECT body FROM listing WHERE repository_id =
            (SELECT id FROM repository WHERE upstream = 'u' AND name = 'n') AND kind = 'k' AND key = ''",
        "EXPLAIN QUERY PLAN SELECT digest FROM content WHERE verified_at <= 5
            AND NOT EXISTS (SELECT 1 FROM pin_content WHERE pin_content.digest = content.digest)
            ORDER BY verified_at, digest LIMIT 5",
        "EXPLAIN QUERY PLAN SELECT upstream FROM proof JOIN repository ON repository.id = repository_id
            WHERE digest = 'd'",
        "EXPLAIN QUERY PLAN SELECT digest FROM content WHERE kind = 'k' AND segment = 's'
            AND NOT EXISTS (SELECT 1 FROM pin_content WHERE pin_content.digest = content.digest)
            ORDER BY ordered_at, digest LIMIT 5",
    ] {
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(query).fetch_all(&index.writer).await.unwrap();
        for (.., step) in plan {
            assert!(!step.starts_with("SCAN") && !step.contains("TEMP B-TREE"), "{query}: {step}");
        }
    }
}

#[tokio::test]
async fn a_full_disk_fails_writes_only_as_long_as_it_is_full() {
    let directory = TempDir::new().unwrap();
    let index = SqliteIndex::open(&directory.path().join("index.sqlite3"), &Clock::system()).await.unwrap();
    let (pages,): (i64,) = sqlx::query_as("PRAGMA page_count").fetch_one(&index.writer).await.unwrap();
    let limit = format!("PRAGMA max_page_count = {pages}");
    sqlx::query(sqlx::AssertSqlSafe(limit)).execute(&index.writer).await.unwrap();
    let many: Vec<_> = (0..2000).map(|number| blob(&number.to_string(), 1, 1)).collect();
    let error = index.record_content(&many).await.unwrap_err();
    assert!(matches!(error, MetadataError::Failed(_)), "{error:?}");
    // The limit belongs to the connection: a new one has room again.
    index.record_content(&many).await.unwrap();
    assert!(index.find_content(&many[1999].digest).await.unwrap().is_some());
}

type Damage = fn(&Path);

/// Has everything that was recorded in the file itself, and not in its log.
async fn fold(index: &SqliteIndex) {
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&index.writer).await.unwrap();
}

#[tokio::test]
async fn damage_is_found_while_the_index_is_used_and_another_begun_in_its_place() {
    let damages: [(&str, Damage); 5] = [
        ("garbage", |path| {
            let length = usize::try_from(path.metadata().unwrap().len()).unwrap();
            let file = std::fs::File::options().write(true).open(path).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &vec![0xa5; length], 0).unwrap();
        }),
        ("one page", |path| {
            let length = path.metadata().unwrap().len();
            let file = std::fs::File::options().write(true).open(path).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &[0xa5; 4096], (length / 4096 - 1) * 4096)
                .unwrap();
        }),
        ("cut off", |path| {
            let length = path.metadata().unwrap().len();
            std::fs::File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(length / 2 / 4096 * 4096)
                .unwrap();
        }),
        ("removed", |path| std::fs::remove_file(path).unwrap()),
        ("replaced", |path| {
            std::fs::copy(path, path.with_extension("copy")).unwrap();
            std::fs::rename(path.with_extension("copy"), path).unwrap();
        }),
    ];
    for (damage, spoil) in damages {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(SqliteIndex::FILE_NAME);
        let index = open_in(folder.path()).await;
        let many: Vec<_> = (0..500).map(|number| blob(&number.to_string(), 1, 1)).collect();
        index.record_content(&many).await.unwrap();
        fold(&index).await;
        assert_eq!(index.find_damage().await.unwrap(), None, "{damage}");
        spoil(&path);
        assert!(index.find_damage().await.unwrap().is_some(), "{damage}");
        let kept = index.begin_anew().await.unwrap();
        assert_eq!(kept.exists(), damage != "removed", "{damage}");
        assert_eq!(index.find_damage().await.unwrap(), None, "{damage}");
        assert_eq!(index.list_content(None, 5).await.unwrap(), []);
        index.record_content(&many[..1]).await.unwrap();
        index.close().await;
        let index = open_in(folder.path()).await;
        assert!(!index.is_new() && index.find_content(&many[0].digest).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_statement_that_meets_damage_calls_for_a_look() {
    let folder = TempDir::new().unwrap();
    let index = open_in(folder.path()).await;
    let many: Vec<_> = (0..500).map(|number| blob(&number.to_string(), 1, 1)).collect();
    index.record_content(&many).await.unwrap();
    fold(&index).await;
    let path = folder.path().join(SqliteIndex::FILE_NAME);
    let length = usize::try_from(path.metadata().unwrap().len()).unwrap();
    // In place, below open connections: none of them has read these pages yet.
    let file = std::fs::File::options().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0xa5; length - 4096], 4096).unwrap();
    let error = index.list_content(None, 500).await.unwrap_err();
    assert!(error.is_damage(), "{error:?}");
    let called =
        tokio::time::timeout(std::time::Duration::ZERO, async { index.doubt_signal().notified().await });
    called.await.unwrap();
    index.begin_anew().await.unwrap();
    assert_eq!(index.list_content(None, 500).await.unwrap(), []);
}

#[tokio::test]
async fn of_many_damaged_files_the_latest_three_are_kept() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(SqliteIndex::FILE_NAME);
    let name = |number| format!("index.sqlite3.damaged-{}", at(number).as_millis());
    for number in 1..=5 {
        std::fs::write(&path, "no database at all, as often as it is tried").unwrap();
        SqliteIndex::open(&path, &Clock::manual(at(number))).await.unwrap().close().await;
        std::fs::write(folder.path().join(name(number) + "-wal"), "its log").unwrap();
    }
    let kept = names_in(folder.path()).into_iter().filter(|name| name.contains("damaged"));
    let expected = (3..=5).flat_map(|number| [name(number), name(number) + "-wal"]);
    assert_eq!(kept.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}
