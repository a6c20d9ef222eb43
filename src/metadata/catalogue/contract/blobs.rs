//! Promises of [`HostedBlobs`](crate::metadata::catalogue::HostedBlobs).

use std::sync::Arc;

use super::{blob, digest, hosted, name, record_blob, stamp};
use crate::metadata::catalogue::{BlobRecord, Catalogue, CatalogueError};

type Subject = Arc<dyn Catalogue>;

pub(in crate::metadata::catalogue) async fn a_blob_belongs_to_repositories_that_it_was_pushed_or_mounted_to(
    catalogue: &Subject,
) {
    let (one, two, three) = (
        hosted(catalogue, "a/one").await,
        hosted(catalogue, "a/two").await,
        hosted(catalogue, "b/three").await,
    );
    let layer = blob("layer");
    record_blob(catalogue, &one, &layer, None, &stamp(1)).await.unwrap();
    assert_eq!(catalogue.find_blob(&one, &layer.digest).await.unwrap(), Some(layer.clone()));
    assert_eq!(catalogue.find_blob(&two, &layer.digest).await.unwrap(), None);
    for from in [&three, &name("a/none")] {
        let refused = catalogue.mount_blob(&two, &layer.digest, from, &stamp(2)).await;
        assert!(matches!(refused, Err(CatalogueError::BlobUnknown(_))), "{refused:?}");
    }
    for _ in 0..2 {
        catalogue.mount_blob(&two, &layer.digest, &one, &stamp(2)).await.unwrap();
        assert_eq!(catalogue.find_blob(&two, &layer.digest).await.unwrap(), Some(layer.clone()));
    }
    // Another store has it, too.
    let elsewhere = BlobRecord { locations: vec!["another".to_owned()], ..layer.clone() };
    record_blob(catalogue, &one, &elsewhere, None, &stamp(3)).await.unwrap();
    let found = catalogue.find_blob(&two, &layer.digest).await.unwrap().unwrap();
    assert_eq!(found.locations, ["another".to_owned(), layer.locations[0].clone()]);

    catalogue.delete_blob(&one, &layer.digest).await.unwrap();
    assert_eq!(catalogue.find_blob(&one, &layer.digest).await.unwrap(), None);
    assert!(catalogue.find_blob(&two, &layer.digest).await.unwrap().is_some());
    let again = catalogue.delete_blob(&one, &layer.digest).await;
    assert!(matches!(again, Err(CatalogueError::BlobUnknown(_))), "{again:?}");
}

pub(in crate::metadata::catalogue) async fn a_push_of_a_blob_ends_its_upload_and_may_be_repeated(
    catalogue: &Subject,
) {
    let (here, there) = (hosted(catalogue, "a/here").await, hosted(catalogue, "a/there").await);
    for (repository, id) in [(&here, "one"), (&here, "two"), (&there, "three")] {
        catalogue.start_upload(repository, id, &stamp(1)).await.unwrap();
    }
    for _ in 0..2 {
        record_blob(catalogue, &here, &blob("layer"), Some("one"), &stamp(2)).await.unwrap();
        // The upload of another repository is none of this one's.
        record_blob(catalogue, &here, &blob("layer"), Some("three"), &stamp(2)).await.unwrap();
        assert_eq!(catalogue.find_upload(&here, "one").await.unwrap(), None);
    }
    assert!(catalogue.find_upload(&here, "two").await.unwrap().is_some());
    assert!(catalogue.find_upload(&there, "three").await.unwrap().is_some());
    assert_eq!(catalogue.find_upload(&here, "three").await.unwrap(), None);
}

pub(in crate::metadata::catalogue) async fn a_blob_of_another_size_is_refused(catalogue: &Subject) {
    let here = hosted(catalogue, "a/here").await;
    record_blob(catalogue, &here, &blob("layer"), None, &stamp(1)).await.unwrap();
    let other = BlobRecord { size_bytes: 1, ..blob("layer") };
    let refused = record_blob(catalogue, &here, &other, None, &stamp(2)).await;
    assert!(matches!(refused, Err(CatalogueError::SizeContradicted(_))), "{refused:?}");
    assert_eq!(catalogue.find_blob(&here, &digest("layer")).await.unwrap(), Some(blob("layer")));
}
