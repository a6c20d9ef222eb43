//! One client: asks for this and that, and holds every answer against the truth.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use tokio::time::Instant;

use crate::chronicle::Chronicle;
use crate::client::{Answer, Client, Cut};
use crate::content::{ALL_TYPES, Content, sha256};
use crate::door::Door;
use crate::world::{Host, STEADY, World, pick_tag};

/// Within this time everything is answered, or cut: slow upstreams, stuck disks and two cores included.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// A client and what it knows.
pub(crate) struct Visitor {
    name: String,
    pub(super) rng: Rng,
    pub(super) world: Arc<World>,
    pub(super) door: Door,
    chronicle: Chronicle,
    pub(super) tally: Arc<Tally>,
}

/// What came of all visits.
#[derive(Default)]
pub(crate) struct Tally {
    right: AtomicU64,
    refused: AtomicU64,
    pub(super) cut: AtomicU64,
    pub(super) unreachable: AtomicU64,
    bytes: AtomicU64,
    /// Whole images, by a client that people use.
    pub(super) copies: AtomicU64,
}

/// What a client wants.
struct Wish {
    path: String,
    range: Option<(usize, usize)>,
    is_head: bool,
    wanted: Wanted,
}

/// What is right.
enum Wanted {
    /// Nothing: it does not exist.
    Nothing,
    /// The content of this tag; the host says which it may be.
    Tag(usize),
    /// These bytes.
    Bytes(Bytes),
}

/// What came.
enum Outcome {
    Answered(Answer),
    /// The head came, and not all of the body.
    Cut,
    /// The connection could not be made, or ended without an answer.
    Unanswered,
}

impl Visitor {
    pub(crate) fn new(
        number: usize,
        rng: Rng,
        world: &Arc<World>,
        door: Door,
        chronicle: &Chronicle,
        tally: &Arc<Tally>,
    ) -> Self {
        Self {
            name: format!("client {number}"),
            rng,
            world: Arc::clone(world),
            door,
            chronicle: chronicle.clone(),
            tally: Arc::clone(tally),
        }
    }

    /// Comes again and again until the end.
    pub(crate) async fn run(mut self, end: Instant) {
        let world = Arc::clone(&self.world);
        while Instant::now() < end {
            let host = &world.hosts[self.rng.usize(..world.hosts.len())];
            let wish = self.wish(host);
            self.visit(host, &wish).await;
            let pause = Duration::from_millis(self.rng.u64(..30));
            tokio::time::sleep(pause).await;
        }
    }

    fn wish(&mut self, host: &Host) -> Wish {
        let rng = &mut self.rng;
        let number = pick_tag(rng);
        let versions = host.versions(number);
        let image = &versions[rng.usize(..versions.len())];
        let is_head = rng.u8(..5) == 0;
        let wish = |path: String, wanted| Wish { path: host.path(&path), range: None, is_head, wanted };
        let blobs: Vec<_> = image.layers.iter().chain([&image.config]).collect();
        let blob = blobs[rng.usize(..blobs.len())];
        match rng.u8(..10) {
            0..3 => wish(image.tag_path(), Wanted::Tag(number)),
            3 => wish(image.digest_path(), Wanted::Bytes(image.manifest.bytes.clone())),
            4..7 => wish(image.blob_path(blob), Wanted::Bytes(blob.bytes.clone())),
            7..9 => {
                let from = rng.usize(..blob.bytes.len());
                let range = Some((from, rng.usize(from..blob.bytes.len())));
                let wish = wish(image.blob_path(blob), Wanted::Bytes(blob.bytes.clone()));
                Wish { range, is_head: false, ..wish }
            }
            _ if rng.bool() => wish(format!("/v2/{}/manifests/none", image.repository), Wanted::Nothing),
            _ => wish(format!("/v2/{}/blobs/{}", image.repository, blob.another_digest()), Wanted::Nothing),
        }
    }

    async fn visit(&mut self, host: &Host, wish: &Wish) {
        let before = self.door.look();
        let client = Client::new(before.address);
        let client = if self.rng.u8(..4) == 0 { client.http2() } else { client };
        let started = Instant::now();
        let outcome = tokio::time::timeout(LIMIT, ask(&client, wish)).await;
        let after = self.door.look();
        let judged = match &outcome {
            // What was asked of one process need not be told by its end.
            Err(_) if !before.lived_until(&after) => Ok(&self.tally.unreachable),
            Err(_) => Err(format!("nothing came of it in {LIMIT:?}")),
            Ok(Outcome::Answered(answer)) => {
                let must_come = host.name == STEADY && before.was_online_until(&after);
                self.judge(host, wish, answer, must_come)
            }
            Ok(Outcome::Cut | Outcome::Unanswered) if !before.lived_until(&after) => {
                Ok(&self.tally.unreachable)
            }
            Ok(Outcome::Cut | Outcome::Unanswered)
                if host.name == STEADY && before.was_online_until(&after) =>
            {
                Err("it was cut, and nothing but disks failed".to_owned())
            }
            // A small answer may be cut before its head is sent, when what upstream sends turns out to be wrong.
            Ok(Outcome::Cut | Outcome::Unanswered) => Ok(&self.tally.cut),
        };
        self.settle(judged, &format!("{} {:?}", wish.path, wish.range), started);
    }

