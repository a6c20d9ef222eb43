//! The few tar headers that a bundle needs (POSIX.1-2001, "pax Interchange Format"): regular files of no
//! owner and no time, so that equal content makes equal bytes.

/// Everything in a tar comes in blocks of this many bytes.
pub(super) const BLOCK: usize = 512;

/// The largest number that the size field of a header holds: eleven octal digits.
const MAX_SIZE: u64 = 0o777_7777_7777;

/// The longest path that the name field of a header holds.
const MAX_NAME: usize = 100;

const REGULAR: u8 = b'0';
const EXTENDED: u8 = b'x';

/// What a header says, as far as it matters for telling what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) size_bytes: u64,
    kind: u8,
}

impl Found {
    pub(super) const fn is_regular(&self) -> bool {
        self.kind == REGULAR
    }

    /// The entry in words.
    pub(super) fn describe(&self) -> String {
        let kind = match self.kind {
            REGULAR | 0 => "the file",
            b'1' | b'2' => "the link",
            b'5' => "the directory",
            EXTENDED | b'g' | b'L' | b'K' => "an extended header,",
            _ => "the special file",
        };
        format!("{kind} {:?}", self.name)
    }
}

/// The header of a regular file, with an extended one before it where path or size need it.
pub(super) fn header(path: &str, size_bytes: u64) -> Vec<u8> {
    let mut records = String::new();
    if path.len() > MAX_NAME {
        records.push_str(&record("path", path));
    }
    if size_bytes > MAX_SIZE {
        records.push_str(&record("size", &size_bytes.to_string()));
    }
    let mut bytes = Vec::with_capacity(BLOCK);
    if !records.is_empty() {
        bytes.extend(block("tidegate/pax", records.len() as u64, EXTENDED));
        bytes.extend(records.as_bytes());
        bytes.resize(bytes.len() + padding(records.len() as u64), 0);
    }
    let shown_bytes = if size_bytes > MAX_SIZE { 0 } else { size_bytes };
    bytes.extend(block(path, shown_bytes, REGULAR));
    bytes
}

/// How many zero bytes follow content of this size.
pub(super) const fn padding(size_bytes: u64) -> usize {
    // Less than a block: fits any integer.
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is below 512")]
    let rest = (size_bytes % BLOCK as u64) as usize;
    (BLOCK - rest) % BLOCK
}

/// Reads a header; `None` where its check sum is wrong, so that it is none.
pub(super) fn read(block: &[u8]) -> Option<Found> {
    let field = |range: std::ops::Range<usize>| {
        let field = block.get(range)?;
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        std::str::from_utf8(&field[..end]).ok()
    };
    let octal = |range| u64::from_str_radix(field(range)?.trim(), 8).ok();
    let stated = octal(148..156)?;
    (stated == u64::from(sum(block))).then_some(())?;
    let name = String::from_utf8_lossy(field(0..100)?.as_bytes()).into_owned();
    // A size in another notation is of a file that is none of ours.
    Some(Found { name, size_bytes: octal(124..136).unwrap_or(u64::MAX), kind: *block.get(156)? })
}

/// `length key=value\n`, where the length counts itself.
fn record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    format!("{length} {key}={value}\n")
}

fn block(path: &str, size_bytes: u64, kind: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put =
        |offset: usize, text: &str| block[offset..offset + text.len()].copy_from_slice(text.as_bytes());
    put(0, &path[..path.len().min(MAX_NAME)]);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size_bytes:011o}\0"));
    put(136, "00000000000\0");
    put(257, "ustar\x0000");
    block[156] = kind;
    let sum = format!("{:06o}\0 ", sum(&block));
    block[148..156].copy_from_slice(sum.as_bytes());
    block
}

/// The sum of all bytes, those of the sum's own field taken for spaces.
fn sum(block: &[u8]) -> u32 {
    let bytes = block.iter().enumerate();
    bytes.map(|(place, byte)| if (148..156).contains(&place) { 32 } else { u32::from(*byte) }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back() {
        let header = header("blobs/sha256/ab", 1234);
        assert_eq!(header.len(), BLOCK);
        let found = read(&header).unwrap();
        assert_eq!(
            (found.name.as_str(), found.size_bytes, found.is_regular()),
            ("blobs/sha256/ab", 1234, true)
        );
        let mut damaged = header;
        damaged[3] ^= 1;
        assert_eq!(read(&damaged), None);
        assert_eq!(read(&[0; BLOCK]), None);
    }

    #[test]
    fn long_paths_and_sizes_go_into_an_extended_header() {
        let path = format!("blobs/sha512/{}", "a".repeat(128));
        let long = header(&path, 9 << 30);
        assert_eq!(long.len(), 3 * BLOCK);
        let text = String::from_utf8_lossy(&long[BLOCK..2 * BLOCK]).into_owned();
        assert!(text.starts_with(&format!("151 path={path}\n19 size=9663676416\n")), "{text}");
        assert_eq!(record("k", "").len(), 5);
    }

    #[test]
    fn padding_fills_the_block() {
        assert_eq!([0, 1, 511, 512, 513].map(padding), [0, 511, 1, 0, 511]);
    }
}
