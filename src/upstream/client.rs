//! The questions that the rest of the program asks, in the words of the distribution specification. Each says first how
//! urgent it is.

use std::ops::Range;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LINK};
use http::{Method, StatusCode};
use serde::Deserialize;

use super::answer::{self, WantedRange, encode};
use super::error::{Fault, printable};
use super::exchange::{Answer, AnswerBody, Ask, Kind, Plan};
use super::priority::Urgency;
use super::{
    BlobTransfer, FetchedManifest, ManifestHead, ReferrersPage, TagsPage, TransferBody, Upstream,
    UpstreamError,
};
use crate::oci::{AcceptClass, Digest, MediaType, NextPage, Reference, RepositoryName, Tag};

impl Upstream {
    /// Asks what a reference points to, without counting as a pull where upstream counts GETs.
    ///
    /// An upstream that does not know HEAD is asked by a GET whose body is dropped. May be dropped
    /// at any point.
    pub async fn head_manifest(
        &self,
        urgency: &Urgency,
        repository: &RepositoryName,
        reference: &Reference,
        class: &AcceptClass,
    ) -> Result<ManifestHead, UpstreamError> {
        let mut ask = ask_manifest(urgency, repository, reference, class);
        ask.method = Method::HEAD;
        let mut answer = self.exchange.ask(&ask).await;
        if matches!(&answer, Err(Fault::Status(405 | 501))) {
            ask.method = Method::GET;
            answer = self.exchange.ask(&ask).await;
        }
        Ok(read_head(&answer.map_err(|fault| self.fail(fault))?.headers))
    }

    /// Fetches a manifest, whole, byte for byte; 64 MiB at most. Nothing is verified.
    ///
    /// May be dropped at any point.
    pub async fn fetch_manifest(
        &self,
        urgency: &Urgency,
        repository: &RepositoryName,
        reference: &Reference,
        class: &AcceptClass,
    ) -> Result<FetchedManifest, UpstreamError> {
        let mut ask = ask_manifest(urgency, repository, reference, class);
        ask.plan = Plan::Read(MAX_MANIFEST_BYTES);
        let answer = self.exchange.ask(&ask).await.map_err(|fault| self.fail(fault))?;
        let head = read_head(&answer.headers);
        Ok(FetchedManifest { head, body: whole(answer) })
    }

    /// Begins to fetch a blob from position `offset` to its end. Never asks HEAD, which ECR Public
    /// answers with 401.
    ///
    /// May be dropped at any point; dropping the body ends the transfer.
    pub async fn open_blob(
        &self,
        urgency: &Urgency,
        repository: &RepositoryName,
        digest: &Digest,
        offset: u64,
    ) -> Result<BlobTransfer, UpstreamError> {
        let range = (offset > 0).then_some(WantedRange { start: offset, end: None });
        let answer = self.ask_blob(urgency, repository, digest, range, Plan::Stream).await;
        answer.and_then(transfer).map_err(|fault| self.fail(fault))
    }

