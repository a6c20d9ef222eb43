//! Opens what this node hosts: catalogue, store and uploads.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::auth::{Authenticator, AuthenticatorServices, FirstAdministrator, Passwords, RequestContext};
use crate::blobs::hosted::{BlobDirectory, Steps, Uploads};
use crate::config::Config;
use crate::metadata::catalogue::{Accounts, SqlCatalogue};
use crate::registry::Registry;
use crate::registry::hosted::{CollectionMetrics, Hosting, HostingServices, PruneOrder};
use crate::runtime::{Clock, Tasks};
use crate::telemetry::Metrics;
use crate::worker::{FirstRun, Worker};

/// What is open.
pub(super) struct Opened {
    pub(super) hosting: Hosting,
    pub(super) authenticator: Authenticator,
    /// To be closed at the end.
    pub(super) catalogue: Arc<SqlCatalogue>,
}

/// Opens all of it, has other nodes' changes looked for, and creates the first account where there is none.
pub(super) async fn open(
    config: &Config,
    tasks: &Tasks,
    clock: &Clock,
    metrics: &Metrics,
    registry: &Registry,
) -> anyhow::Result<Opened> {
    let path = &config.storage.path;
    let file = path.join(SqlCatalogue::FILE_NAME);
    let catalogue = SqlCatalogue::open(&file).await;
    let catalogue = catalogue.with_context(|| format!("open the catalogue {}", file.display()))?;
    let steps = Steps::default();
    let hosted = path.join(HOSTED);
    let store =
        BlobDirectory::open(&hosted.join("blobs"), tasks, &steps).context("open the hosted content")?;
    let uploads = Uploads::open(&hosted.join("uploads"), u64::MAX, tasks, &steps);
    let catalogue = Arc::new(catalogue);
    let authenticator = open_accounts(config, tasks, clock, &catalogue).await?;
    let metrics = CollectionMetrics::new(metrics.registry()).context("make the collection's metrics")?;
    let services = HostingServices {
        catalogue: Arc::clone(&catalogue) as _,
        store: Arc::new(store),
        registry: Some(registry.clone()),
        location: "local".to_owned(),
        uploads: uploads.context("open the directory of uploads")?,
        steps,
        clock: clock.clone(),
        tasks: tasks.clone(),
    };
    let hosting = Hosting::new(services, metrics);
    hosting.refresh_namespaces().await.context("read the hosted namespaces")?;
    spawn_workers(tasks, &hosting, clock);
    Ok(Opened { hosting, authenticator, catalogue })
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

async fn open_accounts(
    config: &Config,
    tasks: &Tasks,
    clock: &Clock,
    catalogue: &Arc<SqlCatalogue>,
) -> anyhow::Result<Authenticator> {
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
    first.ensure().await.context("create the first account")?;
    let services = AuthenticatorServices {
        accounts,
        passwords,
        clock: clock.clone(),
        tasks: tasks.clone(),
        token_lifetime: config.auth.token_lifetime,
    };
    Authenticator::open(services).await.context("read the key of tokens")
}

/// The directory under the storage path.
const HOSTED: &str = "hosted";

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
