//! What is left of a thousand commands: nothing. A process of its own, since it counts everything that the process has.

use std::fs;
use std::path::Path;

use plugd_core::testing::Plugin;
use plugd_shell as _;
use serde_json::json;

#[tokio::test]
async fn a_thousand_runs_leave_nothing_behind() {
    let handler = Plugin::linked_in("shell", json!({ "allow_any_command": true }), Path::new(""));
    let descriptors = || fs::read_dir("/proc/self/fd").expect("this process").count();
    let memory_kib = || {
        let status = fs::read_to_string("/proc/self/status").expect("this process");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line").to_owned();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number")
    };
    let runs = |count: usize| {
        let handler = handler.clone();
        async move {
            for number in 0..count {
                // Every tenth leaves an orphan that ends by itself, and one that does not.
                let text = if number % 10 == 0 { "(exit 0 &); (sleep 1000 >/dev/null 2>&1 &)" } else { "exit 0" };
                let args = json!({ "argv": ["sh", "-c", text] });
                let answer = handler.call("exec").args(args).start().await.run(&[]).await;
                assert!(answer.status.is_ok(), "{}", answer.status);
            }
        }
    };
    runs(100).await;
    let (descriptors_before, memory_before) = (descriptors(), memory_kib());
    runs(900).await;
    assert_eq!(descriptors(), descriptors_before);
    let grown = memory_kib().saturating_sub(memory_before);
    assert!(grown < 4096, "{grown} KiB more");
    let children = fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id())).expect("children");
    let children: Vec<&str> = children.split_whitespace().collect();
    assert!(children.is_empty(), "{children:?}");
}
