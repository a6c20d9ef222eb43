//! Bodies that nobody wants: those of pushes to a cache.

use std::time::Duration;

use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

/// What a client may still send of a body that nobody wants, so that it reads the answer: as much as
/// the largest manifest that registries take.
const MAX_DRAINED_BYTES: u64 = 4 * 1024 * 1024;

/// For how long it may.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// Reads a small body away, because many clients read no answer before they have sent all. Returns
/// whether the body is at its end; where it is not, the connection has to end (RFC 9112, section 9.6).
pub(in crate::server) async fn drain<B: Body + Unpin>(mut body: B) -> bool {
    if body.is_end_stream() {
        return true;
    }
    if body.size_hint().lower() > MAX_DRAINED_BYTES {
        return false;
    }
    let all = async {
        let mut drained_bytes = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            drained_bytes += frame.data_ref().map_or(0, |data| bytes::Buf::remaining(data) as u64);
            if drained_bytes > MAX_DRAINED_BYTES {
                return false;
            }
        }
        true
    };
    timeout(DRAIN_PATIENCE, all).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::StreamExt as _;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_small_bodies_that_come_are_read_away() {
        assert!(drain(Full::new(Bytes::from(vec![0; 4 << 20]))).await);
        assert!(!drain(Full::new(Bytes::from(vec![0; (4 << 20) + 1]))).await);
        let part = || Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![0; 3 << 20])));
        assert!(!drain(StreamBody::new(futures_util::stream::iter([part(), part()]))).await);
        let stalls = futures_util::stream::iter([part()]).chain(futures_util::stream::pending());
        assert!(!drain(StreamBody::new(stalls)).await);
    }
}
