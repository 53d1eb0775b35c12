//! plugd's own workspace, where a new handler becomes a member and a feature of the server.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, InlineTable, Item, Value};

use crate::cli::Failure;

const ROOT_MANIFEST: &str = "Cargo.toml";
const SERVER_MANIFEST: &str = "server/Cargo.toml";
const HANDLERS: &str = "server/src/handlers.rs";

/// plugd's own workspace.
#[derive(Debug)]
pub(super) struct Workspace {
    dir: PathBuf,
}

/// Files with the text that they are to have.
#[derive(Debug)]
pub(super) struct Changes {
    dir: PathBuf,
    files: Vec<(&'static str, String)>,
}

impl Workspace {
    /// The workspace that a directory lies in, if it is plugd's own.
    pub(super) fn around(dir: &Path) -> Option<Workspace> {
        let is_ours = |dir: &&Path| {
            let is_file = |name: &str| dir.join(name).is_file();
            is_file(ROOT_MANIFEST) && is_file(SERVER_MANIFEST) && is_file(HANDLERS) && is_file("core/Cargo.toml")
        };
        dir.ancestors().find(is_ours).map(|dir| Workspace { dir: dir.to_owned() })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What must change for a handler in `dir`; writes nothing.
    pub(super) fn with_handler(&self, name: &str, dir: &Path) -> Result<Changes, Failure> {
        let unfit = |file: &str, why: &str| Failure::Refused(format!("{}: {why}", self.dir.join(file).display()));
        let path = dir.strip_prefix(&self.dir).map_err(|_| unfit(ROOT_MANIFEST, "the new folder lies elsewhere"))?;
        let path = path.to_str().ok_or_else(|| unfit(ROOT_MANIFEST, "the new folder's name is no text"))?;
        let edits: [(&'static str, Edit); 3] =
            [(ROOT_MANIFEST, edit_root), (SERVER_MANIFEST, edit_server), (HANDLERS, edit_handlers)];
        let mut files = Vec::new();
        for (file, edit) in edits {
            let text = fs::read_to_string(self.dir.join(file)).map_err(|error| unfit(file, &error.to_string()))?;
            files.push((file, edit(&text, name, path).map_err(|why| unfit(file, &why))?));
        }
        Ok(Changes { dir: self.dir.clone(), files })
    }
}

impl Changes {
    /// Writes the files, each in one step, and names them.
    pub(super) fn write(self) -> io::Result<Vec<&'static str>> {
        for (file, text) in &self.files {
            let path = self.dir.join(file);
            let new = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(&self.dir))?;
            fs::write(new.path(), text)?;
            fs::set_permissions(new.path(), fs::metadata(&path)?.permissions())?;
            new.persist(&path)?;
        }
        Ok(self.files.into_iter().map(|(file, _)| file).collect())
    }
}

/// Gives the new text for a handler of this name in the folder of this path.
type Edit = fn(&str, &str, &str) -> Result<String, String>;

/// Makes the crate a member, and one that others in the workspace can depend on.
fn edit_root(text: &str, name: &str, path: &str) -> Result<String, String> {
    let mut manifest = parse(text)?;
    let members = manifest["workspace"]["members"].as_array_mut().ok_or("it has no `workspace.members`")?;
    let covers = |member: &Value| {
        let member = member.as_str().unwrap_or_default();
        member == path
            || member.strip_suffix("/*").is_some_and(|dir| path.rsplit_once('/').is_some_and(|it| it.0 == dir))
    };
    if !members.iter().any(covers) {
        members.push(path);
    }
    let dependencies = table(&mut manifest["workspace"]["dependencies"], "workspace.dependencies")?;
    add(dependencies, &format!("plugd-{name}"), inline([("path", path.into())]))?;
    Ok(manifest.to_string())
}

/// Makes the crate a feature of the server, on by default.
fn edit_server(text: &str, name: &str, _path: &str) -> Result<String, String> {
    let mut manifest = parse(text)?;
    let features = table(&mut manifest["features"], "features")?;
    let package = format!("plugd-{name}");
    features.get_mut("default").and_then(Item::as_array_mut).ok_or("it has no `features.default`")?.push(name);
    add(features, name, Value::from_iter([format!("dep:{package}")]))?;
    let dependencies = table(&mut manifest["dependencies"], "dependencies")?;
    add(dependencies, &package, inline([("workspace", true.into()), ("optional", true.into())]))?;
    Ok(manifest.to_string())
}

/// Adds the one line that has the crate linked.
fn edit_handlers(text: &str, name: &str, _path: &str) -> Result<String, String> {
    let (begin, rest) = text.split_once("\nhandlers! {\n").ok_or("it has no `handlers! {`")?;
    let (lines, end) = rest.split_once("}\n").ok_or("`handlers! {` has no end")?;
    let line = format!("    use plugd_{} as \"{name}\";", name.replace('-', "_"));
    let mut lines: Vec<&str> = lines.lines().collect();
    if lines.iter().any(|line| line.ends_with(&format!("as \"{name}\";"))) {
        return Err(format!("the handler name \"{name}\" is taken"));
    }
    // The list is in the order of its names, and so is what the registry says.
    lines.push(&line);
    lines.sort_by_key(|line| line.rsplit(" as ").next());
    Ok(format!("{begin}\nhandlers! {{\n{}\n}}\n{end}", lines.join("\n")))
}

fn parse(text: &str) -> Result<DocumentMut, String> {
    text.parse().map_err(|error| format!("{error}"))
}

fn table<'a>(item: &'a mut Item, name: &str) -> Result<&'a mut toml_edit::Table, String> {
    item.as_table_mut().ok_or_else(|| format!("it has no table `{name}`"))
}

