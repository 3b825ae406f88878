//! Loading: the definition is read, the store opened once, the engine and the timers set going.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Controller;
use crate::definition;
use crate::engine::Engine;
use crate::store::{self, Store};
use crate::timers;

/// What came of loading.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The agent can never be run as it is.
    #[error(transparent)]
    Agent(#[from] definition::LoadError),
    /// The store is not to be had now.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Controller {
    /// Loads the definition. `timers` runs the timers of this load.
    pub(super) async fn load(self: Arc<Self>, timers: CancellationToken) -> Result<(), Error> {
        let path = self.config.file.clone();
        let loaded = definition::load(&path)?;
        loaded.warnings.iter().for_each(|warning| tracing::warn!("{}: {warning}", path.display()));
        let agent = Arc::new(loaded.agent);
        let engine = if let Some(engine) = self.engine.get() {
            Arc::clone(engine)
        } else {
            let folder = self.config.data_dir.clone();
            let store = Store::open(&folder, self.broken.clone())?;
            let engine = Engine::new(Arc::clone(&self.gate), store, Arc::clone(&self.telemetry), Arc::clone(&agent))?;
            let engine = Arc::new(engine);
            tokio::spawn(Arc::clone(&engine).schedule(self.broken.clone()));
            Arc::clone(self.engine.get_or_init(|| engine))
        };
        engine.adopt(Arc::clone(&agent)).await?;
        timers::start(&engine, &self.gate, &timers);
        let entry_points: Vec<&String> = agent.entry_points.keys().collect();
        tracing::info!(agent = %agent.name, ?entry_points, "the agent is loaded");
        Ok(())
    }
}