    /// Begins to fetch a part of a blob. An upstream that ignores ranges is an error (broken), not a
    /// whole download.
    ///
    /// May be dropped at any point; dropping the body ends the transfer.
    pub async fn open_blob_range(
        &self,
        urgency: &Urgency,
        repository: &RepositoryName,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<BlobTransfer, UpstreamError> {
        if range.is_empty() {
            return Err(self.fail(Fault::broken("an empty range cannot be asked for")));
        }
        let wanted = WantedRange { start: range.start, end: Some(range.end) };
        let answer = self.ask_blob(urgency, repository, digest, Some(wanted), Plan::Stream).await;
        let answer = answer.map_err(|fault| self.fail(fault))?;
        if answer.status != StatusCode::PARTIAL_CONTENT {
            return Err(self.fail(Fault::broken("it ignores ranges")));
        }
        transfer(answer).map_err(|fault| self.fail(fault))
    }

    /// Asks whether the repository has the blob, and its size where upstream tells, by a GET of its
    /// first byte. An absent blob is [`UpstreamError::Absent`].
    ///
    /// May be dropped at any point.
    pub async fn probe_blob(
        &self,
        urgency: &Urgency,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<u64>, UpstreamError> {
        let first = WantedRange { start: 0, end: Some(1) };
        match self.ask_blob(urgency, repository, digest, Some(first), Plan::Drop).await {
            Ok(answer) => Ok(answer.extent.total_bytes),
            // An empty blob has no first byte.
            Err(Fault::Status(416)) => Ok(Some(0)),
            Err(fault) => Err(self.fail(fault)),
        }
    }

    /// Fetches one page of the tags; `query` is that of the page's link, or `n`/`last`.
    ///
    /// May be dropped at any point.
    pub async fn fetch_tags(
        &self,
        urgency: &Urgency,
        repository: &RepositoryName,
        query: &[(String, String)],
    ) -> Result<TagsPage, UpstreamError> {
        let rest = format!("tags/list{}", query_text(query));
        let answer = self
            .ask_listing(urgency, Kind::Tags, repository, rest)
            .await
            .map_err(|fault| self.fail(fault))?;
        let next = next_page(&answer.headers);
        let body = whole(answer);
        let tags = if body.len() > LONG_JSON_BYTES {
            self.tasks
                .spawn_blocking(move || read_tags(&body))
                .await
                .unwrap_or_else(|_panic| Err(unreadable()))
        } else {
            read_tags(&body)
        };
        Ok(TagsPage { tags: tags.map_err(|fault| self.fail(fault))?, next })
    }

    /// Fetches one page of the referrers. An upstream that does not know referrers (404, 405, 400,
    /// a redirect to a web page) is [`UpstreamError::Absent`].
    ///
    /// May be dropped at any point.
    pub async fn fetch_referrers(
        &self,
        urgency: &Urgency,
        repository: &RepositoryName,
        digest: &Digest,
        query: &[(String, String)],
    ) -> Result<ReferrersPage, UpstreamError> {
        let rest = format!("referrers/{digest}{}", query_text(query));
        let answer = self
            .ask_listing(urgency, Kind::Referrers, repository, rest)
            .await
            .map_err(|fault| self.fail(fault))?;
        let filtered = answer.headers.get_all("oci-filters-applied").iter().any(|line| {
            line.to_str().is_ok_and(|line| line.split(',').any(|filter| filter.trim() == "artifactType"))
        });
        Ok(ReferrersPage { filtered, next: next_page(&answer.headers), body: whole(answer) })
    }

    /// Finds out what a refusal is about: the repository, or this node. Who was let in before and is
    /// refused is asked about by one question to the API's base, with a token that is got anew. If this is
    /// refused as well, the refusal says nothing about the repository: the credentials have expired, the
    /// address is blocked, the realm is out of order ([`UpstreamError::Barred`]). Other errors are given
    /// back as they are.
    ///
    /// A registry that now wants a login where none is configured has closed itself: that stays a refusal.
    /// May be dropped at any point.
    pub async fn weigh_refusal(
        &self,
        urgency: &Urgency,
        repository: &RepositoryName,
        error: UpstreamError,
    ) -> UpstreamError {
        if !matches!(error, UpstreamError::Forbidden { .. } | UpstreamError::Withheld { .. }) {
            return error;
        }
        let ask = Ask {
            urgency,
            kind: Kind::Base,
            method: Method::GET,
            repository: repository.as_str(),
            rest: String::new(),
            accept: None,
            range: None,
            plan: Plan::Drop,
        };
        match self.exchange.ask(&ask).await {
            Ok(_) | Err(Fault::Absent | Fault::LoginWanted) => error,
            Err(fault @ (Fault::Forbidden(_) | Fault::LoginRefused | Fault::Withheld)) => {
                UpstreamError::Barred { upstream: self.config.name.clone(), reason: fault.summary() }
            }
            Err(trouble) => self.fail(trouble),
        }
    }

    async fn ask_blob(
        &self,
        urgency: &Urgency,
        repository: &RepositoryName,
        digest: &Digest,
        range: Option<WantedRange>,
        plan: Plan,
    ) -> Result<Answer, Fault> {
        let ask = Ask {
            urgency,
            kind: Kind::Blob,
            method: Method::GET,
            repository: repository.as_str(),
            rest: format!("blobs/{digest}"),
            accept: None,
            range,
            plan,
        };
        self.exchange.ask(&ask).await
    }

    async fn ask_listing(
        &self,
        urgency: &Urgency,
        kind: Kind,
        repository: &RepositoryName,
        rest: String,
    ) -> Result<Answer, Fault> {
        let media_type = match kind {
            Kind::Referrers => HeaderValue::from_str(MediaType::OCI_INDEX.as_str()).ok(),
            _ => Some(HeaderValue::from_static("application/json")),
        };
        let ask = Ask {
            urgency,
            kind,
            method: Method::GET,
            repository: repository.as_str(),
            rest,
            accept: media_type,
            range: None,
            plan: Plan::Read(MAX_LISTING_BYTES),
        };
        self.exchange.ask(&ask).await
    }

    fn fail(&self, fault: Fault) -> UpstreamError {
        fault.at(&self.config.name)
    }
}

fn ask_manifest<'a>(
    urgency: &'a Urgency,
    repository: &'a RepositoryName,
    reference: &Reference,
    class: &AcceptClass,
) -> Ask<'a> {
    Ask {
        urgency,
        kind: Kind::Manifest,
        method: Method::GET,
        repository: repository.as_str(),
        rest: format!("manifests/{reference}"),
        accept: HeaderValue::from_str(&class.to_header_value()).ok(),
        range: None,
        plan: Plan::Drop,
    }
}

