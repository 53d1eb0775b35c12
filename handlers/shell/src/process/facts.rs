//! What `/proc` tells of a process.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;
use std::time::Duration;

use rustix::process::{Pid, getpid};

/// What counts time in `/proc/PID/stat`: a hundredth of a second on every Linux (USER_HZ).
const TICK: Duration = Duration::from_millis(10);

/// A process, as long as nobody has reaped it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) pid: Pid,
    /// When it started, in ticks since the machine did: numbers come around again, a number with its time does not.
    pub(super) start: u64,
}

/// A line of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) identity: Identity,
    pub(super) is_zombie: bool,
    /// 0 for a group that began outside of the process's own PID namespace, as in a container; so with sessions.
    pub(super) group: i32,
    pub(super) session: i32,
    /// The processor time of the process, and of its children that it waited for.
    pub(super) cpu: Duration,
}

/// What is known of a process; `None` when it is gone.
pub(super) fn of(pid: Pid) -> Option<Facts> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse(pid, &text)
}

/// proc_pid_stat(5). The name of the program stands in parentheses and may hold anything, parentheses too.
fn parse(pid: Pid, text: &[u8]) -> Option<Facts> {
    let name_end = text.iter().rposition(|byte| *byte == b')')?;
    let fields: Vec<&str> = std::str::from_utf8(&text[name_end + 1..]).ok()?.split_ascii_whitespace().collect();
    // Fields are counted from 3, the state, on.
    let number = |field: usize| fields.get(field - 3)?.parse::<i64>().ok();
    let ticks: i64 = [14, 15, 16, 17].into_iter().filter_map(number).sum();
    Some(Facts {
        identity: Identity { pid, start: u64::try_from(number(22)?).ok()? },
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
        group: i32::try_from(number(5)?).ok()?,
        session: i32::try_from(number(6)?).ok()?,
        cpu: TICK * u32::try_from(ticks).ok()?,
    })
}

/// The children of this process that it may not have started: orphans come to the main thread.
pub(super) fn adopted() -> Vec<Pid> {
    // Asked at the end of every command, so that the file stays open.
    static CHILDREN: LazyLock<Option<File>> = LazyLock::new(|| {
        let main = getpid();
        File::open(format!("/proc/{main}/task/{main}/children")).ok()
    });
    let text = CHILDREN.as_ref().and_then(|file| read_from_start(file).ok());
    match text.as_deref().and_then(|text| std::str::from_utf8(text).ok()) {
        Some(text) => text.split_ascii_whitespace().filter_map(parse_pid).collect(),
        None => search(getpid()),
    }
}

fn read_from_start(file: &File) -> io::Result<Vec<u8>> {
    let mut text = vec![0; 512];
    let mut len = 0;
    loop {
        match file.read_at(&mut text[len..], len as u64)? {
            0 => break,
            read => len += read,
        }
        if len == text.len() {
            text.resize(2 * len, 0);
        }
    }
    text.truncate(len);
    Ok(text)
}

/// The children of a process.
fn children(pid: Pid) -> Vec<Pid> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let threads = threads.flatten().filter_map(|thread| parse_pid(thread.file_name().to_str()?));
    let found: Option<Vec<Vec<Pid>>> = threads.map(|thread| children_of_thread(pid, thread)).collect();
    found.map_or_else(|| search(pid), |found| found.concat())
}

/// Everything below a process, as far as its chain of parents still holds.
pub(super) fn descendants(pid: Pid) -> Vec<Facts> {
    let mut found: Vec<Facts> = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for child in children(parent) {
            // What changes while it is looked at must not lead in a circle.
            if found.iter().all(|known| known.identity.pid != child)
                && let Some(facts) = of(child)
            {
                found.push(facts);
                parents.push(child);
            }
        }
    }
    found
}

/// `None` where the kernel was built without CONFIG_PROC_CHILDREN, or the thread has just ended.
fn children_of_thread(pid: Pid, thread: Pid) -> Option<Vec<Pid>> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")).ok()?;
    Some(text.split_ascii_whitespace().filter_map(parse_pid).collect())
}

/// The children of a process, by looking at all processes.
fn search(parent: Pid) -> Vec<Pid> {
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    let is_child = |pid: &Pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let field = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1));
        field.and_then(parse_pid) == Some(parent)
    };
    all.flatten().filter_map(|entry| parse_pid(entry.file_name().to_str()?)).filter(is_child).collect()
}

fn parse_pid(text: &str) -> Option<Pid> {
    Pid::from_raw(text.parse().ok()?)
}

/// The value of a variable in the environment that a process began with; `None` without it, and for a zombie.
pub(super) fn variable(pid: Pid, name: &str) -> Option<String> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environ.split(|byte| *byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_have_any_name() {
        let pid = getpid();
        let line = b"7 (a) Z (b\n) S 1 2 3 0 -1 4194304 1 0 0 0 5 6 7 8 20 0 1 0 99 1 1";
        let facts = parse(pid, line).expect("facts");
        assert_eq!((facts.is_zombie, facts.group, facts.session, facts.identity.start), (false, 2, 3, 99));
        assert_eq!(facts.cpu, Duration::from_millis(260));
    }

    #[test]
    fn group_and_session_may_be_those_of_another_namespace() {
        let line = b"7 (a) S 1 0 0 0 -1 4194304 1 0 0 0 5 6 7 8 20 0 1 0 99 1 1";
        let facts = parse(getpid(), line).expect("facts");
        assert_eq!((facts.group, facts.session), (0, 0));
    }

    #[test]
    fn this_process_is_found() {
        let facts = of(getpid()).expect("this process");
        assert!(!facts.is_zombie && facts.identity.start > 0);
        assert_eq!(search(getpid()), children(getpid()));
    }
}
