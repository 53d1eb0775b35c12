//! `plug list`: the commands that the server offers.

use super::answer::Answer;
use super::directory::{self, Directory, Plugin};
use super::failure::Failure;
use super::session::Session;
use super::text::{columns, one_line};

pub(crate) async fn run(session: &mut Session<'_>) -> Result<Answer, Failure> {
    let (reply, directory) = directory::fetch(session).await?;
    let data = directory::json(&reply, "plugd.list")?;
    Ok(Answer::of_json(reply, data, table(&directory)))
}

fn table(directory: &Directory) -> String {
    let mut rows = vec![["COMMAND".to_owned(), "SUMMARY".to_owned()]];
    rows.extend(directory.plugins.iter().flat_map(commands));
    columns(&rows, [false, false])
}

/// A plugin with one operation is called by its bare name.
pub(crate) fn commands(plugin: &Plugin) -> Vec<[String; 2]> {
    let command = |operation: &str| match plugin.operations.len() {
        1 => one_line(&plugin.name),
        _ => one_line(&format!("{}.{operation}", plugin.name)),
    };
    let row = |operation: &directory::Operation| [command(&operation.name), one_line(&operation.summary)];
    plugin.operations.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn commands_are_written_as_they_are_called() {
        let directory = json!({"server": "plugd", "version": "1", "plugins": [
            {"name": "docs", "operations": [{"name": "get", "summary": "fetches"}, {"name": "ls", "summary": "lists"}]},
            {"name": "upper", "operations": [{"name": "upper", "summary": "shouts"}]},
        ]});
        let directory = serde_json::from_value(directory).expect("a directory");
        assert_eq!(table(&directory), "COMMAND   SUMMARY\ndocs.get  fetches\ndocs.ls   lists\nupper     shouts\n");
    }
}
