//! The adapters of engines, for whoever gives them tasks or asks them how they are.

use std::num::NonZeroU32;
use std::sync::Arc;

use adapter_api::WorkerAdapter;
use api_types::Engine;
use config_schema::{BearerToken, EngineUrl};
use http_util::Secret;
use llamacpp_http::{LlamaCpp, LlamaCppConfig};

use crate::doctor;

/// The adapter for an engine that listens at an address.
///
/// # Errors
/// A sentence: what this version cannot do, or what is wrong with the address.
pub fn adapter_at(
    engine: Engine,
    url: &EngineUrl,
    engine_key: Option<&BearerToken>,
    slots: NonZeroU32,
) -> Result<Arc<dyn WorkerAdapter>, String> {
    match engine {
        Engine::Llamacpp => llamacpp(url, engine_key, slots),
        other => Err(no_adapter(other)),
    }
}

/// Why there is no adapter for an engine.
#[must_use]
pub fn no_adapter(engine: Engine) -> String {
    doctor::no_adapter(engine).to_string()
}

fn llamacpp(
    url: &EngineUrl,
    engine_key: Option<&BearerToken>,
    slots: NonZeroU32,
) -> Result<Arc<dyn WorkerAdapter>, String> {
    let endpoint = url.as_str().parse().map_err(|error| format!("{error}"))?;
    let api_key = engine_key.map(|key| Secret::from(key.expose()));
    // The server keeps a thread for each slot and two more; a kept connection occupies one of them.
    let max_idle = slots.get() as usize;
    let adapter = LlamaCpp::new(&LlamaCppConfig { api_key, max_idle, ..LlamaCppConfig::new(endpoint) });
    adapter.map(|adapter| Arc::new(adapter) as Arc<dyn WorkerAdapter>).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use api_types::Engine;
    use config_schema::{Config, EngineUrl};

    use super::adapter_at;

    /// What the configuration takes for an engine that can be talked to is one.
    #[test]
    fn there_is_an_adapter_for_what_has_one() {
        let url: EngineUrl = "http://127.0.0.1:1".parse().expect("a URL");
        for engine in Engine::ALL {
            let toml = format!(
                "[[pools]]\nid = \"p\"\nengine = \"{engine}\"\nmodel = \"m\"\n[pools.provisioning]\nmode = \"external\"\n\
                 [pools.provisioning.external]\nurl = \"{url}\"\n"
            );
            let config: Config = toml::from_str(&toml).expect("a configuration");
            let adapter = adapter_at(*engine, &url, None, NonZeroU32::MIN);
            assert_eq!(adapter.is_ok(), config.pools[0].has_adapter(), "{engine}");
        }
    }
}
