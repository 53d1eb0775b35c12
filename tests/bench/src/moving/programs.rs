//! The programs that move files, their servers, and the files.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use super::{LARGE_LEN, SMALL, SMALL_IN_DIRECTORY, Task};
use crate::peers::sshd::{AES, Sshd};
use crate::peers::{Peer, free_port, is_installed, nginx};

/// The directory of the small files.
pub const SMALL_DIR: &str = "small";

/// The large file.
const LARGE: &str = "large";

/// The peers of one run, and where their files are.
pub struct Programs {
    plug: PathBuf,
    dir: PathBuf,
    plugd: Peer,
    pub sendfile: Peer,
    pub sink: Peer,
    nginx: Option<Peer>,
    rsync: Option<Peer>,
    sshd: Option<Sshd>,
}

impl Programs {
    /// Makes the files and starts the servers; those of others only where they are installed.
    pub fn start(plugd: &Path, plug: &Path, dir: &Path) -> Programs {
        fs::create_dir_all(dir.join("got")).expect("a writable directory");
        let served = dir.join("served");
        make_files(&served);
        let plugins = "[plugins.files]\nhandler = \"file\"\nconfig = { root = \"served\", writable = true }\n";
        let large = served.join(LARGE);
        Programs {
            plug: plug.to_owned(),
            plugd: Peer::start(Peer::plugd_command(plugd, dir, plugins)),
            sendfile: Peer::start(Peer::own_command(&["serve-sendfile".as_ref(), large.as_os_str()])),
            sink: Peer::start(Peer::own_command(&["serve-sink"])),
            nginx: nginx::start_files(dir, &served),
            rsync: start_rsync(dir, &served),
            sshd: Sshd::start(&dir.join("ssh")),
            dir: dir.to_owned(),
        }
    }

    /// The large file.
    pub fn large(&self) -> PathBuf {
        self.served(LARGE)
    }

    /// A path among what the servers serve.
    pub fn served(&self, name: &str) -> PathBuf {
        self.dir.join("served").join(name)
    }

    /// A path among what was fetched.
    pub fn got(&self, name: &str) -> PathBuf {
        self.dir.join("got").join(name)
    }

    fn plug(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.plug);
        command.args([verb, "--server", &self.plugd.address.to_string()]);
        command
    }

    pub fn plug_get(&self, digest: &str) -> Command {
        let mut command = self.plug("get");
        command.args(["--digest", digest, LARGE]).arg(self.got("plug"));
        command
    }

    pub fn plug_get_to_stdout(&self) -> Command {
        let mut command = self.plug("get");
        command.args(["--digest", "none", LARGE, "-"]);
        command
    }

    pub fn plug_put(&self, digest: &str, durability: &str) -> Command {
        let mut command = self.plug("put");
        command.args(["--digest", digest, "--durability", durability]).arg(self.large()).arg("put");
        command
    }

    pub fn plug_get_tree(&self) -> Command {
        let mut command = self.plug("get");
        command.args(["-r", SMALL_DIR]).arg(self.got("tree"));
        command
    }

    pub fn plug_put_tree(&self) -> Command {
        let mut command = self.plug("put");
        command.args(["-r", "--durability", "none"]).arg(self.served(SMALL_DIR)).arg("tree");
        command
    }

    pub fn cp(&self) -> Option<Vec<Command>> {
        let mut command = Command::new("cp");
        command.arg("-r").arg(self.served(SMALL_DIR)).arg(self.got("cp"));
        Some(vec![command])
    }

    /// A task that md5sum takes part in.
    pub fn md5sum(&self, name: &'static str) -> Task {
        let mut command = Command::new("md5sum");
        command.arg(self.large());
        Task::new(name).mover("md5sum", None, super::Act::Run(vec![command]))
    }

    pub fn curl(&self) -> Option<Vec<Command>> {
        let nginx = self.nginx.as_ref().filter(|_| is_installed("curl"))?;
        let mut command = Command::new("curl");
        command.args(["-s", "-f", "-o"]).arg(self.got("curl")).arg(format!("http://{}/{LARGE}", nginx.address));
        Some(vec![command])
    }

    fn rsync(&self, args: &[&str]) -> Option<(Command, String)> {
        let rsync = self.rsync.as_ref()?;
        let mut command = Command::new("rsync");
        command.args(args);
        Some((command, format!("rsync://{}/served/", rsync.address)))
    }

    pub fn rsync_get(&self) -> Option<Vec<Command>> {
        let (mut command, url) = self.rsync(&[])?;
        command.arg(url + LARGE).arg(self.got("rsync"));
        Some(vec![command])
    }

    pub fn rsync_put(&self) -> Option<Vec<Command>> {
        let (mut command, url) = self.rsync(&[])?;
        command.arg(self.large()).arg(url + "rsync");
        Some(vec![command])
    }

    pub fn rsync_get_tree(&self) -> Option<Vec<Command>> {
        let (mut command, url) = self.rsync(&["-r"])?;
        command.arg(format!("{url}{SMALL_DIR}/")).arg(self.got("rsynced"));
        Some(vec![command])
    }

    pub fn rsync_put_tree(&self) -> Option<Vec<Command>> {
        let (mut command, url) = self.rsync(&["-r"])?;
        command.arg(self.served(SMALL_DIR).join("")).arg(url + "rsynced");
        Some(vec![command])
    }

    fn ssh(&self, program: &str) -> Option<Command> {
        Some(self.sshd.as_ref()?.command(program, Some(AES)))
    }

    pub fn sftp_get(&self) -> Option<Vec<Command>> {
        let mut command = self.ssh("sftp")?;
        command.arg(format!("127.0.0.1:{}", self.large().display())).arg(self.got("sftp"));
        Some(vec![command])
    }

    pub fn sftp_get_tree(&self) -> Option<Vec<Command>> {
        let mut command = self.ssh("sftp")?;
        command.arg("-r").arg(format!("127.0.0.1:{}", self.served(SMALL_DIR).display())).arg(self.got(""));
        Some(vec![command])
    }

    pub fn sftp_put_tree(&self) -> Option<Vec<Command>> {
        let batch = self.dir.join("batch");
        let text = format!("put -r {} {}\n", self.served(SMALL_DIR).display(), self.got("").display());
        fs::write(&batch, text).expect("a file");
        let mut command = self.ssh("sftp")?;
        command.arg("-b").arg(batch).arg("127.0.0.1");
        Some(vec![command])
    }

    pub fn tar_ssh_get(&self) -> Option<Vec<Command>> {
        let mut from = self.ssh("ssh")?;
        from.args(["127.0.0.1", &format!("tar -C {} -cf - {SMALL_DIR}", self.served("").display())]);
        let mut to = Command::new("tar");
        to.arg("-C").arg(self.got("")).args(["-xf", "-"]);
        Some(vec![from, to])
    }

    pub fn tar_ssh_put(&self) -> Option<Vec<Command>> {
        let mut from = Command::new("tar");
        from.arg("-C").arg(self.served("")).args(["-cf", "-", SMALL_DIR]);
        let mut to = self.ssh("ssh")?;
        to.args(["127.0.0.1", &format!("tar -C {} -xf -", self.got("").display())]);
        Some(vec![from, to])
    }

    /// Removes a file, or puts a tree out of the way: ext4 without a journal is slow to make files for minutes after many
    /// were removed, and that would be measured.
    pub fn clear(&self, path: &Path) {
        if path.is_dir() {
            let trash = tempfile::tempdir_in(&self.dir).expect("a writable directory").keep();
            fs::rename(path, trash.join("tree")).expect("a tree of ours");
        } else {
            let _ = fs::remove_file(path);
        }
    }

    /// Compares what was made with its source: always how much it is, and its content when `deeply`.
    pub fn check(&self, made: &Path, deeply: bool) {
        if made.is_file() {
            assert_eq!(fs::metadata(made).expect("a file").len(), LARGE_LEN, "the length of {}", made.display());
        } else {
            assert_eq!(walk(made).len(), SMALL.0, "files in {}", made.display());
        }
        let source = if made.is_file() { self.large() } else { self.served(SMALL_DIR) };
        if deeply {
            let same = Command::new("diff").arg("-rq").arg(source).arg(made).status().expect("diff, of diffutils");
            assert!(same.success(), "{} is not what was to be moved", made.display());
        }
    }
}

