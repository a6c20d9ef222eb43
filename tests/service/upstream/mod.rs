//! The scripted upstream: a registry in this process that answers rightly, counts what it is asked,
//! and misbehaves exactly as rules say.

mod answer;
mod authorize;
mod black_hole;
mod connection;
mod gate;
mod model;
mod raw;
mod request;
mod then;
mod tls;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

pub(crate) use authorize::{Access, Bearer};
pub(crate) use black_hole::BlackHole;
pub(crate) use gate::Gate;
pub(crate) use raw::RawServer;
pub(crate) use request::{Kind, Request, When, any, blob, everything, manifest};
pub(crate) use then::{Then, hang_up, redirect, serve, status, web_page};
pub(crate) use tls::Authority;

use crate::content::{Content, Image};
use answer::Answer;
use authorize::Tokens;
use model::Model;

/// A running registry. It ends, with its connections, when this is dropped.
pub(crate) struct Upstream {
    shared: Arc<Shared>,
    address: SocketAddr,
    encryption: Mutex<Option<tls::Encryption>>,
    /// Whether it speaks TLS, whatever is spoken at present.
    is_secure: bool,
    accepting: Mutex<Option<JoinHandle<()>>>,
    _port: Socket,
}

/// What connections and the test share.
#[derive(Default)]
struct Shared {
    model: Mutex<Model>,
    access: Mutex<Access>,
    hides_missing: Mutex<bool>,
    tokens: Mutex<Tokens>,
    rules: Mutex<Vec<Rule>>,
    requests: Mutex<Vec<Request>>,
    connections: AtomicUsize,
    resets: AtomicBool,
}

struct Rule {
    when: When,
    then: Then,
    left: Option<usize>,
}

