//! What every handler must stand, whatever it does.
//!
//! [`conformance!`](crate::conformance) expands to a test for each check of this module.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use super::answer::Answer;
use super::generate::{self, Choices};
use super::plugin::Plugin;
use crate::{Code, Data, Status};

/// How long any call of the suite may take unless it says otherwise: far more than one that ends at all.
const TIME_MAX: Duration = Duration::from_secs(30);

/// How many waits of a handler are cut at; one that streams for ever has no last one.
const WAITS_MAX: usize = 48;

/// How long the largest input is, in bytes: more than all buffers on the way together hold.
const INPUT_LEN: usize = 8 << 20;

/// How long each frame of it is, in bytes.
const FRAME_LEN: usize = 64 << 10;

/// How many bytes a handler may hold for a caller that does not read. The buffers of the transport are counted as its own.
const HELD_LEN_MAX: usize = 4 << 20;

/// For how long a caller must have been unable to send more, before it is taken to be held up.
const STILL_TIME: Duration = Duration::from_millis(200);

/// How many calls run at once.
const CALLS_AT_ONCE: usize = 32;

/// How long a call with made-up arguments may take; a stream that never ends is one as good as any.
const MADE_UP_TIME: Duration = Duration::from_millis(100);

/// How many times arguments are made up for each operation.
const MADE_UP: u64 = 64;

type Build = Arc<dyn Fn(&Path) -> Plugin + Send + Sync>;

/// A call that is known to succeed.
#[derive(Debug, Clone)]
struct Sample {
    operation: String,
    args: Value,
    input: Vec<Data>,
}

/// What is put to the test: a handler with its settings, and calls of it that succeed.
///
/// Each check builds an instance of its own, with relative paths in settings from an empty directory of its own.
#[derive(Clone)]
pub struct Subject {
    build: Build,
    samples: Vec<Sample>,
    spared: Vec<String>,
    time_max: Duration,
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Subject").field("samples", &self.samples).finish_non_exhaustive()
    }
}

impl Subject {
    /// A handler that is linked into the test; see [`Plugin::linked`].
    pub fn linked(name: &'static str, settings: Value) -> Subject {
        Subject::of(move |dir| Plugin::linked_in(name, settings.clone(), dir))
    }

    /// Whatever `build` makes in a fresh directory, which lasts as long as the instance.
    pub fn of(build: impl Fn(&Path) -> Plugin + Send + Sync + 'static) -> Subject {
        Subject { build: Arc::new(build), samples: Vec::new(), spared: Vec::new(), time_max: TIME_MAX }
    }

    /// Adds a call that succeeds, however often it is made. At least one is needed.
    #[must_use]
    pub fn sample(mut self, operation: &str, args: Value, input: impl IntoIterator<Item = Data>) -> Subject {
        self.samples.push(Sample { operation: operation.to_owned(), args, input: input.into_iter().collect() });
        self
    }

    /// Makes no arguments up for an operation, since nobody could answer for what they do.
    #[must_use]
    pub fn sparing(mut self, operation: &str) -> Subject {
        self.spared.push(operation.to_owned());
        self
    }

    /// Says how long each call may take at the most, instead of 30 seconds.
    #[must_use]
    pub fn time_max(mut self, time_max: Duration) -> Subject {
        self.time_max = time_max;
        self
    }

    fn world(&self) -> World {
        assert!(!self.samples.is_empty(), "the suite needs a call that succeeds: .sample(operation, args, input)");
        let dir = tempfile::tempdir().expect("a directory");
        World { plugin: (self.build)(dir.path()), time_max: self.time_max, _dir: dir }
    }
}

struct World {
    plugin: Plugin,
    time_max: Duration,
    _dir: TempDir,
}

impl World {
    async fn call(&self, sample: &Sample) -> Answer {
        let call = self.plugin.call(&sample.operation).args(sample.args.clone());
        let what = format!("{} {}", sample.operation, sample.args);
        let session = self.within(&what, call.start()).await;
        sound(&what, self.within(&what, session.run(&sample.input)).await)
    }

    async fn within<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        let time_max = self.time_max;
        timeout(time_max, work).await.unwrap_or_else(|_| panic!("{what}: does not end within {time_max:?}"))
    }

    /// The instance answers as if nothing had been.
    async fn still_answers(&self, sample: &Sample, after: &str) {
        let status = self.call(sample).await.status;
        assert!(status.is_ok(), "after {after}, {} {} fails: {status}", sample.operation, sample.args);
    }
}

