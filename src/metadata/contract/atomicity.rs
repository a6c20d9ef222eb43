//! Promises of all traits: one transaction a method, and nobody fails for another.

use std::sync::Arc;

use super::{at, blob, digest, proof, pull, repository};
use crate::metadata::{ContentKind, ContentUse, NodeIndex, PullRecord, RepositoryId, Segment};
use crate::oci::AcceptClass;
use crate::runtime::Tasks;

type Index = Arc<dyn NodeIndex>;

/// Which parts of a pull are there: content, each proof, tag.
async fn parts_of(index: &Index, place: &RepositoryId, pull: &PullRecord) -> Vec<bool> {
    let mut parts = vec![index.find_content(&pull.content.digest).await.unwrap().is_some()];
    for proof in &pull.proofs {
        parts.push(index.find_proof(place, proof.kind, &proof.digest).await.unwrap().is_some());
    }
    if let Some(tag) = &pull.tag {
        parts.push(index.find_tag(place, &tag.tag, &tag.class).await.unwrap().is_some());
    }
    parts
}

pub(in crate::metadata) async fn a_pull_is_recorded_whole(index: &Index) {
    let here = repository("docker.io", "a");
    let by_tag = pull("image", "v1");
    let by_digest = PullRecord { tag: None, ..pull("other", "v2") };
    for pull in [&by_tag, &by_digest] {
        assert!(parts_of(index, &here, pull).await.iter().all(|part| !part));
        index.record_pull(&here, pull).await.unwrap();
        assert!(parts_of(index, &here, pull).await.iter().all(|part| *part));
    }
    let tag = by_tag.tag.unwrap();
    let seen = index.find_tag(&here, &tag.tag, &AcceptClass::Any).await.unwrap();
    assert_eq!(seen, Some(tag.observation));
    assert_eq!(index.list_tags(&here).await.unwrap(), [tag.tag]);
    // A pull that comes again is no fault, and keeps what the index keeps.
    index.record_content(&[blob("image", 500, 90)]).await.unwrap();
    index.record_pull(&here, &pull("image", "v1")).await.unwrap();
    let content = index.find_content(&digest("image")).await.unwrap().unwrap();
    assert_eq!((content.kind, content.last_used_at), (ContentKind::Manifest, at(90)));
}

pub(in crate::metadata) async fn a_pull_that_is_dropped_was_recorded_wholly_or_not_at_all(index: &Index) {
    let here = repository("docker.io", "a");
    // Dropped after 0, 1, 2, … polls: early ones do nothing, late ones all of it, none a part.
    for polls in 0..40 {
        let pull = pull(&format!("image {polls}"), &format!("v{polls}"));
        {
            let mut recording = Box::pin(index.record_pull(&here, &pull));
            for _ in 0..polls {
                if futures_util::poll!(&mut recording).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        // The next writer is not held up by what was left; and what was on its way to the disk is there by then, all of
        // it, and not in the middle of the questions below.
        index.record_content(&[blob("next", 1, polls)]).await.unwrap();
        let parts = parts_of(index, &here, &pull).await;
        assert!(parts.iter().all(|part| *part == parts[0]), "after {polls} polls: {parts:?}");
    }
}

pub(in crate::metadata) async fn concurrent_writers_and_readers_never_fail_for_each_other(index: &Index) {
    let tasks = Tasks::new();
    let workers: Vec<_> = (0_u64..8)
        .map(|worker| {
            let index = Arc::clone(index);
            tasks.spawn(async move {
                let here = repository("docker.io", "shared");
                for round in 0_u64..25 {
                    let text = format!("{worker} {round}");
                    index.record_pull(&here, &pull(&text, &format!("v{worker}"))).await.unwrap();
                    index.record_proofs(&here, &[proof("shared", ContentKind::Blob)]).await.unwrap();
                    let uses = [ContentUse { digest: digest(&text), used_at: at(round * 10) }];
                    index.record_uses(&uses).await.unwrap();
                    index.list_least_used(ContentKind::Blob, Segment::Probation, 10).await.unwrap();
                    assert!(index.find_content(&digest(&text)).await.unwrap().is_some());
                    if round % 2 == 0 {
                        index.remove_content(&[digest(&text)]).await.unwrap();
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    let (probation, protected) = index.content_bytes().await.unwrap();
    assert_eq!(probation + protected, 8 * 12 * 500);
    assert_eq!(index.list_repositories(None, 10).await.unwrap().len(), 1);
}
