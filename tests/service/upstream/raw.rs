//! A server that answers every request with the same bytes, right or wrong HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A server that sends given bytes to whoever asks.
pub(crate) struct RawServer {
    url: String,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl RawServer {
    /// Answers with these bytes and closes.
    pub(crate) async fn start(answer: impl Into<Bytes>) -> Self {
        let answer = answer.into();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, answer.clone(), Arc::clone(&counter)));
            }
        });
        Self { url, asked, task }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// How many requests have come.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse(mut stream: TcpStream, answer: Bytes, asked: Arc<AtomicUsize>) {
    let mut request = Vec::new();
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    asked.fetch_add(1, Ordering::SeqCst);
    let _ = stream.write_all(&answer).await;
    let _ = stream.shutdown().await;
}
