//! What a configuration may say, and what is said of one that may not.

use std::path::Path;

use plugd_server::{Config, ListenAddress, Origin, Registry};
use rstest::rstest;

fn parse(text: &str) -> Result<Config, String> {
    let registry = Registry::linked().expect("handlers that fit together");
    Config::parse(&Origin::text(text), &registry, &[]).map_err(|errors| errors.to_string())
}

/// Everything that is said of a bad configuration.
fn complaint(text: &str) -> String {
    parse(text).expect_err("a bad configuration")
}

#[test]
fn the_shipped_configuration_is_good_and_leaves_the_shell_off() {
    let config = parse(include_str!("../../plugins.toml")).expect("the shipped configuration");
    let plugins: Vec<(&str, &str, bool)> =
        config.plugins.iter().map(|plugin| (&*plugin.name, &*plugin.handler, plugin.enabled)).collect();
    assert_eq!(
        plugins,
        [("echo", "echo", true), ("files", "file", true), ("shell", "shell", false), ("upper", "upper", true)]
    );
    assert!(config.server.listen.iter().all(ListenAddress::is_local));
}

#[test]
fn what_the_shipped_configuration_shows_as_defaults_are_the_defaults() {
    let shown: String = include_str!("../../plugins.toml")
        .lines()
        .skip_while(|line| *line != "[server]")
        .take_while(|line| !line.is_empty())
        // The defaults that depend on the machine.
        .filter(|line| !line.contains("workers") && !line.contains("congestion"))
        .map(|line| format!("{}\n", line.strip_prefix("# ").unwrap_or(line)))
        .collect();
    assert!(shown.lines().count() > 5, "{shown}");
    let shown = parse(&format!("{shown}[plugins.echo]\n")).expect("the shown settings").server;
    let default = parse("[plugins.echo]\n").expect("no settings").server;
    assert_eq!(format!("{shown:?}"), format!("{default:?}"));
}

#[test]
fn the_built_in_configuration_touches_nothing() {
    let registry = Registry::linked().expect("handlers that fit together");
    let config = Config::parse(&Origin::built_in(), &registry, &[]).expect("a good configuration");
    let effects = |name: &str| registry.handler(name).expect("linked").operations().iter().any(|op| op.effects());
    assert!(!config.plugins.is_empty() && config.plugins.iter().all(|plugin| !effects(&plugin.handler)));
}

#[rstest]
#[case::empty("", "<text>: no plugin is configured; add one, such as [plugins.echo], or see `plugd init`")]
#[case::no_toml("[plugins.echo\n", "<text>:1:14: unclosed table, expected `]`")]
#[case::duplicate_key("[plugins.echo]\nenabled = true\nenabled = false\n", "<text>:3:1: duplicate key")]
#[case::duplicate_plugin("[plugins.echo]\n[plugins.echo]\n", "<text>:2:10: duplicate key")]
#[case::unknown_section(
    "[plugin.echo]\n[plugins.echo]\n",
    "<text>:1:2: unknown section \"plugin\"; did you mean \"plugins\"?; allowed: layers, plugins, server"
)]
#[case::unknown_key(
    "[plugins.echo]\nenabeld = false\n",
    "<text>:2:1: plugins.echo.enabeld: unknown key \"enabeld\"; did you mean \"enabled\"?; allowed: config, enabled, handler, insecure, layers, limits"
)]
#[case::wrong_type(
    "[plugins.echo]\nenabled = \"yes\"\n",
    "<text>:2:1: plugins.echo.enabled: invalid type: string \"yes\", expected a boolean"
)]
#[case::unknown_handler(
    "[plugins.x]\nhandler = \"uper\"\n",
    "<text>:2:1: plugins.x: unknown handler \"uper\"; did you mean \"upper\"?; linked: echo, file, shell, upper"
)]
#[case::handler_not_said(
    "[plugins.docs]\n",
    "<text>:1:10: plugins.docs: unknown handler \"docs\"; say which one with `handler = \"NAME\"`; linked: echo, file, shell, upper"
)]
#[case::disabled_ones_are_checked(
    "[plugins.x]\nenabled = false\nhandler = \"flie\"\n",
    "<text>:3:1: plugins.x: unknown handler \"flie\"; did you mean \"file\"?; linked: echo, file, shell, upper"
)]
#[case::reserved_name(
    "[plugins.plugd]\nhandler = \"echo\"\n",
    "<text>:1:10: the plugin name \"plugd\" is reserved; the server itself answers under it"
)]
#[case::illegal_name(
    "[plugins.\"a.b\"]\nhandler = \"echo\"\n",
    "<text>:1:10: illegal plugin name \"a.b\"; allowed: [a-z][a-z0-9_-]*, at most 64 bytes"
)]
#[case::handlers_own_settings(
    "[plugins.upper]\nconfig = { mod = \"ascii\" }\n",
    "<text>:2:12: plugins.upper.config.mod: unknown key \"mod\"; did you mean \"mode\"?; allowed: invalid, mode"
)]
#[case::settings_where_none_are(
    "[plugins.echo.config]\nx = 1\n",
    "<text>:2:1: plugins.echo.config.x: unknown key \"x\"; nothing is allowed here"
)]
#[case::table_as_array(
    "[plugins]\necho = [\"upper\", true, {}, {}, false]\n",
    "<text>:2:1: plugins.echo: expected a table"
)]
#[case::inner_table_as_array(
    "[plugins.echo]\nlimits = [\"5s\"]\n",
    "<text>:2:1: plugins.echo.limits: expected a table"
)]
#[case::plugins_no_table("plugins = 3\n", "<text>:1:1: plugins is no table; write [plugins.NAME]")]
#[case::scheme(
    "[server]\nlisten = [\"tls://a:1\"]\n[plugins.echo]\n",
    "<text>:2:11: server.listen.0: cannot listen on \"tls://a:1\": unsupported scheme; allowed: tcp://HOST:PORT, unix:/PATH"
)]
#[case::nowhere("[server]\nlisten = []\n[plugins.echo]\n", "<text>:2:1: server.listen: no address to listen on")]
#[case::zero_is_not_endless(
    "[server]\nidle_timeout = \"0s\"\n[plugins.echo]\n",
    "<text>:2:1: server.idle_timeout: 0s is out of range; allowed: 100ms to 1day"
)]
#[case::absurd_size(
    "[server]\nframe_max = \"1GiB\"\n[plugins.echo]\n",
    "<text>:2:1: server.frame_max: 1.0 GiB is out of range; allowed: 64.0 KiB to 16.0 MiB"
)]
#[case::zero_deadline(
    "[plugins.echo]\nlimits = { deadline = \"0s\" }\n",
    "<text>:2:12: plugins.echo.limits.deadline: 0s is out of range; allowed: 1ms to 30days"
)]
#[case::no_duration(
    "[plugins.echo]\nlimits = { deadline = \"soon\" }\n",
    "<text>:2:12: plugins.echo.limits.deadline: invalid value: string \"soon\", expected a duration"
)]
#[case::infinite(
    "[server]\nconnections_max = inf\n[plugins.echo]\n",
    "<text>:2:1: server.connections_max: invalid type: string \"inf\", expected u32"
)]
fn a_bad_configuration_is_refused_with_its_place_and_what_is_allowed(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(complaint(text), expected);
}

