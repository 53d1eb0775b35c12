//! Counts and gauges as they are read: as one JSON object, or in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

/// What a metric means over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

#[derive(Debug)]
enum Sample {
    Value(u64),
    Histogram { bounds: Vec<(f64, u64)>, sum: f64, count: u64 },
}

#[derive(Debug)]
struct Family {
    help: &'static str,
    kind: Kind,
    samples: Vec<(Vec<(&'static str, String)>, Sample)>,
}

/// What was counted, at one moment; see [`Layer::measure`](crate::Layer::measure).
///
/// Names are those of Prometheus: `[a-z_][a-z0-9_]*`, beginning with whom they belong to, with the unit at the end, and
/// `_total` after it for what only grows. Labels come from few values: never from what a caller sent.
#[derive(Debug, Default)]
pub struct Metrics {
    families: BTreeMap<&'static str, Family>,
}

impl Metrics {
    /// Adds a value that only grows until the server ends.
    pub fn counter(&mut self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)], value: u64) {
        self.add(name, help, Kind::Counter, labels, Sample::Value(value));
    }

    /// Adds a value that goes up and down.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)], value: u64) {
        self.add(name, help, Kind::Gauge, labels, Sample::Value(value));
    }

    /// Adds how often a value was within bounds. `bounds` are upper bounds, inclusive and growing, each with how many
    /// values were within it and above the one before; `sum` is the sum of all values and `count` how many there were.
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        bounds: &[(f64, u64)],
        sum: f64,
        count: u64,
    ) {
        let mut within = 0;
        let cumulated = bounds.iter().map(|(bound, values)| {
            within += values;
            (*bound, within)
        });
        let sample = Sample::Histogram { bounds: cumulated.collect(), sum, count };
        self.add(name, help, Kind::Histogram, labels, sample);
    }

    fn add(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: Kind,
        labels: &[(&'static str, &str)],
        sample: Sample,
    ) {
        let labels = labels.iter().map(|(label, value)| (*label, (*value).to_owned())).collect();
        let family = self.families.entry(name).or_insert_with(|| Family { help, kind, samples: Vec::new() });
        family.samples.push((labels, sample));
    }

    /// Keeps the samples whose labels `keep` accepts, and forgets the others.
    pub fn retain(&mut self, keep: impl Fn(&[(&'static str, String)]) -> bool) {
        for family in self.families.values_mut() {
            family.samples.retain(|(labels, _)| keep(labels));
        }
        self.families.retain(|_, family| !family.samples.is_empty());
    }

    /// One JSON object: `{NAME: {"kind", "help", "samples": [{"labels", "value"}]}}`. A histogram's sample has `count`, `sum`
    /// and `buckets` instead of `value`, each with its upper bound `le` and the values at or below it, `count`.
    pub fn to_json(&self) -> Value {
        let families = self.families.iter().map(|(name, family)| {
            let samples: Vec<Value> =
                family.samples.iter().map(|(labels, sample)| sample_json(labels, sample)).collect();
            ((*name).to_owned(), json!({ "kind": family.kind.name(), "help": family.help, "samples": samples }))
        });
        Value::Object(families.collect())
    }

    /// The text exposition format 0.0.4 of Prometheus.
    pub fn to_prometheus(&self) -> String {
        let mut text = String::new();
        for (name, family) in &self.families {
            // Writing to a string does not fail.
            let _ = write!(text, "# HELP {name} {}\n# TYPE {name} {}\n", escaped(family.help), family.kind.name());
            for (labels, sample) in &family.samples {
                let labels: Vec<String> =
                    labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
                write_sample(&mut text, name, &labels, sample);
            }
        }
        text
    }
}

fn sample_json(labels: &[(&'static str, String)], sample: &Sample) -> Value {
    let labels: Map<String, Value> =
        labels.iter().map(|(label, value)| ((*label).to_owned(), value.as_str().into())).collect();
    match sample {
        Sample::Value(value) => json!({ "labels": labels, "value": value }),
        Sample::Histogram { bounds, sum, count } => {
            let bucket = |(bound, count): &(f64, u64)| json!({ "le": bound, "count": count });
            let buckets: Vec<Value> = bounds.iter().map(bucket).collect();
            json!({ "labels": labels, "count": count, "sum": sum, "buckets": buckets })
        }
    }
}

fn write_sample(text: &mut String, name: &str, labels: &[String], sample: &Sample) {
    let mut line = |suffix: &str, more: Option<String>, value: &dyn std::fmt::Display| {
        let labels: Vec<&str> = labels.iter().chain(&more).map(String::as_str).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(text, "{name}{suffix}{labels} {value}");
    };
    match sample {
        Sample::Value(value) => line("", None, value),
        Sample::Histogram { bounds, sum, count } => {
            for (bound, within) in bounds {
                line("_bucket", Some(format!("le=\"{bound}\"")), within);
            }
            line("_bucket", Some("le=\"+Inf\"".to_owned()), count);
            line("_sum", None, sum);
            line("_count", None, count);
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Metrics {
        let mut metrics = Metrics::default();
        metrics.gauge("plugd_connections", "Open connections.", &[], 3);
        metrics.counter("plugd_calls_total", "Calls.", &[("plugin", "a"), ("code", "ok")], 7);
        metrics.counter("plugd_calls_total", "Calls.", &[("plugin", "b\"\\\n"), ("code", "ok")], 1);
        metrics.histogram("plugd_seconds", "Time.", &[("plugin", "a")], &[(0.5, 2), (1.0, 3)], 4.25, 6);
        metrics
    }

    #[test]
    fn prometheus_reads_families_together_and_buckets_added_up() {
        let expected = r#"# HELP plugd_calls_total Calls.
# TYPE plugd_calls_total counter
plugd_calls_total{plugin="a",code="ok"} 7
plugd_calls_total{plugin="b\"\\\n",code="ok"} 1
# HELP plugd_connections Open connections.
# TYPE plugd_connections gauge
plugd_connections 3
# HELP plugd_seconds Time.
# TYPE plugd_seconds histogram
plugd_seconds_bucket{plugin="a",le="0.5"} 2
plugd_seconds_bucket{plugin="a",le="1"} 5
plugd_seconds_bucket{plugin="a",le="+Inf"} 6
plugd_seconds_sum{plugin="a"} 4.25
plugd_seconds_count{plugin="a"} 6
"#;
        assert_eq!(sample().to_prometheus(), expected);
    }

    #[test]
    fn json_says_the_same() {
        let json = sample().to_json();
        assert_eq!(json["plugd_connections"]["samples"], json!([{ "labels": {}, "value": 3 }]));
        assert_eq!(json["plugd_calls_total"]["kind"], "counter");
        assert_eq!(json["plugd_calls_total"]["samples"][0]["labels"], json!({ "plugin": "a", "code": "ok" }));
        let seconds = &json["plugd_seconds"]["samples"][0];
        assert_eq!((&seconds["count"], &seconds["sum"]), (&json!(6), &json!(4.25)));
        assert_eq!(seconds["buckets"], json!([{ "le": 0.5, "count": 2 }, { "le": 1.0, "count": 5 }]));
    }
}
