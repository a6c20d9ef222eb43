//! Tries again where that may help: the server's upstream throttles, or is away for a moment.

use std::time::Duration;

use anyhow::anyhow;

use crate::cli::admin_client::OpenAnswer;

/// How often anything is tried at most.
const MOST_TRIES: u32 = 6;

/// The pause after the first try; each next is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Why something did not work.
pub(super) enum Trouble {
    /// Trying again may help.
    Passing(anyhow::Error),
    /// It will not.
    Lasting(anyhow::Error),
}

impl Trouble {
    /// What an answer that is an error means.
    pub(super) fn of(answer: OpenAnswer) -> Self {
        let may_help = matches!(answer.status, 429 | 500..);
        let error = anyhow!(answer.into_reason());
        if may_help { Self::Passing(error) } else { Self::Lasting(error) }
    }
}

/// Tries until it works, or trying again helps no more. `tell` is given what went wrong before each next try.
pub(super) fn persist<T, C>(
    context: &mut C,
    mut attempt: impl FnMut(&mut C) -> Result<T, Trouble>,
    mut tell: impl FnMut(&mut C, &anyhow::Error) -> anyhow::Result<()>,
) -> anyhow::Result<T> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..MOST_TRIES {
        match attempt(context) {
            Ok(done) => return Ok(done),
            Err(Trouble::Lasting(error)) => return Err(error),
            Err(Trouble::Passing(error)) => tell(context, &error)?,
        }
        std::thread::sleep(pause);
        pause *= 2;
    }
    attempt(context).map_err(|(Trouble::Passing(error) | Trouble::Lasting(error))| error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again_and_nothing_else() {
        for (passing, tries, works) in [(0, 1, true), (1, 2, true), (9, 6, false)] {
            let mut count = 0;
            let attempt = |count: &mut u32| {
                *count += 1;
                if *count <= passing { Err(Trouble::Passing(anyhow!("later"))) } else { Ok(()) }
            };
            assert_eq!(persist(&mut count, attempt, |_, _| Ok(())).is_ok(), works);
            assert_eq!(count, tries);
            if passing == 1 {
                let mut count = 0;
                let attempt = |count: &mut u32| {
                    *count += 1;
                    Err::<(), _>(Trouble::Lasting(anyhow!("never")))
                };
                assert!(persist(&mut count, attempt, |_, _| Ok(())).is_err());
                assert_eq!(count, 1);
            }
        }
    }
}
