//! A connection on which a test writes what it likes, as slowly as it likes, and which it may cut.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::actor::Actor;
use crate::client::Answer;
use crate::harness::within_patience;

/// An open request.
pub(super) struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Wire {
    /// Connects, and sends the head of a request with the credential of the actor.
    pub(super) async fn begin(actor: &Actor, method: &str, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut stream = TcpStream::connect(actor.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", actor.address);
        if let Some(value) = &actor.authorization {
            head.extend(["authorization: ", value, "\r\n"]);
        }
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        Self { stream, received: Vec::new() }
    }

    /// The same with a body in chunks, whose length nobody knows yet.
    pub(super) async fn begin_chunked(
        actor: &Actor,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Self {
        let mut headers = headers.to_vec();
        headers.push(("transfer-encoding", "chunked"));
        Self::begin(actor, method, path, &headers).await
    }

    /// Sends bytes; whether the other side still takes them.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> bool {
        within_patience("the other side to take bytes", self.stream.write_all(bytes)).await.is_ok()
    }

    /// Sends one chunk of a body in chunks; whether the other side still takes it.
    pub(super) async fn write_chunk(&mut self, bytes: &[u8]) -> bool {
        self.write(format!("{:x}\r\n", bytes.len()).as_bytes()).await
            && self.write(bytes).await
            && self.write(b"\r\n").await
    }

    /// Ends a body in chunks.
    pub(super) async fn end_chunks(&mut self) {
        self.write(b"0\r\n\r\n").await;
    }

    /// Cuts the connection with a reset: what is on the way is lost.
    pub(super) fn cut(self) {
        let stream = self.stream.into_std().unwrap();
        socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    /// Closes this direction: the body ends before it is whole.
    pub(super) async fn close_writing(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Reads until the other side has closed; whether it did so at all is for the caller's patience.
    pub(super) async fn wait_for_close(mut self) {
        let mut rest = Vec::new();
        let _ = within_patience("the end of a connection", self.stream.read_to_end(&mut rest)).await;
    }

    /// Reads the interim answer that asks for the body (`100 Continue`).
    pub(super) async fn wait_for_continue(&mut self) {
        let head = self.read_head().await.expect("an interim answer");
        assert!(head.starts_with("HTTP/1.1 100"), "{head}");
    }

    /// Reads an answer to its end; fails where the connection ends without one.
    pub(super) async fn answer(&mut self) -> Answer {
        self.try_answer().await.expect("an answer")
    }

    /// Reads an answer to its end, or nothing where the connection ends without one.
    pub(super) async fn try_answer(&mut self) -> Option<Answer> {
        loop {
            let head = self.read_head().await?;
            let (status, headers) = parse(&head);
            if status < 200 {
                continue;
            }
            let length =
                headers.get("content-length").map_or(0, |value| value.to_str().unwrap().parse().unwrap());
            while self.received.len() < length {
                self.read_more().await.then_some(())?;
            }
            let body = Bytes::from(self.received.drain(..length).collect::<Vec<_>>());
            return Some(Answer { status, headers, body });
        }
    }

    async fn read_head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.received.drain(..at + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            self.read_more().await.then_some(())?;
        }
    }

    async fn read_more(&mut self) -> bool {
        let read = within_patience("an answer on the wire", self.stream.read_buf(&mut self.received)).await;
        read.is_ok_and(|count| count > 0)
    }
}

fn parse(head: &str) -> (u16, HeaderMap) {
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_str(value.trim()).unwrap());
    }
    (status, headers)
}