#[test]
fn all_errors_come_at_once_in_the_order_of_the_file() {
    let text = "\
[server]
lisen = []
grace = \"2h\"

[plugins.echo]
enabled = 1

[plugins.files]
handler = \"file\"
config = { rot = \"x\", writable = \"yes\" }

[plugins.shell]
enabled = false
config = { allow_any_command = 3 }

[plugins.weather]
";
    let found = complaint(text);
    let places: Vec<String> =
        found.lines().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        places,
        [
            "<text>:2:1 server.lisen",
            "<text>:3:1 server.grace",
            "<text>:6:1 plugins.echo.enabled",
            "<text>:10:1 plugins.files.config",
            "<text>:10:12 plugins.files.config.rot",
            "<text>:10:23 plugins.files.config.writable",
            "<text>:14:12 plugins.shell.config.allow_any_command",
            "<text>:16:10 plugins.weather",
        ],
        "{found}"
    );
}

#[test]
fn a_column_counts_characters() {
    let found = complaint("[plugins.\"größe\"]\n[plugins.echo]\n\"ö\" = 1\n");
    assert!(found.contains("<text>:3:1: plugins.echo.ö: unknown key"), "{found}");
    let found = complaint("[plugins.echo]\nlimits = { \"öö\" = 1, deadline = \"x\" }\n");
    assert!(found.contains("<text>:2:22: plugins.echo.limits.deadline"), "{found}");
}

#[test]
fn what_changes_or_runs_things_stays_on_loopback_unless_told() {
    let text = |extra: &str| {
        format!(
            "[server]\nlisten = [\"tcp://0.0.0.0:0\"]\n[plugins.files]\nhandler = \"file\"\nconfig = {{ root = \"x\" }}\n{extra}"
        )
    };
    let found = complaint(&text(""));
    assert!(found.starts_with("<text>:3:10: plugins.files changes or runs things"), "{found}");
    assert!(parse(&text("insecure = true")).is_ok());
    assert!(parse(&text("enabled = false")).is_ok());
    assert!(parse("[server]\nlisten = [\"tcp://0.0.0.0:0\"]\n[plugins.echo]\n").is_ok());
}

#[test]
fn a_command_line_address_is_judged_as_one_in_the_file() {
    let registry = Registry::linked().expect("handlers that fit together");
    let origin = Origin::text("[plugins.shell]\nconfig = { allow_any_command = true }\n");
    let open: ListenAddress = "tcp://[::]:0".parse().expect("an address");
    assert!(Config::parse(&origin, &registry, &[open]).is_err());
    let local: ListenAddress = "tcp://[::1]:0".parse().expect("an address");
    let config = Config::parse(&origin, &registry, std::slice::from_ref(&local)).expect("a local address");
    assert_eq!(config.server.listen, [local]);
}

