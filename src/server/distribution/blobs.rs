//! `/v2/<name>/blobs/<digest>`

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};

use super::{Answer, Call, content_headers, not_modified, set_single_part};
use crate::oci::{Digest, MediaType, RangeSet};
use crate::registry::RegistryError;
use crate::server::body::{PieceStream, ResponseBody, blob_pieces};
use crate::server::conditional::{names_digest, requested_ranges};
use crate::server::metrics::ContentLabel;
use crate::server::ranges::{Multipart, Partial};
use crate::server::respond::Problem;
use crate::server::transmit::Outbox;

/// Answers GET and HEAD for a blob.
pub(in crate::server) async fn answer_blob(call: &Call<'_>, digest: &Digest) -> Answer {
    let headers = &call.parts.headers;
    // That the client has it already is no right to hear that it is here: the registry is asked.
    let is_known = names_digest(headers, digest);
    if is_known || call.is_head() {
        return answer_without_body(call, digest, is_known).await;
    }
    let ranges = requested_ranges(&call.parts.method, headers, digest)
        .map_err(|_too_many| Problem::too_many_ranges())?;
    let blob = call.registry.open_blob(call.context, call.repository, digest, ranges.as_ref()).await?;
    let mut response = content_headers(&blob.digest, ContentLabel::Blob, &blob.served);
    response.headers_mut().insert(CONTENT_TYPE, BLOB_TYPE);
    let outbox = call.parts.extensions.get::<Outbox>().cloned();
    match (ranges, blob.size_bytes) {
        (Some(ranges), Some(size_bytes)) => {
            let blob = Arc::new(blob);
            let read = move |range| {
                let (blob, outbox) = (Arc::clone(&blob), outbox.clone());
                async move { Ok(blob_pieces(blob.read(range).await?, outbox)) }
            };
            answer_ranges(response, read, &ranges, size_bytes).await
        }
        // Without a size there is no valid `Content-Range`, so the range is ignored.
        (_, size_bytes) => {
            let parts = blob_pieces(blob.read_all().await?, outbox);
            if let Some(size_bytes) = size_bytes {
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(size_bytes));
            }
            Ok(response.map(|_empty| ResponseBody::stream(parts, size_bytes)))
        }
    }
}

async fn answer_without_body(call: &Call<'_>, digest: &Digest, is_known: bool) -> Answer {
    let stat = call.registry.stat_blob(call.context, call.repository, digest).await?;
    let mut response = content_headers(digest, ContentLabel::Blob, &stat.served);
    if is_known {
        return Ok(not_modified(response));
    }
    response.headers_mut().insert(CONTENT_TYPE, BLOB_TYPE);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(stat.size_bytes));
    Ok(response)
}

/// Answers with the ranges asked for, which `read` reads.
pub(in crate::server) async fn answer_ranges<R, F>(
    mut response: Response<ResponseBody>,
    read: R,
    ranges: &RangeSet,
    size_bytes: u64,
) -> Answer
where
    R: Fn(Range<u64>) -> F + Send + 'static,
    F: Future<Output = Result<PieceStream, RegistryError>> + Send + 'static,
{
    let partial = Partial::plan(ranges, size_bytes, MediaType::OCTET_STREAM.as_str())
        .map_err(|refusal| Problem::range(refusal, size_bytes))?;
    match partial {
        Partial::Single(range) => {
            let parts = read(range.clone()).await?;
            set_single_part(&mut response, &range, size_bytes);
            Ok(response.map(|_empty| ResponseBody::stream(parts, Some(range.end - range.start))))
        }
        Partial::Multi(multipart) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let body_bytes = multipart.size_bytes();
            response.headers_mut().insert(CONTENT_TYPE, multipart.content_type());
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body_bytes));
            let parts = multipart_parts(read, multipart).await?;
            Ok(response.map(|_empty| ResponseBody::stream(parts, Some(body_bytes))))
        }
    }
}

/// The parts of a multipart body, read one range after the other. Comes back when the first range can
/// be read, so that an error there is still an answer of its own.
async fn multipart_parts<R, F>(read: R, multipart: Multipart) -> Result<PieceStream, RegistryError>
where
    R: Fn(Range<u64>) -> F + Send + 'static,
    F: Future<Output = Result<PieceStream, RegistryError>> + Send + 'static,
{
    let (parts, end) = multipart.into_parts();
    let mut parts = parts.into_iter();
    let mut first = None;
    if let Some((head, range)) = parts.next() {
        first = Some(with_head(head, read(range).await?));
    }
    let others = stream::iter(parts).then(move |(head, range)| {
        let bytes = read(range);
        async move { bytes.await.map(|bytes| with_head(head, bytes)) }
    });
    let others = others.map(|part| part.unwrap_or_else(|error| stream::iter([Err(error)]).boxed()));
    Ok(stream::iter(first).chain(others).flatten().chain(stream::iter([Ok(end.into())])).boxed())
}

fn with_head(head: Bytes, bytes: PieceStream) -> PieceStream {
    stream::iter([Ok(head.into())]).chain(bytes).boxed()
}

/// What blobs are served as.
pub(in crate::server) const BLOB_TYPE: HeaderValue = HeaderValue::from_static("application/octet-stream");

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    const CONTENT: &[u8] = b"0123456789";

    /// Two bytes at a time, so that a part comes in several pieces.
    fn read(range: Range<u64>) -> PieceStream {
        let position = |at: u64| usize::try_from(at).unwrap();
        let bytes = &CONTENT[position(range.start)..position(range.end)];
        stream::iter(bytes.chunks(2).map(|piece| Ok(Bytes::from_static(piece).into()))).boxed()
    }

    fn plan(ranges: &str) -> Multipart {
        let ranges = RangeSet::parse(ranges).unwrap().unwrap();
        match Partial::plan(&ranges, 10, "application/octet-stream") {
            Ok(Partial::Multi(multipart)) => multipart,
            other => panic!("several ranges are several parts, not {other:?}"),
        }
    }

    #[tokio::test]
    async fn several_ranges_are_read_in_order_to_the_announced_length() {
        let multipart = plan("bytes=5-9,0-2,9-9");
        let announced = multipart.size_bytes();
        let parts = multipart_parts(|range| async move { Ok(read(range)) }, multipart).await.unwrap();
        let body = ResponseBody::stream(parts, Some(announced)).collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        let places: Vec<_> = ["5-9/10\r\n\r\n56789\r\n", "0-2/10\r\n\r\n012\r\n", "9-9/10\r\n\r\n9\r\n"]
            .map(|part| text.find(part).unwrap_or_else(|| panic!("{part} in {text}")))
            .into();
        assert!(places.is_sorted());
        assert!(text.ends_with("--\r\n"));
    }

    #[tokio::test]
    async fn a_first_range_that_cannot_be_read_is_an_answer_of_its_own() {
        let failing = |_range| async { Err(RegistryError::Internal) };
        assert!(multipart_parts(failing, plan("bytes=0-0,2-2")).await.is_err());
    }

    #[tokio::test]
    async fn a_later_range_that_cannot_be_read_cuts_the_answer() {
        let multipart = plan("bytes=0-0,2-2");
        let announced = multipart.size_bytes();
        let half = |range: Range<u64>| async move {
            if range.start == 0 { Ok(read(range)) } else { Err(RegistryError::Internal) }
        };
        let parts = multipart_parts(half, multipart).await.unwrap();
        assert!(ResponseBody::stream(parts, Some(announced)).collect().await.is_err());
    }
}
