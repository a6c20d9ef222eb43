//! From settings to the values of `[[warm]]`.

use std::time::Duration;

use super::fault::{Faults, Origin, Problem};
use super::keys::Section;
use super::settings::Table;
use super::{WarmConfig, WarmSchedule};

const WARM: Section = Section::Warm;

/// How long after the last time images are looked after where nothing is said.
const EVERY: Duration = Duration::from_hours(24);

/// Builds one `[[warm]]`. `None` only where `faults` says why.
pub(super) fn assemble(index: usize, table: &Table, faults: &mut Faults) -> Option<WarmConfig> {
    let mut fault = |key: &str, reason: &str, remedy: &str| {
        let origin = match table.origin_of(WARM, key) {
            Origin::Default => table.origin.clone().unwrap_or(Origin::Default),
            origin => origin,
        };
        faults.push(&origin, format!("warm[{index}].{key}"), Problem::new(reason, remedy));
    };
    let images = parse_all(&table.many::<String>(WARM, "images"));
    if images.is_empty() && !table.is_faulty(WARM, "images") {
        fault("images", "there is no image", "add one, such as images = [\"docker.io/library/alpine:3\"]");
    }
    if table.is_given(WARM, "every") && table.is_given(WARM, "daily") {
        fault("daily", "every and daily are both given", "remove one of them");
    }
    let text = |name: &str| table.one::<String>(WARM, name);
    let schedule = match text("daily").and_then(|daily| daily.parse().ok()) {
        Some(daily) => WarmSchedule::Daily(daily),
        None => WarmSchedule::Every(table.one(WARM, "every").unwrap_or(EVERY)),
    };
    Some(WarmConfig {
        images,
        platforms: parse_all(&table.many::<String>(WARM, "platforms")),
        referrers: table.one(WARM, "referrers")?,
        schedule,
        window: text("window").and_then(|window| window.parse().ok()),
        bandwidth_bytes: table.one(WARM, "bandwidth"),
        concurrency: usize::try_from(table.one::<u64>(WARM, "concurrency")?).ok()?,
    })
}

/// What the checks of the keys let pass, parses.
fn parse_all<T: std::str::FromStr>(texts: &[String]) -> Vec<T> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}
