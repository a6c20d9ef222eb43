//! What the scripted upstream is asked: classified, recorded, matched.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, Method};

use super::authorize::basic_of;
use crate::content::Content;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `/v2/`
    Ping,
    Manifest,
    Blob,
    Tags,
    Referrers,
    /// `/token`
    Token,
    /// `/cdn/<digest>`: where blobs are redirected to.
    Cdn,
    Other,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) kind: Kind,
    pub(crate) repository: String,
    pub(crate) reference: String,
    /// As sent, percent-encoded.
    pub(crate) path: String,
    /// As sent, without the question mark.
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    /// How many bytes of body have been written in answer.
    pub(crate) sent_bytes: Arc<AtomicU64>,
}

impl Request {
    /// Takes a request apart.
    pub(crate) fn new(method: Method, target: &str, headers: HeaderMap) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (kind, repository, reference) = classify(path);
        Self {
            method,
            kind,
            repository,
            reference,
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            sent_bytes: Arc::default(),
        }
    }

    /// A header's value as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The values of a query parameter, percent-decoded.
    pub(crate) fn parameters(&self, name: &str) -> Vec<String> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| decode(value))
            .collect()
    }

    /// How many bytes of body have been written in answer so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent_bytes.load(Ordering::SeqCst)
    }
}

/// Which requests are meant; unset parts match any.
#[derive(Clone, Debug, Default)]
pub(crate) struct When {
    method: Option<Method>,
    kind: Option<Kind>,
    repository: Option<String>,
    reference: Option<String>,
    parameter: Option<(String, String)>,
    user: Option<String>,
    whole: bool,
}

/// Requests for this blob.
pub(crate) fn blob(content: &Content) -> When {
    When { kind: Some(Kind::Blob), reference: Some(content.digest.clone()), ..When::default() }
}

/// Requests for the manifest of this tag or digest.
pub(crate) fn manifest(reference: &str) -> When {
    When { kind: Some(Kind::Manifest), reference: Some(reference.to_owned()), ..When::default() }
}

/// Requests of this kind.
pub(crate) fn any(kind: Kind) -> When {
    When { kind: Some(kind), ..When::default() }
}

/// All requests.
pub(crate) fn everything() -> When {
    When::default()
}

impl When {
    /// Only GET.
    pub(crate) fn get(mut self) -> Self {
        self.method = Some(Method::GET);
        self
    }

    /// Only HEAD.
    pub(crate) fn head(mut self) -> Self {
        self.method = Some(Method::HEAD);
        self
    }

    /// Only of this repository.
    pub(crate) fn of(mut self, repository: &str) -> Self {
        self.repository = Some(repository.to_owned());
        self
    }

    /// Only those with this query parameter.
    pub(crate) fn with_parameter(mut self, name: &str, value: &str) -> Self {
        self.parameter = Some((name.to_owned(), value.to_owned()));
        self
    }

    /// Only those of this user.
    pub(crate) fn by(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// Only those for the content from its first byte.
    pub(crate) fn whole(mut self) -> Self {
        self.whole = true;
        self
    }

    /// Whether this request is meant.
    pub(crate) fn matches(&self, request: &Request) -> bool {
        let resumes = request.header("range").is_some_and(|range| !range.starts_with("bytes=0-"));
        self.method.as_ref().is_none_or(|method| *method == request.method)
            && self.kind.is_none_or(|kind| kind == request.kind)
            && self.repository.as_ref().is_none_or(|name| *name == request.repository)
            && self.reference.as_ref().is_none_or(|reference| *reference == request.reference)
            && self.parameter.as_ref().is_none_or(|(name, value)| request.parameters(name).contains(value))
            && self.user.as_ref().is_none_or(|user| {
                basic_of(request).is_some_and(|basic| basic.split(':').next() == Some(user))
            })
            && !(self.whole && resumes)
    }
}

fn classify(path: &str) -> (Kind, String, String) {
    let path = decode(path);
    let nothing = String::new;
    if path == "/v2/" || path == "/v2" {
        return (Kind::Ping, nothing(), nothing());
    }
    if path == "/token" {
        return (Kind::Token, nothing(), nothing());
    }
    if let Some(digest) = path.strip_prefix("/cdn/") {
        return (Kind::Cdn, nothing(), digest.to_owned());
    }
    if let Some(rest) = path.strip_prefix("/v2/") {
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return (Kind::Tags, name.to_owned(), nothing());
        }
        for (word, kind) in
            [("/manifests/", Kind::Manifest), ("/blobs/", Kind::Blob), ("/referrers/", Kind::Referrers)]
        {
            if let Some((name, reference)) = rest.rsplit_once(word)
                && !reference.contains('/')
            {
                return (kind, name.to_owned(), reference.to_owned());
            }
        }
    }
    (Kind::Other, nothing(), nothing())
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}
