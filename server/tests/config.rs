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
    "<text>:1:2: unknown section \"plugin\"; did you mean \"plugins\"?; allowed: groups, layers, plugins, server, tokens"
)]
#[case::unknown_key(
    "[plugins.echo]\nenabeld = false\n",
    "<text>:2:1: plugins.echo.enabeld: unknown key \"enabeld\"; did you mean \"enabled\"?; allowed: access, config, enabled, handler, insecure, layers, limits"
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
    "[server]\nlisten = [\"udp://a:1\"]\n[plugins.echo]\n",
    "<text>:2:11: server.listen.0: cannot listen on \"udp://a:1\": unsupported scheme; allowed: tcp://HOST:PORT, tls://HOST:PORT, unix:/PATH"
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
#[case::rule_without_allow(
    "[plugins.echo]\naccess = { deny = [\"net:10.0.0.0/8\"] }\n",
    "<text>:2:1: plugins.echo.access: it says nothing of who may call; add `allow = [...]`, with \"any\" for everybody"
)]
#[case::empty_rule(
    "[plugins.echo.access]\n",
    "<text>:1:15: plugins.echo.access: it says nothing of who may call; add `allow = [...]`, with \"any\" for everybody"
)]
#[case::misspelt_rule(
    "[plugins.echo]\naccess = { allow = [\"any\"], dney = [\"any\"] }\n",
    "<text>:2:29: plugins.echo.access.dney: unknown key \"dney\"; did you mean \"deny\"?; allowed: allow, deny, operations"
)]
#[case::rule_is_no_list(
    "[plugins.echo]\naccess = { allow = \"any\" }\n",
    "<text>:2:12: plugins.echo.access.allow: invalid type: string \"any\", expected a sequence"
)]
#[case::rule_of_an_unknown_operation(
    "[plugins.echo]\naccess.allow = [\"any\"]\naccess.operations.ehco = { allow = [] }\n",
    "<text>:3:19: plugins.echo.access.operations.ehco: unknown operation \"ehco\"; did you mean \"echo\"?; allowed: echo"
)]
#[case::unresolved_entries_also_of_disabled_plugins(
    "[plugins.echo]\nenabled = false\naccess = { allow = [\"user:no-such-user\"], deny = [\"group:x\"] }\n",
    "<text>:3:21: plugins.echo.access.allow.0: \"user:no-such-user\": no user \"no-such-user\" on this machine\n\
     <text>:3:51: plugins.echo.access.deny.0: unknown group \"x\"; known: none; add them to [groups]"
)]
#[case::unknown_token(
    "[plugins.echo]\naccess = { allow = [\"token:ci\"] }\n",
    "<text>:2:21: plugins.echo.access.allow.0: unknown token \"ci\"; known: none; add one with [tokens.NAME]"
)]
#[case::groups(
    "[groups]\na = [\"uid:1\", \"group:a\"]\nb = [\"10.0.0.1\"]\nc = \"any\"\n[plugins.echo]\n",
    "<text>:2:15: groups.a.1: group \"a\" would hold itself through \"a\"\n\
     <text>:3:6: groups.b.0: unknown kind of entry \"10.0.0.1\"; allowed: any, cert:NAME, group:NAME, \
     net:ADDRESS[/BITS], token:NAME, uid:NUMBER, user:NAME\n\
     <text>:4:1: groups.c: invalid type: string \"any\", expected a sequence"
)]
#[case::unknown_risks(
    "[server]\ninsecure = [\"rot\"]\n[plugins.echo]\ninsecure = [\"no-access-rule\", \"root\"]\n",
    "<text>:2:13: server.insecure.0: unknown risk \"rot\"; did you mean \"root\"?; allowed: cleartext-tokens, root\n\
     <text>:4:31: plugins.echo.insecure.1: unknown risk \"root\"; allowed: no-access-rule"
)]
#[case::unix_mode(
    "[server]\nunix_mode = \"0777\"\n[plugins.echo]\n",
    "<text>:2:1: server.unix_mode: unknown mode \"0777\"; allowed: 0600, 0660, 0666"
)]
#[case::insecure_is_a_list_now(
    "[plugins.echo]\ninsecure = true\n",
    "<text>:2:1: plugins.echo.insecure: invalid type: boolean `true`, expected a sequence"
)]
#[case::infinite(
    "[server]\nconnections_max = inf\n[plugins.echo]\n",
    "<text>:2:1: server.connections_max: invalid type: string \"inf\", expected u32"
)]
fn a_bad_configuration_is_refused_with_its_place_and_what_is_allowed(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(complaint(text), expected);
}

