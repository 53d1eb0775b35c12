//! The JSON Schema of plugins.toml, by a validator that knows nothing of us.

use jsonschema::Validator;
use plugd_server as _;
use rstest::rstest;
use serde_json::Value;

const SHIPPED: &str = include_str!("../../docs/plugins.schema.json");

fn printed() -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_plugd")).arg("schema").output();
    String::from_utf8(output.expect("the server's program").stdout).expect("text")
}

fn complaints(text: &str) -> Vec<String> {
    let schema: Value = serde_json::from_str(SHIPPED).expect("JSON");
    let validator: Validator = jsonschema::draft202012::new(&schema).expect("a schema");
    let config: Value = toml::from_str(text).expect("TOML");
    validator.iter_errors(&config).map(|error| format!("{}: {error}", error.instance_path)).collect()
}

#[test]
fn the_shipped_schema_is_the_one_that_the_program_prints() {
    assert!(printed() == SHIPPED, "mend it: cargo run -q -- schema > docs/plugins.schema.json");
}

#[test]
fn the_shipped_configuration_names_it_and_is_good() {
    let shipped = include_str!("../../plugins.toml");
    assert!(shipped.starts_with("#:schema docs/plugins.schema.json\n"));
    assert_eq!(complaints(shipped), Vec::<String>::new());
    // With the settings that it shows in comments, too.
    assert_eq!(
        complaints(&shipped.replace("\n# ", "\n").lines().filter(is_toml).collect::<Vec<_>>().join("\n")),
        Vec::<String>::new()
    );
}

fn is_toml(line: &&str) -> bool {
    let key = line.split(['=', '[', '.']).next().unwrap_or_default().trim();
    let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    (line.contains('=') && is_key && line.contains(" = ") && !line.starts_with("plug")) || line.starts_with('[')
}

#[rstest]
#[case::handler_by_name("[plugins.docs]\nhandler = \"file\"\nconfig = { root = \"x\" }\n")]
#[case::handler_of_another_name("[plugins.echo]\nhandler = \"upper\"\nconfig.mode = \"ascii\"\n")]
#[case::named_command(
    "[plugins.ops]\nhandler = \"shell\"\nconfig.commands.tail = { argv = [\"tail\"], parameters.n = { type = \"integer\", min = 1 } }\n"
)]
#[case::rules(
    "[groups]\nops = [\"uid:1\"]\n[plugins.echo]\naccess = { allow = [\"group:ops\"], deny = [], operations.echo.deny = [\"any\"] }\n"
)]
#[case::accepted_risks("[server]\ninsecure = [\"root\"]\n[plugins.echo]\ninsecure = [\"no-access-rule\"]\n")]
fn good_configurations_pass(#[case] text: &str) {
    assert_eq!(complaints(text), Vec::<String>::new());
}

#[rstest]
#[case::unknown_section("[plugin.echo]\n[plugins.echo]\n")]
#[case::unknown_setting("[server]\nlisen = []\n[plugins.echo]\n")]
#[case::out_of_range("[server]\nconnections_max = 0\n[plugins.echo]\n")]
#[case::no_plugin("[server]\n")]
#[case::reserved_name("[plugins.plugd]\nhandler = \"echo\"\n")]
#[case::illegal_name("[plugins.Echo]\nhandler = \"echo\"\n")]
#[case::unknown_handler("[plugins.docs]\nhandler = \"flie\"\n")]
#[case::no_handler("[plugins.docs]\nconfig = {}\n")]
#[case::missing_setting("[plugins.file]\n")]
#[case::settings_of_another("[plugins.echo]\nconfig.mode = \"ascii\"\n")]
#[case::no_choice("[plugins.upper]\nconfig.mode = \"latin\"\n")]
#[case::deep_typo(
    "[plugins.shell]\nconfig.commands.tail = { argv = [\"tail\"], parameters.n = { typ = \"integer\" } }\n"
)]
#[case::rule_without_allow("[plugins.echo]\naccess.deny = [\"any\"]\n")]
#[case::misspelt_rule("[plugins.echo]\naccess = { allow = [], dney = [] }\n")]
#[case::no_list("[groups]\nops = \"uid:1\"\n[plugins.echo]\n")]
#[case::unknown_risk("[plugins.echo]\ninsecure = [\"root\"]\n")]
fn bad_configurations_do_not(#[case] text: &str) {
    assert_ne!(complaints(text), Vec::<String>::new());
}
