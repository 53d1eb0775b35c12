//! `plug ping`: a sign of life.

use std::time::Instant;

use serde_json::{Map, json};

use super::answer::Answer;
use super::failure::Failure;
use super::session::Session;

pub(crate) async fn run(session: &mut Session<'_>) -> Result<Answer, Failure> {
    let server = session.server().address().to_string();
    let started = Instant::now();
    let reply = session.call("plugd.ping", Map::new()).await?;
    let elapsed_ms = started.elapsed().as_secs_f64() * 1000.0;
    let text = format!("{server} answered in {elapsed_ms:.1} ms\n");
    Ok(Answer::of_json(reply, json!({ "server": server, "elapsed_ms": elapsed_ms }), text))
}
