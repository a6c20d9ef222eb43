//! A process that is killed at every step of what removes: expiry, the rules to prune, and the collection. What is needed
//! is whole after each, nothing is half there, and the next run comes to the end that an undisturbed one comes to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::metadata::catalogue::{Referrer, commits};
use crate::oci::Tag;

const CHILD: &str = "registry::hosted::crash_tests::collection::child_removes_until_it_dies";

/// Content of the image in a repository: its manifest by digest, its blobs by what they hold.
#[derive(Clone, Debug)]
struct Pushed {
    repository: RepositoryName,
    digest: Digest,
    blobs: Vec<&'static str>,
}

/// What is hosted before anything is removed.
#[derive(Debug, Default)]
struct Story {
    /// What has to stay.
    kept: Vec<Pushed>,
    /// What has to go.
    going: Vec<Pushed>,
    /// Where the tags that stay point to.
    tags: BTreeMap<&'static str, Digest>,
}

/// Somebody who fills the registry.
struct Author<'a> {
    hosting: &'a Hosting,
    context: RequestContext,
    story: Story,
}

fn app() -> RepositoryName {
    "acme/app".parse().unwrap()
}

fn repository(name: &str) -> RepositoryName {
    name.parse().unwrap()
}

/// A manifest that says more than which blobs it lists.
fn manifest_with(blobs: &[&str], more: &str) -> ManifestBody {
    let mut body = manifest(blobs);
    let text = String::from_utf8(body.payload.to_vec()).unwrap();
    body.payload = format!("{},{more}}}", text.strip_suffix('}').unwrap()).into();
    body
}

fn descriptor_of(digest: &Digest) -> String {
    format!(r#"{{"mediaType":"{}","digest":"{digest}","size":1}}"#, MediaType::OCI_MANIFEST)
}

fn index_of(children: &[Digest]) -> ManifestBody {
    let children: Vec<_> = children.iter().map(descriptor_of).collect();
    let payload = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, children.join(","));
    ManifestBody { media_type: Some(MediaType::OCI_INDEX), payload: payload.into() }
}

