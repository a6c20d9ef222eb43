//! Who keeps the objects: S3 and what speaks like it, Google Cloud Storage, Azure; found by the URL's scheme.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};
use rustls::ClientConfig;

use super::transport::Transport;
use super::{HostedError, Result};
use crate::config::ObjectStoreConfig;

/// How long one request is tried again, and how often: a client waits for it.
const RETRY_TIMEOUT: Duration = Duration::from_mins(1);
const RETRIES: usize = 6;

/// Builds a store. The library's builders have the same methods, and no trait that says so.
macro_rules! connect {
    ($builder:ty, $key:ty, $config:expr, $transport:expr) => {{
        // What is not configured may come from where the stores' own tools have it: variables, a token of the cluster.
        let mut builder = <$builder>::from_env().with_url(&$config.url);
        for (name, value) in &$config.options {
            let key = name.parse::<$key>().map_err(|error| setup(&error))?;
            builder = builder.with_config(key, value.expose());
        }
        let built = builder.with_retry(retries()).with_http_connector($transport).build();
        built.map(Provider::of).map_err(|error| setup(&error))?
    }};
}

/// One store, by all that it can do.
#[derive(Clone)]
pub(super) struct Provider {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) multipart: Arc<dyn MultipartStore>,
    pub(super) signer: Option<Arc<dyn Signer>>,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not what it is made of, which has secrets.
        fmt::Display::fmt(&self.objects, f)
    }
}

impl Provider {
    /// Finds the store that a URL names, and what all keys in it begin with. Asks nobody yet.
    pub(super) fn connect(config: &ObjectStoreConfig, tls: Arc<ClientConfig>) -> Result<(Self, Path)> {
        let (scheme, rest) = config.url.split_once("://").unwrap_or_default();
        let prefix = rest.split_once('/').map_or("", |(_bucket, prefix)| prefix);
        let prefix = Path::from_url_path(prefix).map_err(|error| setup(&error))?;
        let transport = Transport::new(tls);
        let provider = match scheme {
            "s3" => connect!(AmazonS3Builder, AmazonS3ConfigKey, config, transport),
            "gs" => connect!(GoogleCloudStorageBuilder, GoogleConfigKey, config, transport),
            "az" => connect!(MicrosoftAzureBuilder, AzureConfigKey, config, transport),
            _ => return Err(setup(&"its URL begins with none of s3://, gs:// and az://")),
        };
        Ok((provider, prefix))
    }

    pub(super) fn of<S>(store: S) -> Self
    where
        S: ObjectStore + MultipartStore + Signer,
    {
        let store = Arc::new(store);
        let (objects, multipart) = (Arc::clone(&store), Arc::clone(&store));
        Self { objects, multipart, signer: Some(store) }
    }
}

fn retries() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(5),
        base: 2.0,
    };
    RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_TIMEOUT }
}

fn setup(reason: &dyn fmt::Display) -> HostedError {
    HostedError::Setup { reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::hosted::s3_server::trusting_nobody;
    use crate::config::Secret;

    fn connect(url: &str, options: &[(&str, &str)]) -> Result<(Provider, Path)> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect();
        Provider::connect(&ObjectStoreConfig { url: url.to_owned(), options }, trusting_nobody())
    }

    #[test]
    fn a_url_names_the_store_and_what_keys_begin_with() {
        let key = [("access_key_id", "id"), ("secret_access_key", "secret"), ("region", "eu-west-1")];
        let (provider, prefix) = connect("s3://bucket/a/b", &key).unwrap();
        assert_eq!(prefix.as_ref(), "a/b");
        assert!(provider.objects.to_string().contains("bucket"), "{}", provider.objects);
        let azure = [("account_name", "account"), ("account_key", "c2VjcmV0")];
        let (_, prefix) = connect("az://container", &azure).unwrap();
        assert_eq!(prefix.as_ref(), "");
        let (_, prefix) = connect("gs://bucket/p/", &[("google_skip_signature", "true")]).unwrap();
        assert_eq!(prefix.as_ref(), "p");
    }

    #[test]
    fn settings_that_make_no_store_say_why_and_show_no_secret() {
        for (url, options) in [
            ("", [("region", "x")]),
            ("bucket", [("region", "x")]),
            ("ftp://bucket", [("region", "x")]),
            ("s3://bucket", [("no_such_option", "hidden")]),
        ] {
            let Err(HostedError::Setup { reason }) = connect(url, &options) else { panic!("{url}") };
            assert!(!reason.is_empty() && !reason.contains("hidden"), "{reason}");
        }
    }
}
