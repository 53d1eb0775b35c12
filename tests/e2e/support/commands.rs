//! A handler that speaks as one that runs commands does, and does exactly what a test tells it.
//!
//! The words of `argv` are done one after the other; see [`Play::word`].

use async_trait::async_trait;
use plugd_core::{Call, Code, Data, Descriptor, Handler, Operation, Status, Streaming};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::process::{Outcome, plug};
use super::server::TestServer;

plugd_core::register!(|| {
    let streaming = |name, summary| {
        Operation::new(name, summary).streams(Streaming::Both).input_channel(1, "control").output_channel(1, "stderr")
    };
    Descriptor::new("commands", "does what a test tells it")
        .operation(streaming("exec", "does what argv says, word by word").args::<ExecArgs>())
        .operation(streaming("attach", "joins the job, which says the control messages it hears").args::<JobArgs>())
        .operation(streaming("logs", "tells its arguments").args::<LogsArgs>())
        .operation(Operation::new("jobs", "lists two jobs"))
        .operation(Operation::new("kill", "tells its arguments").args::<KillArgs>())
        .handler(|| Commands)
});

/// A server with this handler alone, and with whatever else is asked for.
pub(crate) struct Played {
    server: TestServer,
    runtime: tokio::runtime::Runtime,
}

impl Played {
    pub(crate) fn start() -> Played {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let server = runtime.block_on(TestServer::start("[plugins.cmd]\nhandler = \"commands\"\n[plugins.echo]\n"));
        Played { server, runtime }
    }

    pub(crate) fn address(&self) -> String {
        self.server.address.to_string()
    }

    /// The client, told to call this server from an empty standard input.
    pub(crate) fn plug(&self, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(plug());
        command.env("PLUG_SERVER", self.address()).args(args).stdin(std::process::Stdio::null());
        command
    }

