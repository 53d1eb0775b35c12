//! What the server's log says of a call.

use serde_json::Value;

use crate::support::process::Plugd;

/// The one event that ended the call of `command`.
fn call_of<'a>(log: &'a [Value], command: &str) -> &'a Value {
    let quoted = format!("{command:?}");
    let found: Vec<&Value> = log.iter().filter(|event| event["span"]["command"] == quoted).collect();
    match found[..] {
        [event] => event,
        _ => panic!("{} events of {command:?} in {log:#?}", found.len()),
    }
}

#[test]
fn a_call_is_one_event_with_its_id_command_peer_duration_bytes_and_status() {
    let server = Plugd::start_logged("[plugins.echo]\n");
    assert_eq!(server.run(["call", "echo", "--data", "12345"]).code, Some(0));
    assert_eq!(server.run(["call", "ehco"]).code, Some(69));
    let log = server.log();

    let good = call_of(&log, "echo");
    assert_eq!((&good["code"], &good["received"], &good["sent"]), (&"ok".into(), &5.into(), &5.into()));
    assert!(good["duration_ms"].as_f64().expect("a number") > 0.0, "{good}");
    assert!(good["span"]["peer"].as_str().expect("text").starts_with("127.0.0.1:"), "{good}");
    assert_eq!(good["span"]["id"], "1.1");

    let bad = call_of(&log, "ehco");
    assert_eq!((&bad["code"], &bad["reason"]), (&"not_found".into(), &"unknown-plugin".into()));
    assert_eq!((&bad["origin"], &bad["span"]["id"]), (&"server".into(), &"2.1".into()));
}

#[test]
fn what_a_caller_sends_cannot_forge_a_line() {
    let server = Plugd::start_logged("[plugins.echo]\n");
    let command = "x\n\r\u{1b}[31m\u{202e}y";
    assert_eq!(server.run(["call", command]).code, Some(69));
    let log = server.log();
    let logged = call_of(&log, command)["span"]["command"].as_str().expect("text");
    assert_eq!(logged, r#""x\n\r\u{1b}[31m\u{202e}y""#);
}
