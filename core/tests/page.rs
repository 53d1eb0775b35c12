//! The examples of docs/testing-a-handler.md, run as they stand there.

use plugd_core::prelude::*;
use plugd_core::{Code, Data};
use schemars::JsonSchema;
use serde::Deserialize;

const PAGE: &str = include_str!("../../docs/testing-a-handler.md");

/// What the examples of the page stand in here, and the test of a real handler that its last one shows.
const SOURCES: [&str; 2] = [include_str!("page.rs"), include_str!("../../handlers/upper/tests/upper.rs")];

/// The handler that the page tests.
#[derive(Debug)]
struct Words {
    len_max: usize,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WordsSettings {
    #[serde(default = "len_max_default")]
    len_max: usize,
}

fn len_max_default() -> usize {
    16 << 20
}

impl Settings for WordsSettings {
    type Handler = Words;

    fn build(self, _: &Context) -> Result<Words, StartError> {
        Ok(Words { len_max: self.len_max })
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct CountArgs {
    unit: Unit,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Unit {
    #[default]
    Words,
    Bytes,
}

#[async_trait]
impl Handler for Words {
    async fn handle(&self, call: &mut Call) -> Result<(), Status> {
        let CountArgs { unit } = call.args()?;
        let (mut words, mut bytes, mut in_word) = (0_u64, 0, false);
        while let Some(data) = call.recv().await? {
            bytes += data.len();
            if bytes > self.len_max {
                return Err(Status::resource_exhausted("too-long", "too long a text"));
            }
            for byte in &*data {
                words += u64::from(!in_word && !byte.is_ascii_whitespace());
                in_word = !byte.is_ascii_whitespace();
            }
        }
        call.set_trailer(&json!({ "bytes": bytes }))?;
        let count = match unit {
            Unit::Words => words,
            Unit::Bytes => bytes as u64,
        };
        call.send(format!("{count}\n")).await
    }
}

plugd_core::register!(|| {
    Descriptor::new("words", "counts words")
        .operation(Operation::new("count", "counts words").streams(Streaming::Client).args::<CountArgs>())
        .settings::<WordsSettings>()
});

use plugd_core::testing::Plugin;
use serde_json::json;

#[tokio::test]
async fn words_are_counted() {
    let plugin = Plugin::linked("words", json!({ "len_max": 100 }));
    let answer = plugin.call("count").arg("unit", "words").send("one ").send("two").await.ok();
    assert_eq!(answer.text(), "2\n");
    assert_eq!(answer.trailer()["bytes"], 7);
}

#[tokio::test]
async fn a_caller_is_no_model_of_one() {
    let plugin = Plugin::linked("words", json!({}));
    let mut session = plugin.call("count").send("one").start().await;
    session.sender.cancel().await; // or end_input(), or nothing for a while
    let answer = session.receiver.answer().await; // or frame(), one after the other
    assert_eq!(answer.status.code(), Code::Cancelled);
    plugin.call("count").start().await.vanish().await; // the connection is cut; the handler has ended afterwards
}

use plugd_core::testing::conformance::Subject;

plugd_core::conformance! {
    conforms: Subject::linked("words", json!({})).sample("count", json!({}), [Data::main("one two")])
}

/// Each line of an example but those that name the crate of its author.
fn lines(text: &str) -> Vec<&str> {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty() && !line.starts_with("use my_handler")).collect()
}

#[test]
fn every_example_of_the_page_is_run() {
    let sources = SOURCES.map(|source| lines(source).join("\n"));
    let examples: Vec<&str> =
        PAGE.split("```rust,ignore\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 4);
    for example in examples {
        let example = lines(example).join("\n");
        assert!(sources.iter().any(|source| source.contains(&example)), "not run: {example}");
    }
}
