//! Readiness: whether this node can serve, and if not, why.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use tokio::time::timeout;

/// A dependency that has to work for this node to be ready.
pub struct ReadinessCheck {
    name: &'static str,
    check: Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
}

impl ReadinessCheck {
    /// A check called `name`; an error says what is wrong, in words for the operator. It is given two
    /// seconds, and may be asked by several callers at once.
    pub fn new<C, F>(name: &'static str, check: C) -> Self
    where
        C: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self { name, check: Box::new(move || check().boxed()) }
    }
}

impl fmt::Debug for ReadinessCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadinessCheck").field(&self.name).finish()
    }
}

/// What is worth knowing although the node is ready without it: upstreams. Asked anew each time, since
/// there may be others after a reload; a name and its condition.
pub type Advice = Box<dyn Fn() -> Vec<(String, Condition)> + Send + Sync>;

/// How something does that a node is ready without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It works.
    Well,
    /// It does not; in words for the operator.
    Degraded(String),
    /// It is not used, because somebody said so; in words for the operator.
    Offline(String),
}

/// What the checks said.
#[derive(Debug)]
pub(super) struct Readiness {
    drains: bool,
    results: Vec<(&'static str, Result<(), String>)>,
    advice: Vec<(String, Condition)>,
}

/// Orchestrators ask every few seconds and give up after one or two.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks all dependencies at once. A node that drains is not ready, whatever they say.
pub(super) async fn ask(checks: &[ReadinessCheck], advice: &Advice, drains: bool) -> Readiness {
    let results = checks.iter().map(async |dependency| {
        let result = timeout(PATIENCE, (dependency.check)()).await;
        let late = |_elapsed| Err(format!("no answer within {} s", PATIENCE.as_secs()));
        (dependency.name, result.unwrap_or_else(late))
    });
    Readiness { drains, results: join_all(results).await, advice: advice() }
}

impl Readiness {
    pub(super) fn is_ready(&self) -> bool {
        !self.drains && self.results.iter().all(|(_, result)| result.is_ok())
    }

    /// `{"status": …, "checks": {name: {"status": …, "reason": …}}}`; a check with status `degraded`
    /// or `offline` does not keep the node from being ready.
    pub(super) fn to_json(&self) -> String {
        let status = match (self.drains, self.is_ready()) {
            (true, _) => "draining",
            (false, true) => "ready",
            (false, false) => "not ready",
        };
        let ok = || serde_json::json!({ "status": "ok" });
        let other = |status: &str, reason: &String| serde_json::json!({ "status": status, "reason": reason });
        let needed = self.results.iter().map(|(name, result)| {
            let check = result.as_ref().map_or_else(|reason| other("failing", reason), |()| ok());
            ((*name).to_owned(), check)
        });
        let advice = self.advice.iter().map(|(name, condition)| {
            let check = match condition {
                Condition::Well => ok(),
                Condition::Degraded(reason) => other("degraded", reason),
                Condition::Offline(reason) => other("offline", reason),
            };
            (name.clone(), check)
        });
        let checks: serde_json::Map<_, _> = needed.chain(advice).collect();
        serde_json::json!({ "status": status, "checks": checks }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Advice {
        Box::new(Vec::new)
    }

    #[tokio::test]
    async fn a_node_is_ready_without_its_upstreams_and_says_what_ails_them() {
        let advice: Advice = Box::new(|| {
            vec![
                ("upstream hub".into(), Condition::Degraded("no address".into())),
                ("upstream quay".into(), Condition::Offline("so configured".into())),
                ("upstream well".into(), Condition::Well),
            ]
        });
        let readiness = ask(&[], &advice, false).await;
        assert!(readiness.is_ready());
        let expected = r#"{"checks":{"upstream hub":{"reason":"no address","status":"degraded"},"upstream quay":{"reason":"so configured","status":"offline"},"upstream well":{"status":"ok"}},"status":"ready"}"#;
        assert_eq!(readiness.to_json(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_names_what_is_wrong() {
        let good = || ReadinessCheck::new("metadata", || async { Ok(()) });
        let bad = ReadinessCheck::new("blobs", || async { Err("read-only file system".into()) });
        let hangs = ReadinessCheck::new("events", std::future::pending);

        let readiness = ask(&[good()], &nothing(), false).await;
        assert!(readiness.is_ready());
        assert_eq!(readiness.to_json(), r#"{"checks":{"metadata":{"status":"ok"}},"status":"ready"}"#);

        let readiness = ask(&[good(), bad, hangs], &nothing(), false).await;
        assert!(!readiness.is_ready());
        let expected = r#"{"checks":{"blobs":{"reason":"read-only file system","status":"failing"},"events":{"reason":"no answer within 2 s","status":"failing"},"metadata":{"status":"ok"}},"status":"not ready"}"#;
        assert_eq!(readiness.to_json(), expected);
    }

    #[tokio::test]
    async fn a_node_that_drains_is_not_ready() {
        let readiness = ask(&[], &nothing(), true).await;
        assert!(!readiness.is_ready());
        assert_eq!(readiness.to_json(), r#"{"checks":{},"status":"draining"}"#);
    }
}
