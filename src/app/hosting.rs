//! Opens what this node hosts: catalogue, store and uploads.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::auth::{Authenticator, AuthenticatorServices, FirstAdministrator, Passwords, RequestContext};
use crate::blobs::hosted::{
    BlobDirectory, Confirmation, DurableBlobs, ObjectBlobs, ObjectSettings, Steps, Uploads,
};
use crate::config::Config;
use crate::metadata::catalogue::{Accounts, PostgresSettings, SqlCatalogue};
use crate::registry::Registry;
use crate::registry::hosted::{CollectionMetrics, Hosting, HostingServices, PruneOrder};
use crate::runtime::{Clock, Tasks};
use crate::telemetry::Metrics;
use crate::upstream::{build_tls, load_native_roots};
use crate::worker::{FirstRun, Worker};

/// What is open.
pub(super) struct Opened {
    pub(super) hosting: Hosting,
    pub(super) authenticator: Authenticator,
    /// To be closed at the end.
    pub(super) catalogue: Arc<SqlCatalogue>,
}

/// Opens all of it, has other nodes' changes looked for, and creates the first account where there is none.
///
/// A file that cannot be opened is an error. A database that is away is waited for in the background: what is cached needs
/// none.
pub(super) async fn open(
    config: &Config,
    tasks: &Tasks,
    clock: &Clock,
    metrics: &Metrics,
    registry: &Registry,
) -> anyhow::Result<Opened> {
    let hosted = config.storage.path.join(HOSTED);
    let catalogue = Arc::new(open_catalogue(config).await?);
    let steps = Steps::default();
    // Before the uploads: it makes the directory.
    let (store, location) = open_store(config, &hosted, tasks, &steps)?;
    let uploads = Uploads::open(&hosted.join("uploads"), u64::MAX, tasks, &steps);
    let metrics = CollectionMetrics::new(metrics.registry()).context("make the collection's metrics")?;
    let redirects = config.storage.object_store.as_ref().is_some_and(|store| store.redirects);
    let services = HostingServices {
        catalogue: Arc::clone(&catalogue) as _,
        store,
        registry: Some(registry.clone()),
        location,
        redirect_for: redirects.then_some(REDIRECT_FOR),
        uploads: uploads.context("open the directory of uploads")?,
        steps,
        clock: clock.clone(),
        tasks: tasks.clone(),
    };
    let hosting = Hosting::new(services, metrics);
    hosting.set_collection_grace(config.storage.collection_grace);
    let accounts = Accounting::new(config, tasks, clock, &catalogue)?;
    let authenticator = accounts.authenticator.clone();
    if config.database.is_some() {
        hosting.remember_namespaces_in(hosted.join("namespaces.json"));
        begin_with_database(&hosting, accounts, tasks, clock).await;
    } else {
        accounts.first.ensure().await.context("create the first account")?;
        hosting.refresh_namespaces().await.context("read the hosted namespaces")?;
    }
    spawn_workers(tasks, &hosting, clock);
    Ok(Opened { hosting, authenticator, catalogue })
}

async fn open_catalogue(config: &Config) -> anyhow::Result<SqlCatalogue> {
    let Some(database) = &config.database else {
        let file = config.storage.path.join(SqlCatalogue::FILE_NAME);
        let catalogue = SqlCatalogue::open(&file).await;
        return catalogue.with_context(|| format!("open the catalogue {}", file.display()));
    };
    let settings = PostgresSettings::parse(database.url.expose(), database.max_connections);
    // Not repeated: it has a password.
    let settings = settings.context("metadata.url is not the URL of a PostgreSQL database: write postgres://USER:PASSWORD@HOST:PORT/DATABASE")?;
    Ok(SqlCatalogue::in_database(&settings))
}

/// The store of blobs, and what the catalogue calls it.
fn open_store(
    config: &Config,
    hosted: &Path,
    tasks: &Tasks,
    steps: &Steps,
) -> anyhow::Result<(Arc<dyn DurableBlobs>, String)> {
    let Some(remote) = &config.storage.object_store else {
        let store = BlobDirectory::open(&hosted.join("blobs"), tasks, steps);
        return Ok((Arc::new(store.context("open the hosted content")?), "local".to_owned()));
    };
    let mut settings = ObjectSettings::new(hosted.join("journal"));
    if remote.reads_back {
        settings.confirmation = Confirmation::Content;
    }
    let tls = build_tls(&load_native_roots(), remote.ca_file.as_deref(), "storage.object_store");
    let tls = tls.context("prepare connections to the object store")?;
    let store = ObjectBlobs::connect(&remote.store, Arc::new(tls), settings, tasks, steps);
    let store = store.context("storage.object_store")?;
    let abandoned = store.clone();
    tasks.spawn(async move {
        match abandoned.abort_abandoned().await {
            Ok(0) => {}
            Ok(uploads) => tracing::info!(uploads, "uploads that an earlier process left at the object store were aborted"),
            Err(error) => tracing::warn!(%error, "uploads that an earlier process left at the object store are aborted at the next start"),
        }
    });
    Ok((Arc::new(store), remote.store.url.trim_end_matches('/').to_owned()))
}

/// Accounts, and how the first one comes to be.
struct Accounting {
    first: FirstAdministrator,
    authenticator: Authenticator,
}

