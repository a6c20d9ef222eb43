//! The built-in list of upstreams, as data.

/// A well-known public registry.
pub(super) struct BuiltIn {
    pub(super) name: &'static str,
    pub(super) endpoint: &'static str,
    pub(super) aliases: &'static str,
    pub(super) default: bool,
    pub(super) library_prefix: bool,
}

const fn plain(name: &'static str, endpoint: &'static str) -> BuiltIn {
    BuiltIn { name, endpoint, aliases: "", default: false, library_prefix: false }
}

/// The list; all of them let anybody pull. Their token services and content networks are of the
/// same site or public, so none needs `trusted_hosts`.
pub(super) static BUILT_IN: &[BuiltIn] = &[
    BuiltIn {
        name: "docker.io",
        endpoint: "https://registry-1.docker.io",
        // The names that clients and old configurations have for it.
        aliases: "index.docker.io,registry-1.docker.io,registry.hub.docker.com",
        default: true,
        library_prefix: true,
    },
    plain("ghcr.io", "https://ghcr.io"),
    plain("quay.io", "https://quay.io"),
    plain("registry.k8s.io", "https://registry.k8s.io"),
    plain("gcr.io", "https://gcr.io"),
    plain("mcr.microsoft.com", "https://mcr.microsoft.com"),
    plain("public.ecr.aws", "https://public.ecr.aws"),
];

/// The built-in upstream of that name.
pub(super) fn find(name: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|upstream| upstream.name == name)
}
