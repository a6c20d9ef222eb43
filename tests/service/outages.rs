//! Upstream down in every way: what is cached goes on, what is not fails soon, and nothing needs a restart.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use rustix::process::Signal;
use tokio::time::Instant;

use crate::client::Answer;
use crate::content::Image;
use crate::harness::{Section, Setup, Tidegate, until};
use crate::upstream::{
    Access, Authority, Bearer, BlackHole, Kind, Then, Upstream, any, everything, hang_up, serve, status,
    web_page,
};

/// The first answer from the cache may take so long.
const FIRST: Duration = Duration::from_secs(2);
/// And so long the next ones, on two cores that tests share.
const AT_ONCE: Duration = Duration::from_millis(400);
/// What is not cached fails within this time.
const MISS: Duration = Duration::from_secs(5);

/// A way in which an upstream is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outage {
    Refused,
    BlackHole,
    Reset,
    HungUp,
    ClearText,
    ExpiredCertificate,
    WrongCertificate,
    StrangeCertificate,
    NoSuchHost,
    RealmRefuses(u16),
    RealmBroken,
    RealmSilent,
    RealmWebPage,
    EveryTokenRejected,
    Status(u16),
    ForbiddenWebPage,
    WebPage,
    Silent,
    SlowHead,
    SlowBody,
}

use Outage::{
    ClearText, EveryTokenRejected, ExpiredCertificate, ForbiddenWebPage, HungUp, NoSuchHost, RealmBroken,
    RealmRefuses, RealmSilent, RealmWebPage, Refused, Reset, Silent, SlowBody, SlowHead, Status,
    StrangeCertificate, WebPage, WrongCertificate,
};

/// All of them, and the statuses that a client may see for what is not cached.
const OUTAGES: &[(Outage, &[u16])] = &[
    (Refused, &[504]),
    (Outage::BlackHole, &[504]),
    (Reset, &[504]),
    (HungUp, &[502, 504]),
    (ClearText, &[504]),
    (ExpiredCertificate, &[504]),
    (WrongCertificate, &[504]),
    (StrangeCertificate, &[504]),
    (NoSuchHost, &[504]),
    (RealmRefuses(401), &[403]),
    (RealmRefuses(403), &[403]),
    (RealmBroken, &[502]),
    (RealmSilent, &[504]),
    (RealmWebPage, &[502]),
    // Docker Hub says so of what does not exist.
    (EveryTokenRejected, &[404]),
    (Status(403), &[403]),
    (Status(429), &[429]),
    (Status(500), &[502]),
    (Status(501), &[502]),
    (Status(502), &[502]),
    (Status(503), &[502]),
    (Status(504), &[502]),
    (ForbiddenWebPage, &[403]),
    (WebPage, &[502]),
    (Silent, &[504]),
    (SlowHead, &[504]),
    (SlowBody, &[504]),
];

/// An upstream in trouble beside one that is well, and what was pulled before.
struct Scene {
    authority: Authority,
    upstream: Upstream,
    image: Image,
    /// Upstream has it, and nobody pulled it.
    missing: Image,
    well: Upstream,
    tidegate: Tidegate,
    black_hole: Option<BlackHole>,
}

fn section(upstream: &Upstream) -> Section {
    // Waits and time-outs are the defaults: they are what is tested.
    let section = Section::hub(upstream).clocks("0s", "0s", "30d").without("miss_timeout");
    section.text("negative_for", "0s").text("ca_file", "ca.pem")
}

impl Scene {
    async fn new(outage: Outage) -> Self {
        let authority = Authority::new();
        let is_secure =
            matches!(outage, ClearText | ExpiredCertificate | WrongCertificate | StrangeCertificate);
        let upstream =
            if is_secure { Upstream::start_tls(&authority).await } else { Upstream::start().await };
        let image = upstream.make_image("library/app", "1", &[50_000]);
        let missing = upstream.make_image("library/missing", "1", &[60_000]);
        upstream.require(Access::Bearer(Bearer::of_realm(&upstream.realm())));
        let well = Upstream::start().await;
        let tidegate = Setup::new()
            .upstream(section(&upstream))
            .upstream(Section::new("well.test", &well))
            .file("ca.pem", authority.pem())
            .with_warnings()
            .start()
            .await;
        tidegate.pull(&image).await;
        Self { authority, upstream, image, missing, well, tidegate, black_hole: None }
    }

