//! Loading: the definition is read, models and tools are reached, the store is opened once, the engine
//! and the timers are set going.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::Controller;
use crate::definition::{self, Agent, Fault, Invalid};
use crate::engine::{Engine, Reach};
use crate::llm;
use crate::store::{self, Store};
use crate::timers;
use crate::tools::{self, Servers, Toolbox};

/// How often what is old is thrown away.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// What came of loading.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The agent can never be run as it is.
    #[error(transparent)]
    Agent(#[from] definition::LoadError),
    /// The settings of the model are wrong.
    #[error("the language model: {0}")]
    Model(#[from] llm::Error),
    /// The file of the tools' servers is wrong.
    #[error(transparent)]
    Servers(tools::Error),
    /// A server of tools is not to be had now.
    #[error(transparent)]
    Tools(tools::Error),
    /// The store is not to be had now.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Error {
    /// Whether it may be otherwise in a while.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Agent(_) | Self::Model(_) | Self::Servers(_) => false,
            Self::Store(store::Error::Schema(_) | store::Error::Url(_)) => false,
            Self::Tools(_) | Self::Store(_) => true,
        }
    }

    /// Whether there is no engine for want of its store.
    pub(super) fn is_of_the_store(&self) -> bool {
        matches!(self, Self::Store(_))
    }
}

impl Controller {
    /// Loads the definition. `timers` runs the timers of this load.
    pub(super) async fn load(self: Arc<Self>, timers: CancellationToken) -> Result<(), Error> {
        let path = self.config.file.clone();
        let loaded = definition::load(&path)?;
        loaded.warnings.iter().for_each(|warning| tracing::warn!("{}: {warning}", path.display()));
        let agent = Arc::new(loaded.agent);
        let reach = self.reach(&agent).await?;
        let engine = if let Some(engine) = self.engine.get() {
            Arc::clone(engine)
        } else {
            let store = match self.config.shared_store()? {
                Some(settings) => Store::connect(settings).await?,
                None => Store::open(&self.config.data_dir, self.broken.clone())?,
            };
            let (gate, telemetry) = (Arc::clone(&self.gate), Arc::clone(&self.telemetry));
            let rate = self.config.resume_rate;
            let engine = Arc::new(Engine::new(gate, store, telemetry, Arc::clone(&agent), rate).await?);
            tokio::spawn(Arc::clone(&engine).schedule(self.broken.clone()));
            tokio::spawn(sweep(Arc::clone(&engine), self.config.retention_days, self.broken.clone()));
            tokio::spawn(Arc::clone(&self).share_on(self.broken.clone()));
            Arc::clone(self.engine.get_or_init(|| engine))
        };
        self.cancel_what_was_left();
        let before = engine.toolbox();
        engine.equip(reach);
        before.close().await;
        engine.adopt(Arc::clone(&agent)).await?;
        timers::start(&engine, &self.gate, &timers);
        let entry_points: Vec<&String> = agent.entry_points.keys().collect();
        tracing::info!(agent = %agent.name, ?entry_points, "the agent is loaded");
        Ok(())
    }

    /// Reaches the model and the tools that an agent needs.
    async fn reach(&self, agent: &Agent) -> Result<Reach, Error> {
        let settings = llm::Settings::from_env(|name| std::env::var(name).ok())?;
        let model = settings.map(llm::Client::new).transpose()?.map(Arc::new);
        if model.is_none() && agent.needs_model() {
            return Err(invalid(
                agent,
                "graph.nodes",
                "a node needs a language model: set HIVE_LLM_API_KEY and HIVE_LLM_MODEL",
            ));
        }
        let servers = Servers::load(&self.config.servers()).map_err(Error::Servers)?.unwrap_or_default();
        servers.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        // Nothing is started for an agent that names no tool.
        let wanted = agent.tools();
        let servers = if wanted.is_empty() { Servers::default() } else { servers };
        let toolbox = Toolbox::connect(servers, self.config.data_dir.join("files")).await.map_err(Error::Tools)?;
        let missing: Vec<(&str, &str)> = wanted.into_iter().filter(|(tool, _)| toolbox.get(tool).is_none()).collect();
        if let Some((tool, node)) = missing.first() {
            if !self.config.allow_missing_tools {
                toolbox.close().await;
                let reason = format!(
                    "node {node:?} needs the tool {tool:?}, which no server in {} offers: add one, or run with --allow-missing-tools",
                    self.config.servers().display()
                );
                return Err(invalid(agent, "graph.nodes", &reason));
            }
            tracing::warn!(?missing, "tools that no server offers are not shown to the model");
        }
        Ok(Reach { model, toolbox: Arc::new(toolbox) })
    }
}

fn invalid(agent: &Agent, field: &str, reason: &str) -> Error {
    let fault = Fault { line: None, column: None, field: field.to_owned(), reason: reason.to_owned() };
    Error::Agent(Invalid { file: agent.file.clone(), faults: vec![fault] }.into())
}

/// Throws away what is old, at once and every hour.
async fn sweep(engine: Arc<Engine>, days: i64, stop: CancellationToken) {
    loop {
        let age = SignedDuration::from_hours(days.saturating_mul(24));
        if let Ok(cutoff) = Timestamp::now().checked_sub(age) {
            match engine.sweep(cutoff).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, %cutoff, "old executions are gone"),
                Err(error) => tracing::warn!(%error, "old executions could not be thrown away"),
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(SWEEP_EVERY)).await.is_none() {
            return;
        }
    }
}
