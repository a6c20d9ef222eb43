//! Times of the day, at a fixed distance from UTC.
//!
//! No names of zones and no summer time: `22:00 +01:00` is 21:00 UTC all the year.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Timestamp;

const DAY_MS: u64 = 24 * 3600 * 1000;
const MINUTE_MS: u64 = 60 * 1000;

/// The minutes of a day.
const DAY_MINUTES: i32 = 24 * 60;

/// A time that comes once a day: `03:00`, which is UTC, or `03:00 +02:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DayTime {
    /// Minutes since midnight, as written.
    minutes: u16,
    offset: Offset,
}

/// A part of each day: `22:00-06:00`, which is UTC, or `22:00-06:00 +02:00`. The second time is the first that
/// does not belong to it; it may lie on the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DayWindow {
    from: u16,
    to: u16,
    offset: Offset,
}

/// Why a text is no time or part of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DayTimeError {
    /// It is no time.
    #[error("a time is written as 03:00, or as 03:00 +02:00 to say how far it is from UTC")]
    Time,
    /// It is no part of a day.
    #[error(
        "a window is written as 22:00-06:00, or as 22:00-06:00 +02:00 to say how far it is from UTC, and is not empty"
    )]
    Window,
}

/// How far a time is from UTC, in minutes; positive in the east.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Offset(i16);

impl DayTime {
    /// The last moment up to `now` at which it was this time.
    pub fn last_until(self, now: Timestamp) -> Timestamp {
        let at_ms = utc_ms(self.minutes, self.offset);
        let now_ms = now.as_millis();
        Timestamp::from_millis(now_ms.saturating_sub((now_ms % DAY_MS + DAY_MS - at_ms) % DAY_MS))
    }
}

impl DayWindow {
    /// How long it is until it opens; zero while it is open.
    pub fn wait(self, now: Timestamp) -> Duration {
        let (from_ms, to_ms) = (utc_ms(self.from, self.offset), utc_ms(self.to, self.offset));
        let length_ms = (to_ms + DAY_MS - from_ms) % DAY_MS;
        let since_ms = (now.as_millis() % DAY_MS + DAY_MS - from_ms) % DAY_MS;
        Duration::from_millis(if since_ms < length_ms { 0 } else { DAY_MS - since_ms })
    }
}

/// The time of the day in UTC, in milliseconds since midnight.
fn utc_ms(minutes: u16, offset: Offset) -> u64 {
    let minutes = (i32::from(minutes) - i32::from(offset.0)).rem_euclid(DAY_MINUTES);
    u64::from(minutes.unsigned_abs()) * MINUTE_MS
}

fn read_minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let read = |text: &str, end: u16| {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|number| is_number && *number < end)
    };
    Some(read(hours, 24)? * 60 + read(minutes, 60)?)
}

/// Takes `+02:00`, `-05:30` or `UTC` off the end.
fn split_offset(text: &str) -> Option<(&str, Offset)> {
    let Some((text, offset)) = text.split_once(' ') else { return Some((text, Offset::default())) };
    if offset == "UTC" {
        return Some((text, Offset::default()));
    }
    let (sign, distance) = match (offset.strip_prefix('+'), offset.strip_prefix('-')) {
        (Some(distance), _) => (1, distance),
        (_, Some(distance)) => (-1, distance),
        _ => return None,
    };
    // No place on Earth is farther away.
    let minutes = read_minutes(distance).filter(|minutes| *minutes <= 14 * 60)?;
    Some((text, Offset(sign * i16::try_from(minutes).ok()?)))
}

impl FromStr for DayTime {
    type Err = DayTimeError;

    fn from_str(text: &str) -> Result<Self, DayTimeError> {
        let (time, offset) = split_offset(text).ok_or(DayTimeError::Time)?;
        Ok(Self { minutes: read_minutes(time).ok_or(DayTimeError::Time)?, offset })
    }
}

impl FromStr for DayWindow {
    type Err = DayTimeError;

    fn from_str(text: &str) -> Result<Self, DayTimeError> {
        let read = || {
            let (times, offset) = split_offset(text)?;
            let (from, to) = times.split_once('-')?;
            Some(Self { from: read_minutes(from)?, to: read_minutes(to)?, offset })
        };
        read().filter(|window| window.from != window.to).ok_or(DayTimeError::Window)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return Ok(());
        }
        let (sign, minutes) = (if self.0 < 0 { '-' } else { '+' }, self.0.unsigned_abs());
        write!(f, " {sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

impl fmt::Display for DayTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}{}", self.minutes / 60, self.minutes % 60, self.offset)
    }
}

impl fmt::Display for DayWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, offset } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}{offset}", from / 60, from % 60, to / 60, to % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A moment of some day, by its time in UTC.
    fn at(time: &str) -> Timestamp {
        Timestamp::from_millis(20_000 * DAY_MS + u64::from(read_minutes(time).unwrap()) * MINUTE_MS)
    }

    #[test]
    fn a_window_may_reach_over_midnight_and_lie_elsewhere() {
        for (window, now, wait_minutes) in [
            ("22:00-06:00", "22:00", 0),
            ("22:00-06:00", "05:59", 0),
            ("22:00-06:00", "06:00", 16 * 60),
            ("22:00-06:00", "21:59", 1),
            ("22:00-06:00 UTC", "23:00", 0),
            ("22:00-06:00 +02:00", "20:00", 0),
            ("22:00-06:00 +02:00", "04:00", 16 * 60),
            ("01:00-02:00 +02:00", "23:30", 0),
            ("20:00-21:00 -05:30", "01:30", 0),
            ("09:00-17:00", "18:00", 15 * 60),
        ] {
            let wait = window.parse::<DayWindow>().unwrap().wait(at(now));
            assert_eq!(wait.as_secs(), wait_minutes * 60, "{window} at {now}");
        }
    }

    #[test]
    fn a_time_was_last_today_or_yesterday() {
        let last = |time: &str, now: &str| time.parse::<DayTime>().unwrap().last_until(at(now));
        assert_eq!(last("03:00", "03:00"), at("03:00"));
        assert_eq!(last("03:00", "12:00"), at("03:00"));
        assert_eq!(last("03:00 +02:00", "02:00"), at("01:00"));
        assert_eq!(last("03:00", "02:59").as_millis(), at("03:00").as_millis() - DAY_MS);
    }

    #[test]
    fn what_is_no_time_is_refused_and_what_is_prints_as_written() {
        for good in ["03:00", "23:59 +05:30", "00:00 -14:00"] {
            assert_eq!(good.parse::<DayTime>().unwrap().to_string(), good);
        }
        for bad in ["", "3:00", "24:00", "03:60", "+3:00", "03:00 CET", "03:00 +15:00", "03:00  +02:00"] {
            assert_eq!(bad.parse::<DayTime>(), Err(DayTimeError::Time), "{bad}");
        }
        assert_eq!("22:00-06:00 +02:00".parse::<DayWindow>().unwrap().to_string(), "22:00-06:00 +02:00");
        for bad in ["22:00", "22:00-22:00", "22:00-6:00", "22:00 - 06:00", "22:00-06:00 Berlin"] {
            assert_eq!(bad.parse::<DayWindow>(), Err(DayTimeError::Window), "{bad}");
        }
    }
}