impl Upstream {
    /// A registry in clear text on 127.0.0.1.
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1").await
    }

    /// A registry in clear text on this loopback address: to the guard another host.
    pub(crate) async fn start_at(host: &str) -> Self {
        Self::launch(host, None).await
    }

    /// A registry behind TLS with a certificate for 127.0.0.1, HTTP/1.1 and HTTP/2 by ALPN.
    pub(crate) async fn start_tls(authority: &Authority) -> Self {
        Self::launch("127.0.0.1", Some(authority.encryption(&["127.0.0.1"]))).await
    }

    async fn launch(host: &str, encryption: Option<tls::Encryption>) -> Self {
        let port = reserve_port(host.parse().unwrap()).unwrap();
        let address = port.local_addr().unwrap().as_socket().unwrap();
        let is_secure = encryption.is_some();
        let upstream = Self {
            shared: Arc::default(),
            address,
            encryption: Mutex::new(encryption),
            is_secure,
            accepting: Mutex::default(),
            _port: port,
        };
        upstream.restart().await;
        upstream
    }

    /// Closes the port and every connection: from now on it cannot be reached.
    pub(crate) async fn stop(&self) {
        let accepting = self.accepting.lock().unwrap().take();
        if let Some(task) = accepting {
            task.abort();
            let _ = task.await;
        }
    }

    /// Closes every connection, and serves new ones under a certificate for this host that is good until
    /// the beginning of this year.
    pub(crate) async fn present(&self, authority: &Authority, host: &str, year: i32) {
        self.speak(Some(authority.encryption_until(&[host], year))).await;
    }

    /// Closes every connection, and speaks clear text on new ones.
    pub(crate) async fn speak_in_clear(&self) {
        self.speak(None).await;
    }

    async fn speak(&self, encryption: Option<tls::Encryption>) {
        self.stop().await;
        *self.encryption.lock().unwrap() = encryption;
        self.restart().await;
    }

    /// Closes the port and every connection, and answers nothing to those who want to connect, until
    /// what this returns is dropped.
    pub(crate) async fn become_black_hole(&self) -> BlackHole {
        self.stop().await;
        BlackHole::open(self.address).await
    }

    /// Closes every connection, and resets new ones as soon as they are made, until it is healed.
    pub(crate) async fn reset_connections(&self) {
        self.shared.resets.store(true, Ordering::SeqCst);
        self.stop().await;
        self.restart().await;
    }

    /// Opens the port.
    pub(crate) async fn restart(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let listener = loop {
            match TcpListener::bind(self.address).await {
                // A process that another test just forked holds a copy of every descriptor until it
                // executes its program: the socket that was closed here may still listen for a moment.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                result => break result.unwrap(),
            }
        };
        self.accept(listener);
    }

    fn accept(&self, listener: TcpListener) {
        let (shared, encryption) = (Arc::clone(&self.shared), self.encryption.lock().unwrap().clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                if shared.resets.load(Ordering::SeqCst) {
                    // Closing without lingering is a reset.
                    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                    continue;
                }
                connections.spawn(converse(stream, encryption.clone(), Arc::clone(&shared)));
                while connections.try_join_next().is_some() {}
            }
        });
        *self.accepting.lock().unwrap() = Some(task);
    }

    /// Where it listens, as `host:port`.
    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    /// Its URL, without a path.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.is_secure { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Where its tokens are granted.
    pub(crate) fn realm(&self) -> String {
        format!("{}/token", self.url())
    }

    /// A signed address of a blob that this server holds.
    pub(crate) fn cdn_url(&self, blob: &Content) -> String {
        format!("{}/cdn/{}?signature=a%2Fb%3D&expires=300", self.url(), blob.digest)
    }

    // ---- content

    /// Holds an image from now on.
    pub(crate) fn add_image(&self, image: &Image) {
        self.shared.model.lock().unwrap().add_image(image);
    }

    /// Makes an OCI image with layers of these sizes and holds it.
    pub(crate) fn make_image(&self, repository: &str, tag: &str, layer_sizes: &[usize]) -> Image {
        let image = Image::oci(repository, tag, layer_sizes);
        self.add_image(&image);
        image
    }

    pub(crate) fn add_blob(&self, repository: &str, blob: &Content) {
        self.shared.model.lock().unwrap().add_blob(repository, blob);
    }

    pub(crate) fn add_manifest(&self, repository: &str, manifest: &Content) {
        self.shared.model.lock().unwrap().add_manifest(repository, manifest);
    }

    /// Holds a manifest and points a tag to it.
    pub(crate) fn tag_manifest(&self, repository: &str, tag: &str, manifest: &Content) {
        let mut model = self.shared.model.lock().unwrap();
        model.add_manifest(repository, manifest);
        model.set_tag(repository, tag, &manifest.digest);
    }

    pub(crate) fn remove_blob(&self, repository: &str, blob: &Content) {
        self.shared.model.lock().unwrap().remove_blob(repository, &blob.digest);
    }

    /// Answers 404 on `referrers/`, as registries older than OCI 1.1.
    pub(crate) fn forget_referrers(&self) {
        self.shared.model.lock().unwrap().without_referrers = true;
    }

    /// Puts no more tags in a page.
    pub(crate) fn limit_pages(&self, tags: usize) {
        self.shared.model.lock().unwrap().page_limit = Some(tags);
    }

    /// Sends this JSON as `tags` of every list.
    pub(crate) fn spoil_tags(&self, tags: serde_json::Value) {
        self.shared.model.lock().unwrap().tags_json = Some(tags);
    }

    // ---- access

    /// Answers only those whom this lets in.
    pub(crate) fn require(&self, access: Access) {
        *self.shared.access.lock().unwrap() = access;
    }

    /// Says 401 of repositories that do not exist, also to those with a token, as Docker Hub does.
    pub(crate) fn hide_missing(&self) {
        *self.shared.hides_missing.lock().unwrap() = true;
    }

    /// Lets every token expire that was ever presented.
    pub(crate) fn expire_tokens(&self) {
        self.shared.tokens.lock().unwrap().expire();
    }

    // ---- misbehaviour

    /// Does this to every such request. The first rule that fits is the one that counts.
    pub(crate) fn rule(&self, when: When, then: Then) {
        self.shared.rules.lock().unwrap().push(Rule { when, then, left: None });
    }

    /// Does this to the next such requests.
    pub(crate) fn rule_times(&self, count: usize, when: When, then: Then) {
        self.shared.rules.lock().unwrap().push(Rule { when, then, left: Some(count) });
    }

    /// Does this to the next such request.
    pub(crate) fn once(&self, when: When, then: Then) {
        self.rule_times(1, when, then);
    }

    /// Behaves from now on.
    pub(crate) fn heal(&self) {
        self.shared.rules.lock().unwrap().clear();
        self.shared.resets.store(false, Ordering::SeqCst);
    }

    // ---- what it was asked

    /// The requests so far that are meant.
    pub(crate) fn requests(&self, when: &When) -> Vec<Request> {
        let requests = self.shared.requests.lock().unwrap();
        requests.iter().filter(|request| when.matches(request)).cloned().collect()
    }

    /// How many requests so far are meant.
    pub(crate) fn count(&self, when: &When) -> usize {
        self.requests(when).len()
    }

    /// How many connections have been made to it so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many bytes of body have been written to such requests.
    pub(crate) fn sent_bytes(&self, when: &When) -> u64 {
        self.requests(when).iter().map(Request::sent).sum()
    }

    /// Forgets the requests so far.
    pub(crate) fn forget_requests(&self) {
        self.shared.requests.lock().unwrap().clear();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(task) = self.accepting.lock().unwrap().take() {
            task.abort();
        }
    }
}

