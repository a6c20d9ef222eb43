//! The bytes of a bundle as they come, read by its format.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::time::timeout;

use super::ImportError;
use crate::bundle::{BundleError, BundleParser, Event, Head};
use crate::registry::core::Core;

/// How long the next bytes may be waited for.
const SILENCE: Duration = Duration::from_mins(2);

/// A bundle that is coming.
pub(super) struct Reader<'a, S> {
    core: &'a Core,
    source: S,
    parser: BundleParser,
    input: Bytes,
}

impl<'a, S> Reader<'a, S>
where
    S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
{
    pub(super) fn new(core: &'a Core, source: S) -> Self {
        Self { core, source, parser: BundleParser::default(), input: Bytes::new() }
    }

    /// Reads up to where the content begins.
    pub(super) async fn read_head(&mut self) -> Result<Arc<Head>, ImportError> {
        loop {
            if !self.input.is_empty()
                && let Some(Event::Head(head)) = self.parse_apart().await?
            {
                return Ok(head);
            }
            if !self.receive().await? {
                self.parser.finish()?;
                // A bundle that has ended has had its head.
                return Err(ImportError::Internal);
            }
        }
    }

    /// Reads on behind the head; `None` at the end of the bundle.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, ImportError> {
        loop {
            if let Some(event) = self.parser.read(&mut self.input)? {
                return Ok(Some(event));
            }
            if !self.receive().await? {
                self.parser.finish()?;
                return Ok(None);
            }
        }
    }

    /// Parses where that may block: the description may be long.
    async fn parse_apart(&mut self) -> Result<Option<Event>, ImportError> {
        let (mut parser, mut input) = (std::mem::take(&mut self.parser), std::mem::take(&mut self.input));
        let work = move || {
            let event = parser.read(&mut input)?;
            Ok::<_, BundleError>((parser, input, event))
        };
        let parsed = self.core.tasks.spawn_blocking(work).await.map_err(|_panic| ImportError::Internal)??;
        (self.parser, self.input) = (parsed.0, parsed.1);
        Ok(parsed.2)
    }

    /// Waits for more; `false` where no more comes.
    async fn receive(&mut self) -> Result<bool, ImportError> {
        match timeout(SILENCE, self.source.next()).await {
            Err(_elapsed) => Err(ImportError::Silent { seconds: SILENCE.as_secs() }),
            Ok(None) => Ok(false),
            Ok(Some(bytes)) => {
                self.input = bytes.map_err(ImportError::Source)?;
                Ok(true)
            }
        }
    }
}
