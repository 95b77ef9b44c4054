//! The command line of `models`.

use std::path::PathBuf;
use std::time::Duration;

use api_types::{ModelId, ModelLifecycle};
use bytesize::ByteSize;
use clap::Subcommand;
use clap::builder::PossibleValuesParser;

use super::{parse_duration, words};

/// Algorithms of signatures that the server checks.
const SIGNATURE_ALGORITHMS: [&str; 4] = ["ecdsa-p256-sha256", "ecdsa-p384-sha384", "ed25519", "rsa-pkcs1-sha256"];

/// What to do with models.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// List the catalog's models by id.
    List(ListModelsArgs),
    /// Show one model: its files, digest, verification and what its header says.
    Show {
        /// The model.
        #[arg(value_name = "REF", value_parser = parse_model)]
        model: ModelId,
    },
    /// Register a model under a digest; files that are on the server already are verified at once.
    Add(Box<AddArgs>),
    /// Fetch a model and watch it come. Ctrl-C stops the transfer; the same command goes on where it stopped.
    Pull(PullArgs),
    /// Read a model's files again, compare them with its digest and check its signatures.
    Verify {
        /// The model.
        #[arg(value_name = "REF", value_parser = parse_model)]
        model: ModelId,
        /// Leave it running and do not wait for it.
        #[arg(long)]
        detach: bool,
    },
    /// Refuse new tasks for a model; pools that serve it finish what was admitted.
    Retire {
        /// The model.
        #[arg(value_name = "REF", value_parser = parse_model)]
        model: ModelId,
        /// Time the pools have to finish, such as 60s or 10m; what is left then ends with an error.
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        deadline: Option<Duration>,
    },
    /// Take a retired model back.
    Activate {
        /// The model.
        #[arg(value_name = "REF", value_parser = parse_model)]
        model: ModelId,
    },
    /// Forget a model and remove its files from the models' folder; files elsewhere stay. Asks first.
    Rm {
        /// The model.
        #[arg(value_name = "REF", value_parser = parse_model)]
        model: ModelId,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// Remove files from the models' folder that no model of the catalog names.
    Gc {
        /// Say what would go, and remove nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Say how much memory a model needs and which GPUs have it, from its header alone.
    Fit(FitArgs),
}

/// Options of `models list`. Filters add up.
#[derive(Debug, clap::Args)]
pub(crate) struct ListModelsArgs {
    /// Only models in this state.
    #[arg(long, value_parser = words(ModelLifecycle::ALL, lifecycle))]
    pub(crate) state: Option<ModelLifecycle>,

    /// Only models with this tag.
    #[arg(long)]
    pub(crate) tag: Option<String>,

    /// Most models to list.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
}

/// Options of `models add`.
#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// The model.
    #[arg(value_name = "REF", value_parser = parse_model)]
    pub(crate) model: ModelId,

    /// What its file must be: `sha256:` and 64 hex digits; the word may be left out.
    #[arg(long, value_name = "DIGEST", value_parser = parse_digest)]
    pub(crate) digest: String,

    /// A label; may be given several times.
    #[arg(long)]
    pub(crate) tag: Vec<String>,

    /// Where it came from.
    #[arg(long, value_name = "URL")]
    pub(crate) source_url: Option<String>,

    /// Refuse it, now and later, unless it has a valid signature.
    #[arg(long)]
    pub(crate) strict: bool,

    /// A signature over the text of the digest, `sha256:<64 hex>`; raw or in base64.
    #[arg(long, value_name = "FILE", requires = "certificate", help_heading = "Trust")]
    pub(crate) signature: Option<PathBuf>,

    /// The signer's certificate, PEM, followed by those that lead to one of the server's `ca_roots`.
    #[arg(long, value_name = "FILE", requires = "signature", help_heading = "Trust")]
    pub(crate) certificate: Option<PathBuf>,

    /// Who signed; the name of the certificate's file unless given.
    #[arg(long, value_name = "NAME", requires = "signature", help_heading = "Trust")]
    pub(crate) signer: Option<String>,

    /// How it was signed.
    #[arg(
        long,
        value_name = "ALGORITHM",
        requires = "signature",
        default_value = "ecdsa-p256-sha256",
        value_parser = PossibleValuesParser::new(SIGNATURE_ALGORITHMS),
        help_heading = "Trust"
    )]
    pub(crate) algo: String,

    /// Where its bill of materials is.
    #[arg(long, value_name = "URI", requires = "sbom_digest", help_heading = "Trust")]
    pub(crate) sbom: Option<String>,

    /// What the bill of materials must be.
    #[arg(long, value_name = "DIGEST", requires = "sbom", value_parser = parse_digest, help_heading = "Trust")]
    pub(crate) sbom_digest: Option<String>,
}

