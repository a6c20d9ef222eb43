//! The numbers that a trace is made from.

/// What to make a trace from; all of it is said in `benches/RESULTS.md`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    /// The variant's name.
    pub(crate) name: &'static str,
    /// What sets it apart.
    pub(crate) note: &'static str,
    /// How long the trace is.
    pub(crate) days: f64,
    /// How many times somebody pulls: one node, a burst of nodes, or a machine that builds.
    pub(crate) pulls: usize,
    /// How many images others are built on.
    pub(crate) bases: usize,
    /// How many repositories there are.
    pub(crate) repositories: usize,
    /// The exponent of Zipf's law of the popularity of repositories, and of bases.
    pub(crate) zipf_exponent: f64,
    /// The share of pulls that are of an image built for this one run.
    pub(crate) built_share: f64,
    /// The share of pulls by a machine that has nothing yet.
    pub(crate) fresh_share: f64,
    /// The most nodes that run one image.
    pub(crate) most_nodes: f64,
    /// The mean number of nodes that pull together.
    pub(crate) burst_nodes: f64,
    /// The mean time between pulls of one burst in seconds.
    pub(crate) burst_seconds: f64,
    /// The shortest and the longest mean time between versions in days.
    pub(crate) days_between_versions: (f64, f64),
    /// The mean time between versions of a base in days.
    pub(crate) days_between_bases: f64,
    /// How often a job pulls many repositories, in days; 0 for never.
    pub(crate) scan_days: f64,
    /// How many those are, the most popular ones.
    pub(crate) scan_repositories: usize,
}

/// What is like the published traces, and what moves away from them.
pub(crate) const VARIANTS: [Model; 4] = [
    MIXED,
    Model {
        name: "ci",
        note: "twice the share of images that are built, pulled once and never again",
        built_share: 0.5,
        ..MIXED
    },
    Model {
        name: "scan",
        note: "a job pulls the 1,000 most popular images with all layers once a week, within three hours",
        scan_days: 7.0,
        ..MIXED
    },
    Model {
        name: "rollouts",
        note: "versions follow each other four times as fast, and four times as many nodes pull together",
        days_between_versions: (1.0, 30.0),
        burst_nodes: 6.4,
        burst_seconds: 60.0,
        ..MIXED
    },
];

const MIXED: Model = Model {
    name: "mixed",
    note: "as near to the published figures as the model comes",
    days: 75.0,
    pulls: 25_000,
    bases: 60,
    repositories: 6_000,
    zipf_exponent: 1.15,
    built_share: 0.25,
    fresh_share: 0.3,
    most_nodes: 200.0,
    burst_nodes: 1.6,
    burst_seconds: 300.0,
    days_between_versions: (4.0, 120.0),
    days_between_bases: 30.0,
    scan_days: 0.0,
    scan_repositories: 1_000,
};