impl Shared {
    /// Records a request and finds its answer; `None` where the connection is to be closed.
    async fn answer(&self, request: &Request) -> Option<Answer> {
        self.requests.lock().unwrap().push(request.clone());
        let access = self.access.lock().unwrap().clone();
        if let Some(refusal) = self.tokens.lock().unwrap().refusal(&access, request) {
            return Some(refusal);
        }
        let then = self.find_rule(request);
        let ignores_range = then.as_ref().is_some_and(|then| then.ignores_range);
        let right = self.right_answer(&access, request, ignores_range);
        match then {
            Some(then) => then.apply(right).await,
            None => Some(right),
        }
    }

    fn right_answer(&self, access: &Access, request: &Request, ignores_range: bool) -> Answer {
        if request.kind == Kind::Token {
            return self.tokens.lock().unwrap().grant(access, request);
        }
        let model = self.model.lock().unwrap();
        let hidden = *self.hides_missing.lock().unwrap()
            && !request.repository.is_empty()
            && !model.knows(&request.repository);
        if hidden { authorize::hidden(access, request) } else { model.answer(request, ignores_range) }
    }

    fn find_rule(&self, request: &Request) -> Option<Then> {
        let mut rules = self.rules.lock().unwrap();
        let found = rules.iter_mut().find(|rule| rule.left != Some(0) && rule.when.matches(request))?;
        found.left = found.left.map(|left| left - 1);
        Some(found.then.clone())
    }
}

/// Takes a free port and keeps it: while nobody listens there, connections are refused, and no other
/// socket on the machine gets it.
fn reserve_port(host: IpAddr) -> io::Result<Socket> {
    let address = SocketAddr::new(host, 0);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Listeners set this, too: they may share the port with a socket that does not listen.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Serves one connection; how it ends is the client's affair.
async fn converse(stream: TcpStream, encryption: Option<tls::Encryption>, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let Some(encryption) = encryption else {
        let _ = connection::serve_http1(stream, shared).await;
        return;
    };
    let Ok(stream) = encryption.acceptor.accept(stream).await else { return };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        let _ = connection::serve_http2(stream, shared).await;
    } else {
        let _ = connection::serve_http1(stream, shared).await;
    }
}

/// Writes a file where a test's server may read it.
pub(crate) fn write_file(directory: &Path, name: &str, content: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}
