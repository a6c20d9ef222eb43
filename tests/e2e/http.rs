//! The least HTTP client that the tests need: one request a connection, whole answers, plain HTTP.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of the header `name`; panics when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map_or_else(|| panic!("no header {name} in\n{}", self.head), |(_, value)| value.trim())
    }

    /// Requires a status, and shows the answer when it is another.
    pub(crate) fn expect(self, status: u16) -> Self {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(2000)]);
        assert_eq!(self.status, status, "unexpected answer\n{}\n{body}", self.head);
        self
    }
}

/// Fetches `path`.
pub(crate) fn fetch(address: SocketAddr, path: &str, accept: &str) -> Answer {
    send(address, "GET", path, &[("Accept", accept)], 0, &mut io::empty())
}

/// Sends a request whose body of `length` bytes comes from `body`.
pub(crate) fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    length: u64,
    body: &mut dyn Read,
) -> Answer {
    exchange(address, method, path, headers, length, body)
        .unwrap_or_else(|error| panic!("{method} {path} at {address}: {error}"))
}

fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    length: u64,
    body: &mut dyn Read,
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    // HTTP/1.0 has no chunks: the answer ends with the connection (RFC 9112, section 6.3).
    let mut head = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    io::copy(body, &mut stream)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(invalid)?;
    let body = answer.split_off(end + 4);
    let head = String::from_utf8_lossy(&answer).into_owned();
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(invalid)?;
    Ok(Answer { status, head, body })
}
