//! HTTP as the scripted upstream speaks it. HTTP/1.1 is written by hand: only so can a connection be
//! cut at an exact byte. HTTP/2 is hyper's.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::Shared;
use super::answer::{Answer, Piece};
use super::request::Request;

/// Answers one connection until it ends.
pub(super) async fn serve_http1<T>(mut stream: T, shared: Arc<Shared>) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = BytesMut::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await? {
        let Some(answer) = shared.answer(&request).await else {
            return stream.shutdown().await;
        };
        if !write_answer(&mut stream, &request, &answer).await? {
            return stream.shutdown().await;
        }
    }
    Ok(())
}

/// Answers one HTTP/2 connection until it ends.
pub(super) async fn serve_http2<T>(stream: T, shared: Arc<Shared>) -> hyper::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let shared = Arc::clone(&shared);
        async move {
            let (parts, body) = request.into_parts();
            drop(body);
            let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
            let request = Request::new(parts.method, target, parts.headers);
            let answer = shared.answer(&request).await.ok_or(Hangup)?;
            Ok::<_, Hangup>(stream_answer(request, answer))
        }
    });
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// The connection or stream ends without an answer, or within one.
#[derive(Debug, thiserror::Error)]
#[error("scripted to hang up")]
struct Hangup;

fn stream_answer(request: Request, answer: Answer) -> http::Response<UnsyncBoxBody<Bytes, Hangup>> {
    let mut response = http::Response::new(());
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers.clone();
    let body = if has_body(&request, &answer) {
        StreamBody::new(futures_util::stream::unfold(Some((request, answer)), next_frame)).boxed_unsync()
    } else {
        http_body_util::Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync()
    };
    response.map(|()| body)
}

type Rest = Option<(Request, Answer)>;

async fn next_frame(rest: Rest) -> Option<(Result<Frame<Bytes>, Hangup>, Rest)> {
    let (request, answer) = rest?;
    match answer.next_piece(request.sent()).await {
        Piece::Bytes(piece) => {
            request.sent_bytes.fetch_add(piece.len() as u64, Ordering::SeqCst);
            Some((Ok(Frame::data(piece)), Some((request, answer))))
        }
        Piece::End => None,
        Piece::Cut => Some((Err(Hangup), None)),
    }
}

async fn read_request<T>(stream: &mut T, buffer: &mut BytesMut) -> io::Result<Option<Request>>
where
    T: AsyncRead + Unpin,
{
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break buffer.split_to(end + 4);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = std::str::from_utf8(&head).map_err(io::Error::other)?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let method: Method = first.next().unwrap_or_default().parse().map_err(io::Error::other)?;
    let target = first.next().unwrap_or_default().to_owned();
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name: HeaderName = name.parse().map_err(io::Error::other)?;
        let value = HeaderValue::from_str(value.trim()).map_err(io::Error::other)?;
        headers.append(name, value);
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let length: usize = length.unwrap_or(0);
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    drop(buffer.split_to(length));
    Ok(Some(Request::new(method, &target, headers)))
}

/// Whether the connection can be used again.
async fn write_answer<T>(stream: &mut T, request: &Request, answer: &Answer) -> io::Result<bool>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let status = answer.status;
    let mut head =
        format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or("Scripted"))
            .into_bytes();
    for (name, value) in &answer.headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    let chunked = answer.pace.chunked;
    head.extend_from_slice(if chunked { b"transfer-encoding: chunked\r\n\r\n" } else { b"\r\n" });
    for piece in head.chunks(if answer.pace.drips_head { 1 } else { head.len() }) {
        stream.write_all(piece).await?;
        stream.flush().await?;
        if answer.pace.drips_head {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
    if !has_body(request, answer) {
        return Ok(true);
    }
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut unasked = [0];
    tokio::select! {
        reusable = write_body(&mut writer, request, answer) => reusable,
        // Nobody asks again before the answer is complete: this is the other side hanging up, which
        // must end a body that waits at a gate.
        _ = reader.read(&mut unasked) => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

async fn write_body<W>(stream: &mut W, request: &Request, answer: &Answer) -> io::Result<bool>
where
    W: AsyncWrite + Unpin,
{
    let chunked = answer.pace.chunked;
    loop {
        match answer.next_piece(request.sent()).await {
            Piece::Bytes(piece) => {
                if chunked {
                    stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
                }
                stream.write_all(&piece).await?;
                if chunked {
                    stream.write_all(b"\r\n").await?;
                }
                stream.flush().await?;
                request.sent_bytes.fetch_add(piece.len() as u64, Ordering::SeqCst);
            }
            Piece::End => {
                if chunked {
                    stream.write_all(b"0\r\n\r\n").await?;
                    stream.flush().await?;
                }
                // A length that promised more than there is leaves the connection unusable.
                let promised = answer.headers.get(header::CONTENT_LENGTH);
                let promised = promised.and_then(|value| value.to_str().ok()?.parse().ok());
                return Ok(chunked || promised == Some(request.sent()));
            }
            Piece::Cut => return Ok(false),
        }
    }
}

fn has_body(request: &Request, answer: &Answer) -> bool {
    request.method != Method::HEAD
        && answer.status != StatusCode::NOT_MODIFIED
        && answer.status != StatusCode::NO_CONTENT
}
