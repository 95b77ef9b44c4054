//! llama-server's way of writing options. Source: `common_params_parser_init` of llama.cpp.

use std::ffi::OsString;

/// How a model is spread over GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SplitMode {
    /// One GPU has all of it.
    None,
    /// Each has some layers.
    Layer,
    /// Each has some rows.
    Row,
}

/// Names of several letters after one hyphen, which no other program writes, and other names of one option.
const NAMES: [(&str, &str); 16] = [
    ("-m", "--model"),
    ("-a", "--alias"),
    ("-c", "--ctx-size"),
    ("-np", "--parallel"),
    ("-t", "--threads"),
    ("-ts", "--tensor-split"),
    ("-sm", "--split-mode"),
    ("-mg", "--main-gpu"),
    ("-ngl", "--n-gpu-layers"),
    ("--gpu-layers", "--n-gpu-layers"),
    ("-fa", "--flash-attn"),
    ("-b", "--batch-size"),
    ("-ub", "--ubatch-size"),
    ("-cb", "--cont-batching"),
    ("-nocb", "--no-cont-batching"),
    ("-s", "--seed"),
];

/// What follows an option that has no effect here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follows {
    Nothing,
    Value,
    /// One of these words, or nothing.
    Perhaps(&'static [&'static str]),
}

const SWITCH: Follows = Follows::Perhaps(&["on", "off", "auto"]);

/// Options without an effect here.
const WITHOUT_EFFECT: [(&str, Follows); 45] = [
    ("--n-gpu-layers", Follows::Value),
    ("--device", Follows::Value),
    ("--flash-attn", SWITCH),
    ("--batch-size", Follows::Value),
    ("--ubatch-size", Follows::Value),
    ("--threads-batch", Follows::Value),
    ("--threads-http", Follows::Value),
    ("--seed", Follows::Value),
    ("--timeout", Follows::Value),
    ("--cache-type-k", Follows::Value),
    ("--cache-type-v", Follows::Value),
    ("--cache-reuse", Follows::Value),
    ("--cache-ram", Follows::Value),
    ("--chat-template", Follows::Value),
    ("--chat-template-file", Follows::Value),
    ("--reasoning-format", Follows::Value),
    ("--reasoning-budget", Follows::Value),
    ("--override-tensor", Follows::Value),
    ("--n-cpu-moe", Follows::Value),
    ("--pooling", Follows::Value),
    ("--rope-scaling", Follows::Value),
    ("--log-verbosity", Follows::Value),
    ("--log-colors", SWITCH),
    ("--fit", SWITCH),
    ("--cont-batching", Follows::Nothing),
    ("--no-cont-batching", Follows::Nothing),
    ("--metrics", Follows::Nothing),
    ("--props", Follows::Nothing),
    ("--no-slots", Follows::Nothing),
    ("--no-webui", Follows::Nothing),
    ("--jinja", Follows::Nothing),
    ("--no-jinja", Follows::Nothing),
    ("--no-warmup", Follows::Nothing),
    ("--no-mmap", Follows::Nothing),
    ("--mlock", Follows::Nothing),
    ("--kv-unified", Follows::Nothing),
    ("--no-kv-unified", Follows::Nothing),
    ("--cache-prompt", Follows::Nothing),
    ("--no-cache-prompt", Follows::Nothing),
    ("--no-context-shift", Follows::Nothing),
    ("--swa-full", Follows::Nothing),
    ("--no-perf", Follows::Nothing),
    ("--offline", Follows::Nothing),
    ("--log-prefix", Follows::Nothing),
    ("--log-timestamps", Follows::Nothing),
];

/// What is wrong with a command line.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadArgument {
    #[error("error while handling argument \"{0}\": expected value for argument")]
    NoValue(String),
    #[error(transparent)]
    Other(clap::Error),
}

/// The command line as other programs would write it, without what has no effect here.
pub(super) fn plain(args: impl Iterator<Item = OsString>) -> Result<Vec<OsString>, BadArgument> {
    let mut args = args.peekable();
    // The program.
    let mut plain: Vec<OsString> = args.next().into_iter().collect();
    while let Some(arg) = args.next() {
        let name = name(&arg);
        let Some((known, follows)) = WITHOUT_EFFECT.iter().find(|(known, _)| *known == name) else {
            plain.push(if name.is_empty() { arg } else { name.into() });
            continue;
        };
        match follows {
            Follows::Nothing => {}
            Follows::Value => drop(args.next().ok_or_else(|| BadArgument::NoValue((*known).to_owned()))?),
            Follows::Perhaps(words) => {
                let _word = args.next_if(|next| next.to_str().is_some_and(|next| words.contains(&next)));
            }
        }
    }
    Ok(plain)
}

/// The one name of an option; nothing for what is none. llama-server takes underscores for hyphens.
fn name(arg: &OsString) -> String {
    let text = arg.to_str().unwrap_or_default();
    if let Some((_, name)) = NAMES.iter().find(|(other, _)| *other == text) {
        return (*name).to_owned();
    }
    match text.strip_prefix("--") {
        Some(rest) if !rest.contains('=') => {
            let name = format!("--{}", rest.replace('_', "-"));
            NAMES.iter().find(|(other, _)| *other == name).map_or(name, |(_, name)| (*name).to_owned())
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{BadArgument, plain};

    fn read(line: &str) -> Result<String, BadArgument> {
        let plain = plain(line.split_whitespace().map(Into::into))?;
        Ok(plain.iter().map(|arg| arg.to_str().expect("text")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn options_have_one_name_or_no_effect() {
        for (line, expected) in [
            ("x -m a.gguf -c 4096 -np 2 -ngl 99", "x --model a.gguf --ctx-size 4096 --parallel 2"),
            ("x --ctx_size 1 --flash-attn -fa on -fa --port 1", "x --ctx-size 1 --port 1"),
            ("x --gpu_layers 9 --slots --metrics --faults {}", "x --slots --faults {}"),
            ("x -ts 3,1 --cache-type-k q8_0 --seed -1 --bogus", "x --tensor-split 3,1 --bogus"),
        ] {
            assert_eq!(read(line).expect("it is fine"), expected);
        }
        let error = read("x --seed").expect_err("no value");
        assert_eq!(error.to_string(), "error while handling argument \"--seed\": expected value for argument");
    }
}
