//! What the tests share: a served directory beside a secret, and calls on it.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use plugd_core::{Code, Data};
use plugd_file as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use plugd_core::testing::{Answer, Plugin, Session};

pub(crate) const HELLO_MD5: &str = "md5:5d41402abc4b2a76b9719d911017c592";
pub(crate) const HELLO_BLAKE3: &str = "blake3:ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f";
pub(crate) const HELLO_SHA256: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
pub(crate) const EMPTY_MD5: &str = "md5:d41d8cd98f00b204e9800998ecf8427e";

/// How many bytes the handler reads from a file at once.
pub(crate) const CHUNK_LEN: usize = 256 << 10;

/// The directory in which uploads are kept until they are whole.
pub(crate) const UPLOADS: &str = ".plugd-uploads";

/// A served directory `root` beside a file `secret` that must stay out of reach.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    settings: Value,
    handler: Plugin,
}

impl World {
    /// A plugin that may change files, as the settings' defaults have it.
    pub(crate) fn new() -> World {
        World::with(json!({}))
    }

    /// A plugin that may change files, with more settings.
    pub(crate) fn with(more: Value) -> World {
        let mut settings = json!({ "root": "root", "writable": true, "durability": "none" });
        let Value::Object(more) = more else { panic!("settings are an object") };
        settings.as_object_mut().expect("an object").extend(more);
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("root")).expect("a root");
        fs::write(dir.path().join("secret"), "secret").expect("a secret");
        let handler = Plugin::linked_in("file", settings.clone(), dir.path());
        World { dir, settings, handler }
    }

    /// Starts the plugin anew, as a new server would.
    pub(crate) fn restart(&mut self) {
        self.handler = Plugin::linked_in("file", self.settings.clone(), self.dir.path());
    }

    /// The path of a served file.
    pub(crate) fn path(&self, name: impl AsRef<std::path::Path>) -> PathBuf {
        self.dir.path().join("root").join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).expect("a file");
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("a file")
    }

    pub(crate) fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).expect("text")
    }

    /// The names in the root, sorted, without the server's own.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = names(self.path(""));
        names.retain(|name| name != UPLOADS);
        names
    }

    /// The names of the uploads that are not whole, sorted.
    pub(crate) fn uploads(&self) -> Vec<String> {
        names(self.path(UPLOADS))
    }

    pub(crate) async fn open(&self, operation: &'static str, args: Value) -> Session {
        self.handler.call(operation).args(args).start().await
    }

    pub(crate) async fn call(&self, operation: &'static str, args: Value, input: &[Data]) -> Answer {
        self.open(operation, args).await.run(input).await
    }

    /// Calls what takes no input and must succeed.
    pub(crate) async fn ask(&self, operation: &'static str, args: Value) -> Answer {
        let answer = self.call(operation, args.clone(), &[]).await;
        assert!(answer.status.is_ok(), "{operation} {args}: {}", answer.status);
        answer
    }

    /// Stores a file, which must succeed; returns the receipt.
    pub(crate) async fn put(&self, args: Value, content: impl AsRef<[u8]>) -> Value {
        let input: Vec<Data> = content.as_ref().chunks(CHUNK_LEN).map(|chunk| Data::main(chunk.to_vec())).collect();
        let answer = self.call("put", args.clone(), &input).await;
        assert!(answer.status.is_ok(), "put {args}: {}", answer.status);
        answer.trailer()
    }

    /// Calls what must fail; returns how it does.
    pub(crate) async fn refused(&self, operation: &'static str, args: Value) -> (Code, String) {
        let answer = self.call(operation, args.clone(), &[Data::main("hello")]).await;
        assert!(!answer.status.is_ok(), "{operation} {args} succeeded");
        assert!(!answer.status.message().contains("root/"), "{}", answer.status);
        (answer.status.code(), answer.status.reason().to_owned())
    }

    /// The reason for which a call fails.
    pub(crate) async fn reason(&self, operation: &'static str, args: Value) -> String {
        self.refused(operation, args).await.1
    }

    /// The lines of an answer.
    pub(crate) async fn lines(&self, operation: &'static str, args: Value) -> Vec<Value> {
        lines(&self.ask(operation, args).await)
    }

    /// The names that `ls` lists.
    pub(crate) async fn listed(&self, args: Value) -> Vec<String> {
        let lines = self.lines("ls", args).await;
        lines.iter().map(|line| line["name"].as_str().expect("a name").to_owned()).collect()
    }

    /// What `stat` says of the file's present version.
    pub(crate) async fn etag(&self, path: &str) -> String {
        self.lines("stat", json!({ "path": path })).await[0]["etag"].as_str().expect("an etag").to_owned()
    }

    /// Sends an upload's beginning and waits for its header.
    pub(crate) async fn begin_put(&self, args: Value, beginning: &[u8]) -> (Session, Value) {
        let mut session = self.open("put", args).await;
        let head = session.receiver.frame().await;
        let head = serde_json::from_slice(&head.payload).expect("a JSON header");
        session.send(beginning).await;
        (session, head)
    }
}

pub(crate) fn lines(answer: &Answer) -> Vec<Value> {
    answer.text().lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

fn names(dir: PathBuf) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A digest on its side channel.
pub(crate) fn digest_message(text: &'static str) -> Data {
    Data { channel: 1, ..Data::main(text) }
}

/// Bytes that no short period repeats, so that a piece out of place shows.
pub(crate) fn sample(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
}

/// The BLAKE3 digest of some content, as it stands on the wire.
pub(crate) fn blake3_of(content: &[u8]) -> String {
    format!("blake3:{}", blake3::hash(content).to_hex())
}

/// Waits until `holds` does.
pub(crate) async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
