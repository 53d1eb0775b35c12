//! The layers that plugd comes with, and those that a configuration puts around its plugins.

mod limits;
mod metrics;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use plugd_core::{Context, Layer, LayerBlueprint, LayerSettings, StartError};

pub(crate) use self::limits::LimitsSettings;

plugd_core::register_layer!(limits::descriptor);
plugd_core::register_layer!(metrics::descriptor);

/// The layers that a configuration names, built.
#[derive(Default)]
pub(crate) struct Layers(BTreeMap<String, Arc<dyn Layer>>);

impl Layers {
    /// Builds every layer once; it stands around all plugins that name it.
    pub(crate) fn build(
        blueprints: BTreeMap<String, LayerBlueprint>,
        base_dir: &Path,
    ) -> Result<Layers, (String, StartError)> {
        let build = |(name, blueprint): (String, LayerBlueprint)| match blueprint.build(&Context::new(base_dir)) {
            Ok(layer) => Ok((name, layer)),
            Err(error) => Err((name, error)),
        };
        blueprints.into_iter().map(build).collect::<Result<_, _>>().map(Layers)
    }

    pub(crate) fn all(&self) -> Vec<Arc<dyn Layer>> {
        self.0.values().cloned().collect()
    }

    /// What stands around a plugin, the outermost first: the layers that are named, and within them its own limits.
    ///
    /// # Errors
    ///
    /// When a layer is named that is not built.
    pub(crate) fn around(&self, names: &[String], limits: &LimitsSettings) -> Result<Vec<Arc<dyn Layer>>, StartError> {
        let found = |name: &String| {
            let missing = || StartError::new(format!("layer \"{name}\" was not configured when the server started"));
            self.0.get(name).cloned().ok_or_else(missing)
        };
        let mut layers: Vec<Arc<dyn Layer>> = names.iter().map(found).collect::<Result<_, _>>()?;
        if limits.counts() {
            layers.push(Arc::new(limits.clone().build(&Context::default())?));
        }
        Ok(layers)
    }
}
