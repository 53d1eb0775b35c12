//! `plug put`: drops a file, hashed on its way.

use indicatif::ProgressBar;
use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::failure::Failure;
use super::options::Put;
use super::progress;
use super::session::Session;
use super::stream::{Source, exchange, succeeded};
use super::transfer::{Content, Meter};
use crate::{Data, REPLY_LEN_MAX, Sender};

/// The side channel that carries the digest, in hex, after the data.
const CHANNEL_MD5: u8 = 1;

/// The name on the server.
pub(crate) fn remote_name(options: &Put) -> Result<String, Failure> {
    if let Some(remote) = &options.remote {
        return Ok(remote.clone());
    }
    if options.local.as_os_str() == "-" {
        return Err(Failure::Usage("stdin has no name; name the remote file: plug put - REMOTE".to_owned()));
    }
    let name = options.local.file_name().and_then(|name| name.to_str());
    let missing = || format!("no usable file name in \"{}\"; name the remote file as well", options.local.display());
    name.map(str::to_owned).ok_or_else(|| Failure::Usage(missing()))
}

pub(crate) async fn run(session: &mut Session<'_>, options: &Put) -> Result<Answer, Failure> {
    let remote = remote_name(options)?;
    let source = match options.local.as_os_str() == "-" {
        true => Source::stdin()?,
        false => Source::open(&options.local).await?,
    };
    let size = source.size().await.filter(|_| options.local.as_os_str() != "-");
    let command = session.command("put").await?;
    let mut call = session.open(&command, arguments(&remote, size)).await?;
    let (sender, receiver) = call.split();
    let bar = progress::bar(size);
    let mut meter = Meter::default();
    let receive = async { Ok(receiver.reply(REPLY_LEN_MAX).await?) };
    let reply = exchange(send(source, sender, &mut meter, &bar), receive).await;
    bar.finish_and_clear();
    let reply = succeeded(reply?)?;
    let content = meter.content();
    check_receipt(reply.trailer.as_ref(), &content)?;
    Ok(content.receipt("put", &remote, reply))
}

/// The server's receipt says what it received, and that it has compared that with the digest.
fn check_receipt(trailer: Option<&Map<String, Value>>, sent: &Content) -> Result<(), Failure> {
    Content::promised(trailer, "trailer of put")?.verify(sent)?;
    if trailer.and_then(|trailer| trailer.get("verified")) != Some(&Value::Bool(true)) {
        return Err(Failure::data_loss("not-verified", "the server did not verify the digest".to_owned()));
    }
    Ok(())
}

fn arguments(remote: &str, size: Option<u64>) -> Map<String, Value> {
    let mut arguments = Map::from_iter([("path".to_owned(), json!(remote))]);
    if let Some(size) = size {
        arguments.insert("size".to_owned(), json!(size));
    }
    arguments
}

async fn send(mut source: Source, sender: &mut Sender, meter: &mut Meter, bar: &ProgressBar) -> Result<(), Failure> {
    // Reading may take its time, and the server waits for the opening header only so long.
    sender.flush().await?;
    while let Some(chunk) = source.read().await? {
        meter.add(&chunk);
        bar.inc(chunk.len() as u64);
        sender.feed(Data::main(chunk)).await?;
    }
    sender.send_on(CHANNEL_MD5, meter.clone().content().md5).await?;
    Ok(sender.finish().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remote_name_is_the_local_one_unless_given() {
        let name = |local: &str, remote: Option<&str>| {
            remote_name(&Put { local: local.into(), remote: remote.map(str::to_owned) }).ok()
        };
        assert_eq!(name("a/b.txt", None).as_deref(), Some("b.txt"));
        assert_eq!(name("a/b.txt", Some("c/d")).as_deref(), Some("c/d"));
        assert_eq!(name("-", Some("c")).as_deref(), Some("c"));
        assert_eq!(name("-", None), None);
        assert_eq!(name("a/..", None), None);
    }
}
