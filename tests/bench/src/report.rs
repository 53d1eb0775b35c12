//! What was measured, as a table for people, as JSON for programs, as a chart for the documentation.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use crate::rows::{P99_OF_RAW, Reach, Result, median};
use crate::still::Still;
use crate::timed::Timed;

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What it ran on, and with which peers.
    pub facts: Vec<(&'static str, String)>,
    /// Rounds of each row.
    pub rounds: usize,
    /// The rows.
    pub rows: Vec<Result>,
    /// Files moved by whole programs.
    pub moved: Vec<Timed>,
    /// Commands run elsewhere.
    pub ran: Vec<Timed>,
    /// What a still server costs.
    pub still: Option<Still>,
    /// System calls for a message, by server; empty where they were not counted.
    pub syscalls: BTreeMap<&'static str, f64>,
}

impl Report {
    /// A table in Markdown.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.facts {
            let _ = writeln!(text, "- {name}: {value}");
        }
        text += "\n| work | plugd per s | us of server each | of raw | p99 of raw | of redis | of tonic | of nginx \
                 | of python |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n";
        for row in &self.rows {
            let ours = &row.peers["plugd"];
            let (rate, server_us) =
                (median(ours.requests_per_second.clone()), median(ours.server_us_per_request.clone()));
            let _ = write!(text, "| {} | {rate:.0} | {server_us:.2} |", row.name);
            for column in ["raw", P99_OF_RAW, "redis", "tonic", "nginx", "python"] {
                let _ = write!(text, " {} |", cell(row, column));
            }
            text.push('\n');
        }
        text += "\nIn brackets: what is to be reached, of rates at least, of all else at most.\n";
        text += &timed_table(["files", "seconds"], 1.0, &self.moved, &MOVERS);
        text += &timed_table(["commands", "ms"], 1e3, &self.ran, &RUNNERS);
        if let Some(still) = &self.still {
            text += &still_table(still);
        }
        if let (Some(plugd), Some(raw)) = (self.syscalls.get("plugd"), self.syscalls.get("raw")) {
            let _ = writeln!(text, "\nSystem calls for a 64 B message, 50 x 16: {plugd:.3} (0.14); raw {raw:.3}.");
        }
        text
    }

    /// A bar for each row: plugd's speed through that of the first of [`LIMITS`] that it is to be held against, as a part of
    /// what is to be reached, so that one line says it for all of them.
    pub fn chart(&self) -> String {
        const ROW: usize = 22;
        const LEFT: usize = 270;
        const UNIT: f64 = 260.0;
        // What goes beyond is cut off; its number still says how far.
        const MOST: f64 = 1.25;
        let bars = self.bars();
        let bottom = 52 + ROW * bars.len();
        let line = LEFT as f64 + UNIT;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"10\" y=\"18\">plugd's speed through another's in the same run, median of {} rounds; \
             in brackets, and at the line: to be reached</text>\n\
             <line x1=\"{line}\" x2=\"{line}\" y1=\"30\" y2=\"{bottom}\" stroke=\"black\"/>\n",
            bottom + 10,
            self.rounds
        );
        for (index, bar) in bars.iter().enumerate() {
            let part = bar.ratio / bar.reach.unwrap_or(1.0);
            let colour = match bar.reach {
                None => "#8a8a8a",
                Some(_) if part >= 1.0 => "#3a7d44",
                Some(_) => "#b5651d",
            };
            let (y, width) = (36 + index * ROW, part.min(MOST) * UNIT);
            let _ = writeln!(
                svg,
                "<text x=\"10\" y=\"{text_y}\">{name}</text>\
                 <rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.0}\" height=\"14\" fill=\"{colour}\"/>\
                 <text x=\"{label:.0}\" y=\"{text_y}\">{ratio} of {limit}</text>",
                text_y = y + 12,
                name = bar.name,
                label = LEFT as f64 + part.clamp(1.0, MOST) * UNIT + 6.0,
                ratio = shown(Some(bar.ratio), bar.reach.as_ref()),
                limit = bar.limit,
            );
        }
        svg + "</svg>\n"
    }

    /// A bar for each row that has somebody of [`LIMITS`].
    fn bars(&self) -> Vec<Bar> {
        let rows = self.rows.iter().filter_map(|row| {
            Bar::new(row.name, &row.reach, |limit| row.ratio(limit, |figures| &figures.requests_per_second))
        });
        let timed = self.moved.iter().chain(&self.ran);
        rows.chain(timed.filter_map(|row| Bar::new(row.name, &row.reach, |limit| row.ratio(limit)))).collect()
    }

    /// Writes `report.json` and `report.svg` into `dir`.
    pub fn write(&self, dir: &Path) -> std::io::Result<()> {
        std::fs::write(dir.join("report.json"), serde_json::to_vec_pretty(self)?)?;
        std::fs::write(dir.join("report.svg"), self.chart())
    }
}

