//! The power goes while everybody pushes, mounts and deletes: what was acknowledged before is there, whole.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use super::disk::PowerDisk;
use super::{MIB, Seed};
use crate::hosted::{Hosted, Writer, needed_by, spawn_load, tell, verify_all, verify_files};

/// How often the power goes; `TIDEGATE_POWER_CUTS` asks for more.
pub(super) fn rounds() -> u32 {
    std::env::var("TIDEGATE_POWER_CUTS").map_or(5, |number| number.parse().expect("a number"))
}

/// The catalogue's file is whole, as it is found.
async fn verify_catalogue(data: &Path) {
    let options = SqliteConnectOptions::new().filename(data.join("catalogue.sqlite3"));
    let mut catalogue = options.connect().await.unwrap();
    let said: Vec<String> =
        sqlx::query_scalar("PRAGMA integrity_check").fetch_all(&mut catalogue).await.unwrap();
    assert_eq!(said, ["ok"]);
    catalogue.close().await.unwrap();
}

/// How many change something at once.
const WRITERS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_power_cut_all_that_was_acknowledged_of_hosted_content_is_there() {
    let Some(disk) = PowerDisk::mount(2048 * MIB as u64) else { return };
    let seed = Seed::new();
    let mut random = fastrand::Rng::with_seed(seed.0);
    let data = disk.path().join("data");
    let mut hosted = Hosted::start_with(|setup| {
        // What it says while its disk is gone; whoever is answered so before that fails the test.
        let setup = setup.data(&data).with_warnings().with_log("a request failed for a fault of this server");
        let setup = setup.with_log("disk cannot keep content").with_log("index failed");
        setup.with_log("Input/output error").with_log("disk I/O error")
    })
    .await;
    let writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
    let mut acknowledged = 0;
    for _ in 0..rounds() {
        let tasks = spawn_load(&writers, &hosted, &mut random).await;
        tokio::time::sleep(Duration::from_millis(random.u64(..400))).await;
        // What is said later, nobody would have heard.
        for writer in &writers {
            writer.deafen();
        }
        disk.cut_power();
        hosted.tidegate.kill().await;
        for task in tasks {
            task.await.unwrap();
        }
        disk.boot().await;
        verify_files(&hosted);
        verify_catalogue(&data).await;
        hosted.tidegate.start_again().await;
        let admin = hosted.administrator();
        for writer in &writers {
            let lost = writer.lost();
            acknowledged += writer.acknowledged();
            writer.verify(&admin).await;
            writer.push_again(&admin, lost).await;
        }
    }
    tell(&format!("{} cuts: {acknowledged} things acknowledged", rounds()));
    assert!(acknowledged > 0);
    verify_all(&hosted.tidegate, needed_by(&writers).1).await;
}
