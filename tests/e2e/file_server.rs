//! The file handler in a real server, over real sockets: memory, kills, cuts and a full disk.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use plugd_core::wire::{
    DATA_LEN_MAX_DEFAULT, End, FRAME_HEADER_LEN, FrameHeader, FrameLimits, HELLO_LEN, Hello, Kind, Open,
};
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::PATIENCE;
use crate::support::process::{EVERYTHING, Plugd, plugd, wait_until};

/// How much a server may hold in memory, whatever the size of the files it moves.
const RESIDENT_KIB_MAX: u64 = 64 << 10;

const CHUNK_LEN: usize = 256 << 10;

/// A caller without any manners of its own, that waits for nothing.
pub(crate) struct Caller {
    pub(crate) stream: TcpStream,
}

impl Caller {
    /// Opens a call.
    pub(crate) fn open(server: &Plugd, command: &str, args: &Value) -> Caller {
        let address = server.address.strip_prefix("tcp://").expect("a TCP address");
        let mut stream = TcpStream::connect(address).expect("a listening server");
        stream.set_read_timeout(Some(PATIENCE)).expect("a connected socket");
        stream.write_all(&Hello { data_len_max: DATA_LEN_MAX_DEFAULT }.encode()).expect("an open connection");
        let open = Open { args: Some(to_raw_value(args).expect("JSON")), ..Open::new(command) };
        let mut caller = Caller { stream };
        caller.frame(FrameHeader::new(Kind::Open, 0), &open.encode()).expect("an open connection");
        caller.stream.read_exact(&mut [0; HELLO_LEN]).expect("a hello");
        caller
    }

    fn frame(&mut self, header: FrameHeader, payload: &[u8]) -> io::Result<()> {
        let header = FrameHeader { payload_len: payload.len() as u32, ..header };
        self.stream.write_all(&[&header.encode()[..], payload].concat())
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        bytes.chunks(CHUNK_LEN).try_for_each(|chunk| self.frame(FrameHeader::new(Kind::Data, 0), chunk))
    }

    pub(crate) fn end_input(&mut self) -> io::Result<()> {
        self.frame(FrameHeader::new(Kind::EndOfInput, 0), b"")
    }

    /// The header of the next frame, whose payload is still to be read.
    fn next(&mut self) -> io::Result<FrameHeader> {
        let mut bytes = [0; FRAME_HEADER_LEN];
        self.stream.read_exact(&mut bytes)?;
        Ok(FrameHeader::decode(bytes, FrameLimits::default()).expect("a good frame"))
    }

    fn payload(&mut self, header: FrameHeader) -> io::Result<Vec<u8>> {
        let mut payload = vec![0; header.payload_len as usize];
        self.stream.read_exact(&mut payload).map(|()| payload)
    }

    /// The handler's own header.
    pub(crate) fn head(&mut self) -> Value {
        let header = self.next().expect("a frame");
        assert_eq!(header.kind, Kind::Head);
        let payload = self.payload(header).expect("a whole frame");
        serde_json::from_slice(&payload).expect("JSON")
    }

    /// The content of a call's one message, and how the call ended.
    pub(crate) fn content(&mut self) -> (Vec<u8>, End) {
        let mut content = Vec::new();
        loop {
            let header = self.next().expect("a frame");
            let payload = self.payload(header).expect("a whole frame");
            match header.kind {
                Kind::Data => content.extend(payload),
                Kind::End => return (content, End::decode(&payload).expect("a good end")),
                _ => {}
            }
        }
    }

    /// The end of the call.
    pub(crate) fn end(&mut self) -> End {
        loop {
            let header = self.next().expect("a frame");
            let payload = self.payload(header).expect("a whole frame");
            if header.kind == Kind::End {
                return End::decode(&payload).expect("a good end");
            }
        }
    }
}

fn resident_kib_max(server: &Plugd) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.id())).expect("a running server");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a line about memory");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

