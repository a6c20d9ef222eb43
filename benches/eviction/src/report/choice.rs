//! What the choice of the policy, and of its two numbers, rests on.

use super::{CONTENDERS, ONLINE, capacities, heading, line, words};
use crate::Named;
use crate::measure::{Contender, Ratios, table};
use crate::policy::Rules;

/// How far each policy stays behind the best that knows the past only, and the same for other numbers of
/// segmented LRU.
pub(super) fn write(traces: &[Named], tables: &[Vec<Vec<Ratios>>]) -> String {
    let best: Vec<Vec<f64>> = tables.iter().map(|rows| best_of(&rows[..ONLINE])).collect();
    let mut text = String::from(words::CHOICE);
    text += &heading("policy", &["mean", "worst"].map(str::to_owned));
    for (row, (policy, _)) in CONTENDERS.iter().enumerate().take(ONLINE) {
        let lines: Vec<&[Ratios]> = tables.iter().map(|rows| rows[row].as_slice()).collect();
        let behind = Behind::of(&lines, &best);
        text += &line(policy, [format!("{:.1}", behind.mean), format!("{:.1}", behind.worst)]);
    }
    text + words::RULES + &rules_table(traces, &best) + words::REASONS
}

fn rules_table(traces: &[Named], best: &[Vec<f64>]) -> String {
    let times = SECOND_USES.map(|(name, _)| format!("after {name}"));
    let mut text = heading("protected share", &times);
    let rules: Vec<_> = SHARES
        .iter()
        .flat_map(|share| SECOND_USES.map(|(_, after_ms)| rules(*share, after_ms)))
        .map(Contender::Segmented)
        .collect();
    let tables: Vec<_> =
        traces.iter().map(|named| table(&named.trace, &capacities(&named.trace), &rules)).collect();
    for (place, share) in SHARES.iter().enumerate() {
        let cells = (0..SECOND_USES.len()).map(|column| {
            let row = place * SECOND_USES.len() + column;
            let lines: Vec<&[Ratios]> = tables.iter().map(|rows| rows[row].as_slice()).collect();
            let behind = Behind::of(&lines, best);
            format!("{:.1} ({:.1})", behind.mean, behind.worst)
        });
        text += &line(&format!("{share} %"), cells);
    }
    text
}

fn rules(protected_percent: u64, second_use_after_ms: u64) -> Rules {
    Rules { protected_percent, second_use_after_ms, ..Rules::TIDEGATE }
}

/// The best byte hit ratio at each size.
fn best_of(rows: &[Vec<Ratios>]) -> Vec<f64> {
    let sizes = rows.first().map_or(0, Vec::len);
    (0..sizes).map(|size| rows.iter().map(|row| row[size].bytes).fold(0.0, f64::max)).collect()
}

/// Points of the byte hit ratio, in percent, behind the best.
struct Behind {
    mean: f64,
    worst: f64,
}

impl Behind {
    /// Over all traces and sizes.
    fn of(lines: &[&[Ratios]], best: &[Vec<f64>]) -> Self {
        let cells = lines.iter().zip(best).flat_map(|(line, best)| line.iter().zip(best));
        let points: Vec<_> = cells.map(|(ratios, best)| 100.0 * (best - ratios.bytes)).collect();
        #[expect(clippy::cast_precision_loss, reason = "some dozens")]
        let mean = points.iter().sum::<f64>() / points.len().max(1) as f64;
        Self { mean, worst: points.into_iter().fold(f64::NEG_INFINITY, f64::max) }
    }
}

/// The shares of the cache for protected items that are tried, in percent.
const SHARES: [u64; 4] = [20, 50, 65, 80];

/// The times before a second use counts that are tried, in milliseconds.
const SECOND_USES: [(&str, u64); 4] =
    [("1 min", 60_000), ("10 min", 600_000), ("1 h", 3_600_000), ("6 h", 21_600_000)];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Model, VARIANTS, make};

    /// Holds the choice on traces of a tenth of the length, so that a change of the policy that costs
    /// traffic does not go unseen.
    #[test]
    fn the_rules_of_the_evictor_stay_near_the_best_and_ahead_of_lru() {
        let (mut best, mut chosen, mut lru) = (Vec::new(), Vec::new(), Vec::new());
        for model in VARIANTS {
            let trace = make(&Model { pulls: model.pulls / 4, ..model }, 1);
            let contenders: Vec<_> = CONTENDERS[..ONLINE].iter().map(|(_, contender)| *contender).collect();
            let rows = table(&trace, &capacities(&trace)[..2], &contenders);
            best.push(best_of(&rows));
            chosen.push(rows[0].clone());
            lru.push(rows[2].clone());
        }
        let behind =
            |rows: &[Vec<Ratios>]| Behind::of(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>(), &best);
        let (chosen, lru) = (behind(&chosen), behind(&lru));
        assert!(chosen.mean < 1.0 && chosen.worst < 4.0, "mean {}, worst {}", chosen.mean, chosen.worst);
        assert!(chosen.mean < lru.mean, "{}, and {} for LRU", chosen.mean, lru.mean);
    }
}
