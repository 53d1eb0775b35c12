//! `plug call`: any command of any plugin.

use serde_json::{Map, Value};

use super::answer::Answer;
use super::arguments;
use super::failure::Failure;
use super::options::Call;
use super::session::Session;
use super::stream::{Source, exchange, receive, succeeded};
use crate::Sender;

pub(crate) async fn run(session: &mut Session<'_>, options: &Call) -> Result<Answer, Failure> {
    let json = session.options().json;
    let mut call = session.open(&options.command, arguments(options)?).await?;
    let (sender, receiver) = call.split();
    let reply = exchange(send(options, sender), receive(receiver, json)).await?;
    Ok(Answer::of(succeeded(reply)?))
}

pub(crate) fn arguments(options: &Call) -> Result<Map<String, Value>, Failure> {
    arguments::merge(options.args.as_deref(), &options.flags, &options.arguments).map_err(Failure::Usage)
}

async fn send(options: &Call, sender: &mut Sender) -> Result<(), Failure> {
    if let Some(text) = &options.data {
        sender.send(text.clone()).await?;
        return Ok(sender.finish().await?);
    }
    match &options.file {
        Some(path) => Source::open(path).await?.send_whole(sender).await,
        None => Source::stdin()?.send_as_it_comes(sender).await,
    }
}