/// Runs a check to its end; [`conformance!`](crate::conformance) does.
pub fn run<F: Future<Output = ()>>(subject: Subject, check: impl FnOnce(Subject) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(check(subject));
}

/// An answer that no fault of the handler's has made.
fn sound(what: &str, answer: Answer) -> Answer {
    assert_ne!(answer.status.reason(), "panic", "{what}: {}", answer.status);
    answer
}

/// The sample calls succeed, and a second time as well.
pub async fn samples_succeed(subject: Subject) {
    let world = subject.world();
    for sample in subject.samples.iter().chain(&subject.samples) {
        world.still_answers(sample, "nothing").await;
    }
}

/// A call whose input ends before it began comes to an end.
pub async fn empty_input_ends(subject: Subject) {
    let world = subject.world();
    for sample in &subject.samples {
        world.call(&Sample { input: Vec::new(), ..sample.clone() }).await;
        world.still_answers(sample, "a call without input").await;
    }
}

/// A call whose input is longer than all buffers comes to an end, well or with a status.
pub async fn largest_input_ends(subject: Subject) {
    let world = subject.world();
    for sample in &subject.samples {
        let input = vec![Data::main(vec![b'a'; FRAME_LEN]); INPUT_LEN / FRAME_LEN];
        world.call(&Sample { input, ..sample.clone() }).await;
        world.still_answers(sample, "a long input").await;
    }
}

/// A call that is cancelled, or whose handler is dropped, wherever it waits, ends at once and leaves the instance well.
pub async fn cancel_at_every_await(subject: Subject) {
    let world = subject.world();
    for sample in &subject.samples {
        for drops in [false, true] {
            for wait in 1..=WAITS_MAX {
                let call = world.plugin.call(&sample.operation).args(sample.args.clone());
                let call = if drops { call.dropped_at_wait(wait) } else { call.cancelled_at_wait(wait) };
                let what = format!("{} stopped at wait {wait}", sample.operation);
                let session = world.within(&what, call.start()).await;
                let (answer, waits) = world.within(&what, session.run_counted(&sample.input)).await;
                sound(&what, answer);
                world.still_answers(sample, &what).await;
                if waits < wait {
                    break;
                }
            }
        }
    }
}

/// A caller that sends and does not read holds up the handler: nothing piles up for it.
pub async fn slow_reader_is_waited_for(subject: Subject) {
    let world = subject.world();
    for sample in &subject.samples {
        let what = format!("{} {}", sample.operation, sample.args);
        let mut session =
            world.within(&what, world.plugin.call(&sample.operation).args(sample.args.clone()).start()).await;
        let frame = Data::main(vec![b'a'; FRAME_LEN]);
        let mut sent = 0;
        while sent < 2 * INPUT_LEN && timeout(STILL_TIME, session.sender.data(&frame)).await.is_ok() {
            sent += FRAME_LEN;
        }
        if sent >= 2 * INPUT_LEN {
            // It takes everything; what it makes of that is still to come.
            world.within(&what, session.sender.end_input()).await;
        }
        // Otherwise a frame may be sent in part, and the connection is of no further use but for what waits there.
        let held = world.within(&what, waiting(session)).await;
        assert!(
            held <= HELD_LEN_MAX,
            "{what}: {held} bytes waited for a caller that does not read; at most {HELD_LEN_MAX}"
        );
        world.still_answers(sample, "a slow reader").await;
    }
}

/// How many bytes of data a session has for its caller, once that reads, until nothing more comes.
async fn waiting(mut session: super::Session) -> usize {
    let mut held = 0;
    while let Ok(Some(frame)) = timeout(STILL_TIME, session.receiver.next_frame()).await {
        held += frame.payload.len();
        if frame.header.kind == crate::wire::Kind::End {
            break;
        }
    }
    session.abort().await;
    held
}

/// A caller that vanishes, before its input and within it, ends the handler.
pub async fn vanished_caller_ends_the_call(subject: Subject) {
    let world = subject.world();
    for sample in &subject.samples {
        for sent in [0, 1] {
            let what = format!("{} whose caller vanishes after {sent} frames", sample.operation);
            let mut session =
                world.within(&what, world.plugin.call(&sample.operation).args(sample.args.clone()).start()).await;
            for data in sample.input.iter().take(sent) {
                session.sender.data(data).await;
            }
            world.within(&what, session.vanish()).await;
            world.still_answers(sample, &what).await;
        }
    }
}