impl Author<'_> {
    async fn blob(&self, name: &RepositoryName, content: &'static str) {
        let pushed = self.hosting.push_blob(&self.context, name, &digest(content), Work::body(content)).await;
        pushed.unwrap();
    }

    /// Pushes a manifest with its blobs, by tag, or by digest where there is none.
    async fn push(
        &self,
        name: &RepositoryName,
        tag: Option<&str>,
        blobs: &[&'static str],
        body: ManifestBody,
    ) -> Pushed {
        for content in blobs {
            self.blob(name, content).await;
        }
        let digest = Digest::of(Algorithm::Sha256, &body.payload);
        let reference: Reference = tag.map_or_else(|| digest.to_string(), str::to_owned).parse().unwrap();
        self.hosting.push_manifest(&self.context, name, &reference, vec![], body).await.unwrap();
        Pushed { repository: name.clone(), digest, blobs: blobs.into() }
    }

    /// The same of an image that lists these blobs, to `acme/app`.
    async fn image(&self, tag: Option<&str>, blobs: &[&'static str]) -> Pushed {
        self.push(&app(), tag, blobs, manifest(blobs)).await
    }

    async fn write(mut self) -> Story {
        self.keep().await;
        self.lose_tags().await;
        self.delete().await;
        self.break_off().await;
        self.story
    }

    /// What somebody needs: by a tag, as the newer one, by an index, by its subject, by digest, by a mount.
    async fn keep(&mut self) {
        let base = repository("acme/base");
        self.blob(&base, "mounted").await;
        self.hosting.mount_blob(&self.context, &app(), &digest("mounted"), Some(&base)).await.unwrap();
        self.hosting.delete_blob(&self.context, &base, &digest("mounted")).await.unwrap();
        let blobs = ["config", "shared", "kept"];
        let kept =
            self.push(&app(), Some("kept"), &blobs, manifest(&["config", "shared", "kept", "mounted"])).await;
        let about = format!(r#""subject":{}"#, descriptor_of(&kept.digest));
        let body = manifest_with(&["config", "signature"], &about);
        let signature = self.push(&app(), None, &["config", "signature"], body).await;
        let old = self.image(Some("moved"), &["config", "old"]).await;
        let new = self.image(Some("moved"), &["config", "new"]).await;
        let child = self.image(None, &["config", "shared", "child"]).await;
        let index = self.push(&app(), Some("index"), &[], index_of(&[child.digest])).await;
        let untagged = self.image(None, &["config", "untagged"]).await;
        self.story.tags =
            BTreeMap::from([("kept", kept.digest), ("moved", new.digest), ("index", index.digest)]);
        self.story.kept.extend([kept, signature, new, child, index, untagged]);
        self.story.going.push(old);
    }

    /// Tags that go by themselves, and with them what they pointed to.
    async fn lose_tags(&mut self) {
        let expiring = self.image(Some("expiring"), &["config", "shared", "expiring"]).await;
        let hour = Some(Duration::from_hours(1));
        let tag: Tag = "expiring".parse().unwrap();
        self.hosting.set_tag_expiry(&self.context, &app(), &tag, hour).await.unwrap();
        let builds = [
            self.image(Some("build-1"), &["config", "one"]).await,
            self.image(Some("build-2"), &["config", "two"]).await,
        ];
        self.story.going.push(expiring);
        self.story.going.extend(builds);
    }

    /// What was deleted: a manifest that something refers to, an index with what it lists, a repository, a namespace.
    async fn delete(&mut self) {
        let context = &self.context;
        let deleted = self.image(Some("deleted"), &["config", "shared", "deleted"]).await;
        let about = format!(r#""subject":{}"#, descriptor_of(&deleted.digest));
        let body = manifest_with(&["config", "about deleted"], &about);
        let referrer = self.push(&app(), None, &["config", "about deleted"], body).await;
        let child = self.image(None, &["config", "child of deleted"]).await;
        let index = self.push(&app(), Some("gone"), &[], index_of(&[child.digest])).await;
        for gone in [deleted.digest.to_string(), "gone".to_owned()] {
            self.hosting.delete_manifest(context, &app(), &gone.parse().unwrap()).await.unwrap();
        }
        let dropped = repository("acme/dropped");
        let of_dropped = self.push(&dropped, Some("1"), &["dropped"], manifest(&["dropped"])).await;
        self.hosting.delete_repository(context, &dropped).await.unwrap();
        let past = "past".parse().unwrap();
        self.hosting.create_namespace(context, &past, &NamespacePolicy::default()).await.unwrap();
        let of_past = self.push(&repository("past/one"), Some("1"), &["past"], manifest(&["past"])).await;
        self.hosting.delete_namespace(context, &past).await.unwrap();
        self.story.going.extend([deleted, referrer, child, index, of_dropped, of_past]);
    }

    /// Pushes that never came to their end.
    async fn break_off(&self) {
        let context = &self.context;
        self.blob(&app(), "listed by nobody").await;
        let none = Announced::default();
        for _ in 0..2 {
            let id =
                self.hosting.start_upload(context, &app(), Algorithm::Sha256).await.unwrap().id.to_string();
            self.hosting.append_upload(context, &app(), &id, none, Work::body("half")).await.unwrap();
        }
        let catalogue = &self.hosting.catalogue;
        catalogue.announce_blob(&digest("announced"), self.hosting.clock.now()).await.unwrap();
        // Its bytes are there, and its transaction is not.
        let upload = self.hosting.uploads.begin(Algorithm::Sha256).await.unwrap();
        let upload = upload.append(vec![Bytes::from_static(b"stray")]).await.unwrap();
        self.hosting.store.put(upload.complete(&digest("stray")).await.unwrap()).await.unwrap();
    }
}

/// Runs everything that removes: tags at first, and the rest when nothing can come back.
async fn remove_all(hosting: &Hosting) {
    let context = RequestContext::administrator();
    hosting.clock.advance(DAY);
    hosting.expire_tags().await.unwrap();
    hosting.prune(&context, &PruneOrder::default()).await.unwrap();
    hosting.clock.advance(15 * DAY);
    let run = hosting.collect(&context).await.unwrap();
    assert_eq!((run.error, run.ended.unwrap().1), (None, CollectionOutcome::Complete));
}

/// What can be told apart of a registry at rest.
#[derive(Debug, PartialEq)]
struct Rest {
    files: BTreeSet<String>,
    verified: Verified,
    tags: Vec<Tag>,
    foreseen: Removals,
}

impl Story {
    /// What stays is whole, and what goes is whole or not there.
    async fn judge(&self, hosting: &Hosting, what: &str) {
        for pushed in &self.kept {
            assert!(is_whole(hosting, pushed).await.is_some(), "{what}: {pushed:?} is gone");
        }
        for pushed in &self.going {
            // Where its repository is there no more, it is not found.
            is_whole(hosting, pushed).await;
        }
        for (tag, digest) in &self.tags {
            let found = hosting.catalogue.find_tag(&app(), &tag.parse().unwrap()).await.unwrap();
            assert_eq!(found, Some(*digest), "{what}: {tag}");
        }
        let (kept, signature) = (&self.kept[0].digest, self.kept[1].digest);
        let referrers = hosting.catalogue.list_referrers(&app(), kept, None, None, 9).await.unwrap();
        let referrers: Vec<_> = referrers.iter().map(|Referrer { digest, .. }| *digest).collect();
        assert_eq!(referrers, [signature], "{what}");
        let verified = hosting.verify(&RequestContext::administrator()).await.unwrap();
        assert_eq!(verified.faults, [], "{what}");
    }

    /// What is left once everything went.
    async fn rest(&self, hosting: &Hosting, folder: &Path) -> Rest {
        let context = RequestContext::administrator();
        let mut files = BTreeSet::new();
        for root in ["blobs", "uploads"] {
            list_files(&folder.join(root), &mut files);
        }
        for pushed in &self.going {
            assert!(is_whole(hosting, pushed).await.is_none(), "{pushed:?} is still there");
        }
        Rest {
            files,
            verified: hosting.verify(&context).await.unwrap(),
            tags: hosting.catalogue.list_tags(&app(), None, 99).await.unwrap(),
            foreseen: hosting.foresee_collection(&context).await.unwrap(),
        }
    }
}

/// Looks at a manifest and all its blobs, without asking for them as a client would: what is asked for stays. `None`
/// where it is not there.
async fn is_whole(hosting: &Hosting, pushed: &Pushed) -> Option<()> {
    let Pushed { repository, digest: manifest, blobs } = pushed;
    hosting.catalogue.find_manifest(repository, manifest).await.unwrap()?;
    for content in blobs {
        let found = hosting.catalogue.find_blob(repository, &digest(content)).await.unwrap();
        let size_bytes = found.map(|found| found.size_bytes);
        assert_eq!(size_bytes, Some(content.len() as u64), "{pushed:?} without {content}");
        let bytes = hosting.store.read(&digest(content), 0..content.len() as u64).await.unwrap();
        let bytes: Vec<_> =
            bytes.unwrap_or_else(|| panic!("{pushed:?}: no bytes of {content}")).collect().await;
        let bytes: Vec<u8> = bytes.into_iter().flat_map(Result::unwrap).collect();
        assert_eq!(bytes, content.as_bytes(), "{pushed:?}");
    }
    Some(())
}

fn list_files(folder: &Path, files: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            list_files(&entry.path(), files);
        } else {
            files.insert(entry.file_name().into_string().unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the other test, which says on its input what to do"]
async fn child_removes_until_it_dies() {
    let (steps, folder) = read_order();
    let deadly = Deadly::new(steps, &folder);
    let hosting = open(&folder, &Steps::seen_by(Arc::clone(&deadly) as Arc<dyn Witness>), clock(0)).await;
    let witness = Arc::clone(&deadly);
    commits::tell(Box::new(move || witness.pass("transaction").unwrap()));
    remove_all(&hosting).await;
    let taken = steps - deadly.steps_left.load(Ordering::SeqCst);
    fs::write(folder.join("taken"), taken.to_string()).unwrap();
}

/// Has a process remove until its n-th step, and the next one go on. Gives where the first one died, and what is left.
async fn remove_twice(story: &Story, original: &Path, steps: usize) -> (String, Rest, TempDir) {
    let folder = copy_of(original);
    let status = work_and_die(CHILD, folder.path(), steps);
    let died = fs::read_to_string(folder.path().join("died")).unwrap_or_default();
    let what = format!("killed at step {steps} ({died})");
    assert!(status.signal() == Some(9) || (status.success() && died.is_empty()), "{what}: {status}");
    // The dead one's lease is over.
    let hosting = open(folder.path(), &Steps::default(), clock(17)).await;
    story.judge(&hosting, &what).await;
    remove_all(&hosting).await;
    story.judge(&hosting, &what).await;
    let rest = story.rest(&hosting, folder.path()).await;
    assert_eq!(rest.foreseen, Removals::default(), "{what}");
    (died, rest, folder)
}

/// Some of the steps, spread over all of them; `TIDEGATE_COLLECTION_KILLS` asks for more, up to all.
fn choose_steps(all: usize) -> Vec<usize> {
    let wanted = std::env::var("TIDEGATE_COLLECTION_KILLS").map_or(12, |number| number.parse().unwrap());
    let wanted = all.min(wanted);
    (0..wanted).map(|part| fastrand::usize(part * all / wanted..(part + 1) * all / wanted) + 1).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_needed_survives_a_kill_at_any_step_of_what_removes() {
    let original = folder_in_memory();
    // It stays open, so that nobody tidies up while it is copied.
    let author = open(original.path(), &Steps::default(), clock(0)).await;
    let story = write_story(&author).await;
    let (_, expected, undisturbed) = remove_twice(&story, original.path(), usize::MAX).await;
    let kept = ["config", "shared", "kept", "mounted", "signature", "new", "child", "untagged"];
    let kept = kept.map(|content| digest(content).to_string().split_off("sha256:".len()));
    assert_eq!(expected.files, BTreeSet::from(kept));
    let all: usize = fs::read_to_string(undisturbed.path().join("taken")).unwrap().parse().unwrap();
    let mut died_at = BTreeMap::<String, usize>::new();
    let chosen = choose_steps(all);
    for steps in &chosen {
        let (died, rest, _) = remove_twice(&story, original.path(), *steps).await;
        assert_eq!(rest, expected, "killed at step {steps} ({died})");
        *died_at.entry(died).or_default() += 1;
    }
    assert!(!died_at.contains_key(""), "{died_at:?}");
    if chosen.len() == all {
        let kinds: Vec<_> = died_at.keys().map(String::as_str).collect();
        let expected = ["forget_content", "proceed", "remove_content", "remove_upload", "transaction"];
        assert_eq!(kinds, expected, "{died_at:?}");
    }
}

async fn write_story(hosting: &Hosting) -> Story {
    let context = RequestContext::administrator();
    let rules = r#"{"prune":[{"action":"remove","tags":["build-*"],"older_than_ms":1000}]}"#;
    let rules = NamespacePolicy::parse(rules).unwrap();
    hosting.set_namespace_policy(&context, &"acme".parse().unwrap(), &rules).await.unwrap();
    Author { hosting, context, story: Story::default() }.write().await
}

/// A copy of a registry, as a process that is killed leaves it: with the catalogue's log.
fn copy_of(folder: &Path) -> TempDir {
    let copy = folder_in_memory();
    let source = format!("{}/.", folder.display());
    let done = Command::new("cp").args(["--archive", &source]).arg(copy.path()).status().unwrap();
    assert!(done.success());
    copy
}

/// What a killed process wrote is there, on whatever it wrote: in memory nobody waits for a disk.
fn folder_in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A clock that stands so many days from now.
fn clock(days: u32) -> Clock {
    Clock::manual(Clock::system().now().after(days * DAY))
}

const DAY: Duration = Duration::from_hours(24);
