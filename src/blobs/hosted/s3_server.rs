//! A private server that speaks like S3, for tests: moto's, which keeps everything in memory and wants no account.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::contract::{Subject, content};
use super::{ObjectBlobs, ObjectSettings, Steps};
use crate::config::{ObjectStoreConfig, Secret};
use crate::oci::Algorithm;
use crate::runtime::Tasks;

/// The least size of parts that is allowed, in bytes.
const PART_BYTES: u64 = 5 * 1024 * 1024;

/// The size of content that is sent in three parts.
pub(super) const LARGE_BYTES: usize = 11 * 1024 * 1024;

/// Long enough for a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// A running server; dropping it ends it.
pub(super) struct S3Server {
    child: Child,
    address: String,
    prefixes: AtomicU64,
}

impl S3Server {
    /// Starts a server with one bucket. Where it is not installed, says so and gives none; CI must have it.
    pub(super) async fn start() -> Option<Self> {
        let mut command = Command::new("moto_server");
        command.args(["-H", "127.0.0.1", "-p", "0"]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                skip(&error);
                return None;
            }
        };
        let output = child.stderr.take().unwrap();
        let found = tokio::task::spawn_blocking(move || {
            let mut lines = BufReader::new(output).lines();
            let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
                line.split_once("Running on http://").map(|(_, address)| address.trim().to_owned())
            });
            // Read to its end, so that the server is never held up by what it logs.
            std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
            address
        });
        let address = tokio::time::timeout(Duration::from_mins(1), found).await.unwrap().unwrap();
        let address = address.expect("the server says where it listens");
        let server = Self { child, address, prefixes: AtomicU64::new(0) };
        assert!(server.request("PUT", "/tidegate").await.starts_with("HTTP/1.1 200"));
        Some(server)
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// A store with a prefix of its own, and a way into it. Content of `large_bytes` is sent in parts.
    pub(super) fn subject(&self, patience: Duration) -> Subject {
        let folder = tempfile::tempdir().unwrap();
        let prefix = self.prefixes.fetch_add(1, Ordering::Relaxed).to_string();
        let store = connect(&self.address, &prefix, folder.path(), patience, &Steps::default());
        Subject::new(Arc::new(store), folder, LARGE_BYTES)
    }

    /// Whether an upload in parts was begun at the server and not ended.
    pub(super) async fn has_begun(&self) -> bool {
        let answer = self.request("GET", "/tidegate?uploads").await;
        assert!(answer.contains("ListMultipartUploadsResult"), "{answer}");
        answer.contains("<UploadId>")
    }

    /// Sends a request without credentials, and returns all of the answer.
    async fn request(&self, method: &str, target: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let host = &self.address;
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// A store at a running server. `folder` is for what the node keeps.
pub(super) fn connect(
    address: &str,
    prefix: &str,
    folder: &Path,
    patience: Duration,
    steps: &Steps,
) -> ObjectBlobs {
    let options = [
        ("endpoint", format!("http://{address}")),
        ("allow_http", "true".to_owned()),
        ("region", "us-east-1".to_owned()),
        ("access_key_id", "id".to_owned()),
        ("secret_access_key", "secret".to_owned()),
    ];
    let options = options.into_iter().map(|(name, value)| (name.to_owned(), Secret::new(value))).collect();
    let config = ObjectStoreConfig { url: format!("s3://tidegate/{prefix}/blobs"), options };
    connect_to(&config, folder, patience, steps)
}

/// Any store, with the least size of parts.
pub(super) fn connect_to(
    config: &ObjectStoreConfig,
    folder: &Path,
    patience: Duration,
    steps: &Steps,
) -> ObjectBlobs {
    let mut settings = ObjectSettings::new(folder.join("parts"));
    settings.patience = patience;
    settings.part_bytes = PART_BYTES;
    ObjectBlobs::connect(config, trusting_nobody(), settings, &Tasks::new(), steps).unwrap()
}

/// TLS for those who use none.
pub(super) fn trusting_nobody() -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let roots = rustls::RootCertStore::empty();
    Arc::new(builder.unwrap().with_root_certificates(roots).with_no_client_auth())
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[expect(clippy::print_stderr, reason = "what is skipped must be seen")]
fn skip(error: &std::io::Error) {
    let text = format!("SKIPPED: moto_server cannot be started ({error}); tests/run installs it");
    assert!(std::env::var_os("CI").is_none(), "{text}");
    eprintln!("{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anybody_gets_content_by_a_presigned_url() {
    let Some(server) = S3Server::start().await else { return };
    let subject = server.subject(PATIENCE);
    let digest = subject.put(b"signed for").await;
    let url = subject.store.presign(&digest, Duration::from_mins(1)).await.unwrap().unwrap();
    let target = url.strip_prefix(&format!("http://{}", server.address)).unwrap();
    assert!(target.contains("X-Amz-Signature=") && target.contains("X-Amz-Expires=60"), "{target}");
    let answer = server.request("GET", target).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("signed for"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_begun_in_parts_and_broken_leaves_none_at_the_server() {
    let Some(server) = S3Server::start().await else { return };
    let subject = server.subject(PATIENCE);
    let staged = subject.stage(&content(LARGE_BYTES, 1), Algorithm::Sha256).await;
    let digest = *staged.digest();
    // What the disk gives back is found out with the last part.
    subject.damage_upload();
    let error = subject.store.put(staged).await.unwrap_err();
    assert!(error.is_of_disk(), "{error}");
    assert!(!server.has_begun().await);
    assert!(subject.content(&digest).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_costs_no_upload_and_no_more_than_the_patience() {
    let Some(server) = S3Server::start().await else { return };
    let subject = server.subject(Duration::from_secs(1));
    let staged = subject.stage(b"content", Algorithm::Sha256).await;
    let digest = *staged.digest();
    drop(server);
    let begun = tokio::time::Instant::now();
    let error = subject.store.put(staged).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let upload = subject.uploads.resume(&subject.only_upload().unwrap()).await.unwrap();
    assert_eq!(upload.complete(&digest).await.unwrap().size_bytes(), 7);
}
