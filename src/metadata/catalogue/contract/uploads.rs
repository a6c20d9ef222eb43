//! Promises of [`Uploads`](crate::metadata::catalogue::Uploads).

use std::sync::Arc;

use super::{at, hosted, stamp};
use crate::metadata::catalogue::{Catalogue, CatalogueError, UploadStep};

type Subject = Arc<dyn Catalogue>;

fn step(from_bytes: u64, to_bytes: u64, state: &str, seconds: u64) -> UploadStep {
    UploadStep { from_bytes, to_bytes, hash_state: state.as_bytes().to_vec(), at: at(seconds) }
}

pub(in crate::metadata::catalogue) async fn an_upload_moves_on_from_where_it_is(catalogue: &Subject) {
    let (here, there) = (hosted(catalogue, "a/here").await, hosted(catalogue, "a/there").await);
    let before = catalogue.last_change().await.unwrap();
    catalogue.start_upload(&here, "one", &stamp(1)).await.unwrap();
    // The same step again is no fault: its answer was lost.
    for _ in 0..2 {
        catalogue.advance_upload(&here, "one", &step(0, 10, "\0state", 2)).await.unwrap();
    }
    for other in [step(0, 20, "\0state", 3), step(0, 10, "other", 3), step(5, 15, "other", 3)] {
        match catalogue.advance_upload(&here, "one", &other).await {
            Err(CatalogueError::UploadElsewhere { offset_bytes }) => assert_eq!(offset_bytes, 10),
            other => panic!("{other:?}"),
        }
    }
    catalogue.start_upload(&here, "one", &stamp(4)).await.unwrap();
    let upload = catalogue.find_upload(&here, "one").await.unwrap().unwrap();
    assert_eq!((upload.offset_bytes, &upload.hash_state[..]), (10, &b"\0state"[..]));
    assert_eq!((upload.started, upload.touched_at), (stamp(1), at(2)));

    assert_eq!(catalogue.find_upload(&there, "one").await.unwrap(), None);
    for unknown in [
        catalogue.advance_upload(&there, "one", &step(10, 20, "", 3)).await,
        catalogue.remove_upload(&there, "one").await,
    ] {
        assert!(matches!(unknown, Err(CatalogueError::UploadUnknown)), "{unknown:?}");
    }
    catalogue.remove_upload(&here, "one").await.unwrap();
    let again = catalogue.remove_upload(&here, "one").await;
    assert!(matches!(again, Err(CatalogueError::UploadUnknown)), "{again:?}");
    assert_eq!(catalogue.last_change().await.unwrap(), before);
}

pub(in crate::metadata::catalogue) async fn the_longest_silent_upload_comes_first(catalogue: &Subject) {
    let (here, there) = (hosted(catalogue, "a/here").await, hosted(catalogue, "a/there").await);
    for (repository, id, seconds) in [(&here, "one", 1), (&there, "two", 2), (&here, "three", 3)] {
        catalogue.start_upload(repository, id, &stamp(seconds)).await.unwrap();
    }
    catalogue.advance_upload(&here, "one", &step(0, 1, "x", 10)).await.unwrap();
    let list = async |before, limit| {
        let silent = catalogue.list_silent_uploads(at(before), limit).await.unwrap();
        silent.into_iter().map(|(repository, upload)| (repository, upload.id)).collect::<Vec<_>>()
    };
    let (two, three) = ((there.clone(), "two".to_owned()), (here.clone(), "three".to_owned()));
    assert_eq!(list(2, 9).await, []);
    assert_eq!(list(10, 9).await, [two.clone(), three.clone()]);
    assert_eq!(list(11, 9).await, [two.clone(), three, (here, "one".to_owned())]);
    assert_eq!(list(11, 1).await, [two]);
}