/// Runs programs, each with the output of the one before as its input.
///
/// # Panics
///
/// When one fails: the figures would mean nothing.
pub fn run(commands: &mut [Command]) {
    let last = commands.len() - 1;
    let mut children: Vec<Child> = Vec::new();
    for (index, command) in commands.iter_mut().enumerate() {
        let input = children.last_mut().and_then(|child| child.stdout.take());
        command.stdin(input.map_or_else(Stdio::null, Stdio::from));
        command.stdout(if index == last { Stdio::null() } else { Stdio::piped() });
        let child = command.stderr(Stdio::piped()).spawn();
        children.push(child.unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program())));
    }
    for (child, command) in children.into_iter().zip(commands) {
        let output = child.wait_with_output().expect("a child");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Makes a file look changed.
pub fn touch(path: &Path) {
    let touched = File::options().write(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
    touched.expect("a file of ours");
}

/// Content that repeats nowhere, and differs from place to place by `seed`.
fn content(seed: u64, len: usize) -> Vec<u8> {
    let words = (0..len as u64 / 8).map(|number| (seed + number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    words.flat_map(u64::to_le_bytes).collect()
}

fn make_files(served: &Path) {
    const PIECE_LEN: usize = 16 << 20;
    fs::create_dir_all(served).expect("a writable directory");
    let mut large = File::create(served.join(LARGE)).expect("a file");
    for piece in 0..LARGE_LEN / PIECE_LEN as u64 {
        large.write_all(&content(piece * PIECE_LEN as u64, PIECE_LEN)).expect("space");
    }
    let (count, len) = SMALL;
    for number in 0..count {
        let directory = served.join(SMALL_DIR).join(format!("{:02}", number / SMALL_IN_DIRECTORY));
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join(format!("{number}.bin")), content(number as u64 * 31, len)).expect("space");
    }
    // What is not on the disk yet would be written while something is measured.
    let _ = Command::new("sync").status();
    let mut buf = vec![0; PIECE_LEN];
    let mut large = File::open(served.join(LARGE)).expect("a file");
    while large.read(&mut buf).expect("a file") > 0 {}
}

fn walk(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

fn start_rsync(dir: &Path, served: &Path) -> Option<Peer> {
    let port = free_port();
    let config = dir.join("rsyncd.conf");
    let owner = fs::metadata(dir).ok().map(|metadata| {
        use std::os::unix::fs::MetadataExt;
        (metadata.uid(), metadata.gid())
    })?;
    let text = format!(
        "use chroot = no\nlog file = /dev/null\n[served]\npath = {}\nread only = no\nuid = {}\ngid = {}\n",
        served.display(),
        owner.0,
        owner.1
    );
    fs::write(&config, text).expect("a file");
    let mut command = Command::new("rsync");
    command.args(["--daemon", "--no-detach", "--address=127.0.0.1", &format!("--port={port}"), "--config"]).arg(config);
    Peer::start_listening(command, SocketAddr::from(([127, 0, 0, 1], port)))
}
