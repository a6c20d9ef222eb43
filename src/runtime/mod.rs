//! What every layer needs of its process: time, tracked tasks, threads for connections, back-off, one
//! flight for many.
//!
//! No I/O and no knowledge of the product.

mod clock;
mod cores;
mod daytime;
mod retry;
mod single_flight;
mod tasks;

pub use clock::{Clock, Rfc3339, Timestamp, TimestampError};
pub use cores::Cores;
pub use daytime::{DayTime, DayTimeError, DayWindow};
pub use retry::Backoff;
pub use single_flight::{Joined, SingleFlight};
pub use tasks::Tasks;