/// Who is nearest to what can be done at all, the nearest first.
const LIMITS: [&str; 5] = ["raw", "bare", "md5sum", "cp", "ssh, kept"];

/// A row of the chart.
struct Bar {
    name: &'static str,
    limit: &'static str,
    ratio: f64,
    reach: Option<f64>,
}

impl Bar {
    /// Against the nearest limit with something to be reached, or against the nearest of all.
    fn new(name: &'static str, reach: &Reach, ratio: impl Fn(&str) -> Option<f64>) -> Option<Bar> {
        let of =
            |limit: &&'static str| Some(Bar { name, limit, ratio: ratio(limit)?, reach: reach.get(limit).copied() });
        let held = LIMITS.iter().filter(|limit| reach.contains_key(*limit)).find_map(of);
        held.or_else(|| LIMITS.iter().find_map(of))
    }
}

/// Who moves files besides plug, in the order of the columns.
const MOVERS: [&str; 7] = ["bare", "md5sum", "nginx + curl", "rsync", "sftp", "cp", "tar + ssh"];

/// Who runs commands besides plug, in the order of the columns.
const RUNNERS: [&str; 4] = ["bare", "ssh", "ssh, aes128-gcm", "ssh, kept"];

/// A table whose columns are named by what was done and by the unit, of which a second has so many; nothing without rows.
fn timed_table([work, unit]: [&str; 2], units: f64, timed: &[Timed], others: &[&str]) -> String {
    if timed.is_empty() {
        return String::new();
    }
    let mut text = format!("\n| {work} | {unit} | of {} |\n|---|---:|", others.join(" | of "));
    text += &"---:|".repeat(others.len());
    text.push('\n');
    for row in timed {
        let _ = write!(text, "| {} | {:.2} |", row.name, units * median(row.seconds["plug"].clone()));
        for other in others {
            let _ = write!(text, " {} |", shown(row.ratio(other), row.reach.get(other)));
        }
        text.push('\n');
    }
    text
}

fn still_table(still: &Still) -> String {
    let mib = |bytes: u64| bytes as f64 / 1048576.0;
    format!(
        "\n| a still server | measured |\n|---|---:|\n| memory for each of {} idle connections | {} B (1536), raw {} B |\n\
         | fresh calls beside them, of those without | {:.2}, raw {:.2} |\n| start to first answered call | {:.1} ms (15) |\n\
         | resident, idle | {:.1} MiB (8) |\n| `plugd`, `plug`, stripped | {:.1} MiB (8), {:.1} MiB (8) |\n",
        still.connections,
        still.plugd_bytes_per_connection,
        still.raw_bytes_per_connection,
        still.plugd_beside_ratio,
        still.raw_beside_ratio,
        still.first_answer_ms,
        mib(still.idle_kib * 1024),
        mib(still.plugd_bytes),
        mib(still.plug_bytes),
    )
}

/// A ratio, and in brackets what is to be reached.
fn cell(row: &Result, column: &str) -> String {
    let ratio = match column {
        P99_OF_RAW => row.ratio("raw", |figures| &figures.latency_p99_us),
        other => row.ratio(other, |figures| &figures.requests_per_second),
    };
    shown(ratio, row.reach.get(column))
}

fn shown(ratio: Option<f64>, reach: Option<&f64>) -> String {
    let reach = reach.map(|reach| format!(" ({reach})")).unwrap_or_default();
    ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}{reach}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(name: &'static str, reach: &[(&'static str, f64)], seconds: &[(&'static str, f64)]) -> Timed {
        let mut timed = Timed::new(name, reach.iter().copied().collect());
        for (who, seconds) in seconds {
            timed.add(who, *seconds);
        }
        timed
    }

    #[test]
    fn the_chart_has_a_bar_for_each_row_against_what_it_is_held_to() {
        let ran = vec![
            ran("plug exec, 1 GB", &[("bare", 0.95), ("ssh", 3.5)], &[("plug", 2.0), ("bare", 1.0), ("ssh", 9.0)]),
            ran("plug exec -- true", &[("ssh, kept", 4.0)], &[("plug", 1.0), ("bare", 0.5), ("ssh, kept", 40.0)]),
            ran("nothing to reach", &[], &[("plug", 1.0), ("bare", 0.5)]),
        ];
        let report = Report {
            facts: Vec::new(),
            rounds: 5,
            rows: Vec::new(),
            moved: Vec::new(),
            ran,
            still: None,
            syscalls: BTreeMap::new(),
        };
        let chart = report.chart();
        for label in ["0.50 (0.95) of bare", "40.00 (4) of ssh, kept", "0.50 of bare"] {
            assert!(chart.contains(&format!(">{label}<")), "{label} in {chart}");
        }
        assert!(chart.contains("width=\"325\""), "what goes beyond is cut off: {chart}");
    }
}
