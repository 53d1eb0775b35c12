//! Layers and a handler that write down what they see.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use plugd_core::{
    Call, CallFacts, Context, Descriptor, Handler, Layer, LayerDescriptor, LayerSettings, Operation, Passage,
    PluginFacts, Refusal, SettingError, Settings, StartError, Status, Stopped,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// What was seen, in order. A test reads the lines of its own journal, which its configuration names.
static JOURNAL: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

fn write(journal: &str, line: String) {
    JOURNAL.lock().unwrap_or_else(PoisonError::into_inner).push((journal.to_owned(), line));
}

/// The lines of a journal.
pub(crate) fn journal(name: &str) -> Vec<String> {
    let lines = JOURNAL.lock().unwrap_or_else(PoisonError::into_inner);
    lines.iter().filter(|(journal, _)| journal == name).map(|(_, line)| line.clone()).collect()
}

plugd_core::register_layer!(|| LayerDescriptor::new("outer", "writes down what it sees").settings::<Observer<'o'>>());
plugd_core::register_layer!(|| LayerDescriptor::new("inner", "writes down what it sees").settings::<Observer<'i'>>());

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Observer<const NAME: char> {
    journal: String,
    /// Refuses calls of this operation.
    refuse: Option<String>,
    /// Panics in calls of this operation.
    panic: Option<String>,
}

impl<const NAME: char> LayerSettings for Observer<NAME> {
    type Layer = Observer<NAME>;

    fn build(self, _context: &Context) -> Result<Observer<NAME>, StartError> {
        Ok(self)
    }
}

impl<const NAME: char> Layer for Observer<NAME> {
    fn enter(&self, call: &mut CallFacts<'_>) -> Result<Passage, Refusal> {
        let operation = call.operation.name();
        let args = call.args.map_or("-", |args| args.get());
        write(&self.journal, format!("{NAME} {}.{operation} {args} {:?}", call.plugin, call.deadline));
        assert_ne!(self.panic.as_deref(), Some(operation), "as asked");
        if self.refuse.as_deref() == Some(operation) {
            return Err(Status::permission_denied("not-you", "not you").into());
        }
        let (journal, what) = (self.journal.clone(), operation.to_owned());
        Ok(Passage::until(move |end| {
            let reason = end.status.reason();
            let trailer = end.trailer.map_or(0, serde_json::Map::len);
            write(
                &journal,
                format!("{NAME} {what} ended {} {reason} {trailer} {}", end.status.code().name(), end.sent),
            );
        }))
    }

    fn wrap(&self, plugin: &PluginFacts<'_>, inner: Arc<dyn Handler>) -> Arc<dyn Handler> {
        write(&self.journal, format!("{NAME} wraps {} of {}", plugin.name, plugin.handler));
        Arc::new(Wrapped { journal: self.journal.clone(), name: NAME, inner })
    }
}

struct Wrapped {
    journal: String,
    name: char,
    inner: Arc<dyn Handler>,
}

#[async_trait]
impl Handler for Wrapped {
    async fn handle(&self, call: &mut Call) -> Result<(), Status> {
        write(&self.journal, format!("{} handles", self.name));
        self.inner.handle(call).await
    }
}

plugd_core::register!(|| {
    Descriptor::new("living", "writes down when it begins and ends")
        .operation(Operation::new("name", "says its name"))
        .operation(Operation::new("wait", "waits for its input to end, and says its name"))
        .settings::<LivingSettings>()
});

/// What a living handler is.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LivingSettings {
    journal: String,
    name: String,
    /// Fails to start.
    #[serde(default)]
    fails: bool,
}

impl Settings for LivingSettings {
    type Handler = Living;

    fn check(&self) -> Result<(), Vec<SettingError>> {
        Ok(())
    }

    fn build(self, context: &Context) -> Result<Living, StartError> {
        if self.fails {
            return Err(StartError::new("as asked"));
        }
        let (stopped, settings) = (context.stopped(), self.clone());
        context.spawn(async move {
            write(&settings.journal, format!("{} works", settings.name));
            stopped.await;
            write(&settings.journal, format!("{} rests", settings.name));
        });
        Ok(Living(self))
    }
}

struct Living(LivingSettings);

#[async_trait]
impl Handler for Living {
    async fn handle(&self, call: &mut Call) -> Result<(), Status> {
        if call.operation() == "wait" {
            call.send("waits").await?;
            while call.recv().await?.is_some() {}
        }
        call.send(self.0.name.clone()).await
    }

    async fn stop(&self, why: Stopped) {
        write(&self.0.journal, format!("{} is told {why:?}", self.0.name));
    }
}
