//! Metrics in the text format of Prometheus, as one scrape shows them.

/// One scrape.
pub(crate) struct Metrics {
    samples: Vec<Sample>,
    text: String,
}

struct Sample {
    name: String,
    labels: String,
    value: f64,
}

impl Metrics {
    pub(super) fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(Sample::parse).collect();
        Self { samples, text: text.to_owned() }
    }

    /// The sum of all series of this name that carry these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let matching = self.samples.iter().filter(|sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.labels.contains(&format!("{key}=\"{value}\"")))
        });
        // An empty float sum is -0.0, which prints oddly.
        matching.map(|sample| sample.value).sum::<f64>() + 0.0
    }

    /// Whether there is a metric of this name, with a help text and a type.
    pub(crate) fn describes(&self, name: &str) -> bool {
        self.text.contains(&format!("# HELP {name} ")) && self.text.contains(&format!("# TYPE {name} "))
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        Some(Self { name: name.to_owned(), labels: labels.to_owned(), value: value.parse().ok()? })
    }
}
