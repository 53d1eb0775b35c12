//! What finding a handler and checking arguments cost.
//!
//! The server's router is its own affair and is measured in whole calls, by the benchmarks and by their instructions.

use std::hint::black_box;

use divan::Bencher;
use plugd_core::prelude::*;
use plugd_core::{Descriptor, Operation, Registry};
use schemars::JsonSchema;
use serde::Deserialize;

fn main() {
    divan::main();
}

#[derive(Debug)]
struct Nothing;

#[async_trait]
impl Handler for Nothing {
    async fn handle(&self, _call: &mut Call) -> Result<(), Status> {
        Ok(())
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "arguments are only checked")]
struct Args {
    path: String,
    #[serde(default)]
    recursive: bool,
}

fn registry() -> Registry {
    let describe = |name: &'static str| {
        let operation = Operation::new(name, "does nothing").args::<Args>();
        Descriptor::new(name, "does nothing").operation(operation).handler(|| Nothing)
    };
    Registry::of(["echo", "file", "queue", "shell", "upper"].map(describe)).expect("good descriptors")
}

#[divan::bench]
fn find_a_handler(bencher: Bencher) {
    let registry = registry();
    bencher.bench_local(|| registry.handler(black_box("upper")).is_some());
}

#[divan::bench]
fn suggest_a_name(bencher: Bencher) {
    let registry = registry();
    bencher.bench_local(|| registry.nearest(black_box("uper")).is_some());
}

#[divan::bench]
fn check_arguments(bencher: Bencher) {
    let registry = registry();
    let operation = &registry.handler("file").expect("one of them").operations()[0];
    bencher.bench_local(|| operation.check_args(black_box(r#"{"path":"reports/2026.pdf","recursive":true}"#)));
}