fn inline<const LEN: usize>(entries: [(&str, Value); LEN]) -> Value {
    InlineTable::from_iter(entries).into()
}

fn add(table: &mut toml_edit::Table, key: &str, value: Value) -> Result<(), String> {
    match table.contains_key(key) {
        true => Err(format!("it has a `{key}` already")),
        false => {
            table.insert(key, Item::Value(value));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_costs_a_line_where_it_belongs() {
        let text = "//! Words.\n\nhandlers! {\n    use plugd_echo as \"echo\";\n    use plugd_upper as \"upper\";\n}\n\nrest {\n}\n";
        let edited = edit_handlers(text, "my-files", "").expect("a known file");
        let wanted =
            text.replace("    use plugd_upper", "    use plugd_my_files as \"my-files\";\n    use plugd_upper");
        assert_eq!(edited, wanted);
        assert_eq!(edit_handlers(text, "upper", ""), Err("the handler name \"upper\" is taken".to_owned()));
        assert_eq!(edit_handlers("", "upper", ""), Err("it has no `handlers! {`".to_owned()));
    }

    #[test]
    fn a_manifest_keeps_its_words_and_a_member_is_named_unless_a_pattern_names_it() {
        let text =
            "[workspace]\nmembers = [\"core\", \"handlers/*\"] # rooms\n\n[workspace.dependencies]\na = \"1\" # why\n";
        let edited = edit_root(text, "length", "handlers/length").expect("a known file");
        assert_eq!(edited, format!("{text}plugd-length = {{ path = \"handlers/length\" }}\n"));
        let edited = edit_root(text, "length", "mine/length").expect("a known file");
        assert!(edited.contains("[\"core\", \"handlers/*\", \"mine/length\"] # rooms"), "{edited}");
        assert!(edit_root(&edited, "length", "mine/length").is_err());
    }

    #[test]
    fn a_feature_is_added_and_on() {
        let text =
            "[features]\ndefault = [\"echo\"]\necho = [\"dep:plugd-echo\"]\n\n[dependencies]\nx.workspace = true\n";
        let edited = edit_server(text, "length", "").expect("a known file");
        let wanted = "[features]\ndefault = [\"echo\", \"length\"]\necho = [\"dep:plugd-echo\"]\nlength = [\"dep:plugd-length\"]\n\n\
                      [dependencies]\nx.workspace = true\nplugd-length = { workspace = true, optional = true }\n";
        assert_eq!(edited, wanted);
    }
}