fn read_head(headers: &HeaderMap) -> ManifestHead {
    let digest = headers.get("docker-content-digest").and_then(|value| {
        let text = String::from_utf8_lossy(value.as_bytes());
        let digest = text.parse();
        if digest.is_err() {
            tracing::debug!(value = %printable(&text), "upstream sends a malformed digest header");
        }
        digest.ok()
    });
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| MediaType::parse(value.to_str().ok()?));
    ManifestHead { digest, media_type, size_bytes: answer::content_length(headers) }
}

fn whole(answer: Answer) -> Bytes {
    match answer.body {
        AnswerBody::Whole(bytes) => bytes,
        AnswerBody::Dropped | AnswerBody::Stream(_) => Bytes::new(),
    }
}

fn transfer(answer: Answer) -> Result<BlobTransfer, Fault> {
    let body: TransferBody = match answer.body {
        AnswerBody::Stream(body) => body,
        AnswerBody::Dropped | AnswerBody::Whole(_) => return Err(Fault::broken("the answer has no body")),
    };
    Ok(BlobTransfer { offset: answer.extent.offset, total_bytes: answer.extent.total_bytes, body })
}

fn next_page(headers: &HeaderMap) -> Option<NextPage> {
    NextPage::from_lines(headers.get_all(LINK).iter().filter_map(|line| line.to_str().ok()))
}

fn query_text(query: &[(String, String)]) -> String {
    let pairs: Vec<String> =
        query.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

fn read_tags(body: &[u8]) -> Result<Vec<String>, Fault> {
    #[derive(Deserialize)]
    struct Listing {
        // Nexus puts `null` in the place of tags, others in the place of the list.
        tags: Option<Vec<serde_json::Value>>,
    }
    let listing: Listing = serde_json::from_slice(body).map_err(|_unshown| unreadable())?;
    let tags = listing.tags.unwrap_or_default().into_iter();
    Ok(tags
        .filter_map(|tag| match tag {
            serde_json::Value::String(tag) if tag.parse::<Tag>().is_ok() => Some(tag),
            _ => None,
        })
        .collect())
}

fn unreadable() -> Fault {
    Fault::broken("its list of tags is not readable")
}

const MAX_MANIFEST_BYTES: usize = 64 * 1024 * 1024;
const MAX_LISTING_BYTES: usize = 16 * 1024 * 1024;
/// Longer JSON is read where it may block.
const LONG_JSON_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_that_are_none_are_left_out() {
        for (body, expected) in [
            (
                r#"{"name":"a","tags":["1",null,"b/c","",7,"latest"],"manifest":{"x":{}}}"#,
                Some(vec!["1", "latest"]),
            ),
            (r#"{"name":"a","tags":null}"#, Some(vec![])),
            (r#"{"name":"a"}"#, Some(vec![])),
            ("<html>", None),
            (r#"{"tags":"latest"}"#, None),
        ] {
            let tags = read_tags(body.as_bytes()).ok();
            let expected = expected.map(|tags| tags.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(tags, expected, "{body}");
        }
    }

    #[test]
    fn a_query_is_encoded() {
        let query = [("n".to_owned(), "100".to_owned()), ("last".to_owned(), "a&b=c d#".to_owned())];
        assert_eq!(query_text(&query), "?n=100&last=a%26b%3Dc%20d%23");
        assert_eq!(query_text(&[]), "");
    }
}
