//! What the command line leaves open is taken from what the server says it can do (ORCH-3094).

use api_types::{Capabilities, Engine, EngineCapability};

use crate::args::RunArgs;
use crate::exit::Exit;
use crate::failure::Failure;

/// Context asked for when neither the command line nor the server names one.
const FALLBACK_CTX: i32 = 4096;
/// Tokens asked for when the command line names no number.
const DEFAULT_MAX_TOKENS: i32 = 512;

/// Which model, and within which limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) model: String,
    pub(super) engine: Engine,
    pub(super) ctx: i32,
    pub(super) max_tokens: i32,
}

/// Fills in model, engine and context from the pools that fit.
pub(super) fn choose(capabilities: &Capabilities, args: &RunArgs) -> Result<Target, Failure> {
    let fitting: Vec<&EngineCapability> = capabilities.engines.iter().filter(|pool| fits(pool, args)).collect();
    let pool = match preferred(&fitting) {
        Preferred::One(pool) => Some(pool),
        // Named models and engines are for the server to judge: its refusal says more than ours could.
        Preferred::None if args.model.is_some() && args.engine.is_some() => None,
        Preferred::None => return Err(nothing_fits(capabilities)),
        Preferred::Several(models) => {
            let what = format!("several models are ready: {}", models.join(", "));
            return Err(Failure::new(Exit::Usage, what, "choose one with --model, or a pool with --pool"));
        }
    };
    let told = |limit: i32| (limit > 0).then_some(limit);
    let ctx = args.ctx.or(pool.and_then(|pool| told(pool.ctx_max))).unwrap_or(FALLBACK_CTX);
    let most = pool.and_then(|pool| told(pool.max_tokens_out)).unwrap_or(i32::MAX);
    Ok(Target {
        model: args.model.clone().or_else(|| pool?.model_ref.clone()).unwrap_or_default(),
        engine: args.engine.or_else(|| Some(pool?.engine)).unwrap_or(Engine::Llamacpp),
        ctx,
        // A number that was asked for is not lowered in silence: the server refuses it and says by how much it is too large.
        max_tokens: args.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS.min(most)),
    })
}

fn fits(pool: &EngineCapability, args: &RunArgs) -> bool {
    let pinned = args.pool.as_ref().is_none_or(|id| pool.pool_id.as_ref() == Some(id));
    let model = args.model.as_ref().is_none_or(|model| pool.model_ref.as_ref() == Some(model));
    let engine = args.engine.is_none_or(|engine| pool.engine == engine);
    pinned && model && engine && pool.model_ref.is_some()
}

enum Preferred<'a> {
    One(&'a EngineCapability),
    None,
    Several(Vec<String>),
}

/// A ready pool before one that is not; pools that serve the same model are one choice, since the server places.
fn preferred<'a>(fitting: &[&'a EngineCapability]) -> Preferred<'a> {
    let ready: Vec<&EngineCapability> = fitting.iter().copied().filter(|pool| pool.ready).collect();
    let choice = if ready.is_empty() { fitting } else { &ready[..] };
    let Some(first) = choice.first() else { return Preferred::None };
    let same =
        |pool: &&EngineCapability| (pool.model_ref.as_ref(), pool.engine) == (first.model_ref.as_ref(), first.engine);
    if choice.iter().all(same) {
        // The roomiest one, so that the context asked for is not less than what some pool offers.
        return Preferred::One(choice.iter().copied().max_by_key(|pool| pool.ctx_max).unwrap_or(first));
    }
    let mut models: Vec<String> =
        choice.iter().filter_map(|pool| Some(format!("{} ({})", pool.model_ref.as_ref()?, pool.engine))).collect();
    models.sort();
    models.dedup();
    Preferred::Several(models)
}