    /// Counts a visit, or fails with what was wrong.
    pub(super) fn settle(&self, judged: Result<&AtomicU64, String>, what: &str, started: Instant) {
        match judged {
            Ok(counter) => counter.fetch_add(1, Ordering::Relaxed),
            Err(fault) => {
                let fault = format!("{}: {what}: {fault} ({:.1?})", self.name, started.elapsed());
                self.chronicle.note(fault.clone());
                panic!("{fault}")
            }
        };
    }

    /// Which counter an answer belongs to, or what is wrong with it.
    fn judge(
        &self,
        host: &Host,
        wish: &Wish,
        answer: &Answer,
        must_come: bool,
    ) -> Result<&AtomicU64, String> {
        match (answer.status, &wish.wanted) {
            (200 | 206, Wanted::Nothing) => Err(format!("it does not exist, but {answer:?}")),
            (404, Wanted::Nothing) => Ok(&self.tally.right),
            (200, Wanted::Tag(number)) => {
                let versions = host.versions(*number);
                let right = versions.iter().any(|image| is_right(wish, answer, &image.manifest.bytes));
                self.count(right, answer)
            }
            (200 | 206, Wanted::Bytes(bytes)) => self.count(is_right(wish, answer, bytes), answer),
            (429 | 502 | 504, _) if !must_come => {
                if !wish.is_head {
                    answer.error_code();
                }
                Ok(&self.tally.refused)
            }
            (status, _) => Err(format!("status {status} is none of those allowed: {answer:?}")),
        }
    }

    fn count(&self, is_right: bool, answer: &Answer) -> Result<&AtomicU64, String> {
        self.tally.bytes.fetch_add(answer.body.len() as u64, Ordering::Relaxed);
        let (status, headers) = (answer.status, &answer.headers);
        let told = || format!("{} bytes of {}", answer.body.len(), sha256(&answer.body));
        if is_right {
            Ok(&self.tally.right)
        } else {
            Err(format!("WRONG: {status}, {}, {headers:?}", told()))
        }
    }
}

async fn ask(client: &Client, wish: &Wish) -> Outcome {
    let call = if wish.is_head { client.head(&wish.path) } else { client.get(&wish.path) };
    let call = call.accept(&ALL_TYPES);
    let call = match wish.range {
        Some((from, to)) => call.range(&format!("bytes={from}-{to}")),
        None => call,
    };
    match call.try_open().await {
        Err(_) => Outcome::Unanswered,
        Ok(open) => match open.try_finish().await {
            Ok(answer) => Outcome::Answered(answer),
            Err(Cut { .. }) => Outcome::Cut,
        },
    }
}

/// Whether a successful answer is what this content makes of the wish.
fn is_right(wish: &Wish, answer: &Answer, content: &Bytes) -> bool {
    let length = content.len().to_string();
    if wish.is_head {
        let digest = answer.header("docker-content-digest");
        return answer.header("content-length") == Some(&length) && digest == Some(&sha256(content));
    }
    match (answer.status, wish.range) {
        (206, Some((from, to))) => {
            let range = format!("bytes {from}-{to}/{length}");
            answer.header("content-range") == Some(&range) && answer.body == content[from..=to]
        }
        (200, _) => answer.body == content,
        _ => false,
    }
}

impl Tally {
    /// Says what was done; fails where that was too little to show anything.
    #[expect(clippy::print_stderr, reason = "what a soak is worth")]
    pub(crate) fn report(&self, seed: u64, length: Duration, recovery: Duration) {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (right, refused, cut) = (of(&self.right), of(&self.refused), of(&self.cut));
        eprintln!(
            "soak of {length:?}, seed {seed}: {right} right answers ({} MiB), {} copies by skopeo, {refused} refused, \
             {cut} cut, {} while it was down; all well {recovery:.1?} after the last fault",
            of(&self.bytes) >> 20,
            of(&self.copies),
            of(&self.unreachable),
        );
        let least = length.as_secs();
        assert!(of(&self.copies) >= least / 10, "skopeo copied too little");
        assert!(right >= 10 * least && refused + cut >= least / 4, "it was no soak");
    }
}
