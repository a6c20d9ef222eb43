//! Talks to the administrator's API of a running server, one question at a time.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use http::Uri;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use serde_json::Value;

use super::Failure;
use crate::config::{Secret, check_token};
use crate::upstream::load_native_roots;

/// Where a server on this machine answers if nothing else is configured.
const DEFAULT_SERVER: &str = "http://127.0.0.1:5001";

/// The variables that stand in for flags.
const SERVER_VARIABLE: &str = "TIDEGATE_SERVER";
const TOKEN_VARIABLE: &str = "TIDEGATE_TOKEN";
const TOKEN_FILE_VARIABLE: &str = "TIDEGATE_TOKEN_FILE";

/// The longest wait for a connection, and for the next byte.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest head of an answer.
const MAX_HEAD_BYTES: u64 = 64 * 1024;

/// The largest answer that is read into memory.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// Which server, and who asks.
#[derive(Debug, Default, clap::Args)]
pub(super) struct ServerArguments {
    #[arg(
        long,
        value_name = "URL",
        help = "The server's administrator API [default: TIDEGATE_SERVER, or http://127.0.0.1:5001]"
    )]
    server: Option<String>,
    #[arg(
        long,
        value_name = "FILE",
        help = "A file with the API's token [default: TIDEGATE_TOKEN, or the file TIDEGATE_TOKEN_FILE]"
    )]
    token_file: Option<PathBuf>,
}

impl ServerArguments {
    /// The client that these arguments, and variables where they say nothing, mean.
    pub(super) fn client(&self, environment: &HashMap<String, String>) -> Result<AdminClient, Failure> {
        self.try_client(environment).map_err(Failure::Usage)
    }

    fn try_client(&self, environment: &HashMap<String, String>) -> anyhow::Result<AdminClient> {
        let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        let url = self.server.as_ref().or_else(|| variable(SERVER_VARIABLE));
        let mut client = AdminClient::new(url.map_or(DEFAULT_SERVER, String::as_str))?;
        let (token, source) =
            match (&self.token_file, variable(TOKEN_VARIABLE), variable(TOKEN_FILE_VARIABLE)) {
                (Some(path), ..) => (read_token(path)?, path.display().to_string()),
                (None, Some(token), _) => (token.clone(), TOKEN_VARIABLE.to_owned()),
                (None, None, Some(path)) => (read_token(Path::new(path))?, path.clone()),
                (None, None, None) => return Ok(client),
            };
        let token = token.trim();
        check_token(token).map_err(|problem| anyhow!("{source}: {problem}"))?;
        client.token = Some(Secret::new(token));
        Ok(client)
    }
}

fn read_token(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read the token from {}", path.display()))
}

/// The environment of this process, as far as it is text.
pub(super) fn read_environment() -> HashMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The administrator's API of one server.
#[derive(Debug)]
pub(super) struct AdminClient {
    /// Scheme, host and port, to be shown.
    url: String,
    /// Host and port, as in a URL.
    authority: String,
    host: String,
    port: u16,
    is_secure: bool,
    token: Option<Secret>,
}

impl AdminClient {
    /// Takes the URL of `server.admin_listen`, or of what stands before it.
    pub(super) fn new(url: &str) -> anyhow::Result<Self> {
        let remedy = "write it such as http://127.0.0.1:5001 (server.admin_listen)";
        let uri: Uri = url.parse().with_context(|| format!("\"{url}\" is not a URL: {remedy}"))?;
        let is_secure = uri.scheme_str() == Some("https");
        let authority = uri.authority().filter(|_| is_secure || uri.scheme_str() == Some("http"));
        let Some(authority) = authority.filter(|authority| !authority.as_str().contains('@')) else {
            bail!("\"{url}\" is not the URL of a server's administrator API: {remedy}");
        };
        if !matches!(uri.path(), "" | "/") {
            bail!("\"{url}\" has a path: {remedy}");
        }
        Ok(Self {
            url: format!("{}://{authority}", if is_secure { "https" } else { "http" }),
            authority: authority.to_string(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if is_secure { 443 } else { 80 }),
            is_secure,
            token: None,
        })
    }