    /// Runs the client to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        self.plug(args).output().expect("the client's program").into()
    }

    /// Breaks every connection.
    pub(crate) fn vanish(self) {
        drop(self.server);
        self.runtime.shutdown_timeout(super::PATIENCE);
    }
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ExecArgs {
    #[serde(skip_serializing_if = "Option::is_none")]
    argv: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shell: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cwd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    env: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pty: Option<Pty>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    detach: bool,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Pty {
    term: String,
    rows: u16,
    cols: u16,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct JobArgs {
    id: String,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LogsArgs {
    id: String,
    from: u64,
    follow: bool,
    stream: String,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct KillArgs {
    id: String,
    signal: Option<String>,
}

#[derive(Debug)]
struct Commands;

#[async_trait]
impl Handler for Commands {
    async fn handle(&self, call: &mut Call) -> Result<(), Status> {
        match call.operation() {
            "jobs" => {
                let job = |id: &str, state: &str, exit: Value| {
                    json!({"id": id, "plugin_operation": "cmd.exec", "argv": ["make", "all"], "started_s": 0,
                           "state": state, "exit": exit, "stdout_bytes": null, "output_end": 3, "pid": 7})
                };
                let (first, second) = (job("j1", "running", Value::Null), job("j2", "ended", json!({"code": 3})));
                call.send(format!("{first}\n{second}\n")).await
            }
            "kill" => {
                let args: KillArgs = known(call.args()?, |args: &KillArgs| &args.id)?;
                call.send(json!(args).to_string() + "\n").await
            }
            "logs" => {
                let args: LogsArgs = known(call.args()?, |args: &LogsArgs| &args.id)?;
                call.head(&json!({ "from": 0 }))?;
                let (_, output) = call.split();
                output.send(json!(args).to_string() + "\n").await?;
                output.send_on(1, "an error\n").await
            }
            "attach" => {
                let args: JobArgs = known(call.args()?, |args: &JobArgs| &args.id)?;
                call.head(&json!({ "job": args.id, "from": 3 }))?;
                // A second job is one whose end nobody tells.
                let end = if args.id == "j1" { "signal:2:SIGINT" } else { "untold" };
                play(call, &ExecArgs::default(), &["out:attached\n", "control", end].map(str::to_owned)).await
            }
            _ => exec(call).await,
        }
    }
}

fn known<A>(args: A, id: impl Fn(&A) -> &String) -> Result<A, Status> {
    match id(&args).as_str() {
        "j1" | "j2" => Ok(args),
        id => Err(Status::not_found("unknown-job", format!("no job {id:?}"))),
    }
}

async fn exec(call: &mut Call) -> Result<(), Status> {
    let args: ExecArgs = call.args()?;
    if args.detach {
        return call.head(&json!({ "job": "j1", "pid": 7 }));
    }
    let words = args.argv.clone().unwrap_or_else(|| vec!["args".to_owned()]);
    match words.first().and_then(|word| word.strip_prefix("never:")) {
        Some(status) => Err(status_of(status)),
        None => {
            call.head(&json!({ "pid": 7, "encoding": "gbk" }))?;
            play(call, &args, &words).await
        }
    }
}

/// `CODE:REASON`
fn status_of(text: &str) -> Status {
    let (code, reason) = text.split_once(':').expect("code and reason");
    let code = Code::ALL.into_iter().find(|known| known.name() == code).expect("a code");
    Status::new(code, reason.to_owned(), "as asked")
}

async fn play(call: &mut Call, args: &ExecArgs, words: &[String]) -> Result<(), Status> {
    let mut play =
        Play { trailer: json!({ "exit": { "code": 0 }, "wall_ms": 1.5, "stdout_bytes": 3 }), status: Ok(()) };
    let done = play.words(call, args, words).await;
    call.set_trailer(&play.trailer)?;
    done?;
    play.status
}

/// What was said about the end so far.
struct Play {
    trailer: Value,
    status: Result<(), Status>,
}

impl Play {
    async fn words(&mut self, call: &mut Call, args: &ExecArgs, words: &[String]) -> Result<(), Status> {
        for word in words {
            self.word(call, args, word).await?;
            call.split().1.written().await?;
        }
        Ok(())
    }

    /// Does one word: `out:TEXT`, `err:TEXT`, `hex:BYTE`, `big:LEN` send; `args`, `size` tell what was asked for; `cat`,
    /// `control`, `eat:LEN`, `keys` receive; `wait` never ends; `exit:N`, `signal:N:NAME`, `status:CODE:REASON`,
    /// `dropped:NAME` and `untold` say how the call will end.
    async fn word(&mut self, call: &mut Call, args: &ExecArgs, word: &str) -> Result<(), Status> {
        let (name, rest) = word.split_once(':').unwrap_or((word, ""));
        let (input, output) = call.split();
        match name {
            "out" => output.send(rest.to_owned()).await?,
            "err" => output.send_on(1, rest.to_owned()).await?,
            "hex" => output.send(vec![u8::from_str_radix(rest, 16).expect("a byte")]).await?,
            "big" => output.send(vec![b'x'; rest.parse().expect("a length")]).await?,
            "args" => output.send(json!(args).to_string() + "\n").await?,
            "size" => {
                let pty = args.pty.as_ref().expect("a terminal");
                output.send(format!("{} {}x{}\r\n", pty.term, pty.rows, pty.cols)).await?;
            }
            "cat" => {
                while let Some(data) = input.recv().await? {
                    output.send(data).await?;
                }
            }
            "eat" => {
                let mut left: usize = rest.parse().expect("a length");
                while left > 0 {
                    left = left.saturating_sub(input.recv().await?.map_or(left, |data| data.len()));
                }
            }
            "control" => loop {
                match input.recv_data().await? {
                    Some(Data { channel: 1, payload, .. }) => {
                        output.send([&payload[..], b"\n"].concat()).await?;
                        break;
                    }
                    Some(_) => {}
                    None => return Err(Status::internal("no-control", "the input ended before")),
                }
            },
            // What is typed comes back in capitals, so that it is no echo of a terminal here.
            "keys" => loop {
                match input.recv_data().await? {
                    Some(Data { channel: 0, payload, .. }) if payload.contains(&b'q') => break,
                    Some(Data { channel: 0, payload, .. }) => output.send(payload.to_ascii_uppercase()).await?,
                    Some(Data { payload, .. }) => output.send([&payload[..], b"\r\n"].concat()).await?,
                    None => break,
                }
            },
            "wait" => output.cancelled().await,
            "exit" => {
                let code: u8 = rest.parse().expect("a code");
                self.trailer["exit"] = json!({ "code": code });
                self.status = Err(Status::unknown("command-failed", format!("command exited with {code}")));
            }
            "signal" => {
                let (number, name) = rest.split_once(':').expect("number and name");
                let number: u8 = number.parse().expect("a number");
                self.trailer["exit"] = json!({ "signal": number, "name": name });
                self.status = Err(Status::unknown("command-killed", format!("command was killed by {name}")));
            }
            "status" => self.status = Err(status_of(rest)),
            "dropped" => self.trailer["dropped_env"] = json!([rest]),
            "untold" => self.trailer = json!({}),
            _ => return Err(Status::internal("commands", format!("no such word: {word}"))),
        }
        Ok(())
    }
}
