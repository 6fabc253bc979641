//! `message-flow check`: everything that can be wrong with a valid configuration, found without
//! listening or writing anywhere but to a directory of its own that goes away again.

use std::path::Path;

use super::{Scratch, start_plugins};
use crate::{
    config::{Config, TlsFiles},
    listener::{self, tls},
    plugin::{Kind, PluginSet, PluginState, PluginStatus},
    supervise::Supervisor,
};

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Everything that is wrong, each with its fix.
    pub problems: Vec<String>,
    /// The plugins that would run.
    pub plugins: Vec<String>,
}

/// Loads every plugin and looks at everything that the configuration refers to.
pub async fn check(config: &Config) -> anyhow::Result<Findings> {
    let scratch = Scratch::new()?;
    let mut config = config.clone();
    config.data.dir = scratch.path().to_owned();
    let plugins = start_plugins(&config, None, &prometheus::Registry::new(), &Supervisor::default()).await?;
    let set = plugins.current();
    let mut names: Vec<String> = set.by_name.keys().map(ToString::to_string).collect();
    names.sort_unstable();
    let mut problems: Vec<String> = plugins.status().iter().filter_map(refused).collect();
    problems.extend(certificates(&config));
    problems.extend(token_keys(&config));
    problems.extend(references(&config, &set));
    Ok(Findings { problems, plugins: names })
}

fn refused(build: &PluginStatus) -> Option<String> {
    let error = build.error.as_ref()?;
    let wrong = matches!(build.state, PluginState::Refused | PluginState::Failed);
    // What failed when it was tried out says already which plugin it was.
    let name = format!("plugin {}: ", build.name);
    wrong.then(|| if error.starts_with(&name) { error.clone() } else { name + error })
}

fn certificates(config: &Config) -> Vec<String> {
    let used = [("proxy.tls", &config.proxy.tls), ("api.tls", &config.api.tls)];
    let wrong = |(key, files): (&str, &Option<TlsFiles>)| {
        let TlsFiles { cert, key: private } = files.clone()?;
        let error = tls::load(&listener::TlsFiles { cert, key: private }).err()?;
        Some(format!("{key}: {:#}", anyhow::Error::from(error)))
    };
    used.into_iter().filter_map(wrong).collect()
}

fn token_keys(config: &Config) -> Option<String> {
    let error = config.proxy.token.as_ref()?.load().err()?;
    Some(format!("proxy.token: {:#}", anyhow::Error::from(error)))
}

fn references(config: &Config, set: &PluginSet) -> Vec<String> {
    const FILTER: [Kind; 2] = [Kind::RequestFilter, Kind::ResponseFilter];
    let look = References { set, directory: &config.plugins.dir };
    let mut problems: Vec<String> =
        look.up("table.adapter", &config.table.adapter, &[Kind::RoutingTable]).into_iter().collect();
    problems
        .extend(config.proxy.filters.iter().filter_map(|filter| look.up("proxy.filters", filter, &FILTER)));
    for (id, service) in &config.services {
        let (registrar, filters) = (&service.record.registrar, &service.record.filters);
        let key = |key: &str| format!("service.{id}.{key}");
        problems
            .extend(registrar.iter().filter_map(|name| look.up(&key("registrar"), name, &[Kind::Registrar])));
        problems.extend(filters.iter().filter_map(|name| look.up(&key("filters"), name, &FILTER)));
    }
    problems
}

struct References<'a> {
    set: &'a PluginSet,
    directory: &'a Path,
}

impl References<'_> {
    /// What is wrong with a reference to a plugin that must be one of these kinds.
    fn up(&self, key: &str, name: &str, kinds: &[Kind]) -> Option<String> {
        let what = match kinds {
            [Kind::RoutingTable] => "routing-table adapter",
            [Kind::Registrar] => "registrar",
            _ => "filter",
        };
        match self.set.by_name.get(name) {
            Some(build) if kinds.iter().any(|kind| build.is(*kind)) => None,
            Some(_) => Some(format!("{key}: plugin `{name}` is not a {what}")),
            None => {
                let directory = self.directory.display();
                Some(format!("{key}: plugin `{name}` is not loaded: put {name}.wasm into {directory}"))
            }
        }
    }
}
