//! Figures of the process itself, read from `/proc/self` whenever metrics are asked for.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge};
use rustix::process::{Resource, getrlimit};

use crate::runtime::Timestamp;

/// `USER_HZ`: part of Linux's interface to programs, the same whatever the kernel's own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Memory, open files, processor time and start of this process.
pub(super) struct ProcessCollector {
    resident_memory: Gauge,
    open_files: Gauge,
    most_open_files: Gauge,
    processor_time: Counter,
    start_time: Gauge,
}

impl ProcessCollector {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of this millennium fit 53 bits")]
    pub(super) fn new(started: Timestamp) -> Result<Self, prometheus::Error> {
        let start_time = Gauge::new("process_start_time_seconds", "When the process began, in Unix time.")?;
        start_time.set(started.as_millis() as f64 / 1000.0);
        Ok(Self {
            resident_memory: Gauge::new("process_resident_memory_bytes", "Memory that is resident.")?,
            open_files: Gauge::new("process_open_fds", "Open file descriptors.")?,
            most_open_files: Gauge::new("process_max_fds", "The most file descriptors that may be open.")?,
            processor_time: Counter::new("process_cpu_seconds_total", "Processor time, user and system.")?,
            start_time,
        })
    }

    /// Reads what there is to read; what cannot be read keeps its last value.
    #[expect(clippy::cast_precision_loss, reason = "figures of a process fit 53 bits")]
    fn refresh(&self) {
        if let Some(bytes) = read_resident_bytes() {
            self.resident_memory.set(bytes as f64);
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // One of them is the directory that is being read.
            self.open_files.set(entries.count().saturating_sub(1) as f64);
        }
        if let Some(most) = getrlimit(Resource::Nofile).current {
            self.most_open_files.set(most as f64);
        }
        if let Some(seconds) = read_processor_seconds() {
            self.processor_time.inc_by((seconds - self.processor_time.get()).max(0.0));
        }
    }

    fn parts(&self) -> [&dyn Collector; 5] {
        [
            &self.resident_memory,
            &self.open_files,
            &self.most_open_files,
            &self.processor_time,
            &self.start_time,
        ]
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.refresh();
        self.parts().into_iter().flat_map(Collector::collect).collect()
    }
}

fn read_resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn read_processor_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    // utime and stime: fields 14 and 15 of proc_pid_stat(5); the first of these is number 3.
    let mut ticks = fields.split(' ').skip(11).take(2).map(str::parse::<f64>);
    Some((ticks.next()?.ok()? + ticks.next()?.ok()?) / TICKS_PER_SECOND)
}
