use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::runtime::Timestamp;

const PERIOD: Duration = Duration::from_mins(1);

/// A task that counts its units and fails as long as told to.
struct Counting {
    units: Arc<AtomicU32>,
    failing: Arc<AtomicU32>,
    tasks: Tasks,
    clock: Clock,
}

impl Counting {
    fn new() -> Self {
        let clock = Clock::manual(Timestamp::from_millis(1_000));
        Self { units: Arc::default(), failing: Arc::default(), tasks: Tasks::new(), clock }
    }

    fn worker(&self) -> Worker {
        let (units, failing) = (Arc::clone(&self.units), Arc::clone(&self.failing));
        Worker::new("counting", PERIOD, move || {
            let (units, failing) = (Arc::clone(&units), Arc::clone(&failing));
            async move {
                units.fetch_add(1, Ordering::SeqCst);
                match failing.load(Ordering::SeqCst) {
                    0 => Ok(()),
                    1 => Err(std::io::Error::other("disk on fire")),
                    _ => panic!("on purpose"),
                }
            }
        })
    }

    fn units(&self) -> u32 {
        self.units.load(Ordering::SeqCst)
    }

    fn fail(&self, how: u32) {
        self.failing.store(how, Ordering::SeqCst);
    }
}

/// Lets time pass; the clock of the tests only moves when every task waits.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn units_run_once_a_period_give_or_take_a_tenth() {
    let counting = Counting::new();
    let handle = counting.worker().spawn(&counting.tasks, counting.clock.clone());
    pass(Duration::from_millis(1)).await;
    assert_eq!(counting.units(), 1);
    pass(PERIOD.mul_f64(0.89)).await;
    assert_eq!(counting.units(), 1);
    pass(PERIOD.mul_f64(0.22)).await;
    assert_eq!(counting.units(), 2);
    pass(PERIOD * 100).await;
    assert!((92..=114).contains(&counting.units()), "{}", counting.units());
    assert_eq!(handle.status().runs, u64::from(counting.units()));
}

#[tokio::test(start_paused = true)]
async fn the_first_unit_can_wait_for_one_period() {
    let counting = Counting::new();
    counting.worker().first_run(FirstRun::AfterPeriod).spawn(&counting.tasks, counting.clock.clone());
    pass(PERIOD.mul_f64(0.89)).await;
    assert_eq!(counting.units(), 0);
    pass(PERIOD.mul_f64(0.22)).await;
    assert_eq!(counting.units(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_nudge_runs_a_unit_at_once_and_many_are_one() {
    let counting = Counting::new();
    let signal = Arc::new(Notify::new());
    let worker = counting.worker().nudged_by(Arc::clone(&signal));
    let handle = worker.spawn(&counting.tasks, counting.clock.clone());
    pass(Duration::from_millis(1)).await;
    for _ in 0..10 {
        handle.nudge();
        signal.notify_one();
    }
    pass(Duration::from_millis(1)).await;
    assert_eq!(counting.units(), 2);
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_ever_later_up_to_9_s_and_nudges_wait() {
    let counting = Counting::new();
    counting.fail(1);
    let handle = counting.worker().spawn(&counting.tasks, counting.clock.clone());
    pass(Duration::from_millis(1)).await;
    assert_eq!(counting.units(), 1);
    handle.nudge();
    pass(Duration::from_millis(900)).await;
    assert_eq!(counting.units(), 1, "a nudge does not cut the back-off short");
    pass(Duration::from_secs(2)).await;
    assert!(counting.units() >= 2);
    pass(Duration::from_hours(1)).await;
    let before = counting.units();
    pass(Duration::from_hours(1)).await;
    // The pauses are 1 s and up to 8 s more: about 720 in an hour.
    assert!((600..900).contains(&(counting.units() - before)), "{}", counting.units() - before);
    let status = handle.status();
    assert_eq!(status.failures_in_a_row, status.runs);
    assert_eq!(status.last_error.map(|(_, text)| text).as_deref(), Some("disk on fire"));

    counting.fail(0);
    pass(Duration::from_secs(9)).await;
    let status = handle.status();
    assert_eq!(status.failures_in_a_row, 0);
    assert!(status.last_error.is_some(), "the last error stays to be seen");
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_the_unit_and_not_the_worker() {
    let counting = Counting::new();
    counting.fail(2);
    let handle = counting.worker().spawn(&counting.tasks, counting.clock.clone());
    pass(Duration::from_millis(1)).await;
    assert!(handle.status().last_error.unwrap().1.contains("panicked"));
    counting.fail(0);
    pass(Duration::from_secs(3)).await;
    assert_eq!(handle.status().failures_in_a_row, 0);
    assert_eq!(counting.units(), 2);
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_the_unit_that_runs_and_begins_no_other() {
    let tasks = Tasks::new();
    let ended = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&ended);
    let worker = Worker::new("slow", PERIOD, move || {
        let ended = Arc::clone(&counted);
        async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            ended.fetch_add(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(())
        }
    });
    let handle = worker.spawn(&tasks, Clock::manual(Timestamp::default()));
    pass(Duration::from_secs(1)).await;
    assert_eq!(handle.status().state, WorkerState::Running);
    handle.nudge();
    assert!(tasks.shut_down(Duration::from_secs(10)).await);
    assert_eq!(ended.load(Ordering::SeqCst), 1);
    assert_eq!(handle.status().state, WorkerState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn the_status_says_when_the_task_ran_and_is_due() {
    let counting = Counting::new();
    let handle = counting.worker().spawn(&counting.tasks, counting.clock.clone());
    assert_eq!(handle.status().last_run_at, None);
    pass(Duration::from_millis(1)).await;
    let status = handle.status();
    assert_eq!((status.name, status.state), ("counting", WorkerState::Waiting));
    assert_eq!(status.last_run_at, Some(Timestamp::from_millis(1_000)));
    let wait = status.next_due_at.unwrap().since(Timestamp::from_millis(1_000));
    assert!((PERIOD.mul_f64(0.9)..=PERIOD.mul_f64(1.1)).contains(&wait), "{wait:?}");
}