/// Options of `models pull`.
#[derive(Debug, clap::Args)]
pub(crate) struct PullArgs {
    /// The model; it need not be registered.
    #[arg(value_name = "REF", value_parser = parse_model)]
    pub(crate) model: ModelId,

    /// What its file must be: `sha256:` and 64 hex digits; the word may be left out.
    #[arg(long, value_name = "DIGEST", value_parser = parse_digest)]
    pub(crate) digest: Option<String>,

    /// Leave it running and do not wait for it; the same command without this watches it.
    #[arg(long)]
    pub(crate) detach: bool,
}

/// Options of `models fit`.
#[derive(Debug, clap::Args)]
pub(crate) struct FitArgs {
    /// The model; of one that is not on the server only the header is read.
    #[arg(value_name = "REF", value_parser = parse_model)]
    pub(crate) model: ModelId,

    /// Context of one slot, in tokens; the model's own unless given, at most 8192.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) ctx: Option<u32>,

    /// Tasks that run at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) slots: Option<u32>,

    /// Judge GPUs with this much memory too, such as 24GiB,12GiB.
    #[arg(long, value_name = "SIZE", value_delimiter = ',', value_parser = parse_size)]
    pub(crate) vram: Vec<i64>,
}

/// A state's word on the command line.
pub(crate) fn lifecycle(state: ModelLifecycle) -> &'static str {
    match state {
        ModelLifecycle::Active => "active",
        ModelLifecycle::Retired => "retired",
    }
}

fn parse_model(text: &str) -> Result<ModelId, String> {
    match text.trim() {
        "" => Err("a model is named by its id or a reference, such as hf:org/repo/file.gguf".to_owned()),
        name => Ok(name.into()),
    }
}

/// What `sha256sum` prints will do too.
fn parse_digest(text: &str) -> Result<String, String> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    match hex.len() == 64 && hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        true => Ok(format!("sha256:{}", hex.to_ascii_lowercase())),
        false => Err("a digest is `sha256:` and 64 hex digits, as sha256sum prints them".to_owned()),
    }
}

/// Less than a mebibyte is a forgotten unit.
fn parse_size(text: &str) -> Result<i64, String> {
    let size = text.parse::<ByteSize>().ok().map(|size| size.as_u64()).filter(|size| *size >= 1 << 20);
    size.and_then(|size| i64::try_from(size).ok()).ok_or_else(|| "a size looks like 24GiB or 12288MiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{parse_digest, parse_size};

    #[test]
    fn sizes_want_their_unit() {
        assert_eq!(parse_size("24GiB"), Ok(24 << 30));
        assert_eq!(parse_size("1.5 GiB"), Ok(3 << 29));
        assert_eq!(parse_size("25757220864"), Ok(25_757_220_864));
        for text in ["", "24", "GiB", "-1GiB", "24 cats", "99999999999TiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn digests_with_and_without_their_algorithm() {
        let hex = "9F86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let digest = format!("sha256:{}", hex.to_lowercase());
        assert_eq!([parse_digest(hex), parse_digest(&digest)], [Ok(digest.clone()), Ok(digest)]);
        for text in
            ["", "sha256:", "sha256:12", &hex[1..], &hex.replace('9', "x"), "md5:900150983cd24fb0d6963f7d28e17f72"]
        {
            assert!(parse_digest(text).is_err(), "{text}");
        }
    }
}
