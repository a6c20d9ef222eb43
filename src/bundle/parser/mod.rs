//! Reads a bundle as its bytes come, in bounded memory, and believes nothing.

use std::sync::Arc;

use bytes::{Buf as _, Bytes};

use crate::bundle::head::{CONTENTS_PATH, INDEX_PATH, LAYOUT_PATH, SIGNATURE_PATH};
use crate::bundle::index::LAYOUT;
use crate::bundle::tar::{self, BLOCK};
use crate::bundle::{BundleError, Contents, END_BYTES, Head, Item, Result, item_header, padding};

/// The longest signature entry.
const MAX_SIGNATURE_BYTES: usize = 1024;

/// Takes a bundle in, part by part. Whether content has its digest is for the caller to find out.
#[derive(Debug, Default)]
pub struct BundleParser {
    state: State,
    /// What was collected of a header or a small entry.
    collected: Vec<u8>,
    index: Vec<u8>,
    json: Vec<u8>,
    head: Option<Arc<Head>>,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The description is there, and does not contradict itself; its signature, where it has one, is valid.
    Head(Arc<Head>),
    /// The item at this place of the description begins.
    Begin(usize),
    /// The next bytes of its content.
    Data(Bytes),
    /// All of its content was there.
    End(usize),
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// At the header of an entry of the head.
    Header(Part),
    /// Within such an entry of so many bytes.
    Body(Part, usize),
    /// At the header of an item.
    Item(usize),
    /// In its content, so many bytes before the end.
    Content(usize, u64),
    /// In the zeros behind it.
    Padding(usize),
    /// In the zeros at the end.
    End,
    /// Behind them.
    Over,
}

/// The entries of the head, in order.
#[derive(Clone, Copy, Debug)]
enum Part {
    Layout,
    Index,
    Contents,
    Signature,
}

impl Default for State {
    fn default() -> Self {
        Self::Header(Part::Layout)
    }
}

impl Part {
    const fn path(self) -> &'static str {
        match self {
            Self::Layout => LAYOUT_PATH,
            Self::Index => INDEX_PATH,
            Self::Contents => CONTENTS_PATH,
            Self::Signature => SIGNATURE_PATH,
        }
    }

    const fn limit_bytes(self) -> usize {
        match self {
            Self::Layout => LAYOUT.len(),
            Self::Index | Self::Contents => Contents::MAX_BYTES,
            Self::Signature => MAX_SIGNATURE_BYTES,
        }
    }
}

impl BundleParser {
    /// Reads on. `None` means that all of `input` was taken and more is needed.
    ///
    /// After an error, nothing that follows can be read.
    pub fn read(&mut self, input: &mut Bytes) -> Result<Option<Event>> {
        loop {
            let event = match self.state {
                State::Header(part) => self.read_header(part, input)?,
                State::Body(part, size) => self.read_body(part, size, input)?,
                State::Item(place) => self.read_item(place, input)?,
                State::Content(place, left) => Step::Event(self.read_content(place, left, input)),
                State::Padding(place) => self.read_padding(place, input)?,
                State::End => self.read_end(input)?,
                State::Over if input.is_empty() => Step::Wait,
                State::Over => return Err(BundleError::Trailing),
            };
            match event {
                Step::Event(Some(event)) => return Ok(Some(event)),
                Step::Event(None) | Step::Wait => return Ok(None),
                Step::On => {}
            }
        }
    }

    /// Says that no more bytes come. Fails where the bundle has not ended.
    pub fn finish(&self) -> Result<()> {
        let place = match self.state {
            State::Over => return Ok(()),
            State::Header(part) | State::Body(part, _) => part.path().to_owned(),
            State::Item(place) | State::Content(place, _) | State::Padding(place) => self.item_path(place),
            State::End => "its end".to_owned(),
        };
        Err(BundleError::Truncated(place))
    }

    fn read_header(&mut self, part: Part, input: &mut Bytes) -> Result<Step> {
        if !self.collect(input, BLOCK) {
            return Ok(Step::Wait);
        }
        let header = std::mem::take(&mut self.collected);
        let found = tar::read(&header);
        let size_bytes = found.as_ref().map_or(0, |found| found.size_bytes);
        let is_it = found.is_some_and(|found| found.name == part.path() && found.is_regular());
        if is_it && size_bytes > part.limit_bytes() as u64 {
            return Err(BundleError::TooLarge {
                entry: part.path(),
                size_bytes,
                limit_bytes: part.limit_bytes(),
            });
        }
        // Also every field that was not looked at: what is not as this program writes it was not written by it.
        if tar::header(part.path(), size_bytes) != header {
            return Err(not_as_expected(part.path(), &header));
        }
        // No larger than the limit.
        self.state = State::Body(part, usize::try_from(size_bytes).unwrap_or(0));
        Ok(Step::On)
    }

