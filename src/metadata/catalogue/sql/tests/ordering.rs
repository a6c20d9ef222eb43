//! Transactions that overlap, and the numbers that their changes get.

use crate::metadata::catalogue::contract::{name, stamp};
use crate::metadata::catalogue::{ChangeKind, ChangeLog as _};
use crate::runtime::Tasks;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_ends_first_has_the_smaller_number_though_it_began_later() {
    let Some((catalogue, _server, _)) = super::connected().await else { return };
    let mut first = catalogue.begin().await.unwrap();
    let mut second = catalogue.begin().await.unwrap();
    for (session, place) in [(&mut first, "first"), (&mut second, "second")] {
        session.note(ChangeKind::RepositoryCreated, name(place).as_str(), None, None, &stamp(1));
        // It has a number of its own in the database's order from here on.
        session.fetch("SELECT CAST(txid_current() AS TEXT) AS id", vec![]).await.unwrap();
    }
    second.commit().await.unwrap();
    let seen = catalogue.list_changes(0, 9).await.unwrap();
    assert_eq!(seen.iter().map(|one| (one.number, one.place.as_str())).collect::<Vec<_>>(), [(1, "second")]);
    first.commit().await.unwrap();
    let rest = catalogue.list_changes(1, 9).await.unwrap();
    assert_eq!(rest.iter().map(|one| (one.number, one.place.as_str())).collect::<Vec<_>>(), [(2, "first")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_a_number_while_a_smaller_one_may_still_be_taken_back() {
    let Some((catalogue, server, url)) = super::connected().await else { return };
    let tasks = Tasks::new();
    for is_taken_back in [true, false] {
        let before = catalogue.last_change().await.unwrap();
        // It has its number, and has not committed.
        let mut holder = catalogue.begin().await.unwrap();
        holder.execute("UPDATE change_counter SET last = last + 1", vec![]).await.unwrap();
        holder
            .execute(
                "INSERT INTO change (number, kind, place, changed_at, changed_by)
                 SELECT last, 'namespace_created', 'held', 1, 'somebody' FROM change_counter",
                vec![],
            )
            .await
            .unwrap();
        let mut later = catalogue.begin().await.unwrap();
        later.note(ChangeKind::NamespaceCreated, "later", None, None, &stamp(1));
        let committing = tasks.spawn(later.commit());
        server.wait_for_a_blocked_one(super::database(&url)).await;
        assert_eq!(catalogue.list_changes(before, 9).await.unwrap(), []);
        if is_taken_back {
            drop(holder);
        } else {
            holder.commit().await.unwrap();
        }
        committing.await.unwrap().unwrap();
        let seen = catalogue.list_changes(before, 9).await.unwrap();
        let places: Vec<_> = seen.iter().map(|one| one.place.as_str()).collect();
        let expected: &[&str] = if is_taken_back { &["later"] } else { &["held", "later"] };
        assert_eq!(places, expected);
        assert_eq!(seen[0].number, before + 1);
    }
}
