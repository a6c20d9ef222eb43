//! Promises of [`HostedRepositories`](crate::metadata::catalogue::HostedRepositories).

use std::sync::Arc;

use super::{hosted, name, push_image, stamp, tag};
use crate::metadata::catalogue::{Catalogue, CatalogueError, ChangeKind, Namespace, Presence};

type Subject = Arc<dyn Catalogue>;

pub(in crate::metadata::catalogue) async fn what_is_deleted_is_unknown_until_it_is_restored(
    catalogue: &Subject,
) {
    let app = hosted(catalogue, "team/app").await;
    let team: Namespace = "team".parse().unwrap();
    let image = push_image(catalogue, &app, "image", &["v1"], 1).await;
    let found = catalogue.find_repository(&app).await.unwrap().unwrap();
    assert_eq!((found.created, found.deleted), (stamp(0), None));
    let is_hidden = async || {
        let unknown = catalogue.list_tags(&app, None, 9).await;
        assert!(matches!(unknown, Err(CatalogueError::RepositoryUnknown)), "{unknown:?}");
        let unknown = catalogue.put_tag(&app, &tag("v2"), &image, &stamp(3)).await;
        assert!(matches!(unknown, Err(CatalogueError::RepositoryUnknown)), "{unknown:?}");
        assert_eq!(catalogue.find_tag(&app, &tag("v1")).await.unwrap(), None);
        assert_eq!(catalogue.find_manifest(&app, &image).await.unwrap(), None);
        assert_eq!(catalogue.find_repository(&app).await.unwrap(), None);
        assert_eq!(catalogue.list_repositories(Presence::Live, None, 9).await.unwrap(), []);
    };

    catalogue.delete_repository(&app, &stamp(2)).await.unwrap();
    is_hidden().await;
    let deleted = catalogue.list_repositories(Presence::Deleted, None, 9).await.unwrap();
    assert_eq!((&deleted[0].name, &deleted[0].deleted), (&app, &Some(stamp(2))));
    let again = catalogue.delete_repository(&app, &stamp(2)).await;
    assert!(matches!(again, Err(CatalogueError::RepositoryUnknown)));
    catalogue.restore_repository(&app, &stamp(3)).await.unwrap();
    assert_eq!(catalogue.find_tag(&app, &tag("v1")).await.unwrap(), Some(image));

    catalogue.delete_namespace(&team, &stamp(4)).await.unwrap();
    is_hidden().await;
    let unknown = catalogue.restore_repository(&app, &stamp(5)).await;
    assert!(matches!(unknown, Err(CatalogueError::NamespaceUnknown)), "{unknown:?}");
    let deleted = catalogue.list_namespaces(Presence::Deleted, None, 9).await.unwrap();
    assert_eq!((&deleted[0].name, &deleted[0].deleted), (&team, &Some(stamp(4))));
    for _ in 0..2 {
        catalogue.restore_namespace(&team, &stamp(6)).await.unwrap();
        catalogue.restore_repository(&app, &stamp(6)).await.unwrap();
    }
    assert_eq!(catalogue.find_tag(&app, &tag("v1")).await.unwrap(), Some(image));
}

pub(in crate::metadata::catalogue) async fn a_repository_needs_a_namespace_that_is_there(
    catalogue: &Subject,
) {
    for text in ["team/app", "team"] {
        let refused = catalogue.create_repository(&name(text), &stamp(0)).await;
        assert!(matches!(refused, Err(CatalogueError::NamespaceUnknown)), "{refused:?}");
    }
    let (team, other): (Namespace, Namespace) = ("team".parse().unwrap(), "other".parse().unwrap());
    catalogue.create_namespace(&team, &stamp(0)).await.unwrap();
    for text in ["team/app", "team", "team/app/deep", "team/app"] {
        catalogue.create_repository(&name(text), &stamp(1)).await.unwrap();
    }
    assert_eq!(catalogue.list_repositories(Presence::Live, None, 9).await.unwrap().len(), 3);
    for unknown in [
        catalogue.restore_repository(&name("team/none"), &stamp(1)).await,
        catalogue.delete_repository(&name("team/none"), &stamp(1)).await,
    ] {
        assert!(matches!(unknown, Err(CatalogueError::RepositoryUnknown)), "{unknown:?}");
    }
    for unknown in [
        catalogue.restore_namespace(&other, &stamp(1)).await,
        catalogue.delete_namespace(&other, &stamp(1)).await,
    ] {
        assert!(matches!(unknown, Err(CatalogueError::NamespaceUnknown)), "{unknown:?}");
    }
    assert!("team/app".parse::<Namespace>().is_err());
}