    /// Asks, and reads the JSON of the answer. An answer that is an error is one, in the server's words.
    pub(super) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let answer = self.exchange(method, path, body, PATIENCE).with_context(|| self.not_reached())?;
        if answer.is_ok() {
            return answer
                .into_json()
                .with_context(|| format!("the answer of {} to {method} {path}", self.url));
        }
        let (server, status) = (&self.url, answer.status);
        bail!("the server at {server} refuses ({status}): {}", answer.into_reason())
    }

    /// Asks, and gives the answer with a body that is still to come. The server may take `patience` for it, and
    /// as long for each next part.
    pub(super) fn open(&self, path: &str, body: &Value, patience: Duration) -> anyhow::Result<OpenAnswer> {
        self.exchange("POST", path, Some(body), patience)
    }

    /// Sends a long body, which `send` writes, and reads the answer. The server may take `patience` for it, and as
    /// long to take each next part.
    pub(super) fn upload(
        &self,
        path: &str,
        (content_type, length): (&str, u64),
        patience: Duration,
        send: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<OpenAnswer> {
        let mut stream = self.begin("POST", path, Some((content_type, length)), patience)?;
        match send(&mut stream).and_then(|()| stream.flush()) {
            Ok(()) => OpenAnswer::read(stream),
            // A server that has seen enough answers and closes.
            Err(cut) => OpenAnswer::read(stream).map_err(|_no_answer| cut.into()),
        }
    }

    /// What is told where the server cannot be reached.
    pub(super) fn not_reached(&self) -> String {
        format!("ask the server at {}; does it run, and is this its server.admin_listen?", self.url)
    }

    fn exchange(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> anyhow::Result<OpenAnswer> {
        let body = body.map(ToString::to_string);
        let content = body.as_ref().map(|body| ("application/json", body.len() as u64));
        let mut stream = self.begin(method, path, content, patience)?;
        stream.write_all(body.unwrap_or_default().as_bytes())?;
        stream.flush()?;
        OpenAnswer::read(stream)
    }

    /// Connects and sends the head of a request, with the type and length of the body that follows it.
    fn begin(
        &self,
        method: &str,
        path: &str,
        content: Option<(&str, u64)>,
        patience: Duration,
    ) -> anyhow::Result<Box<dyn Stream>> {
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.authority);
        // Writing to a `String` cannot fail.
        if let Some(token) = &self.token {
            let _ = write!(head, "authorization: Bearer {}\r\n", token.expose());
        }
        if let Some((content_type, _)) = content {
            let _ = write!(head, "content-type: {content_type}\r\n");
        }
        let length = content.map_or(0, |(_, length)| length);
        let _ = write!(head, "content-length: {length}\r\n\r\n");
        let stream = self.connect()?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut stream: Box<dyn Stream> =
            if self.is_secure { Box::new(self.secure(stream)?) } else { Box::new(stream) };
        stream.write_all(head.as_bytes())?;
        Ok(stream)
    }

    fn connect(&self) -> anyhow::Result<TcpStream> {
        let mut last_error = None;
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => return Ok(stream),
                Err(error) => last_error = Some(error),
            }
        }
        Err(last_error.map_or_else(|| anyhow!("{} has no address", self.host), Into::into))
    }

    /// Speaks TLS with who has a certificate that this machine trusts.
    fn secure(&self, stream: TcpStream) -> anyhow::Result<StreamOwned<ClientConnection, TcpStream>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(load_native_roots())
            .with_no_client_auth();
        let name = ServerName::try_from(self.host.clone())?;
        Ok(StreamOwned::new(ClientConnection::new(Arc::new(config), name)?, stream))
    }
}

/// A connection, in clear text or not.
trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// An answer whose body is still to come. The API gives every answer with its length, and not everybody closes
/// the connection behind it.
pub(super) struct OpenAnswer {
    /// The status.
    pub(super) status: u16,
    /// The length of the body in bytes.
    pub(super) length: u64,
    body: io::Take<BufReader<Box<dyn Read>>>,
}