/// A program that was built without some of the shipped handlers.
fn without_most() -> Registry {
    use plugd_core::{Call, Descriptor, Handler, Operation, Status};

    #[derive(Debug)]
    struct Nothing;

    #[async_trait::async_trait]
    impl Handler for Nothing {
        async fn handle(&self, _call: &mut Call) -> Result<(), Status> {
            Ok(())
        }
    }

    let descriptor = Descriptor::new("echo", "").operation(Operation::new("echo", "")).handler(|| Nothing);
    Registry::of([descriptor]).expect("one handler")
}

#[test]
fn a_shipped_handler_that_is_not_linked_is_told_apart_from_an_unknown_one() {
    let origin = Origin::text("[plugins.shell]\nenabled = false\n");
    let found = Config::parse(&origin, &without_most(), &[]).expect_err("not linked").to_string();
    assert_eq!(
        found,
        "<text>:1:10: plugins.shell: handler \"shell\" is not linked into this program; build one with it, or remove the \
         plugin; linked: echo"
    );
}

#[tokio::test]
async fn a_call_of_a_shipped_handler_that_is_not_linked_says_so() {
    let origin = Origin::text("[server]\nlisten = [\"tcp://127.0.0.1:0\"]\n[plugins.echo]\n");
    let config = Config::parse(&origin, &without_most(), &[]).expect("a good configuration");
    let server = plugd_server::Server::bind(config, without_most()).await.expect("a free port");
    let address = server.addresses()[0].to_string().parse().expect("an address");
    let serving = tokio::spawn(server.run());
    let mut client = plugd_client::Client::connect(&address).await.expect("a server");
    let error = client.call(&plugd_core::wire::Open::new("shell"), "").await.expect_err("not linked").to_string();
    assert!(
        error.contains("not_found (handler-not-linked): handler \"shell\" is not linked into this server"),
        "{error}"
    );
    serving.abort();
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let missing = Origin::file(&dir.path().join("none.toml")).expect_err("no such file").to_string();
    assert!(missing.ends_with("none.toml: no such file; `plugd init` writes a commented one"), "{missing}");
    let directory = Origin::file(dir.path()).expect_err("a directory").to_string();
    assert!(directory.contains("cannot be read"), "{directory}");
    let endless = Origin::file(Path::new("/dev/zero")).expect_err("an endless file").to_string();
    assert!(endless.ends_with("more than 1048576 bytes; this is no configuration"), "{endless}");
}

#[test]
fn bytes_that_are_no_utf8_are_found_at_their_place() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("plugins.toml");
    std::fs::write(&file, b"[plugins.echo]\n# \xff\n").expect("a file");
    let registry = Registry::linked().expect("handlers that fit together");
    let found = Config::parse(&Origin::file(&file).expect("a file"), &registry, &[]).expect_err("no text").to_string();
    assert!(found.ends_with("plugins.toml:2:3: byte 0xff is not UTF-8"), "{found}");
}

#[rstest]
#[case::unknown(
    "[plugins.echo]\nlayers = [\"metric\"]\n",
    "<text>:2:11: plugins.echo.layers.0: unknown layer \"metric\"; did you mean \"metrics\"?; linked: limits, metrics"
)]
#[case::unknown_everywhere(
    "[server]\nlayers = [\"x\"]\n[plugins.echo]\n",
    "<text>:2:11: server.layers.0: unknown layer \"x\"; linked: limits, metrics"
)]
#[case::twice(
    "[server]\nlayers = [\"metrics\"]\n[plugins.echo]\nlayers = [\"metrics\"]\n",
    "<text>:4:11: plugins.echo.layers.0: layer \"metrics\" stands around it already"
)]
#[case::settings_of_unknown(
    "[layers.metric]\n[plugins.echo]\n",
    "<text>:1:9: layers.metric: unknown layer \"metric\"; did you mean \"metrics\"?; linked: limits, metrics"
)]
#[case::bad_settings(
    "[layers.limits]\ncalls_max = 0\n[plugins.echo]\n",
    "<text>:2:1: layers.limits.calls_max: 0 is out of range; allowed: 1 to 100000"
)]
#[case::bad_limits(
    "[plugins.echo]\nlimits = { rate = \"10\" }\n",
    "<text>:2:12: plugins.echo.limits.rate: \"10\" is no rate; allowed: N/s, N/m or N/h, at least 1 and at most 1000000/s"
)]
fn layers_are_checked(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(complaint(text), expected);
}

#[test]
fn a_typo_three_levels_down_is_named_with_its_place() {
    let text = "[plugins.ops]\nhandler = \"shell\"\n[plugins.ops.config.commands.tail]\nargv = [\"tail\", \"{n}\"]\n\
                parameters.n = { type = \"integer\", mni = 1 }\n";
    let complaint = complaint(text);
    assert!(
        complaint.starts_with(
            "<text>:5:36: plugins.ops.config.commands.tail.parameters.n.mni: unknown key \"mni\"; did you mean \"min\"?"
        ),
        "{complaint}"
    );
}