#[rstest]
#[case::connections("connections_max", "0", "1 to 100000")]
#[case::per_address("connections_per_address_max", "0", "1 to 100000")]
#[case::unidentified("connections_unidentified_max", "100001", "1 to 100000")]
#[case::calls("calls_per_connection_max", "0", "1 to 1000000000")]
#[case::empty_frames("empty_frames_max", "4000000000", "1 to 1000000000")]
#[case::body_rate("body_rate_min", "\"0B\"", "1 B to 1.0 MiB")]
#[case::body_rate_grace("body_rate_grace", "\"1day\"", "100ms to 10m")]
#[case::write_timeout("write_timeout", "\"0s\"", "100ms to 1h")]
fn no_limit_is_endless_or_absurd(#[case] setting: &str, #[case] value: &str, #[case] allowed: &str) {
    let complaint = complaint(&format!("[server]\n{setting} = {value}\n[plugins.echo]\n"));
    assert!(complaint.starts_with(&format!("<text>:2:1: server.{setting}: ")), "{complaint}");
    assert!(complaint.ends_with(&format!(" is out of range; allowed: {allowed}")), "{complaint}");
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
    let text = |listen: &str, extra: &str| {
        format!(
            "[server]\nlisten = [\"{listen}\"]\ninsecure = [\"root\"]\n[plugins.files]\nhandler = \"file\"\nconfig = {{ root = \"x\" }}\n{extra}"
        )
    };
    let beyond = "tcp://0.0.0.0:0";
    assert_eq!(
        complaint(&text(beyond, "")),
        "<text>:4:10: plugins.files changes or runs things for everybody who reaches tcp://0.0.0.0:0; say who may call it, \
         such as `access = { allow = [\"uid:1000\", \"net:127.0.0.0/8\"] }`, listen on loopback, disable it, or accept that \
         with `insecure = [\"no-access-rule\"]`"
    );
    for enough in ["insecure = [\"no-access-rule\"]", "enabled = false", "access = { allow = [\"net:10.0.0.0/8\"] }"] {
        assert!(parse(&text(beyond, enough)).is_ok(), "{enough}");
    }
    for local in ["tcp://127.0.0.1:0", "tcp://[::1]:0", "tcp://localhost:0", "unix:/run/plugd.sock"] {
        assert!(parse(&text(local, "")).is_ok(), "{local}");
    }
    assert!(parse("[server]\nlisten = [\"tcp://0.0.0.0:0\"]\n[plugins.echo]\n").is_ok());
}

#[test]
fn what_runs_programs_starts_nowhere_without_saying_who_may_call_it() {
    let text = |extra: &str| format!("[plugins.shell]\nconfig = {{ allow_any_command = true }}\n{extra}");
    let found = complaint(&text(""));
    assert!(
        found.starts_with("<text>:1:10: plugins.shell runs programs for everybody who reaches the server; say who"),
        "{found}"
    );
    for remedy in ["`access = {", "disable it", "`insecure = [\"no-access-rule\"]`"] {
        assert!(found.contains(remedy), "{remedy} in {found}");
    }
    assert!(!found.contains("listen on loopback"), "{found}");
    for enough in ["access.allow = [\"any\"]", "insecure = [\"no-access-rule\"]", "enabled = false"] {
        assert!(parse(&text(enough)).is_ok(), "{enough}");
    }
    let commands = |extra: &str| {
        format!("[plugins.ops]\nhandler = \"shell\"\n[plugins.ops.config.commands.up]\nargv = [\"uptime\"]\n{extra}")
    };
    assert!(complaint(&commands("")).starts_with("<text>:1:10: plugins.ops runs programs"));
    assert!(parse(&commands("read_only = true\n")).is_ok());
}

#[test]
fn root_changes_nothing_for_callers_beyond_this_machine_unless_told() {
    let text = |listen: &str, server: &str| {
        format!(
            "[server]\nlisten = [\"{listen}\"]\n{server}\n[plugins.files]\nhandler = \"file\"\naccess.allow = [\"any\"]\nconfig = {{ root = \"x\" }}\n"
        )
    };
    let beyond = "tcp://0.0.0.0:0";
    match nix::unistd::geteuid().is_root() {
        true => assert_eq!(
            complaint(&text(beyond, "")),
            "<text>:2:1: as root, files would change or run things for callers at tcp://0.0.0.0:0; name who to become with \
             `user` in [server], listen on loopback, or accept that with `insecure = [\"root\"]` there"
        ),
        false => assert!(parse(&text(beyond, "")).is_ok()),
    }
    assert!(parse(&text(beyond, "insecure = [\"root\"]")).is_ok());
    assert!(parse(&text("tcp://127.0.0.1:0", "")).is_ok());
    assert!(parse(&text(beyond, "user = \"nobody\"")).is_ok());
    assert!(parse("[server]\nlisten = [\"tcp://0.0.0.0:0\"]\n[plugins.echo]\n").is_ok());
}

#[test]
fn a_command_line_address_is_judged_as_one_in_the_file() {
    let registry = Registry::linked().expect("handlers that fit together");
    let text = "[server]\ninsecure = [\"root\"]\n[plugins.files]\nhandler = \"file\"\nconfig = { root = \"x\" }\n";
    let origin = Origin::text(text);
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
    let text = "[plugins.ops]\nhandler = \"shell\"\naccess.allow = [\"any\"]\n[plugins.ops.config.commands.tail]\nargv = [\"tail\", \"{n}\"]\n\
                parameters.n = { type = \"integer\", mni = 1 }\n";
    let complaint = complaint(text);
    assert!(
        complaint.starts_with(
            "<text>:6:36: plugins.ops.config.commands.tail.parameters.n.mni: unknown key \"mni\"; did you mean \"min\"?"
        ),
        "{complaint}"
    );
}