impl OpenAnswer {
    fn read(stream: impl Read + 'static) -> anyhow::Result<Self> {
        let stream: Box<dyn Read> = Box::new(stream);
        let mut reader = BufReader::new(stream);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let found = reader.by_ref().take(MAX_HEAD_BYTES).read_until(b'\n', &mut head)?;
            if found == 0 || head.len() as u64 > MAX_HEAD_BYTES {
                bail!("it answers no HTTP");
            }
        }
        let (status, length) = read_head(&head).ok_or_else(|| anyhow!("it answers no HTTP"))?;
        Ok(Self { status, length, body: reader.take(length) })
    }

    /// Whether the server did what it was asked.
    pub(super) const fn is_ok(&self) -> bool {
        matches!(self.status, 200..300)
    }

    /// Reads all of the body, which is JSON.
    pub(super) fn into_json(self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.into_body()?).context("the server answers no JSON")
    }

    /// Reads why the server does not do what it was asked.
    pub(super) fn into_reason(self) -> String {
        let status = self.status;
        let body = self.into_body().unwrap_or_default();
        let told: Option<Value> = serde_json::from_slice(&body).ok();
        match told.as_ref().and_then(|told| told["error"].as_str()) {
            Some(reason) => reason.to_owned(),
            None if body.is_empty() => format!("it answers {status}"),
            // What stands between may speak as it likes.
            None => String::from_utf8_lossy(&body).trim().to_owned(),
        }
    }

    fn into_body(self) -> anyhow::Result<Vec<u8>> {
        let length = self.length;
        let mut body = Vec::new();
        self.body.take(MAX_ANSWER_BYTES).read_to_end(&mut body)?;
        // A body that was cut is no answer.
        if body.len() as u64 == length { Ok(body) } else { bail!("the server's answer was cut off") }
    }
}

impl Read for OpenAnswer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.body.read(buffer)
    }
}

/// The status and the length of the body that a head says.
fn read_head(head: &[u8]) -> Option<(u16, u64)> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })?;
    Some((status, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_those_of_the_administrators_listener() {
        let client = AdminClient::new("http://[::1]:5001/").unwrap();
        assert_eq!((client.host.as_str(), client.port), ("::1", 5001));
        let client = AdminClient::new("https://a.test").unwrap();
        assert_eq!((client.is_secure, client.port, client.url.as_str()), (true, 443, "https://a.test"));
        for bad in ["127.0.0.1:5001", "", "http://a/api/v1", "http://me@a", "ftp://a"] {
            assert!(AdminClient::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_token_comes_from_the_flag_or_a_variable_and_is_checked() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        std::fs::write(&file, "token-of-the-file-1\n").unwrap();
        let path = file.to_str().unwrap().to_owned();
        let token = |flag: Option<&Path>, variables: &[(&str, &str)]| {
            let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            let arguments = ServerArguments { server: None, token_file: flag.map(Path::to_owned) };
            let client = arguments.try_client(&variables.iter().map(pair).collect());
            client.map(|client| client.token.map(|token| token.expose().to_owned()))
        };
        let of_file = Some("token-of-the-file-1".to_owned());
        assert_eq!(token(None, &[]).unwrap(), None);
        assert_eq!(token(None, &[(TOKEN_VARIABLE, "")]).unwrap(), None);
        assert_eq!(token(None, &[(TOKEN_FILE_VARIABLE, &path)]).unwrap(), of_file);
        let both = [(TOKEN_FILE_VARIABLE, path.as_str()), (TOKEN_VARIABLE, "token-of-variable")];
        assert_eq!(token(None, &both).unwrap().as_deref(), Some("token-of-variable"));
        assert_eq!(token(Some(&file), &both).unwrap(), of_file);
        let fault = token(None, &[(TOKEN_VARIABLE, "a secret\r\nx: y z")]).unwrap_err().to_string();
        assert!(fault.starts_with(TOKEN_VARIABLE) && !fault.contains("a secret"), "{fault}");
        assert!(token(Some(Path::new("/nowhere/token")), &[]).is_err());
    }

    #[test]
    fn an_answer_is_whole_or_none() {
        let read = |answer: &[u8]| {
            let answer = OpenAnswer::read(io::Cursor::new(answer.to_vec())).ok()?;
            Some((answer.status, answer.into_body().ok()?))
        };
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(read(answer), Some((200, b"{}".to_vec())));
        assert_eq!(read(&[answer, &b"more"[..]].concat()), Some((200, b"{}".to_vec())));
        let endless = [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'a'; 1 << 20]].concat();
        for bad in
            [&answer[..answer.len() - 1], b"", b"HTTP/1.1 200 OK\r\n\r\n{}", b"SSH-2.0\r\n\r\n", &endless]
        {
            assert_eq!(read(bad), None);
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_words_of_who_answers() {
        let reason = |body: &str| {
            let answer = format!("HTTP/1.1 502 Bad\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            OpenAnswer::read(io::Cursor::new(answer.into_bytes())).unwrap().into_reason()
        };
        assert_eq!(reason(r#"{"error": "no"}"#), "no");
        assert_eq!(reason("<html>bad gateway</html>\n"), "<html>bad gateway</html>");
        assert_eq!(reason(""), "it answers 502");
    }
}
