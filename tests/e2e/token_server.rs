//! A token server: it gives signed tokens to who knows the password (distribution's token authentication).

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fs, io};

use ::tidegate::runtime::Clock;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{Certificate, CertificateParams, KeyPair, SigningKey};
use serde_json::{Value, json};

use crate::registry::{Access, TokenNames};

/// Who may have tokens.
pub(crate) const USERNAME: &str = "tide";
/// The password of [`USERNAME`].
pub(crate) const PASSWORD: &str = "gate-password";

const NAMES: TokenNames = TokenNames { service: "tests.registry", issuer: "tests.issuer" };
const LIFETIME: Duration = Duration::from_mins(5);

/// A running token server; it ends when it is dropped.
pub(crate) struct TokenServer {
    pub(crate) address: SocketAddr,
    certificate: Certificate,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    key: KeyPair,
    certificate_der: Vec<u8>,
    given: AtomicUsize,
    refused: AtomicUsize,
    ending: AtomicBool,
}

impl TokenServer {
    /// Starts a server on a free port.
    pub(crate) fn start() -> Self {
        let key = KeyPair::generate().expect("make a key");
        let parameters = CertificateParams::new(vec!["tests.issuer".to_owned()]).expect("a name is valid");
        let certificate = parameters.self_signed(&key).expect("sign a certificate");
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("listen on a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            key,
            certificate_der: certificate.der().to_vec(),
            given: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            ending: AtomicBool::new(false),
        });
        let thread = Some(thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.serve(&listener)
        }));
        Self { address, certificate, shared, thread }
    }

    /// What a registry needs to know of it; the certificate is written to `directory`.
    pub(crate) fn access(&self, directory: &Path) -> Access {
        let certificate = directory.join("token-certificate.pem");
        fs::write(&certificate, self.certificate.pem()).expect("write the certificate");
        Access::Token { realm: format!("http://{}/token", self.address), names: NAMES, certificate }
    }

    /// How many tokens it gave, and how often it refused one.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.shared.given.load(Ordering::SeqCst), self.shared.refused.load(Ordering::SeqCst))
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        // A connection wakes the thread that accepts them.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serve(&self, listener: &TcpListener) {
        for stream in listener.incoming().flatten() {
            if self.ending.load(Ordering::SeqCst) {
                return;
            }
            let _ = self.answer(&stream);
        }
    }

    /// Answers one request and closes the connection.
    fn answer(&self, mut stream: &TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut lines = Vec::new();
        for line in BufReader::new(stream).lines() {
            let line = line?;
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let target = lines.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
        let expected = format!("Basic {}", STANDARD.encode(format!("{USERNAME}:{PASSWORD}")));
        let knows_password = lines
            .iter()
            .filter_map(|line| line.split_once(':'))
            .any(|(name, value)| name.eq_ignore_ascii_case("authorization") && value.trim() == expected);
        let (status, body) =
            if knows_password && query_value(target, "service").as_deref() == Some(NAMES.service) {
                self.given.fetch_add(1, Ordering::SeqCst);
                let token = self.sign(&query_value(target, "scope").unwrap_or_default());
                ("200 OK", json!({"token": token, "expires_in": LIFETIME.as_secs()}))
            } else {
                self.refused.fetch_add(1, Ordering::SeqCst);
                ("401 Unauthorized", json!({"errors": [{"code": "UNAUTHORIZED", "message": "who are you"}]}))
            };
        let body = body.to_string();
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        )
    }

    /// A token for one scope: a JSON Web Token that carries the certificate of its key (RFC 7515, `x5c`).
    fn sign(&self, scope: &str) -> String {
        let now = Clock::system().now().as_millis() / 1000;
        let head = json!({"typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(&self.certificate_der)]});
        let claims = json!({
            "iss": NAMES.issuer,
            "aud": NAMES.service,
            "sub": USERNAME,
            "jti": format!("{:032x}", fastrand::u128(..)),
            "iat": now,
            "nbf": now - 60,
            "exp": now + LIFETIME.as_secs(),
            "access": access_of(scope),
        });
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(&head), encode(&claims));
        let signature = self.key.sign(signed.as_bytes()).expect("sign a token");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(to_fixed_size(&signature)))
    }
}

/// The rights that a scope asks for: `repository:library/alpine:pull`.
fn access_of(scope: &str) -> Value {
    let rights = scope.split(' ').filter_map(|scope| {
        let (kind, rest) = scope.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        Some(json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}))
    });
    rights.collect()
}

fn query_value(target: &str, name: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    Some(percent_encoding::percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned())
}

/// Turns the DER form of an ECDSA signature on P-256 into the one of tokens: two numbers of 32 bytes (RFC 7518,
/// section 3.4).
fn to_fixed_size(der: &[u8]) -> [u8; 64] {
    let mut fixed = [0; 64];
    // A sequence of two integers, each with a leading zero where it would look negative. All lengths fit a byte.
    let mut rest = &der[2..];
    for half in fixed.chunks_mut(32) {
        let (number, after) = rest[2..].split_at(usize::from(rest[1]));
        let digits = &number[number.len().saturating_sub(32)..];
        half[32 - digits.len()..].copy_from_slice(digits);
        rest = after;
    }
    fixed
}
