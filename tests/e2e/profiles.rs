//! `plug -s @NAME`: servers by the names that a file gives them.

use std::path::Path;
use std::process::Command;

use crate::support::process::{EVERYTHING, Outcome, Plugd};

/// A server, and a place for the user's file of profiles.
struct Home {
    plugd: Plugd,
    config: tempfile::TempDir,
}

impl Home {
    fn new(profiles: &str) -> Home {
        let (plugd, config) = (Plugd::start(EVERYTHING), tempfile::tempdir().expect("a temporary directory"));
        std::fs::create_dir(config.path().join("plugd")).expect("a directory");
        let text = profiles.replace("SERVER", &plugd.address);
        std::fs::write(config.path().join("plugd/client.toml"), text).expect("a file");
        Home { plugd, config }
    }

    fn plug(&self, args: &[&str]) -> Command {
        let mut command = self.plugd.plug(args);
        command.env_remove("PLUG_CONFIG").env("XDG_CONFIG_HOME", self.config.path()).env("PLUG_SERVER", "@here");
        command
    }

    fn run(&self, args: &[&str]) -> Outcome {
        Outcome::from(self.plug(args).output().expect("plug runs"))
    }
}

#[test]
fn a_profile_names_a_server() {
    let home = Home::new("[profiles.here]\nserver = \"SERVER\"\n[profiles.gone]\nserver = \"127.0.0.1:1\"\n");
    assert_eq!(home.run(&["call", "upper", "--data", "a"]).text(), "A");
    assert_eq!(home.run(&["-s", "@gone", "ping"]).code, Some(3));
    let several = home.run(&["-s", &format!("@here,@gone,{}", home.plugd.address), "exec", "--", "echo", "a"]);
    assert!(several.code == Some(3) && several.text().contains("@here: a\n"), "{several:?}");
    assert!(several.stderr.contains("3 servers, 2 ok, 1 failed\nplug: @gone: "), "{several:?}");
    let missing = home.run(&["-s", "@her", "ping"]);
    assert!(missing.code == Some(2) && missing.stderr.contains("did you mean \"here\"?"), "{missing:?}");
}

#[test]
fn the_command_line_counts_more_than_a_profile_and_a_profile_more_than_the_environment() {
    let home = Home::new(
        "[profiles.here]\nserver = \"SERVER\"\ntoken_file = \"no-token\"\n\
         [profiles.hasty]\nserver = \"SERVER\"\ntimeout = \"200ms\"\n",
    );
    // The path is relative to the file that names it.
    let profile = Outcome::from(home.plug(&["ping"]).env("PLUG_TOKEN", "other").output().expect("plug runs"));
    let expected = home.config.path().join("plugd/no-token");
    assert!(profile.code == Some(5) && profile.stderr.contains(&expected.display().to_string()), "{profile:?}");
    let line = home.run(&["--token-file", "/nonexistent/other", "ping"]);
    assert!(line.code == Some(5) && line.stderr.contains("/nonexistent/other"), "{line:?}");
    assert_eq!(home.run(&["-s", "@hasty", "exec", "--", "sleep", "1"]).code, Some(124));
    assert_eq!(home.run(&["-s", "@hasty", "--timeout", "10s", "exec", "--", "sleep", "1"]).code, Some(0));
}

#[test]
fn a_wrong_file_matters_only_to_who_names_a_profile() {
    let home = Home::new("[profiles.here]\nserver = \"SERVER\"\nserver_nam = \"x\"\n");
    let wrong = home.run(&["ping"]);
    let place = home.config.path().join("plugd/client.toml");
    let expected = format!("{}:3:1: unknown key \"server_nam\"; did you mean \"server_name\"?", place.display());
    assert!(wrong.code == Some(2) && wrong.stderr.contains(&expected), "{wrong:?}");
    assert_eq!(home.run(&["-s", &home.plugd.address, "ping"]).code, Some(0));
    let elsewhere = Outcome::from(home.plug(&["ping"]).env("PLUG_CONFIG", "/nonexistent").output().expect("plug runs"));
    assert!(elsewhere.code == Some(5) && elsewhere.stderr.contains("/nonexistent"), "{elsewhere:?}");
}

#[test]
fn the_names_of_profiles_are_completed() {
    let home = Home::new("[profiles.here]\nserver = \"SERVER\"\n[profiles.prod]\nserver = \"a\"\n");
    let complete = |words: &[&str]| {
        let mut command = home.plug(words);
        let cache = Path::new(home.config.path()).join("cache");
        Outcome::from(command.env("PLUG_COMPLETE", "fish").env("XDG_CACHE_HOME", cache).output().expect("plug runs"))
    };
    assert_eq!(complete(&["--", "plug", "-s", "@p"]).text(), "@prod\t\n");
    let commands = complete(&["--", "plug", "-s", "@here", "call", "upp"]);
    assert!(commands.text().starts_with("upper\t"), "{commands:?}");
}