/// Bytes that no short period repeats, so that a piece out of place shows.
pub(crate) fn sample(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

/// A server of a directory that outlives it.
fn serve(root: &TempDir) -> Plugd {
    Plugd::start(&format!(
        "[plugins.files]\nhandler = \"file\"\nconfig = {{ root = {:?}, writable = true }}\n",
        root.path()
    ))
}

#[test]
fn a_file_of_five_gibibytes_and_a_byte_takes_little_memory() {
    let server = Plugd::start(EVERYTHING);
    let size = (5u64 << 30) + 1;
    let file = fs::File::create(server.file("sparse")).expect("a file");
    file.set_len(size).expect("a sparse file");
    let mut caller = Caller::open(&server, "files.get", &json!({ "path": "sparse", "algorithm": "none" }));
    assert_eq!(caller.head()["size"], size);
    let (mut received, mut buf) = (0, vec![0; CHUNK_LEN]);
    let end = loop {
        let header = caller.next().expect("a frame");
        if header.kind == Kind::End {
            break End::decode(&caller.payload(header).expect("a whole frame")).expect("a good end");
        }
        let mut left = header.payload_len as usize;
        while left > 0 {
            let len = left.min(buf.len());
            caller.stream.read_exact(&mut buf[..len]).expect("an open connection");
            left -= len;
        }
        received += u64::from(header.payload_len);
    };
    assert!(end.status.is_ok(), "{}", end.status);
    assert_eq!(received, size);
    let resident_kib = resident_kib_max(&server);
    assert!(resident_kib < RESIDENT_KIB_MAX, "{resident_kib} KiB");
}

#[test]
fn what_lies_beyond_five_gibibytes_is_carried_on_and_copied() {
    let server = Plugd::start(EVERYTHING);
    let size = (5u64 << 30) + 1;
    let args = |resume: bool| json!({ "path": "f", "token": "t", "algorithm": "none", "durability": "none", "resume": resume });
    let mut caller = Caller::open(&server, "files.put", &args(false));
    caller.send(&sample(CHUNK_LEN)).expect("an open connection");
    wait_until("the upload to arrive", || kept_len(&server.file("")) > 0);
    caller.stream.shutdown(Shutdown::Write).expect("an open connection");
    // The server has let go of it when it closes the connection; then it grows by a hole.
    let _ = io::copy(&mut caller.stream, &mut io::sink());
    let kept = uploads(&server.file("")).join(&left(&server.file(""))[0]);
    fs::OpenOptions::new().write(true).open(&kept).and_then(|file| file.set_len(size - 1)).expect("a sparse file");
    let mut caller = Caller::open(&server, "files.put", &args(true));
    assert_eq!(caller.head()["offset"], size - 1);
    caller.send(b"!").expect("an open connection");
    caller.end_input().expect("an open connection");
    let end = caller.end();
    assert!(end.status.is_ok(), "{}", end.status);
    let receipt = end.trailer.expect("a receipt");
    assert_eq!((&receipt["bytes"], &receipt["size"]), (&json!(1), &json!(size)));

    let ask = |command: &str, args: Value| {
        let mut caller = Caller::open(&server, command, &args);
        caller.end_input().expect("an open connection");
        let (content, end) = caller.content();
        assert!(end.status.is_ok(), "{command} {args}: {}", end.status);
        content
    };
    ask("files.copy", json!({ "from": "f", "to": "copy" }));
    assert!(fs::metadata(server.file("copy")).expect("a copy").blocks() * 512 < 16 << 20, "a hole stays one");
    assert_eq!(ask("files.get", json!({ "path": "copy", "offset": size - 3, "algorithm": "none" })), b"\0\0!");
    assert_eq!(ask("files.get", json!({ "path": "f", "offset": (4u64 << 30) - 1, "length": 2 })), b"\0\0");
    let line: Value = serde_json::from_slice(&ask("files.stat", json!({ "path": "copy" }))).expect("JSON");
    assert_eq!(line["size"], size);
    let resident_kib = resident_kib_max(&server);
    assert!(resident_kib < RESIDENT_KIB_MAX, "{resident_kib} KiB");
}

#[test]
fn an_upload_takes_little_memory() {
    let server = Plugd::start(EVERYTHING);
    let (chunk, chunks) = (sample(CHUNK_LEN), 1024);
    let args = json!({ "path": "f", "size": CHUNK_LEN * chunks, "algorithm": "blake3", "durability": "none" });
    let mut caller = Caller::open(&server, "files.put", &args);
    for _ in 0..chunks {
        caller.send(&chunk).expect("an open connection");
    }
    caller.end_input().expect("an open connection");
    let end = caller.end();
    assert!(end.status.is_ok(), "{}", end.status);
    let resident_kib = resident_kib_max(&server);
    assert!(resident_kib < RESIDENT_KIB_MAX, "{resident_kib} KiB");
}

#[test]
fn a_server_that_is_killed_anywhere_in_a_put_leaves_the_old_file_or_the_new_one() {
    let root = tempfile::tempdir().expect("a directory");
    let file = root.path().join("f");
    let (old, new) = (sample(300_000), sample(3_000_001));
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    let (mut random, mut replaced) = (seed | 1, 0);
    for _ in 0..50 {
        fs::write(&file, &old).expect("a file");
        let mut server = serve(&root);
        assert_eq!(left(root.path()), [""; 0], "swept at the start; seed {seed}");
        // Half of the points lie in the input, and half in the moment behind its end.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (point, pause_ns) = ((random >> 33) as usize % (2 * new.len()), (random >> 40) % 10_000_000);
        let mut caller = Caller::open(&server, "files.put", &json!({ "path": "f", "size": new.len() }));
        caller.send(&new[..point.min(new.len())]).expect("an open connection");
        if point >= new.len() {
            caller.end_input().expect("an open connection");
            // Nothing is waited for: the server is to be struck while it works.
            std::thread::sleep(Duration::from_nanos(pause_ns));
        }
        server.kill();
        let content = fs::read(&file).expect("a file");
        assert!(content == old || content == new, "{} bytes at {point}, seed {seed}", content.len());
        replaced += usize::from(content == new);
    }
    drop(serve(&root));
    assert_eq!((names(root.path()), left(root.path())), (vec![".plugd-uploads".into(), "f".into()], vec![]));
    assert!(replaced < 50, "none was struck in time; seed {seed}");
}

fn uploads(root: &Path) -> std::path::PathBuf {
    root.join(".plugd-uploads")
}

fn left(root: &Path) -> Vec<String> {
    if uploads(root).exists() { names(&uploads(root)) } else { Vec::new() }
}

#[test]
fn a_put_outlives_its_connection_and_its_server() {
    let root = tempfile::tempdir().expect("a directory");
    let content = sample(4_000_003);
    let digest = format!("blake3:{}", blake3::hash(&content).to_hex());
    let args =
        |resume: bool| json!({ "path": "f", "token": "t", "size": content.len(), "digest": digest, "resume": resume });
    let mut server = serve(&root);
    let mut caller = Caller::open(&server, "files.put", &args(false));
    caller.send(&content[..3_000_000]).expect("an open connection");
    wait_until("the upload to arrive", || kept_len(root.path()) > 1_000_000);
    drop(caller);
    let mut before = 0;
    for kills in 0..3 {
        let mut caller = Caller::open(&server, "files.put", &args(true));
        let offset = caller.head()["offset"].as_u64().expect("an offset") as usize;
        assert!(offset >= before && offset > 1_000_000, "{offset} after {before}");
        before = offset;
        if kills < 2 {
            caller.send(&content[offset..3_500_000]).expect("an open connection");
            wait_until("more to arrive", || kept_len(root.path()) > offset as u64 || offset >= 3_000_000);
            server.kill();
            server = serve(&root);
            continue;
        }
        caller.send(&content[offset..]).expect("an open connection");
        caller.end_input().expect("an open connection");
        let end = caller.end();
        assert!(end.status.is_ok(), "{}", end.status);
        assert_eq!(end.trailer.expect("a receipt")["resumed_from"], offset);
    }
    assert!(fs::read(root.path().join("f")).expect("a file") == content);
    assert_eq!(left(root.path()), [""; 0]);
}

/// How many bytes of the only upload are kept.
fn kept_len(root: &Path) -> u64 {
    let names = left(root);
    names.first().map_or(0, |name| fs::metadata(uploads(root).join(name)).map_or(0, |metadata| metadata.len()))
}

#[test]
fn a_disk_that_is_full_in_the_middle_leaves_the_old_file_and_what_can_be_carried_on() {
    // A limit on the length of files, which every system has, fails a write as a full disk does.
    let mut command = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f 2048; exec {} --log warn \"$@\"", plugd().display());
    command.args(["-c", &script, "sh"]);
    let server = Plugd::start_by(EVERYTHING, command);
    fs::write(server.file("f"), "old").expect("a file");
    let content = sample(3_000_000);
    for token in [Value::Null, json!("t")] {
        let mut caller = Caller::open(&server, "files.put", &json!({ "path": "f", "token": token }));
        let _ = caller.send(&content);
        let _ = caller.end_input();
        let end = caller.end();
        assert_eq!(end.status.reason(), "no-space", "{}", end.status);
        assert_eq!(fs::read_to_string(server.file("f")).expect("a file"), "old");
        let kept = usize::from(token != Value::Null);
        wait_until("the space to be free", || names(&server.file(".plugd-uploads")).len() == kept);
    }
    let mut caller = Caller::open(&server, "files.put", &json!({ "path": "f", "token": "t", "resume": true }));
    assert_eq!(caller.head()["offset"], 2048 * 512);
    caller.end_input().expect("an open connection");
    assert!(caller.end().status.is_ok());
    assert!(fs::read(server.file("f")).expect("a file") == content[..2048 * 512]);
}

#[test]
fn a_caller_that_is_gone_in_the_middle_changes_nothing() {
    let server = Plugd::start(EVERYTHING);
    fs::write(server.file("f"), "old").expect("a file");
    let mut caller = Caller::open(&server, "files.put", &json!({ "path": "f" }));
    caller.send(&sample(1_000_000)).expect("an open connection");
    wait_until("the upload to begin", || !names(&server.file(".plugd-uploads")).is_empty());
    caller.stream.shutdown(Shutdown::Both).expect("an open connection");
    wait_until("the upload to be undone", || names(&server.file(".plugd-uploads")).is_empty());
    assert_eq!(fs::read_to_string(server.file("f")).expect("a file"), "old");
}
