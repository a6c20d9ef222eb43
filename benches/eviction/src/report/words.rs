//! The prose of the section.

use std::fmt::Write as _;

use crate::Named;
use crate::options::Options;
use crate::trace::Statistics;

pub(super) fn introduction(traces: &[Named], options: &Options) -> String {
    let notes = if options.parts > 1 { " (a smoke test, not a measurement)" } else { "" };
    let seed = options.seed;
    let mut text = format!(
        "## Eviction

Written by `benches/eviction/run`{notes}, seed {seed}; the same seed gives the same numbers again.

Requests go to a cache that is empty at first and keeps whatever it fetched; what is larger than the cache passes
through. The sizes of the cache are in percent of all bytes that the trace asks for. A hit of an object spares a request
upstream; a hit of a byte spares its transfer, which is what an upstream's traffic costs, so that the byte hit ratio
decides.

The best with the future known is not computed: with items of different sizes that is NP-hard. It lies between what
Belady's rule reaches (evict what is used again last, keep nothing that is used later than that) and the upper bound
PFOO-L of Berger, Beckmann and Harchol-Balter, \"Practical Bounds on Optimal Caching with Variable Object Sizes\"
(SIGMETRICS 2018), computed for objects and for bytes apart.

Traces:

"
    );
    for named in traces {
        _ = writeln!(text, "- `{}`: {}", named.name, named.note);
    }
    text
}

pub(super) const SOURCES: &str = "
Where the published figures are from, and what is assumed. The two papers are cited by way of published reading notes, not
from their own text; the figures that could be were compared with excerpts of the traces:

- Anwar et al., \"Improving Docker Registry Design based on Production Workload Analysis\" (USENIX FAST 2018): 75 days,
  38 million requests of IBM's registries; 65 % of the layers are below 1 MB and 80 % below 10 MB; accesses are heavily
  skewed; weekends are a little quieter, and there is no pronounced daily spike.
- An excerpt of these traces, 725,000 GETs (`internal/trace/testdata/ibm_docker_trace_725k.csv.zst` of the repository
  `tstromberg/gocachemark`), 391,884 of them of blobs and manifests: the popularity, the share of blobs that are requested
  once, and the distances between the requests of a blob. Given with `--replay`, its order of requests is a trace of its
  own (`replay`); it has neither sizes nor times, so these are made up.
- All of these traces, summed up in `results/ibm_registry_trace_residency_v3_17.json` of the repository
  `pinkysworld/redulink-deduplex-quic`: 12.66 million GETs of whole blobs had 177 TB, so 14.0 MB each; 5.9 % had more than
  64 MiB, 0.56 % more than 256 MiB, 0.05 % more than 1 GiB. A sample of 554 blobs of them
  (`simulator/playback/dal09_blobs_sample.csv` of `sionreview/sionreplayer`) gives the sizes of small layers.
- Zhao et al., \"Large-Scale Analysis of the Docker Hub Dataset\" (IEEE CLUSTER 2019): half of the images have fewer than 8
  layers, nine in ten fewer than 18, none more than 120.
- Assumed: the size of a layer has nothing to do with its popularity; a base has 1 to 4 layers and is renewed every 30 days
  (mean), all at once; a version replaces a random number of the last layers; versions follow each other within 4 to 120
  days (mean, evenly by logarithm); 30 % of the pulls are by a machine that has nothing, 25 % of an image that was built for
  one run; 1 to 200 nodes run an image. These, and Zipf's exponent (1.15), were moved until the measures of `mixed` came
  near. Clients that only ask whether a tag has moved are left out: they move no bytes. They are what the traces have more
  manifests of.
";

pub(super) fn evictor(requests: usize, name: &str) -> String {
    format!(
        "
### The evictor itself

The numbers of Tidegate above are those of a model of its policy that is fast enough for all these tables. This table is
the first {requests} requests of `{name}` through the product's own code (`registry::Evictor`, `registry::UseLog`, the index
in SQLite, a clock that the trace sets), at sizes relative to these requests; the run fails if the model hits one request
more or less.

A run sums up the index once, by a covering index. Then it asks for 64 victims at a time and removes their rows in one
transaction; what protected overflows with is demoted likewise. A hit costs none of that: uses are noted in memory
and written in batches. All state of the policy is in the index: the simulator's tests stop and start a node twice within a
trace, and every decision stays the same. A crash loses the uses of 5 s.

"
    )
}

pub(super) const CHOICE: &str = "
### The choice

Points of the byte hit ratio behind the best of the policies that know the past only, over all traces and sizes.

";

pub(super) const RULES: &str = "
Segmented LRU has two numbers: the share of the cache for protected items, and how long after an item came its next use
counts as the second. The same points as above, mean (worst):

";

pub(super) const REASONS: &str = "
Segmented LRU with a share of 50 % and an hour is what Tidegate uses.

- Why not a larger share: layers of replaced versions sit in protected, which gives nothing up while it does not
  overflow, and new content has too little room in which to come into use again. A smaller one lets scans in.
- Why not a shorter time: a rollout over some nodes counts as coming back, and fills protected with what nobody wants
  afterwards. How long rollouts take is assumed here, and `replay` has no times of its own: what matters is that at 50 %
  the results hardly change between ten minutes and some hours.
- Why not S3-FIFO, which spares more where the cache has 1 % of the working set: on the whole the two are within a few
  tenths of a point, now one ahead and now the other (other seeds show it), and S3-FIFO needs the memory of what was
  evicted, also across restarts. Segmented LRU needs three columns of rows that are there anyway.
- Why not LFU-DA or GDSF: every use rewrites a rank that depends on what was evicted last. GDSF for objects is the best at
  that, and gives up the large layers that traffic consists of.
- Manifests go last. The tables show little of what that is worth: a manifest that is here spares the request that
  upstreams count as a pull.
";

type Cell = fn(&Statistics) -> String;

/// Measures of traces, the published value of each, and how it is taken from ours.
pub(super) const STATISTICS: [(&str, &str, Cell); 12] = [
    ("requests, thousands", "–", |s| (s.requests / 1000).to_string()),
    ("items, thousands", "–", |s| (s.items / 1000).to_string()),
    ("working set, GB", "–", |s| (s.working_set_bytes / 1_000_000_000).to_string()),
    ("requested, GB", "–", |s| (s.requested_bytes / 1_000_000_000).to_string()),
    ("requests of manifests for each of a blob", "0.51", |s| format!("{:.2}", s.manifests_per_blob)),
    ("requests that go to the top 1 % of the blobs, %", "44", |s| percent(s.top_percent)),
    ("blobs requested once, %", "68", |s| percent(s.once)),
    ("blobs requested once or twice, %", "83", |s| percent(s.twice)),
    ("requests to a blob's next, quartiles and 90 %", "48, 371, 4310, 14670", |s| {
        s.distances.map(|distance| distance.to_string()).join(", ")
    }),
    ("mean of a blob answer, MB", "14.0", |s| format!("{:.1}", s.mean_bytes / 1e6)),
    ("layers below 1 MB, below 10 MB, %", "65, 80", |s| s.small.map(percent).join(", ")),
    ("blob answers above 64 MiB, above 256 MiB, %", "5.9, 0.56", |s| {
        s.large.map(|share| format!("{:.2}", 100.0 * share)).join(", ")
    }),
];

fn percent(share: f64) -> String {
    format!("{:.0}", 100.0 * share)
}
