//! nginx, with one process and an answer that it makes up itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Peer, free_port};
use crate::load::Dialect;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Starts nginx on a free port, answering every request with `payload`; `None` where it is not installed.
///
/// One process and no master, so that its end and its processor time are those of the child.
pub fn start(dir: &Path, payload: &str) -> Option<Peer> {
    start_with(dir, &format!("return 200 \"{payload}\";"))
}

/// Starts nginx on a free port, serving the files below `root` as fast as it can; `None` where it is not installed.
pub fn start_files(dir: &Path, root: &Path) -> Option<Peer> {
    start_with(dir, &format!("root {}; sendfile on; tcp_nopush on;", root.display()))
}

fn start_with(dir: &Path, location: &str) -> Option<Peer> {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {};\n", dir.join(name).display()))
        .concat();
    let config = dir.join("nginx.conf");
    let text = format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid {pid};\nerror_log /dev/null;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\naccess_log off;\nserver_tokens off;\ndefault_type text/plain;\nkeepalive_requests 1000000000;\n\
         {temporary}server {{ listen {address}; location / {{ {location} }} }}\n}}\n",
        pid = dir.join("nginx.pid").display(),
    );
    std::fs::write(&config, text).expect("a file");
    let mut command = Command::new("nginx");
    command.args(["-e", "/dev/null", "-p"]).arg(dir).arg("-c").arg(config).stdout(Stdio::null());
    Peer::start_listening(command, address)
}

/// One request on a connection that is kept.
///
/// The answer is asked for once, since its headers differ between versions; only its date may change afterwards.
pub fn dialect(address: SocketAddr, payload: &str) -> Dialect {
    let mut stream = TcpStream::connect(address).expect("a listening peer");
    stream.write_all(REQUEST).expect("an open connection");
    let mut answer = Vec::new();
    while !answer.ends_with(payload.as_bytes()) {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        answer.extend(byte);
    }
    let text = String::from_utf8(answer).expect("text");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "nginx answers {text}");
    let date = text.find("\r\nDate: ").expect("a date") + "\r\nDate: ".len();
    let date_len = text[date..].find('\r').expect("the end of the line");
    Dialect { changing: date..date + date_len, ..Dialect::plain(REQUEST.to_vec(), text.into_bytes()) }
}