pub(in crate::metadata::catalogue) async fn places_are_listed_in_order_page_by_page(catalogue: &Subject) {
    // A locale's order would have `a-b` and `a_b` elsewhere.
    let expected = ["a-b/x", "a.b/x", "a/x", "a_b/x", "ab/x", "b/x"];
    for text in ["b/x", "ab/x", "a/x", "a_b/x", "a-b/x", "a.b/x"] {
        hosted(catalogue, text).await;
    }
    let (mut listed, mut last) = (Vec::new(), None);
    loop {
        let page = catalogue.list_repositories(Presence::Live, last.as_ref(), 2).await.unwrap();
        let Some(end) = page.last() else { break };
        last = Some(end.name.clone());
        listed.extend(page.into_iter().map(|place| place.name));
    }
    assert_eq!(listed, expected.map(name));
    let after: Namespace = "a".parse().unwrap();
    let page = catalogue.list_namespaces(Presence::Live, Some(&after), 2).await.unwrap();
    assert_eq!(page.iter().map(|place| place.name.as_str()).collect::<Vec<_>>(), ["a-b", "a.b"]);
}

pub(in crate::metadata::catalogue) async fn a_policy_belongs_to_a_namespace_that_is_there(
    catalogue: &Subject,
) {
    let (team, other): (Namespace, Namespace) = ("team".parse().unwrap(), "other".parse().unwrap());
    assert_eq!(catalogue.find_namespace(&team).await.unwrap(), None);
    assert_eq!(catalogue.find_namespace_policy(&team).await.unwrap(), None);
    let unknown = catalogue.set_namespace_policy(&team, "{}", &stamp(0)).await;
    assert!(matches!(unknown, Err(CatalogueError::NamespaceUnknown)), "{unknown:?}");
    for namespace in [&team, &other] {
        catalogue.create_namespace(namespace, &stamp(1)).await.unwrap();
    }
    let found = catalogue.find_namespace(&team).await.unwrap().unwrap();
    assert_eq!((found.name, found.created, found.deleted), (team.clone(), stamp(1), None));
    assert_eq!(catalogue.find_namespace_policy(&team).await.unwrap().unwrap(), "{}");

    let policy = r#"{"anonymous_pull":true}"#;
    for _ in 0..2 {
        catalogue.set_namespace_policy(&team, policy, &stamp(2)).await.unwrap();
    }
    assert_eq!(catalogue.find_namespace_policy(&team).await.unwrap().unwrap(), policy);
    let all = [(other.clone(), "{}".to_owned()), (team.clone(), policy.to_owned())];
    assert_eq!(catalogue.list_namespace_policies().await.unwrap(), all);
    let changes = catalogue.list_changes(2, 9).await.unwrap();
    let seen: Vec<_> = changes.iter().map(|one| (one.kind, one.place.as_str(), &one.stamp)).collect();
    assert_eq!(seen, [(ChangeKind::NamespaceChanged, "team", &stamp(2))]);

    catalogue.delete_namespace(&team, &stamp(3)).await.unwrap();
    assert_eq!(catalogue.find_namespace(&team).await.unwrap(), None);
    assert_eq!(catalogue.find_namespace_policy(&team).await.unwrap(), None);
    assert_eq!(catalogue.list_namespace_policies().await.unwrap(), all[..1]);
    catalogue.restore_namespace(&team, &stamp(4)).await.unwrap();
    assert_eq!(catalogue.list_namespace_policies().await.unwrap(), all);
}