    async fn begin(&mut self, outage: Outage) {
        let upstream = &self.upstream;
        match outage {
            Refused => upstream.stop().await,
            Outage::BlackHole => self.black_hole = Some(upstream.become_black_hole().await),
            Reset => upstream.reset_connections().await,
            ClearText => upstream.speak_in_clear().await,
            ExpiredCertificate => upstream.present(&self.authority, "127.0.0.1", 2001).await,
            WrongCertificate => upstream.present(&self.authority, "127.0.0.2", 4000).await,
            StrangeCertificate => upstream.present(&Authority::new(), "127.0.0.1", 4000).await,
            NoSuchHost => self.move_to("http://registry.invalid").await,
            RealmRefuses(code) => self.break_realm(status(code)),
            RealmBroken => self.break_realm(status(500)),
            RealmSilent => self.break_realm(serve().delay_head(Duration::from_mins(2))),
            RealmWebPage => self.break_realm(web_page(200)),
            EveryTokenRejected => {
                let challenge = format!("Bearer realm=\"{}\",service=\"scripted\"", upstream.realm());
                for kind in [Kind::Manifest, Kind::Blob, Kind::Ping] {
                    upstream.rule(any(kind), status(401).header("www-authenticate", &challenge));
                }
            }
            HungUp => upstream.rule(everything(), hang_up()),
            Status(code) => upstream.rule(everything(), status(code)),
            ForbiddenWebPage => upstream.rule(everything(), web_page(403)),
            WebPage => upstream.rule(everything(), web_page(200)),
            Silent => upstream.rule(everything(), serve().delay_head(Duration::from_mins(2))),
            SlowHead => upstream.rule(everything(), serve().drip_head()),
            SlowBody => upstream.rule(everything(), serve().rate(10)),
        }
    }

    /// No token counts any more, and the realm does this.
    fn break_realm(&self, then: Then) {
        self.upstream.expire_tokens();
        self.upstream.rule(any(Kind::Token), then);
    }

    async fn move_to(&mut self, url: &str) {
        let moved = section(&self.upstream).moved_to(url);
        let reloads = self.tidegate.log_lines("configuration was reloaded").len();
        self.tidegate.reconfigure(|setup| setup.replace(moved));
        self.tidegate.signal(Signal::HUP);
        let tidegate = &self.tidegate;
        until("the reload", async || tidegate.log_lines("configuration was reloaded").len() > reloads).await;
    }

    async fn end(&mut self, outage: Outage) {
        self.black_hole = None;
        self.upstream.heal();
        match outage {
            ExpiredCertificate | WrongCertificate | StrangeCertificate | ClearText => {
                self.upstream.present(&self.authority, "127.0.0.1", 4000).await;
            }
            Refused | Outage::BlackHole => self.upstream.restart().await,
            NoSuchHost => self.move_to(&self.upstream.url()).await,
            _ => {}
        }
    }

    /// Asks for what is cached; how long that took.
    async fn ask_cached(&self) -> (Answer, Duration) {
        let started = Instant::now();
        let answer = self.tidegate.manifest(&self.image.tag_path()).await;
        assert_eq!((answer.status, &answer.body), (200, &self.image.manifest.bytes), "{answer:?}");
        (answer, started.elapsed())
    }

    async fn first_answer_is_stale_and_soon(&self, outage: Outage) {
        let (answer, took) = self.ask_cached().await;
        assert!(took < FIRST, "{took:?}");
        // A body that never comes does not matter to HEAD, by which an unchanged tag is confirmed.
        if outage != SlowBody {
            assert!(
                answer.header("warning").unwrap_or_default().starts_with("299 - \"hub.test"),
                "{answer:?}"
            );
            assert_eq!(answer.cache_status(), "tidegate; hit; detail=stale");
        }
    }

    /// A machine that is busy may hold up one try; an outage that answers wait for holds up each.
    async fn next_answers_come_at_once(&self) {
        let mut took = Vec::new();
        for _ in 0..3 {
            took.push(self.ask_for_all_that_is_cached().await);
            if took.last().is_some_and(|took| *took < 2 * AT_ONCE) {
                return;
            }
        }
        panic!("{took:?}");
    }

    /// How long eleven answers took.
    async fn ask_for_all_that_is_cached(&self) -> Duration {
        let started = Instant::now();
        for _ in 0..5 {
            self.ask_cached().await;
        }
        assert_eq!(self.tidegate.head(&self.image.tag_path()).send().await.status, 200);
        assert_eq!(self.tidegate.fetch("/v2/").await.status, 200);
        for path in [self.image.digest_path(), self.image.layer_path(0)] {
            let answer = self.tidegate.manifest(&path).await;
            assert_eq!((answer.status, answer.cache_status()), (200, "tidegate; hit"), "{path}");
            assert_eq!(self.tidegate.head(&path).send().await.status, 200, "{path}");
        }
        started.elapsed()
    }

    async fn misses_fail_soon(&self, codes: &[u16]) {
        let ask = async |path: String| {
            let started = Instant::now();
            let answer = self.tidegate.get(&path).try_send().await;
            (path, answer, started.elapsed())
        };
        let (manifest, blob) = tokio::join!(ask(self.missing.tag_path()), ask(self.missing.digest_path()));
        for (path, answer, took) in [manifest, blob] {
            let answer = answer.unwrap_or_else(|cut| panic!("{path}: {cut:?}"));
            assert!(codes.contains(&answer.status), "{path}: {answer:?}");
            assert!(!answer.error_code().is_empty());
            assert!(took < MISS, "{path}: {took:?}");
        }
    }

