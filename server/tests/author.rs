//! `plugd new-handler` and `plugd build`: what they refuse, and that nothing has changed then.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rstest::rstest;
use tempfile::TempDir;

fn run(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plugd"));
    command.args(args).current_dir(dir).env_remove("PLUGD_SOURCE").output().expect("the server's program")
}

/// What a refusal says; `dir` must be as it was.
fn refusal(dir: &TempDir, args: &[&str]) -> String {
    let names = || -> Vec<_> {
        let entries = fs::read_dir(dir.path()).expect("a directory");
        entries.map(|entry| entry.expect("an entry").file_name()).collect()
    };
    let before = names();
    let output = run(dir.path(), args);
    assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{args:?}");
    assert_eq!(names(), before, "{args:?}");
    String::from_utf8(output.stderr).expect("text").replace(&dir.path().display().to_string(), "DIR")
}

fn empty() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[rstest]
#[case::taken(
    "echo",
    "the handler name \"echo\" is taken: plugd-echo 0.1.0 registers it, and the new crate plugd-echo would again\n"
)]
#[case::crate_of_ours(
    "core",
    "the handler name \"core\" is taken: plugd-core would be named as a crate of plugd itself\n"
)]
#[case::reserved(
    "plugd",
    "the handler name \"plugd\" is taken: plugd-plugd would be named as a crate of plugd itself\n"
)]
#[case::illegal("My Handler", "illegal handler name \"My Handler\"; allowed: [a-z][a-z0-9_-]*, at most 64 bytes\n")]
#[case::existing("there", "DIR/there: exists already; left alone\n")]
fn no_crate_is_made(#[case] name: &str, #[case] expected: &str) {
    let dir = empty();
    fs::create_dir(dir.path().join("there")).expect("a directory");
    assert_eq!(refusal(&dir, &["new-handler", name]), expected);
}

#[test]
fn a_folder_is_made_below_one_that_is_there() {
    let dir = empty();
    let said = refusal(&dir, &["new-handler", "length", "--path", "a/b"]);
    assert_eq!(said, "DIR/a/b: its directory DIR/a does not exist\n");
}

#[test]
fn a_crate_stands_for_itself_and_names_the_core_of_this_program() {
    let dir = empty();
    let output = run(dir.path(), &["new-handler", "my-files", "--path", "x"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = |path: &str| fs::read_to_string(dir.path().join("x").join(path)).expect(path);
    assert!(text("src/lib.rs").contains("pub struct MyFiles;"));
    assert!(text("tests/my-files.rs").contains("use plugd_my_files as _;"));
    assert!(
        text("server/src/main.rs").starts_with(
            "use plugd_my_files as _;\n\nfn main() -> std::process::ExitCode {\n    plugd_server::main()\n"
        )
    );
    let manifest: toml::Table = text("Cargo.toml").parse().expect("TOML");
    let core = manifest["workspace"]["dependencies"]["plugd-core"]["path"].as_str().expect("a path");
    assert!(Path::new(core).join("src/lib.rs").is_file(), "{core}");
    assert!(text("Cargo.lock").contains("name = \"plugd-core\""));
}

#[test]
fn within_the_workspace_a_member_and_its_lines_are_added() {
    // As much of the workspace as it is told by.
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let dir = empty();
    for file in ["Cargo.toml", "server/Cargo.toml", "server/src/handlers.rs", "core/Cargo.toml"] {
        let place = dir.path().join(file);
        fs::create_dir_all(place.parent().expect("a directory")).expect("a directory");
        fs::copy(source.join(file), place).expect(file);
    }
    fs::create_dir(dir.path().join("handlers")).expect("a directory");
    let output = run(dir.path(), &["new-handler", "length"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = |path: &str| fs::read_to_string(dir.path().join(path)).expect(path);
    assert!(text("server/src/handlers.rs").contains("    use plugd_length as \"length\";\n"));
    assert!(text("server/Cargo.toml").contains("length = [\"dep:plugd-length\"]"));
    assert!(text("Cargo.toml").contains("plugd-length = { path = \"handlers/length\" }"));
    assert!(text("handlers/length/Cargo.toml").contains("plugd-core.workspace = true"));
    let again = refusal(&dir, &["new-handler", "length"]);
    assert!(again.ends_with("handlers/length: exists already; left alone\n"), "{again}");
}

/// A crate that uses a core of the given manifest lines.
fn with_crate(dependencies: &str) -> TempDir {
    let dir = empty();
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, text).expect("a file");
    };
    let package = |name: &str, version: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"{version}\"\nedition = \"2024\"\n")
    };
    write("core/Cargo.toml", &package("plugd-core", "9.9.9"));
    write("core/src/lib.rs", "");
    write("mine/Cargo.toml", &format!("{}[workspace]\n[dependencies]\n{dependencies}", package("mine", "1.0.0")));
    write("mine/src/lib.rs", "");
    dir
}

#[rstest]
#[case::unknown_handler(&["--without", "shel"], "no handler \"shel\" to leave out; did you mean \"shell\"?; allowed: echo, file, shell, upper\n")]
#[case::no_crate(&["--with", "./none"], "--with ./none: no crate is there: No such file or directory (os error 2)\n")]
#[case::no_manifest(&["--with", "./core/src"], "--with ./core/src: no crate is there: it has no Cargo.toml\n")]
#[case::output_nowhere(&["-o", "a/b"], "-o a/b: its directory does not exist\n")]
#[case::output_is_a_directory(&["-o", "core"], "-o core: is a directory; name a file\n")]
#[case::nothing_at_all(&["--without", "echo", "--without", "file", "--without", "shell", "--without", "upper"], "a server without any handler; add one with --with CRATE\n")]
fn no_server_is_built(#[case] args: &[&str], #[case] expected: &str) {
    let dir = with_crate("");
    assert_eq!(refusal(&dir, &[&["build", "--offline"], args].concat()), expected);
}

#[test]
fn a_crate_of_another_core_is_refused_with_which_and_why() {
    let dir = with_crate("plugd-core = { path = \"../core\" }\n");
    let said = refusal(&dir, &["build", "--offline", "--with", "./mine", "-o", "out"]);
    assert!(
        said.starts_with(
            "mine 1.0.0 (DIR/mine) uses plugd-core 9.9.9 of DIR/core; this server has plugd-core 0.1.0 of "
        ),
        "{said}"
    );
    assert!(said.contains("this server would not see it"), "{said}");
}

#[test]
fn a_source_of_another_version_is_refused() {
    let dir = with_crate("");
    fs::write(dir.path().join("Cargo.toml"), "[workspace.package]\nversion = \"9.9.9\"\n").expect("a file");
    for args in [&["new-handler", "length", "--source", "."][..], &["build", "--source", "."]] {
        let said = refusal(&dir, args);
        assert!(said.starts_with("DIR holds plugd 9.9.9, and this program is plugd 0.1.0; a server is built with the core of its own version"), "{said}");
    }
}

#[test]
fn a_crate_that_registers_nothing_is_refused() {
    let dir = with_crate("");
    let said = refusal(&dir, &["build", "--offline", "--with", "./mine", "-o", "out"]);
    assert!(said.ends_with("mine 1.0.0: registers no handler: it does not use plugd-core\n"), "{said}");
}
