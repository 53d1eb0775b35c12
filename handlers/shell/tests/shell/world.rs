//! What the tests share: a plugin that runs anything, and looks at processes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use plugd_core::Data;
use plugd_shell as _;
use serde_json::{Value, json};
use tokio::time::sleep;

use plugd_core::testing::{Answer, Plugin, Session};

/// A plugin that runs any command, with more settings.
pub(crate) fn shell(dir: &Path, more: Value) -> Plugin {
    let mut settings = json!({ "allow_any_command": true });
    let Value::Object(more) = more else { panic!("settings are an object") };
    settings.as_object_mut().expect("an object").extend(more);
    Plugin::linked_in("shell", settings, dir)
}

pub(crate) async fn open_in(dir: &Path, argv: &[&str]) -> Session {
    shell(dir, json!({})).call("exec").args(json!({ "argv": argv })).start().await
}

pub(crate) async fn run(argv: &[&str], input: &[Data]) -> Answer {
    open_in(Path::new(""), argv).await.run(input).await
}

pub(crate) async fn script(text: &str) -> Answer {
    run(&["sh", "-c", text], &[]).await
}

/// Runs a script under more settings.
pub(crate) async fn script_with(more: Value, text: &str) -> Answer {
    exec_with(more, json!({ "argv": ["sh", "-c", text] })).await
}

/// Calls `exec` under more settings.
pub(crate) async fn exec_with(more: Value, args: Value) -> Answer {
    shell(Path::new(""), more).call("exec").args(args).start().await.run(&[]).await
}

/// Receives the next line that a command prints at once on its standard output.
pub(crate) async fn line(session: &mut Session) -> String {
    line_on(session, 0).await
}

/// Receives the next line that a command prints at once on a channel.
pub(crate) async fn line_on(session: &mut Session, channel: u8) -> String {
    loop {
        let frame = session.receiver.frame().await;
        if frame.header.kind == plugd_core::wire::Kind::Data && frame.header.channel == channel {
            let text = String::from_utf8_lossy(&frame.payload);
            return text.lines().next().unwrap_or_default().trim().to_owned();
        }
    }
}

/// Waits until a process has ended; one that nobody has reaped yet counts as ended when `zombie_is_gone`.
pub(crate) async fn gone(pid: &str, zombie_is_gone: bool) {
    for _ in 0..1000 {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return };
        if zombie_is_gone && stat.contains(") Z ") {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("process {pid} is still there");
}