    /// A blob whose body drips has begun; it is cut when it makes no progress.
    async fn missing_blobs_fail_soon(&self, codes: &[u16]) {
        let started = Instant::now();
        let answer = self.tidegate.fetch(&self.missing.layer_path(0)).await;
        assert!(codes.contains(&answer.status), "{answer:?}");
        assert!(started.elapsed() < MISS, "{:?}", started.elapsed());
    }

    async fn others_are_well(&self) {
        let image = self.well.make_image("team/app", "fresh", &[70_000]);
        let started = Instant::now();
        let path = format!("/v2/well.test{}", &image.tag_path()[3..]);
        assert_eq!(self.tidegate.manifest(&path).await.body, image.manifest.bytes);
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }

    async fn all_is_well_again(&self) {
        until("an answer that is not stale", async || self.ask_cached().await.0.header("warning").is_none())
            .await;
        until("the image that was missing", async || {
            self.tidegate.manifest(&self.missing.tag_path()).await.status == 200
        })
        .await;
        self.tidegate.pull(&self.missing).await;
    }
}

async fn live_through(outage: Outage, codes: &[u16]) {
    let mut scene = Scene::new(outage).await;
    scene.begin(outage).await;
    scene.first_answer_is_stale_and_soon(outage).await;
    scene.next_answers_come_at_once().await;
    tokio::join!(scene.misses_fail_soon(codes), scene.others_are_well(), async {
        if outage != SlowBody {
            scene.missing_blobs_fail_soon(codes).await;
        }
    });
    scene.next_answers_come_at_once().await;
    scene.end(outage).await;
    scene.all_is_well_again().await;
}

#[tokio::test]
async fn in_every_outage_the_cache_serves_and_misses_fail_soon() {
    let trials = futures_util::stream::iter(OUTAGES.iter().map(async |(outage, codes)| {
        let trial = AssertUnwindSafe(Box::pin(live_through(*outage, codes))).catch_unwind();
        trial.await.map_err(|_panic| *outage).err()
    }));
    // A few at a time: how long answers take is part of what is tested.
    let failed: Vec<_> = trials.buffer_unordered(4).filter_map(async |failed| failed).collect().await;
    assert!(failed.is_empty(), "{failed:?}");
}

/// A repository that upstream closed, in a way that other registries let nobody tell from an outage.
async fn closed(close: impl FnOnce(&Upstream)) -> (Upstream, Answer) {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("team/app", "1", &[1000]);
    let open = upstream.make_image("team/open", "1", &[2000]);
    upstream.require(Access::Bearer(Bearer::of_realm(&upstream.realm())));
    let section = Section::hub(&upstream).clocks("0s", "0s", "30d");
    let tidegate = Setup::new().upstream(section).with_warnings().start().await;
    tidegate.pull(&image).await;
    tidegate.pull(&open).await;
    upstream.expire_tokens();
    close(&upstream);
    let answer = tidegate.manifest(&image.tag_path()).await;
    let other = tidegate.manifest(&open.tag_path()).await;
    assert_eq!((other.status, other.header("warning")), (200, None), "{other:?}");
    (upstream, answer)
}

#[tokio::test]
async fn a_repository_that_upstream_closes_is_closed_while_others_are_open() {
    let (_, answer) = closed(|upstream| {
        upstream.rule(any(Kind::Manifest).of("team/app"), status(403));
    })
    .await;
    answer.assert_error(403, "DENIED");
    for code in [401, 403] {
        // As ghcr.io: the realm gives no token for it.
        let (_, answer) = closed(|upstream| {
            let scope = "repository:team/app:pull";
            upstream.rule(any(Kind::Token).with_parameter("scope", scope), status(code));
        })
        .await;
        answer.assert_error(403, "DENIED");
    }
    let (upstream, answer) = closed(|upstream| {
        let challenge = format!("Bearer realm=\"{}\"", upstream.realm());
        let hidden = status(401).header("www-authenticate", &challenge);
        upstream.rule(any(Kind::Manifest).of("team/app"), hidden);
    })
    .await;
    answer.assert_error(404, "MANIFEST_UNKNOWN");
    assert!(upstream.count(&any(Kind::Token)) < 10);
}

#[tokio::test]
async fn a_password_that_upstream_takes_no_more_is_an_outage_of_ours() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("team/app", "1", &[1000]);
    let other = upstream.make_image("team/other", "1", &[1000]);
    let access = |password: &str| Access::Basic("user".to_owned(), password.to_owned());
    upstream.require(access("right"));
    let section = Section::hub(&upstream).clocks("0s", "0s", "30d");
    let section = section.text("username", "user").text("password", "right");
    let tidegate = Setup::new().upstream(section).with_warnings().start().await;
    tidegate.pull(&image).await;
    upstream.require(access("changed"));
    let answer = tidegate.manifest(&image.tag_path()).await;
    assert_eq!((answer.status, &answer.body), (200, &image.manifest.bytes), "{answer:?}");
    let warning = answer.header("warning").unwrap();
    assert!(warning.contains("(barred)"), "{warning}");
    tidegate.manifest(&other.tag_path()).await.assert_error(403, "DENIED");
}
