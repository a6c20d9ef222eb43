//! What a client says it can read, reduced to what changes an answer.

use super::MediaType;

/// The class of a request's `Accept` lines.
///
/// Registries turn an index into one platform's manifest for clients that cannot read indexes, so
/// a tag may have one answer for each class; all clients of today are of class [`Self::Any`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AcceptClass {
    /// Indexes are welcome (or nothing was said): upstream is asked for every type.
    Any,
    /// Indexes are not among the types named; holds the manifest types that are, sorted.
    Only(Vec<MediaType>),
}

impl AcceptClass {
    /// Merges all `Accept` lines of a request (RFC 9110, section 12.5.1). Order and weights do not
    /// count, except that `q=0` excludes; an absent or empty line means anything.
    pub fn from_lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut types = Vec::new();
        for item in lines.into_iter().flat_map(|line| line.split(',')) {
            let (range, parameters) = item.split_once(';').unwrap_or((item, ""));
            let refused = parameters.split(';').any(|parameter| {
                let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                name.trim().eq_ignore_ascii_case("q") && value.trim().parse::<f32>().is_ok_and(|q| q <= 0.0)
            });
            let range = range.trim();
            if refused || range.is_empty() {
                continue;
            }
            if matches!(range, "*/*" | "application/*" | "*") {
                return Self::Any;
            }
            types.extend(MediaType::parse(range));
        }
        types.retain(MediaType::is_manifest);
        if types.is_empty() || types.iter().any(MediaType::is_index) {
            return Self::Any;
        }
        types.sort();
        types.dedup();
        Self::Only(types)
    }

    /// Whether a client of this class can read `media_type`.
    pub fn admits(&self, media_type: &MediaType) -> bool {
        match self {
            Self::Any => true,
            Self::Only(types) => types.contains(media_type),
        }
    }

    /// The value of the `Accept` header for upstream.
    pub fn to_header_value(&self) -> String {
        let types: &[MediaType] = match self {
            Self::Any => &MediaType::MANIFESTS,
            Self::Only(types) => types,
        };
        let mut value = types.iter().map(MediaType::as_str).collect::<Vec<_>>().join(", ");
        if *self == Self::Any {
            value.push_str(", */*");
        }
        value
    }

    /// A stable key for stores: empty for [`Self::Any`].
    pub fn key(&self) -> String {
        match self {
            Self::Any => String::new(),
            Self::Only(types) => types.iter().map(MediaType::as_str).collect::<Vec<_>>().join(","),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_read_indexes_are_of_one_class() {
        let oci = "application/vnd.oci.image.manifest.v1+json";
        let index = "application/vnd.oci.image.index.v1+json";
        for lines in [vec![], vec![""], vec!["*/*"], vec![oci, index], vec!["text/html, */*;q=0.1"]] {
            assert_eq!(AcceptClass::from_lines(lines), AcceptClass::Any);
        }
        let single = AcceptClass::Only(vec![MediaType::OCI_MANIFEST]);
        assert_eq!(AcceptClass::from_lines([oci, "application/json"]), single);
        assert_eq!(AcceptClass::from_lines([oci, "application/vnd.oci.image.index.v1+json;q=0"]), single);
    }
}
