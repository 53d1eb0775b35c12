//! `plug exec -t` and `plug sh` on a real terminal.

use nix::sys::signal::Signal;

use crate::support::commands::Played;
use crate::support::teletype::Terminal;

#[test]
fn a_command_gets_keys_size_and_every_change_of_it() {
    let server = Played::start();
    let mut terminal = Terminal::start(&server.plug(&["exec", "-t", "--", "size", "keys", "exit:3"]));
    terminal.shows("vt220 31x97");
    assert!(!terminal.is_restored(), "the terminal is not raw");
    // Ctrl-C and Ctrl-Z are keys like any other.
    terminal.types("a\u{3}\u{1a}b");
    terminal.shows("A\u{3}\u{1a}B");
    terminal.resize(40, 120);
    terminal.shows("{\"resize\":{\"cols\":120,\"rows\":40}}");
    terminal.types("q");
    assert_eq!(terminal.end(), Some(3));
}

#[test]
fn a_shell_is_left_by_tilde_dot_at_the_start_of_a_line() {
    let server = Played::start();
    let mut terminal = Terminal::start(&server.plug(&["sh", "--", "out:ready", "keys"]));
    terminal.shows("ready");
    terminal.types("x~.\r~~.\r");
    terminal.shows("X~.\r~.\r");
    terminal.types("~.");
    assert_eq!(terminal.end(), Some(65));
    terminal.shows("left by ~.");
}

#[test]
fn a_lost_connection_restores_the_terminal() {
    let server = Played::start();
    let mut terminal = Terminal::start(&server.plug(&["exec", "-t", "--", "out:ready", "keys"]));
    terminal.shows("ready");
    server.vanish();
    assert_eq!(terminal.end(), Some(4));
}

#[test]
fn a_signal_restores_the_terminal() {
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGHUP, 129), (Signal::SIGINT, 130)] {
        let server = Played::start();
        let mut terminal = Terminal::start(&server.plug(&["exec", "-t", "--", "out:ready", "keys"]));
        terminal.shows("ready");
        terminal.signal(signal);
        assert_eq!(terminal.end(), Some(code));
    }
}

#[test]
fn a_deadline_restores_the_terminal() {
    let server = Played::start();
    let mut terminal = Terminal::start(&server.plug(&["--timeout", "300ms", "exec", "-t", "--", "out:ready", "keys"]));
    assert_eq!(terminal.end(), Some(124));
}

#[test]
fn what_never_began_leaves_the_terminal_as_it_was() {
    let server = Played::start();
    let mut terminal = Terminal::start(&server.plug(&["exec", "-t", "--", "never:failed_precondition:no-pty"]));
    assert_eq!(terminal.end(), Some(73));
    terminal.shows("no-pty");
}

#[test]
fn without_a_terminal_there_is_a_clear_refusal() {
    let server = Played::start();
    for args in [&["sh"][..], &["exec", "-t", "--", "keys"], &["attach", "-t", "j1"]] {
        let outcome = server.run(args);
        assert_eq!(outcome.code, Some(2));
        assert!(outcome.stderr.contains("needs a terminal on standard input"), "{}", outcome.stderr);
    }
}
