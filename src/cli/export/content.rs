//! Fetches content from the server into a bundle, and tries again where that may help.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::json;

use super::partial::Partial;
use super::retry::{Trouble, persist};
use super::write_padding;
use crate::bundle::{Contents, Item, ItemKind, item_header};
use crate::cli::admin_client::AdminClient;
use crate::cli::meter::Meter;
use crate::oci::Hasher;

/// How long the server may be silent.
const PATIENCE: Duration = Duration::from_mins(2);

/// How many blobs the server is told of that will be asked for next: it fetches several at once.
const TOLD_AHEAD: usize = 8;

/// How much is read at once, in bytes.
const PART: usize = 256 * 1024;

/// Where content comes from.
pub(super) struct Source<'a> {
    client: &'a AdminClient,
    contents: &'a Contents,
    repositories: Vec<String>,
}

impl<'a> Source<'a> {
    pub(super) fn new(client: &'a AdminClient, contents: &'a Contents) -> Self {
        let repositories: BTreeSet<_> =
            contents.images.iter().map(|image| image.repository.to_string()).collect();
        Self { client, contents, repositories: repositories.into_iter().collect() }
    }

    /// Writes the item at a place: header, content, and zeros; `false` where there is none. After an error, nothing
    /// of it is in the file.
    pub(super) fn write(&self, place: usize, file: &mut Partial, meter: &mut Meter) -> anyhow::Result<bool> {
        let Some((item, rest)) = self.contents.content.get(place..).and_then(<[Item]>::split_first) else {
            return Ok(false);
        };
        self.write_item(item, rest, file, meter).map(|()| true)
    }

    fn write_item(
        &self,
        item: &Item,
        rest: &[Item],
        file: &mut Partial,
        meter: &mut Meter,
    ) -> anyhow::Result<()> {
        let begin = file.position()?;
        let mut place = (file, meter);
        let written = persist(
            &mut place,
            |(file, meter)| self.try_write(item, rest, file, meter),
            |(file, meter), error| {
                file.rewind_to(begin).context("write the bundle")?;
                meter.set(begin);
                meter.complain(&format!("{}: {error:#}; trying again", item.digest));
                Ok(())
            },
        );
        let (file, meter) = place;
        match written {
            Ok(()) => {
                meter.set(file.position()?);
                Ok(())
            }
            Err(error) => {
                // What cannot be taken back is hashed and refused when the export goes on.
                let _taken_back = file.rewind_to(begin);
                Err(error.context(format!("fetch {}", item.digest)))
            }
        }
    }

    fn try_write(
        &self,
        item: &Item,
        rest: &[Item],
        file: &mut Partial,
        meter: &mut Meter,
    ) -> Result<(), Trouble> {
        let disk = |error: io::Error| Trouble::Lasting(anyhow::Error::new(error).context("write the bundle"));
        let passing = |error: anyhow::Error| Trouble::Passing(error);
        let blobs = rest.iter().filter(|next| next.kind == ItemKind::Blob).take(TOLD_AHEAD);
        let tell = |next: &Item| json!({ "digest": next.digest.to_string(), "size_bytes": next.size_bytes });
        let order = json!({
            "kind": item.kind,
            "digest": item.digest.to_string(),
            "repositories": self.repositories,
            "next": blobs.map(tell).collect::<Vec<_>>(),
        });
        let answer = self.client.open("/api/v1/export/content", &order, PATIENCE);
        let mut answer = answer.with_context(|| self.client.not_reached()).map_err(passing)?;
        if !answer.is_ok() {
            return Err(Trouble::of(answer));
        }
        if answer.length != item.size_bytes {
            return Err(Trouble::Lasting(anyhow!(
                "it has {} bytes, and a manifest says {}",
                answer.length,
                item.size_bytes
            )));
        }
        file.write_all(&item_header(item)).map_err(disk)?;
        let mut hasher = Hasher::new(item.digest.algorithm());
        let (mut buffer, mut left) = (vec![0; PART], item.size_bytes);
        while left > 0 {
            let read = answer.read(&mut buffer).context("read from the server").map_err(passing)?;
            if read == 0 {
                return Err(passing(anyhow!("the server broke off {left} bytes before the end")));
            }
            hasher.update(&buffer[..read]);
            file.write_all(&buffer[..read]).map_err(disk)?;
            meter.add(read as u64);
            left -= read as u64;
        }
        let found = hasher.finish();
        if found != item.digest {
            return Err(passing(anyhow!("what came has the digest {found}")));
        }
        write_padding(file, item.size_bytes).map_err(disk)
    }
}
