//! What stands in front of the content of a bundle.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::index::{LAYOUT, index_json};
use super::{
    BundleError, Contents, END_BYTES, Item, PublicKey, Result, SigningKey, item_header, padding, tar,
};
use crate::oci::{Algorithm, Digest};

pub(super) const LAYOUT_PATH: &str = "oci-layout";
pub(super) const INDEX_PATH: &str = "index.json";
pub(super) const CONTENTS_PATH: &str = "tidegate/contents.json";
pub(super) const SIGNATURE_PATH: &str = "tidegate/contents.sig";

/// The description of a bundle, with its very bytes and their signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    contents: Contents,
    pub(super) json: Vec<u8>,
    pub(super) signature: Option<Vec<u8>>,
}

impl Head {
    /// A head for a bundle with these contents, signed where there is a key.
    ///
    /// Errors: the contents contradict themselves, or their description is larger than any that is read.
    pub fn new(mut contents: Contents, key: Option<&SigningKey>) -> Result<Self> {
        contents.signed_by = key.map(SigningKey::public);
        let json = contents.to_json()?;
        for (entry, size_bytes) in [(CONTENTS_PATH, json.len()), (INDEX_PATH, index_json(&contents).len())] {
            if size_bytes > Contents::MAX_BYTES {
                let size_bytes = size_bytes as u64;
                return Err(BundleError::TooLarge { entry, size_bytes, limit_bytes: Contents::MAX_BYTES });
            }
        }
        let signature = key.map(|key| key.sign(&json));
        Ok(Self { contents, json, signature })
    }

    /// Puts a head together that was read. Errors: it contradicts itself, the index is not the one that
    /// belongs to the description, or the signature does not fit.
    pub(super) fn from_parts(json: Vec<u8>, index: &[u8], signature: Option<&[u8]>) -> Result<Self> {
        let contents = Contents::parse(&json)?;
        if index_json(&contents) != index {
            return Err(BundleError::contradiction("index.json does not belong to it"));
        }
        let signature = match (contents.signed_by, signature) {
            (Some(key), Some(text)) => {
                let signature =
                    STANDARD.decode(text.trim_ascii()).map_err(|_unshown| BundleError::Signature)?;
                if !key.accepts(&json, &signature) {
                    return Err(BundleError::Signature);
                }
                Some(signature)
            }
            (Some(_), None) => return Err(BundleError::Signature),
            (None, _) => None,
        };
        Ok(Self { contents, json, signature })
    }

    /// What the bundle holds.
    pub const fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The bundle's identity: the digest of its description.
    pub fn id(&self) -> Digest {
        Digest::of(Algorithm::Sha256, &self.json)
    }

    /// Fails unless the bundle is signed with one of these keys; without any, everything will do. That the
    /// signature is valid was found out when the head was read.
    pub fn require_signature(&self, keys: &[PublicKey]) -> Result<()> {
        let wanted = || keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        match self.contents.signed_by {
            _ if keys.is_empty() => Ok(()),
            None => Err(BundleError::Unsigned { wanted: wanted() }),
            Some(key) if keys.contains(&key) => Ok(()),
            Some(found) => Err(BundleError::OtherKey { found, wanted: wanted() }),
        }
    }

    /// The bytes of the bundle up to its first item.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut entry = |path: &str, content: &[u8]| {
            bytes.extend(tar::header(path, content.len() as u64));
            bytes.extend(content);
            bytes.resize(bytes.len() + padding(content.len() as u64), 0);
        };
        entry(LAYOUT_PATH, LAYOUT);
        entry(INDEX_PATH, &index_json(&self.contents));
        entry(CONTENTS_PATH, &self.json);
        if let Some(signature) = &self.signature {
            entry(SIGNATURE_PATH, format!("{}\n", STANDARD.encode(signature)).as_bytes());
        }
        bytes
    }

    /// The size of the whole bundle in bytes.
    pub fn bundle_bytes(&self) -> u64 {
        let items = self.contents.content.iter().map(entry_bytes);
        self.to_bytes().len() as u64 + items.sum::<u64>() + END_BYTES as u64
    }
}

fn entry_bytes(item: &Item) -> u64 {
    item_header(item).len() as u64 + item.size_bytes + padding(item.size_bytes) as u64
}
