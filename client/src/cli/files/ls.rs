//! `plug ls`: what is in a directory, entry by entry as it comes.

use bytes::{BufMut, BytesMut};

use super::facts::{Entry, Facts, Kind};
use super::name::Name;
use super::options::{Ls, ProgressMode};
use super::progress::Progress;
use super::remote::{LsArgs, Remote, parse};
use super::show;
use crate::cli::answer::Answer;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::session::Session;

/// How many entries are held to see how wide the column of sizes must be.
const ENTRIES_AHEAD: usize = 1000;

/// How much output is gathered before it is written, in bytes.
const OUTPUT_LEN: usize = 32 << 10;

pub(crate) async fn run(session: &mut Session<'_>, options: &Ls) -> Result<Answer, Failure> {
    let json = session.options().json;
    let remote = Remote::of(session, "ls", 0, &Progress::new(ProgressMode::None, false)).await?;
    let path = options.path.as_deref().map(Name::from);
    let args = LsArgs {
        path: path.as_ref(),
        recursive: options.recursive,
        glob: options.glob.as_deref(),
        sort: options.sort,
        reverse: options.reverse,
        limit: options.limit,
    };
    let mut lines = remote.list(&args).await?;
    let mut table = Table::new(options.human);
    let (mut stdout, mut out) = (Output::stdout(), BytesMut::new());
    let listed = async {
        while let Some(line) = lines.next().await? {
            let entry: Entry = parse(&line, "ls")?;
            if json {
                out.put_slice(&line);
                out.put_u8(b'\n');
            } else {
                table.add(entry, &mut out);
            }
            if out.len() >= OUTPUT_LEN {
                stdout.write(&out.split()).await?;
            }
        }
        Ok(())
    };
    let listed: Result<(), Failure> = listed.await;
    // What came before a failure has come all the same.
    table.end(&mut out);
    stdout.print(&out).await?;
    stdout.flush().await?;
    listed?;
    Ok(Answer { is_printed: true, ..Answer::default() })
}

/// Rows whose sizes stand below each other.
#[derive(Debug)]
struct Table {
    human: bool,
    ahead: Vec<[String; 4]>,
    width: Option<usize>,
}

impl Table {
    fn new(human: bool) -> Table {
        Table { human, ahead: Vec::new(), width: None }
    }

    fn add(&mut self, entry: Entry, out: &mut BytesMut) {
        let row = row(&entry, self.human);
        match self.width {
            Some(width) => put(&row, width, out),
            None => {
                self.ahead.push(row);
                if self.ahead.len() == ENTRIES_AHEAD {
                    self.end(out);
                }
            }
        }
    }

    fn end(&mut self, out: &mut BytesMut) {
        let width = self.ahead.iter().map(|row| row[1].len()).max().unwrap_or(0);
        for row in self.ahead.drain(..) {
            put(&row, width, out);
        }
        self.width.get_or_insert(width);
    }
}

fn put(row: &[String; 4], width: usize, out: &mut BytesMut) {
    let [mode, size, time, name] = row;
    out.put_slice(format!("{mode}  {size:>width$}  {time}  {name}\n").as_bytes());
}

fn row(entry: &Entry, human: bool) -> [String; 4] {
    let Entry { name, facts } = entry;
    let size = if facts.is_dir() { "-".to_owned() } else { show::size(facts.size, human) };
    let name = match facts {
        Facts { kind: Kind::Dir, .. } => format!("{name}/"),
        Facts { target: Some(target), .. } => format!("{name} -> {target}"),
        _ => name.to_string(),
    };
    [show::mode(facts), size, show::time(facts), name]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stand_in_columns_and_names_cannot_steer_the_terminal() {
        let (mut table, mut out) = (Table::new(false), BytesMut::new());
        for line in [
            r#"{"name":"a\u001b","kind":"file","size":12,"mode":420,"mtime_s":0,"mtime_ns":0}"#,
            r#"{"name":"d","kind":"dir","size":4096,"mode":493,"mtime_s":1700000000,"mtime_ns":1}"#,
            r#"{"name":{"hex":"ff"},"kind":"symlink","size":1,"mode":511,"mtime_s":0,"target":"a\nb"}"#,
        ] {
            table.add(serde_json::from_str(line).expect("an entry"), &mut out);
        }
        table.end(&mut out);
        let expected = "-rw-r--r--  12  1970-01-01T00:00:00Z  a\\u{1b}\n\
                        drwxr-xr-x   -  2023-11-14T22:13:20Z  d/\n\
                        lrwxrwxrwx   1  1970-01-01T00:00:00Z  \\xff -> a\\nb\n";
        assert_eq!(String::from_utf8(out.to_vec()).expect("text"), expected);
    }
}
