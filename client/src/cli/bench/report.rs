//! Says what came of a load, to people and to programs.

use std::time::Duration;

use bytesize::ByteSize;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::load::Plan;
use super::options::Bench;
use super::tally::Tally;
use super::work::Mode;
use crate::cli::text::{columns, one_line};

/// The latencies that are told: their names, and the part of all answers that was as fast.
const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999), ("max", 1.0)];

/// The longest bar of a histogram, in characters.
const BAR_LEN: u64 = 40;

/// What came of a load.
#[derive(Debug)]
pub(crate) struct Report<'r> {
    pub(crate) server: String,
    pub(crate) options: &'r Bench,
    pub(crate) plan: &'r Plan,
    pub(crate) tally: &'r Tally,
    pub(crate) elapsed: Duration,
}

impl Report<'_> {
    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let Report { server, options, plan, tally, .. } = self;
        let latency_us: Map<String, Value> =
            QUANTILES.iter().map(|(name, quantile)| ((*name).to_owned(), json!(self.latency_us(*quantile)))).collect();
        json!({
            "command": options.command,
            "server": server,
            "mode": plan.work.mode.name(),
            "connections": plan.connections,
            "pipeline": plan.pipeline,
            "size": options.size,
            "rate": options.rate,
            "threads": plan.threads,
            "elapsed_s": self.elapsed.as_secs_f64(),
            "right": tally.right,
            "failed": tally.failed(),
            "unsent": self.unsent(),
            "per_s": self.per_s(tally.right),
            "sent_bytes_per_s": self.per_s(tally.sent_len),
            "received_bytes_per_s": self.per_s(tally.received_len),
            "latency_us": latency_us,
            "failures": tally.failures(),
        })
    }

    /// For people; with a histogram on a terminal.
    pub(crate) fn text(&self, has_histogram: bool) -> String {
        let Report { server, options, plan, tally, .. } = self;
        let unit = if plan.work.mode == Mode::Messages { "messages" } else { "calls" };
        let mut text = format!(
            "{} on {}: {unit}, {}, {} B each\n",
            one_line(&options.command),
            one_line(server),
            self.shape(),
            options.size
        );
        let bytes_per_s = |len| ByteSize::b(self.per_s(len) as u64).display().iec().to_string();
        let mut rows = vec![[
            "rate".to_owned(),
            format!(
                "{:.0} {unit}/s, {}/s sent, {}/s received",
                self.per_s(tally.right),
                bytes_per_s(tally.sent_len),
                bytes_per_s(tally.received_len)
            ),
        ]];
        rows.push(["answers".to_owned(), format!("{} right in {:.2} s", tally.right, self.elapsed.as_secs_f64())]);
        let latency = QUANTILES
            .map(|(name, quantile)| format!("{} {}", name.replace('_', "."), time_text(self.latency_us(quantile))));
        rows.push(["latency".to_owned(), latency.join(", ")]);
        if self.unsent() > 0 {
            rows.push(["unsent".to_owned(), format!("{} were asked for and never begun", self.unsent())]);
        }
        rows.push(["failed".to_owned(), tally.failed().to_string()]);
        for (name, count) in tally.failures() {
            rows.push([String::new(), format!("{count} {}", one_line(&name))]);
        }
        text += &columns(&rows, [false, false]);
        if has_histogram && !tally.latency_ns.is_empty() {
            text += &histogram(&tally.latency_ns);
        }
        text
    }

    fn shape(&self) -> String {
        let Plan { connections, pipeline, .. } = self.plan;
        let plural = if *connections == 1 { "" } else { "s" };
        let how = match self.plan.work.mode {
            Mode::Fresh => format!("a connection for each, {connections} at a time"),
            Mode::Idle => format!("{connections} connection{plural}, held, each asked before and after"),
            _ => format!("{connections} connection{plural} x {pipeline} in flight"),
        };
        match self.options.rate {
            None => how,
            Some(rate) => format!("{how}, {rate} per second"),
        }
    }

    /// How many requests were asked for, by number or by rate, and never begun.
    fn unsent(&self) -> u64 {
        self.plan.requests.map_or(0, |requests| requests.saturating_sub(self.tally.begun))
    }

    fn per_s(&self, count: u64) -> f64 {
        count as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn latency_us(&self, quantile: f64) -> f64 {
        self.tally.latency_ns.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// A line for each doubling of the latency, from the least to the greatest.
fn histogram(latency_ns: &Histogram<u64>) -> String {
    let mut rows: Vec<(u64, u64)> = Vec::new();
    let mut bound = latency_ns.min().max(1).next_power_of_two();
    let mut count_below = 0;
    loop {
        let count_here = latency_ns.count_between(0, bound) - count_below;
        rows.push((bound, count_here));
        count_below += count_here;
        if count_below >= latency_ns.len() {
            break;
        }
        bound *= 2;
    }
    let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    let cells: Vec<[String; 3]> = rows
        .into_iter()
        .map(|(bound, count)| {
            let bar = "#".repeat((count * BAR_LEN).div_ceil(most) as usize);
            let percent = count as f64 * 100.0 / latency_ns.len() as f64;
            [format!("<= {}", time_text(bound as f64 / 1e3)), format!("{percent:.2} %"), bar]
        })
        .collect();
    columns(&cells, [true, true, false])
}

fn time_text(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{us:.1} us"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_holds_every_answer() {
        let mut tally = Tally::new();
        tally.took(Duration::from_micros(100), 30);
        tally.took(Duration::from_micros(500), 10);
        let text = histogram(&tally.latency_ns);
        let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("<= 131.1 us  75.00 %") && lines[0].ends_with(&"#".repeat(40)), "{text}");
        assert_eq!(lines[1], "<= 262.1 us   0.00 %");
        assert!(lines[2].starts_with("<= 524.3 us  25.00 %"), "{text}");
    }

    #[test]
    fn times_have_the_unit_that_suits_them() {
        assert_eq!([12.34, 1234.5, 1_234_500.0].map(time_text), ["12.3 us", "1.23 ms", "1.23 s"]);
    }
}
