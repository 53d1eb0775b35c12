//! `plug df`: how much space the plugin's file system has.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::options::{Df, ProgressMode};
use super::progress::Progress;
use super::remote::{Remote, parse};
use super::show;
use crate::cli::answer::Answer;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::text::columns;

/// The answer of `df`, in bytes.
#[derive(Debug, Deserialize)]
struct Space {
    total: u64,
    free: u64,
    available: u64,
    #[serde(default)]
    quota: Option<u64>,
    #[serde(default)]
    quota_used: Option<u64>,
}

pub(crate) async fn run(session: &mut Session<'_>, options: &Df) -> Result<Answer, Failure> {
    let remote = Remote::of(session, "df", 0, &Progress::new(ProgressMode::None, false)).await?;
    let reply = remote.call("df", &Map::new()).await?;
    let data: Value = parse(&reply.bytes(), "df")?;
    let text = text(&parse(&reply.bytes(), "df")?, options.human);
    Ok(Answer::of_json(reply, data, text))
}

fn text(space: &Space, human: bool) -> String {
    let Space { total, free, available, quota, quota_used } = *space;
    let row = |(name, bytes): (&str, Option<u64>)| Some([name.to_owned(), show::size(bytes?, human)]);
    let rows = [
        ("total", Some(total)),
        ("free", Some(free)),
        ("available", Some(available)),
        ("quota", quota),
        ("quota used", quota_used),
    ];
    columns(&rows.into_iter().filter_map(row).collect::<Vec<_>>(), [false, true])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_amount_has_its_line() {
        let space = Space { total: 4096, free: 2048, available: 1024, quota: None, quota_used: None };
        assert_eq!(text(&space, true), "total      4.0K\nfree       2.0K\navailable  1.0K\n");
    }
}