    fn read_body(&mut self, part: Part, size: usize, input: &mut Bytes) -> Result<Step> {
        if !self.collect(input, size + padding(size as u64)) {
            return Ok(Step::Wait);
        }
        let mut body = std::mem::take(&mut self.collected);
        if body[size..].iter().any(|byte| *byte != 0) {
            return Err(BundleError::Damaged(format!("the end of {}", part.path())));
        }
        body.truncate(size);
        match part {
            Part::Layout if body != LAYOUT => {
                return Err(BundleError::Damaged(LAYOUT_PATH.to_owned()));
            }
            Part::Layout => self.state = State::Header(Part::Index),
            Part::Index => {
                self.index = body;
                self.state = State::Header(Part::Contents);
            }
            Part::Contents => {
                // Read twice where it is signed: that it is, it says itself.
                let is_signed = Contents::parse(&body)?.signed_by.is_some();
                self.json = body;
                if is_signed {
                    self.state = State::Header(Part::Signature);
                } else {
                    return self.begin_items(None);
                }
            }
            Part::Signature => return self.begin_items(Some(&body)),
        }
        Ok(Step::On)
    }

    fn begin_items(&mut self, signature: Option<&[u8]>) -> Result<Step> {
        let index = std::mem::take(&mut self.index);
        let head = Arc::new(Head::from_parts(std::mem::take(&mut self.json), &index, signature)?);
        self.head = Some(Arc::clone(&head));
        self.state = self.item_or_end(0);
        Ok(Step::Event(Some(Event::Head(head))))
    }

    fn read_item(&mut self, place: usize, input: &mut Bytes) -> Result<Step> {
        let Some(item) = self.item(place) else { return Ok(Step::Wait) };
        let (expected, size_bytes) = (item_header(item), item.size_bytes);
        if !self.collect(input, expected.len().min(BLOCK)) {
            return Ok(Step::Wait);
        }
        // The first block is enough to tell what else there is.
        if self.collected[..BLOCK] != expected[..BLOCK] {
            return Err(not_as_expected(&self.item_path(place), &self.collected));
        }
        if !self.collect(input, expected.len()) {
            return Ok(Step::Wait);
        }
        if std::mem::take(&mut self.collected) != expected {
            return Err(BundleError::Damaged(self.item_path(place)));
        }
        self.state = State::Content(place, size_bytes);
        Ok(Step::Event(Some(Event::Begin(place))))
    }

    fn read_content(&mut self, place: usize, left: u64, input: &mut Bytes) -> Option<Event> {
        if left == 0 {
            self.state = State::Padding(place);
            return Some(Event::End(place));
        }
        if input.is_empty() {
            return None;
        }
        let length = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.state = State::Content(place, left - length as u64);
        Some(Event::Data(input.split_to(length)))
    }

    fn read_padding(&mut self, place: usize, input: &mut Bytes) -> Result<Step> {
        let size_bytes = self.item(place).map_or(0, |item| item.size_bytes);
        if !self.collect(input, padding(size_bytes)) {
            return Ok(Step::Wait);
        }
        if std::mem::take(&mut self.collected).iter().any(|byte| *byte != 0) {
            return Err(BundleError::Damaged(format!("the end of {}", self.item_path(place))));
        }
        self.state = self.item_or_end(place + 1);
        Ok(Step::On)
    }

    fn read_end(&mut self, input: &mut Bytes) -> Result<Step> {
        if !self.collect(input, END_BYTES) {
            return Ok(Step::Wait);
        }
        let end = std::mem::take(&mut self.collected);
        if end.iter().any(|byte| *byte != 0) {
            return Err(not_as_expected("the end", &end[..BLOCK]));
        }
        self.state = State::Over;
        Ok(Step::On)
    }

    fn item(&self, place: usize) -> Option<&Item> {
        self.head.as_ref()?.contents().content.get(place)
    }

    fn item_path(&self, place: usize) -> String {
        self.item(place).map(Item::path).unwrap_or_default()
    }

    fn item_or_end(&self, place: usize) -> State {
        if self.item(place).is_some() { State::Item(place) } else { State::End }
    }

    /// Collects bytes up to a length; says whether they are there.
    fn collect(&mut self, input: &mut Bytes, length: usize) -> bool {
        let taken = length.saturating_sub(self.collected.len()).min(input.len());
        self.collected.extend_from_slice(&input[..taken]);
        input.advance(taken);
        self.collected.len() >= length
    }
}

/// What a step of reading came to.
enum Step {
    Event(Option<Event>),
    On,
    Wait,
}

fn not_as_expected(expected: &str, header: &[u8]) -> BundleError {
    let found = match tar::read(header) {
        Some(found) => found.describe(),
        None if header.iter().all(|byte| *byte == 0) => "the end of the archive".to_owned(),
        None => "no header of a tar archive".to_owned(),
    };
    BundleError::NotABundle { expected: expected.to_owned(), found }
}

#[cfg(test)]
mod tests;