/// A call whose deadline passes ends soon, well or with a status.
pub async fn deadline_ends_the_call(subject: Subject) {
    let world = subject.world();
    for sample in &subject.samples {
        let what = format!("{} with a deadline", sample.operation);
        let call = world.plugin.call(&sample.operation).args(sample.args.clone()).deadline(Duration::from_millis(1));
        let mut session = world.within(&what, call.start()).await;
        // The input never ends.
        let answer = sound(&what, world.within(&what, session.receiver.answer()).await);
        let status = &answer.status;
        assert_ne!(status.code(), Code::Internal, "{what}: {status}");
        session.abort().await;
        world.still_answers(sample, &what).await;
    }
}

/// Many calls that are open at once end as one does, or are refused as one too many.
pub async fn many_at_once(subject: Subject) {
    let world = subject.world();
    for sample in &subject.samples {
        let what = format!("{} beside {CALLS_AT_ONCE} others", sample.operation);
        let mut sessions = Vec::new();
        for _ in 0..CALLS_AT_ONCE {
            let call = world.plugin.call(&sample.operation).args(sample.args.clone());
            sessions.push(world.within(&what, call.start()).await);
        }
        let answers = join_all(sessions.into_iter().map(|session| session.run(&sample.input)));
        for answer in world.within(&what, answers).await {
            let status: Status = sound(&what, answer).status;
            assert!(status.is_ok() || status.code() == Code::ResourceExhausted, "{what}: {status}");
        }
        world.still_answers(sample, "many at once").await;
    }
}

/// An argument that nobody knows is refused by its name.
pub async fn unknown_arguments_are_refused(subject: Subject) {
    let world = subject.world();
    for sample in &subject.samples {
        let mut args = sample.args.clone();
        args.as_object_mut().expect("arguments are an object").insert("no-such-argument".to_owned(), json!(1));
        let status = world.call(&Sample { args, ..sample.clone() }).await.status;
        assert_eq!(
            (status.code(), status.reason()),
            (Code::InvalidArgument, "unknown-argument"),
            "{}",
            sample.operation
        );
        assert!(status.message().contains("no-such-argument"), "{status}");
    }
}

/// Arguments that are made up from the schema end every call, well or with a status that is the caller's fault or nobody's.
pub async fn made_up_arguments_end_the_call(subject: Subject) {
    let world = subject.world();
    let operations = world.plugin.operations().to_vec();
    for operation in operations.iter().filter(|operation| !subject.spared.iter().any(|name| name == operation.name())) {
        for seed in 0..MADE_UP {
            let args = generate::value(operation.args_schema_value(), &mut Choices::new(seed), 0);
            let what = format!("{} {args}", operation.name());
            let call = world.plugin.call(operation.name()).args(args).deadline(MADE_UP_TIME);
            let session = world.within(&what, call.start()).await;
            sound(&what, world.within(&what, session.run(&[Data::main("a")])).await);
        }
    }
    for sample in &subject.samples {
        sound("a sample call after made-up arguments", world.call(sample).await);
    }
}

/// Expands to the tests that every handler must pass, in a module of the given name.
///
/// Takes an expression that makes a `Subject`: a handler, its settings, and calls
/// that succeed.
///
/// ```
/// # use plugd_core::prelude::*;
/// # #[derive(Debug)] struct Nothing;
/// # #[async_trait] impl Handler for Nothing {
/// #     async fn handle(&self, _call: &mut Call) -> Result<(), Status> { Ok(()) }
/// # }
/// use plugd_core::testing::{Plugin, conformance::Subject};
/// use serde_json::json;
///
/// fn descriptor() -> Descriptor {
///     Descriptor::new("nothing", "does nothing").operation(Operation::new("run", "does nothing")).handler(|| Nothing)
/// }
///
/// plugd_core::conformance! {
///     nothing_conforms: Subject::of(|_dir| Plugin::of(&descriptor(), json!({}))).sample("run", json!({}), [])
/// }
/// ```
#[macro_export]
macro_rules! conformance {
    ($module:ident: $subject:expr $(,)?) => {
        mod $module {
            #[allow(unused_imports, reason = "the subject may need anything that stands around it")]
            use super::*;

            $crate::conformance!(@tests $subject;
                samples_succeed empty_input_ends largest_input_ends cancel_at_every_await slow_reader_is_waited_for
                vanished_caller_ends_the_call deadline_ends_the_call many_at_once unknown_arguments_are_refused
                made_up_arguments_end_the_call);
        }
    };
    (@tests $subject:expr; $($check:ident)*) => {
        $(
            #[test]
            fn $check() {
                $crate::testing::conformance::run($subject, $crate::testing::conformance::$check);
            }
        )*
    };
}
