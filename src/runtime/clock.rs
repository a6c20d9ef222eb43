//! Wall-clock time as a value that tests can own.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment: milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Makes a moment from milliseconds since the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero where `earlier` is later (a clock was set back).
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The moment `duration` later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// The moment as RFC 3339 has it, in UTC and whole seconds: `2026-11-24T11:05:40Z`.
    pub fn to_rfc3339(self) -> String {
        format!("{}Z", &self.to_rfc3339_millis().as_str()[..SECONDS_LENGTH])
    }

    /// The same with milliseconds, `2026-11-24T11:05:40.123Z`, and without an allocation: every line of the log
    /// begins so.
    pub fn to_rfc3339_millis(self) -> Rfc3339 {
        let (days, second) = (self.0 / 86_400_000, self.0 / 1000 % 86_400);
        let (year, month, day) = date_of(days);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |end: usize, mut value: u64, digits: usize| {
            for place in text[end - digits..end].iter_mut().rev() {
                *place = b'0' + u8::try_from(value % 10).unwrap_or_default();
                value /= 10;
            }
        };
        put(4, year, 4);
        put(7, month, 2);
        put(10, day, 2);
        put(13, second / 3600, 2);
        put(16, second / 60 % 60, 2);
        put(19, second % 60, 2);
        put(23, self.0 % 1000, 3);
        Rfc3339(text)
    }

    /// The same moment for APIs of the standard library.
    pub fn to_system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0)
    }
}

/// Why a text is no moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a moment as 2026-11-24T11:05:40Z, or in milliseconds since 1970")]
pub struct TimestampError;

impl FromStr for Timestamp {
    type Err = TimestampError;

    /// Reads what [`Timestamp::to_rfc3339`] writes, with any fraction of a second, or milliseconds since the epoch.
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        if let Ok(millis) = text.parse() {
            return Ok(Self(millis));
        }
        let text = text.strip_suffix('Z').ok_or(TimestampError)?;
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let part = |range: std::ops::Range<usize>| {
            let part = seconds.get(range).filter(|part| is_number(part));
            part.and_then(|part| part.parse::<u64>().ok()).ok_or(TimestampError)
        };
        let (year, month, day) = (part(0..4)?, part(5..7)?, part(8..10)?);
        let (hour, minute, second) = (part(11..13)?, part(14..16)?, part(17..19)?);
        let is_moment = (1970..=9999).contains(&year) && hour < 24 && minute < 60 && second < 60;
        if !is_moment || !is_number(fraction) || fraction.len() > 9 {
            return Err(TimestampError);
        }
        let millis: u64 = format!("{fraction:0<3}")[..3].parse().map_err(|_fault| TimestampError)?;
        let days = days_before(year, month, day).ok_or(TimestampError)?;
        let moment = Self((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis);
        // Everything that was not looked at is as it has to be, if it is written back the same.
        if moment.to_rfc3339()[..SECONDS_LENGTH] == *seconds { Ok(moment) } else { Err(TimestampError) }
    }
}

/// How many days a date is after the first of January 1970, by the same count as [`date_of`].
fn days_before(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month.checked_sub(3)?) };
    let (era, of_era) = (year / 400, year % 400);
    let day = (153 * month + 2) / 5 + day.checked_sub(1)?;
    (era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day).checked_sub(719_468)
}

/// A moment as text.
#[derive(Clone, Copy, Debug)]
pub struct Rfc3339([u8; 24]);

/// How long the text is without milliseconds and zone.
const SECONDS_LENGTH: usize = 19;

impl Rfc3339 {
    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The date that is so many days after the first of January 1970: eras of 400 years that begin in March, so that
/// the leap day is the last of its year.
const fn date_of(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + if month <= 2 { 1 } else { 0 }, month, day)
}

impl fmt::Display for Timestamp {
    /// Writes the moment as an HTTP date (RFC 9110, section 5.6.7).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        httpdate::fmt_http_date(self.to_system_time()).fmt(f)
    }
}

/// Where the time comes from: the system, or a test's hand.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The system's clock.
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start` until [`Clock::advance`] moves it.
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(AtomicU64::new(start.0))))
    }

    /// The present moment.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => {
                #[expect(clippy::disallowed_methods, reason = "this is the clock others are to take")]
                let now = SystemTime::now();
                let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
            }
            Source::Manual(millis) => Timestamp(millis.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock forward; a system clock stays as it is.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(millis) = &self.0 {
            millis.fetch_add(u64::try_from(by.as_millis()).unwrap_or(0), Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_after_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            let moment = Timestamp::from_millis(seconds * 1000 + 999);
            assert_eq!(moment.to_rfc3339(), text);
            assert_eq!(moment.to_rfc3339_millis().as_str(), text.replace('Z', ".999Z"));
            assert_eq!(text.replace('Z', ".999Z").parse(), Ok(moment));
            assert_eq!(text.parse(), Ok(Timestamp::from_millis(seconds * 1000)));
        }
        assert_eq!("1735689599001".parse(), Ok(Timestamp::from_millis(1_735_689_599_001)));
        for bad in [
            "",
            "Z",
            "now",
            "2024-02-30T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00.Z",
            "2024-01-01 00:00:00Z",
            "2024-1-1T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2024-00-00T00:00:00Z",
            "2024-01-01T00:00:00+01:00",
            "-1",
            "2024-01-01T00:00:0\u{e9}Z",
        ] {
            assert_eq!(bad.parse::<Timestamp>(), Err(TimestampError), "{bad}");
        }
    }
}
