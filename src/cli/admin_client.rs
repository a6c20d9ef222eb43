//! Talks to the administrator's API of a running server, one question at a time.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use http::Uri;
use serde_json::Value;

/// Where a server on this machine answers if nothing else is configured.
const DEFAULT_SERVER: &str = "http://127.0.0.1:5001";

/// The variable that names the server where no flag does.
const SERVER_VARIABLE: &str = "TIDEGATE_SERVER";

/// The longest wait for a connection, and for the next byte.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest head of an answer.
const MAX_HEAD_BYTES: u64 = 64 * 1024;

const JSON: &str = "application/json";

/// The largest answer that is read.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// The URL that is meant: what was said, what the environment says, or the usual one.
pub(super) fn server_url(said: Option<&str>) -> String {
    let said = said.map(str::to_owned).or_else(|| std::env::var(SERVER_VARIABLE).ok());
    said.unwrap_or_else(|| DEFAULT_SERVER.to_owned())
}

/// The administrator's API of one server.
#[derive(Debug)]
pub(super) struct AdminClient {
    /// Host and port, as in a URL.
    authority: String,
    host: String,
    port: u16,
}

impl AdminClient {
    /// Takes the URL of `server.admin_listen`.
    pub(super) fn new(url: &str) -> anyhow::Result<Self> {
        let remedy = "write it such as http://127.0.0.1:5001 (server.admin_listen)";
        let uri: Uri = url.parse().with_context(|| format!("\"{url}\" is not a URL: {remedy}"))?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
        let Some(authority) = authority.filter(|authority| !authority.as_str().contains('@')) else {
            bail!("\"{url}\" is not the URL of a server's administrator API: {remedy}");
        };
        if !matches!(uri.path(), "" | "/") {
            bail!("\"{url}\" has a path: {remedy}");
        }
        Ok(Self {
            authority: authority.to_string(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
        })
    }

    /// Asks, and reads the JSON of the answer. An answer that is an error is one, in the server's words.
    pub(super) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let server = &self.authority;
        let answer = self.exchange(method, path, body).with_context(|| self.not_reached())?;
        let (status, body) = split(&answer).ok_or_else(|| anyhow!("http://{server} answers no HTTP"))?;
        if (200..300).contains(&status) {
            return serde_json::from_slice(body)
                .with_context(|| format!("http://{server} answers no JSON to {method} {path}"));
        }
        let told: Option<Value> = serde_json::from_slice(body).ok();
        let reason = told.as_ref().and_then(|told| told["error"].as_str()).map(str::to_owned);
        let reason = reason.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
        bail!("the server at http://{server} refuses ({status}): {reason}")
    }

    /// Asks, and gives the answer with a body that is still to come. The server may take `patience` for it, and
    /// as long for each next part.
    pub(super) fn open(&self, path: &str, body: &Value, patience: Duration) -> anyhow::Result<OpenAnswer> {
        let body = body.to_string();
        let mut stream = self.begin("POST", path, JSON, body.len() as u64, patience)?;
        stream.write_all(body.as_bytes())?;
        OpenAnswer::read(stream)
    }

    /// Sends a long body, which `send` writes, and reads the answer, for which the server may take `patience`.
    pub(super) fn upload(
        &self,
        path: &str,
        length: u64,
        patience: Duration,
        send: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<OpenAnswer> {
        let mut stream = self.begin("POST", path, "application/x-tar", length, patience)?;
        match send(&mut stream) {
            Ok(()) => OpenAnswer::read(stream),
            // A server that has seen enough answers and closes.
            Err(cut) => OpenAnswer::read(stream).map_err(|_no_answer| cut.into()),
        }
    }

    /// What is told where the server cannot be reached.
    pub(super) fn not_reached(&self) -> String {
        let server = &self.authority;
        format!("ask the server at http://{server}; does it run, and is this its server.admin_listen?")
    }

    fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Vec<u8>> {
        let content_type = if body.is_some() { JSON } else { "" };
        let body = body.map(ToString::to_string).unwrap_or_default();
        let mut stream = self.begin(method, path, content_type, body.len() as u64, PATIENCE)?;
        stream.write_all(body.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
        Ok(answer)
    }

    /// Connects and sends the head of a request.
    fn begin(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        length: u64,
        patience: Duration,
    ) -> anyhow::Result<TcpStream> {
        let mut stream = self.connect()?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.authority);
        if !content_type.is_empty() {
            // Writing to a `String` cannot fail.
            let _ = write!(head, "content-type: {content_type}\r\n");
        }
        let _ = write!(head, "content-length: {length}\r\n\r\n");
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
}

/// An answer whose body is still to come.
pub(super) struct OpenAnswer {
    /// The status.
    pub(super) status: u16,
    /// The length of the body in bytes.
    pub(super) length: u64,
    body: io::Take<BufReader<TcpStream>>,
}

impl OpenAnswer {
    fn read(stream: TcpStream) -> anyhow::Result<Self> {
        let mut reader = BufReader::new(stream);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let found = reader.by_ref().take(MAX_HEAD_BYTES).read_until(b'\n', &mut head)?;
            if found == 0 || head.len() as u64 > MAX_HEAD_BYTES {
                bail!("the server answers no HTTP");
            }
        }
        let (status, length) = read_head(&head).ok_or_else(|| anyhow!("the server answers no HTTP"))?;
        Ok(Self { status, length, body: reader.take(length) })
    }

    /// Whether the server did what it was asked.
    pub(super) const fn is_ok(&self) -> bool {
        matches!(self.status, 200..300)
    }

    /// Reads all of the body, which is JSON.
    pub(super) fn into_json(self) -> anyhow::Result<Value> {
        let length = self.length;
        let mut body = Vec::new();
        self.body.take(MAX_ANSWER_BYTES).read_to_end(&mut body)?;
        if body.len() as u64 != length {
            bail!("the server's answer was cut off");
        }
        serde_json::from_slice(&body).context("the server answers no JSON")
    }

    /// Reads why the server does not do what it was asked.
    pub(super) fn into_reason(self) -> String {
        let status = self.status;
        let told = self.into_json().ok();
        let reason = told.as_ref().and_then(|told| told["error"].as_str());
        reason.map_or_else(|| format!("the server answers {status}"), str::to_owned)
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

/// The status and the body of an answer. The API gives every answer with its length.
fn split(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (status, length) = read_head(&answer[..end])?;
    // A body that was cut is no answer.
    Some((status, answer[end + 4..].get(..usize::try_from(length).ok()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_those_of_the_administrators_listener() {
        let client = AdminClient::new("http://[::1]:5001/").unwrap();
        assert_eq!((client.host.as_str(), client.port), ("::1", 5001));
        for bad in ["https://a", "127.0.0.1:5001", "", "http://a/api/v1", "http://me@a", "ftp://a"] {
            assert!(AdminClient::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_answer_is_whole_or_none() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(split(answer), Some((200, &b"{}"[..])));
        for bad in [&answer[..answer.len() - 1], b"", b"HTTP/1.1 200 OK\r\n\r\n{}", b"SSH-2.0\r\n\r\n"] {
            assert_eq!(split(bad), None);
        }
    }
}
