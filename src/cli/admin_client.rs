//! Talks to the administrator's API of a running server: small questions, small answers, one at a time.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use http::Uri;
use serde_json::Value;

/// Where a server on this machine answers if nothing else is configured.
pub(super) const DEFAULT_SERVER: &str = "http://127.0.0.1:5001";

/// The longest wait for a connection, and for the next byte.
const PATIENCE: Duration = Duration::from_secs(30);

/// The largest answer that is read.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

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
        let answer = self.exchange(method, path, body).with_context(|| {
            format!("ask the server at http://{server}; does it run, and is this its server.admin_listen?")
        })?;
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

    fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Vec<u8>> {
        let mut stream = self.connect()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let body = body.map(ToString::to_string).unwrap_or_default();
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.authority);
        if !body.is_empty() {
            request.push_str("content-type: application/json\r\n");
        }
        // Writing to a `String` cannot fail.
        let _ = write!(request, "content-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
        Ok(answer)
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

/// The status and the body of an answer. The API gives every answer with its length.
fn split(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    // A body that was cut is no answer.
    Some((status, answer[end + 4..].get(..length)?))
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
