//! What was measured, as a table for people, as JSON for programs, as a chart for the documentation.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use crate::moving::Moved;
use crate::rows::{P99_OF_RAW, Result, median};
use crate::still::Still;

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
    pub moved: Vec<Moved>,
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
        if !self.moved.is_empty() {
            text += &moved_table(&self.moved);
        }
        if let Some(still) = &self.still {
            text += &still_table(still);
        }
        if let (Some(plugd), Some(raw)) = (self.syscalls.get("plugd"), self.syscalls.get("raw")) {
            let _ = writeln!(text, "\nSystem calls for a 64 B message, 50 x 16: {plugd:.3} (0.14); raw {raw:.3}.");
        }
        text
    }

    /// A bar for each row: plugd's rate through the raw limit's, beside what is to be reached.
    pub fn chart(&self) -> String {
        const ROW: usize = 28;
        const LEFT: usize = 230;
        const UNIT: f64 = 240.0;
        let height = ROW * self.rows.len() + 50;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"{height}\" font-family=\"sans-serif\" \
             font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"10\" y=\"20\">plugd through the raw limit of the same run, median of {} rounds; line: to be reached</text>\n",
            self.rounds
        );
        for (index, row) in self.rows.iter().enumerate() {
            let y = 36 + index * ROW;
            let ratio = row.ratio("raw", |figures| &figures.requests_per_second).unwrap_or_default();
            let reach = row.reach.get("raw").copied().unwrap_or_default();
            let colour = if ratio >= reach { "#3a7d44" } else { "#b5651d" };
            let reach = LEFT as f64 + reach * UNIT;
            let _ = writeln!(
                svg,
                "<text x=\"10\" y=\"{text_y}\">{name}</text>\
                 <rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.0}\" height=\"18\" fill=\"{colour}\"/>\
                 <line x1=\"{reach:.0}\" x2=\"{reach:.0}\" y1=\"{top}\" y2=\"{bottom}\" stroke=\"black\"/>\
                 <text x=\"{label:.0}\" y=\"{text_y}\">{ratio:.2}</text>",
                text_y = y + 14,
                name = row.name,
                width = ratio.min(1.8) * UNIT,
                top = y - 3,
                bottom = y + 21,
                label = LEFT as f64 + ratio.min(1.8) * UNIT + 6.0,
            );
        }
        svg + "</svg>\n"
    }

    /// Writes `report.json` and `report.svg` into `dir`.
    pub fn write(&self, dir: &Path) -> std::io::Result<()> {
        std::fs::write(dir.join("report.json"), serde_json::to_vec_pretty(self)?)?;
        std::fs::write(dir.join("report.svg"), self.chart())
    }
}

/// Who moves files besides plug, in the order of the columns.
const MOVERS: [&str; 7] = ["bare", "md5sum", "nginx + curl", "rsync", "sftp", "cp", "tar + ssh"];

fn moved_table(moved: &[Moved]) -> String {
    let mut text = format!("\n| files | seconds | of {} |\n|---|---:|", MOVERS.join(" | of "));
    text += &"---:|".repeat(MOVERS.len());
    text.push('\n');
    for row in moved {
        let _ = write!(text, "| {} | {:.2} |", row.name, median(row.seconds["plug"].clone()));
        for other in MOVERS {
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
