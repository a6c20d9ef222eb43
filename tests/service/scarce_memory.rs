//! Memory that runs out: the system gives no more of it, and thus no more threads either.

use futures_util::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use crate::harness::{Section, Setup, Tidegate};
use crate::upstream::Upstream;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// How many clients come at once.
const CROWD: usize = 60;

/// What the process has of addresses, used or not.
fn address_space_bytes(tidegate: &Tidegate) -> u64 {
    let id = tidegate.process_id().as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn a_process_that_gets_no_more_memory_and_no_more_threads_serves_a_crowd_all_the_same() {
    for headroom_bytes in [0, 16 * MIB as u64] {
        let upstream = Upstream::start().await;
        let image = upstream.make_image("library/app", "1", &[16 * MIB, 3 * MIB, 200 * KIB, KIB]);
        let tidegate = Setup::new().upstream(Section::hub(&upstream)).with_warnings().start().await;
        let id = Some(tidegate.process_id());
        let maximum = getrlimit(Resource::As).maximum;
        let current = Some(address_space_bytes(&tidegate) + headroom_bytes);
        let old = prlimit(id, Resource::As, Rlimit { current, maximum }).unwrap();
        for _ in 0..2 {
            join_all((0..CROWD).map(|_| tidegate.pull(&image))).await;
        }
        prlimit(id, Resource::As, old).unwrap();
        tidegate.pull(&image).await;
    }
}
