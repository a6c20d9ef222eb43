//! Shows how a job goes: bars on a terminal, lines elsewhere, JSON for machines.

use std::collections::HashMap;
use std::io;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::cli::{Format, console};

/// The most images that have a bar at once.
const MOST_BARS: usize = 8;

/// Prints what is new.
pub(super) struct Reporter {
    format: Format,
    bars: Option<Bars>,
    /// What was last printed of each image.
    told: HashMap<String, Value>,
}

/// The bars of what is being fetched, below what is done.
struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    running: HashMap<String, ProgressBar>,
}

impl Reporter {
    pub(super) fn new(format: Format, on_terminal: bool) -> Self {
        let bars = (format == Format::Text && on_terminal).then(Bars::new);
        Self { format, bars, told: HashMap::new() }
    }

    /// Prints what has changed.
    pub(super) fn show(&mut self, job: &Value) -> io::Result<()> {
        let images = job["images"].as_array().map(Vec::as_slice).unwrap_or_default();
        for image in images {
            let name = image["image"].as_str().unwrap_or_default();
            let before = self.told.insert(name.to_owned(), image.clone());
            if before.as_ref() == Some(image) {
                continue;
            }
            if self.format == Format::Json {
                console::print(&format!("{image}\n"))?;
                continue;
            }
            if let Some(bars) = &mut self.bars {
                bars.show(name, image);
            }
            let is_over = |image: &Value| image["state"] == "complete" || image["state"] == "incomplete";
            if is_over(image) && !before.as_ref().is_some_and(is_over) {
                self.print_line(&describe(name, image))?;
            }
        }
        if let Some(bars) = &self.bars {
            bars.show_total(job, images);
        }
        Ok(())
    }

    /// Prints how it ended.
    pub(super) fn finish(&mut self, job: &Value) -> io::Result<()> {
        if let Some(bars) = &self.bars {
            bars.all.clear()?;
        }
        if self.format == Format::Json {
            return console::print(&format!("{}\n", json!({ "job": job["id"], "state": job["state"] })));
        }
        Ok(())
    }

    fn print_line(&self, line: &str) -> io::Result<()> {
        let print = || console::print(&format!("{line}\n"));
        match &self.bars {
            Some(bars) => bars.all.suspend(print),
            None => print(),
        }
    }
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::new();
        let total = all.add(ProgressBar::new(0));
        total.set_style(style("{spinner} {msg} {bytes} of {total_bytes} ({bytes_per_sec})"));
        Self { all, total, running: HashMap::new() }
    }

    fn show(&mut self, name: &str, image: &Value) {
        if image["state"] != "running" {
            if let Some(bar) = self.running.remove(name) {
                self.all.remove(&bar);
            }
            return;
        }
        if !self.running.contains_key(name) {
            if self.running.len() >= MOST_BARS {
                return;
            }
            let bar = self.all.insert_before(&self.total, ProgressBar::new(0));
            bar.set_style(style("[{bar:30}] {bytes:>10} of {total_bytes:<10} {msg}"));
            self.running.insert(name.to_owned(), bar);
        }
        if let Some(bar) = self.running.get(name) {
            let trouble = image["reason"].as_str().map_or_else(String::new, |reason| format!(" ({reason})"));
            bar.set_message(format!("{name}{trouble}"));
            bar.set_length(number(image, "total_bytes"));
            bar.set_position(number(image, "stored_bytes"));
        }
    }

    fn show_total(&self, job: &Value, images: &[Value]) {
        let done = images.iter().filter(|image| image["state"] == "complete").count();
        let sum = |key: &str| images.iter().map(|image| number(image, key)).fold(0, u64::saturating_add);
        let waits = if job["state"] == "waiting" { ", the window is closed," } else { "" };
        self.total.set_message(format!("{done} of {} images complete{waits}", images.len()));
        self.total.set_length(sum("total_bytes"));
        self.total.set_position(sum("stored_bytes"));
    }
}

/// A style from a template. One that were wrong would only look plain.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_fault| ProgressStyle::default_bar())
}

fn describe(name: &str, image: &Value) -> String {
    let (stored, fetched) = (number(image, "stored_bytes"), number(image, "fetched_bytes"));
    match image["reason"].as_str().filter(|_| image["state"] == "incomplete") {
        Some(reason) => format!("incomplete  {name}: {reason}"),
        None => format!("complete    {name} ({stored} bytes, {fetched} of them fetched now)"),
    }
}

fn number(image: &Value, key: &str) -> u64 {
    image[key].as_u64().unwrap_or(0)
}