fn nothing_fits(capabilities: &Capabilities) -> Failure {
    if capabilities.engines.is_empty() {
        let next = "add [[pools]] to the server's configuration and start it again";
        return Failure::new(Exit::Refused, "the server has no pools", next);
    }
    let next = "`llama-orch capabilities` lists what there is";
    Failure::new(Exit::Refused, "no pool fits --model, --engine and --pool", next)
}

#[cfg(test)]
mod tests {
    use api_types::{Capabilities, Engine};
    use clap::Parser as _;
    use serde_json::json;

    use super::{Target, choose};
    use crate::args::{Args, Command};

    /// Chooses with pools given as (id, model, engine, ctx, ready).
    fn chosen(pools: &[(&str, &str, &str, i32, bool)], options: &[&str]) -> Result<Target, String> {
        let engines: Vec<_> = pools
            .iter()
            .map(|(id, model, engine, ctx, ready)| {
                json!({"engine": engine, "engine_version": "", "sampler_profile_version": "v1", "ctx_max": ctx,
                    "max_tokens_out": ctx - 1, "concurrency": 1, "supported_workloads": [], "pool_id": id,
                    "model_ref": model, "ready": ready})
            })
            .collect();
        let capabilities: Capabilities =
            serde_json::from_value(json!({"api_version": "1.0.0", "engines": engines})).expect("capabilities");
        let line = ["llama-orch", "run", "prompt"].iter().chain(options);
        let Command::Run(args) = Args::try_parse_from(line).expect("arguments").command else { panic!("run") };
        choose(&capabilities, &args).map_err(|failure| failure.to_string())
    }

    fn target(model: &str, engine: Engine, ctx: i32, max_tokens: i32) -> Target {
        Target { model: model.to_owned(), engine, ctx, max_tokens }
    }

    /// ORCH-3094: limits come from the server, and what is ambiguous is asked back.
    #[test]
    fn defaults_come_from_the_only_choice() {
        let one = [("a", "m", "llamacpp", 300, true)];
        assert_eq!(chosen(&one, &[]), Ok(target("m", Engine::Llamacpp, 300, 299)));
        assert_eq!(chosen(&one, &["--ctx", "64", "--max-tokens", "9"]), Ok(target("m", Engine::Llamacpp, 64, 9)));
        assert_eq!(
            chosen(&one, &["--max-tokens", "999"]),
            Ok(target("m", Engine::Llamacpp, 300, 999)),
            "for the server"
        );

        let two = [("a", "m", "llamacpp", 300, true), ("b", "n", "vllm", 8000, true)];
        assert!(chosen(&two, &[]).expect_err("ambiguous").contains("m (llamacpp), n (vllm)"));
        assert_eq!(chosen(&two, &["--model", "n"]), Ok(target("n", Engine::Vllm, 8000, 512)));
        assert_eq!(chosen(&two, &["--pool", "b"]), Ok(target("n", Engine::Vllm, 8000, 512)));

        let ready_first = [("a", "m", "llamacpp", 300, false), ("b", "n", "vllm", 8000, true)];
        assert_eq!(chosen(&ready_first, &[]), Ok(target("n", Engine::Vllm, 8000, 512)));
        let same = [("a", "m", "mock", 300, true), ("b", "m", "mock", 900, true)];
        assert_eq!(chosen(&same, &[]), Ok(target("m", Engine::Mock, 900, 512)));
        // Not told yet.
        assert_eq!(chosen(&[("a", "m", "mock", 0, false)], &[]), Ok(target("m", Engine::Mock, 4096, 512)));
    }

    #[test]
    fn nothing_fitting_says_what_to_do() {
        assert!(chosen(&[], &[]).expect_err("none").contains("add [[pools]]"));
        let one = [("a", "m", "mock", 300, true)];
        assert!(chosen(&one, &["--model", "x"]).expect_err("none").contains("llama-orch capabilities"));
        // Both named: the server's own refusal is better.
        assert!(chosen(&one, &["--model", "x", "--engine", "vllm"]).is_ok());
    }
}