impl Accounting {
    fn new(
        config: &Config,
        tasks: &Tasks,
        clock: &Clock,
        catalogue: &Arc<SqlCatalogue>,
    ) -> anyhow::Result<Self> {
        let passwords = Passwords::new(tasks.clone());
        let accounts: Arc<dyn Accounts> = Arc::clone(catalogue) as _;
        let first = FirstAdministrator {
            accounts: Arc::clone(&accounts),
            passwords: passwords.clone(),
            clock: clock.clone(),
            tasks: tasks.clone(),
            folder: config.storage.path.clone(),
            configured: config.auth.administrator_password.clone(),
        };
        let services = AuthenticatorServices {
            accounts,
            passwords,
            clock: clock.clone(),
            tasks: tasks.clone(),
            token_lifetime: config.auth.token_lifetime,
        };
        let authenticator = Authenticator::new(services).context("prepare the accounts")?;
        Ok(Self { first, authenticator })
    }
}

/// Creates the first account and reads what is hosted, now or, where the database does not do it at once, when it does.
async fn begin_with_database(hosting: &Hosting, accounts: Accounting, tasks: &Tasks, clock: &Clock) {
    // Dropped where it takes too long: each of its steps may be done again.
    let begun = tokio::time::timeout(START_PATIENCE, begin(hosting, &accounts)).await;
    let first_run = match begun {
        Ok(Ok(())) => FirstRun::AfterPeriod,
        Ok(Err(error)) => {
            tracing::warn!(
                error = format!("{error:#}"),
                "the catalogue's database cannot be used: the start goes on without it"
            );
            FirstRun::AtOnce
        }
        Err(_elapsed) => {
            tracing::warn!("the catalogue's database does not answer: the start goes on without it");
            FirstRun::AtOnce
        }
    };
    let (hosting, accounts) = (hosting.clone(), Arc::new(accounts));
    let begin = Worker::new("hosted-start", START_PERIOD, move || {
        let (hosting, accounts) = (hosting.clone(), Arc::clone(&accounts));
        async move { begin(&hosting, &accounts).await }
    });
    begin.first_run(first_run).spawn(tasks, clock.clone());
}

async fn begin(hosting: &Hosting, accounts: &Accounting) -> anyhow::Result<()> {
    hosting.refresh_namespaces().await.context("read the hosted namespaces")?;
    accounts.first.ensure().await.context("create the first account")?;
    anyhow::ensure!(accounts.authenticator.can_issue().await, "the key of tokens cannot be read");
    Ok(())
}

/// Starts what looks for other nodes' changes, what expires, prunes and collects by itself, and what writes uses down.
fn spawn_workers(tasks: &Tasks, hosting: &Hosting, clock: &Clock) {
    let refreshed = hosting.clone();
    let refresh = Worker::new("hosted-namespaces", REFRESH_PERIOD, move || {
        let hosting = refreshed.clone();
        async move { hosting.refresh_namespaces().await }
    });
    refresh.first_run(FirstRun::AfterPeriod).spawn(tasks, clock.clone());
    let of_uses = hosting.clone();
    let uses = Worker::new("hosted-uses", USES_PERIOD, move || {
        let hosting = of_uses.clone();
        async move { hosting.flush_uses().await }
    });
    uses.first_run(FirstRun::AfterPeriod).spawn(tasks, clock.clone());
    let of_expiry = hosting.clone();
    let expiry = Worker::new("hosted-expiry", EXPIRY_PERIOD, move || {
        let hosting = of_expiry.clone();
        async move { hosting.expire_tags().await.map(drop) }
    });
    expiry.spawn(tasks, clock.clone());
    let of_prune = hosting.clone();
    let prune = Worker::new("hosted-prune", PRUNE_PERIOD, move || {
        let hosting = of_prune.clone();
        async move { hosting.prune(&RequestContext::system(), &PruneOrder::default()).await.map(drop) }
    });
    prune.first_run(FirstRun::AfterPeriod).spawn(tasks, clock.clone());
    let of_collection = hosting.clone();
    let collection = Worker::new("hosted-collection", COLLECTION_PERIOD, move || {
        let hosting = of_collection.clone();
        async move { hosting.collect_in_background().await }
    });
    collection.first_run(FirstRun::AfterPeriod).spawn(tasks, clock.clone());
}

/// The directory under the storage path.
const HOSTED: &str = "hosted";

/// For how long a URL at the store is good: who got it begins at once, and may take its time then.
const REDIRECT_FOR: Duration = Duration::from_mins(20);

/// How long the start waits for the database.
const START_PATIENCE: Duration = Duration::from_secs(2);

/// How often it is looked whether what a start does is still done: somebody may have emptied the database.
const START_PERIOD: Duration = Duration::from_hours(1);

/// How often other nodes' changes of namespaces are looked for.
const REFRESH_PERIOD: Duration = Duration::from_secs(2);

/// How often uses are written down.
const USES_PERIOD: Duration = Duration::from_secs(5);

/// How often it is looked whether a tag's time is over.
const EXPIRY_PERIOD: Duration = Duration::from_secs(30);

/// How often the rules of namespaces are followed.
const PRUNE_PERIOD: Duration = Duration::from_hours(1);

/// How often it is collected.
const COLLECTION_PERIOD: Duration = Duration::from_hours(1);
