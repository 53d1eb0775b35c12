//! An sshd of its own, and the programs that connect to it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Peer, free_port};

/// The faster of the usual ciphers where the processor helps with it.
pub const AES: &str = "aes128-gcm@openssh.com";

/// An sshd with keys of its own, which nobody else is let in by.
pub struct Sshd {
    address: SocketAddr,
    dir: PathBuf,
    _peer: Peer,
}

impl Sshd {
    /// Starts it with its files in `dir`; `None` where it is not installed. It insists on a directory that its service makes
    /// otherwise.
    pub fn start(dir: &Path) -> Option<Sshd> {
        let program = ["/usr/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|path| Path::new(path).exists())?;
        fs::create_dir_all(dir).expect("a writable directory");
        for name in ["host_key", "key"] {
            let mut made = Command::new("ssh-keygen");
            let made = made.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(name)).status();
            made.ok().filter(std::process::ExitStatus::success)?;
        }
        let _ = fs::create_dir_all("/run/sshd");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let config = dir.join("sshd_config");
        // A shell that is not the first reads no startup file of the user's, which would be measured as well.
        let text = format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {}\nPidFile none\nAuthorizedKeysFile {}\nStrictModes no\n\
             UsePAM no\nPermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n\
             SetEnv SHLVL=1\n",
            address.port(),
            dir.join("host_key").display(),
            dir.join("key.pub").display()
        );
        fs::write(&config, text).expect("a file");
        let mut command = Command::new(program);
        command.args(["-D", "-q", "-f"]).arg(config);
        Some(Sshd { address, dir: dir.to_owned(), _peer: Peer::start_listening(command, address)? })
    }

    /// `ssh` or `sftp` with this cipher, or with the one that they agree on; what follows begins with the host.
    pub fn command(&self, program: &str, cipher: Option<&str>) -> Command {
        let mut command = Command::new(program);
        command.args(["-q", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
        command.args(["-o", &format!("Port={}", self.address.port()), "-i"]).arg(self.dir.join("key"));
        if let Some(cipher) = cipher {
            command.args(["-c", cipher]);
        }
        command
    }

    /// Connects for others to share the connection.
    ///
    /// # Panics
    ///
    /// When that takes longer than five seconds.
    pub fn keep(&self) -> Kept {
        let socket = self.dir.join("kept");
        let mut command = self.command("ssh", None);
        command.args(["-M", "-N", "-S"]).arg(&socket).arg("127.0.0.1");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("ssh, of openssh-client");
        let kept = Kept { socket, child };
        for _ in 0..100 {
            if kept.socket.exists() {
                return kept;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("ssh does not share a connection");
    }
}

/// A connection of ssh that others share, ended with the value.
pub struct Kept {
    /// What `ssh -S` takes.
    pub socket: PathBuf,
    child: Child,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
