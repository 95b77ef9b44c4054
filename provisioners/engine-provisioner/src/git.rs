//! Repositories, fetched with the `git` program.
//!
//! It asks nobody for anything, follows no redirects, speaks only the protocol of the repository, and connects where the outbound
//! policy lets it. One commit is fetched and no history, where the server does that.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use config_schema::RepoUrl;
use model_provisioner::{Errand, Gate, Home, Web};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::error::EngineError;
use crate::host::Host;
use crate::process::{Ended, Run, RunError};
use crate::progress::EngineProgress;
use crate::tools::Tool;

/// Longest that one call of it may take.
const LONGEST: Duration = Duration::from_secs(3600);
/// Submodules of submodules of submodules are followed so deep.
const DEEPEST: usize = 3;

/// A repository that may be fetched.
pub(crate) struct Git<'a> {
    pub(crate) repo: &'a RepoUrl,
    pub(crate) host: &'a Host,
    pub(crate) web: &'a Arc<Web>,
    pub(crate) progress: &'a dyn EngineProgress,
    pub(crate) cancel: &'a CancellationToken,
}

impl Git<'_> {
    /// Fetches what a reference names into a new folder, and says which commit it is.
    pub(crate) async fn check_out(
        &self,
        reference: &str,
        submodules: bool,
        folder: &Path,
    ) -> Result<String, EngineError> {
        self.permitted(self.repo.as_str(), is_commit(reference)).await?;
        fs::create_dir_all(folder).map_err(EngineError::io("create", folder))?;
        self.run(folder, "begin", &["init", "--quiet"]).await?;
        self.run(folder, "begin", &["remote", "add", "origin", "--", self.repo.as_str()]).await?;
        let commit = self.fetch(folder, reference).await?;
        self.run(folder, "check out the commit", &["checkout", "--quiet", "--detach", &commit]).await?;
        if submodules {
            self.submodules(folder).await?;
        }
        Ok(commit)
    }

    /// The one commit; all of them where a server does not hand out a single one, or its name is cut short.
    async fn fetch(&self, folder: &Path, reference: &str) -> Result<String, EngineError> {
        let action = format!("fetch {reference} of {}", self.repo);
        // `--` keeps a reference from being an option.
        let shallow = ["fetch", "--progress", "--depth=1", "--no-tags", "origin", "--", reference];
        match self.run(folder, &action, &shallow).await {
            Ok(_) => return self.resolve(folder, "FETCH_HEAD").await,
            Err(error @ EngineError::Git { .. }) if looks_like_commit(reference) => {
                tracing::debug!(%error, "the commit alone is not handed out, so all are fetched");
            }
            Err(error) => return Err(error),
        }
        let all = ["fetch", "--progress", "--tags", "origin", "--", "+refs/heads/*:refs/remotes/origin/*"];
        self.run(folder, &action, &all).await?;
        self.resolve(folder, reference).await
    }

    async fn resolve(&self, folder: &Path, name: &str) -> Result<String, EngineError> {
        let commit = format!("{name}^{{commit}}");
        let ended = self
            .run(folder, &format!("find {name}"), &["rev-parse", "--verify", "--quiet", "--end-of-options", &commit])
            .await?;
        let found = ended.lines.iter().rev().map(|line| line.trim()).find(|line| is_commit(line));
        found.map(ToOwned::to_owned).ok_or_else(|| EngineError::Git {
            action: format!("find {name} in {}", self.repo),
            detail: "there is no such commit".to_owned(),
            fix: Some("correct provisioning.source.ref".to_owned()),
        })
    }

    /// Fetches submodules, level by level, each from where the policy lets it.
    async fn submodules(&self, folder: &Path) -> Result<(), EngineError> {
        let mut level = vec![folder.to_owned()];
        for _ in 0..DEEPEST {
            let mut next = Vec::new();
            for module in level.iter().filter(|module| module.join(".gitmodules").is_file()) {
                self.run(module, "read the submodules", &["submodule", "init"]).await?;
                let urls = self.config(module, r"^submodule\..*\.url$", &["config", "--local"]).await?;
                for (_, url) in &urls {
                    self.permitted(url, true).await?;
                }
                self.run(module, "fetch the submodules", &["submodule", "update", "--depth=1", "--progress"]).await?;
                let paths = self.config(module, r"^submodule\..*\.path$", &["config", "-f", ".gitmodules"]).await?;
                next.extend(paths.into_iter().map(|(_, path)| module.join(path)));
            }
            level = next;
        }
        Ok(())
    }

    async fn config(
        &self,
        folder: &Path,
        pattern: &str,
        command: &[&str],
    ) -> Result<Vec<(String, String)>, EngineError> {
        let args: Vec<_> = command.iter().copied().chain(["--get-regexp", pattern]).collect();
        let ended = self.run(folder, "read the submodules", &args).await?;
        let pair = |line: &String| line.split_once(' ').map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(ended.lines.iter().filter_map(pair).collect())
    }

    /// Whether the policy lets this host be connected to. `pinned` says that what comes is known beforehand.
    async fn permitted(&self, url: &str, pinned: bool) -> Result<(), EngineError> {
        let failed = |source| EngineError::Fetch { what: format!("the repository {url}"), source };
        let Some(address) = address(url) else {
            return match is_local(self.repo.as_str()) && is_local(url) {
                true => Ok(()),
                false => Err(failed(catalog_core::FetchError::Denied(format!(
                    "{url} is no address that may be fetched from"
                )))),
            };
        };
        let home = Home::new(address.clone());
        let errand = Errand { model: format!("the repository {}", self.repo), configured: true, pinned, home };
        let gate: Gate = self.web.gate(errand).map_err(failed)?;
        gate.permits(&address).await.map_err(failed)
    }

    async fn run(&self, folder: &Path, action: &str, args: &[&str]) -> Result<Ended, EngineError> {
        let program = self.host.tool(Tool::Git).ok_or_else(|| EngineError::MissingTools {
            tools: vec![Tool::Git],
            needed_for: "fetching a repository".to_owned(),
            looked_at: Vec::new(),
            fix: Tool::Git.fix(&self.host.distro),
        })?;
        let run = Run::new(&program, self.environment()).args(SETTINGS.iter().copied()).args(args.iter().copied());
        let ended = run.within(folder).at_most(LONGEST).finish(self.cancel, |line| {
            if let Some(share) = share(line) {
                self.progress.share(share);
            } else {
                self.progress.output(line);
            }
        });
        let failed = |detail: String| {
            let fix = advice(&detail).map(ToOwned::to_owned);
            EngineError::Git { action: action.to_owned(), detail, fix }
        };
        match ended.await {
            Ok(ended) if ended.status.success() => Ok(ended),
            Ok(ended) => Err(failed(told(&ended.lines))),
            Err(RunError::Canceled) => Err(EngineError::Canceled),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// The person's own settings and helpers stay out, apart from the keys for ssh.
    fn environment(&self) -> BTreeMap<String, String> {
        let mut all = self.host.child_environment();
        let repo = self.repo.as_str();
        let protocols = match address(repo) {
            None => "file",
            Some(url) if url.scheme() == "http" => "http:https:ssh",
            Some(_) => "https:ssh",
        };
        for (name, value) in [
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", ""),
            ("SSH_ASKPASS", ""),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ALLOW_PROTOCOL", protocols),
            ("GIT_LFS_SKIP_SMUDGE", "1"),
            ("GIT_HTTP_LOW_SPEED_LIMIT", "1000"),
            ("GIT_HTTP_LOW_SPEED_TIME", "60"),
            ("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=15"),
        ] {
            all.insert(name.to_owned(), value.to_owned());
        }
        all
    }
}

/// Settings of every call.
const SETTINGS: &[&str] = &[
    "-c",
    "credential.helper=",
    "-c",
    "http.followRedirects=false",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "advice.detachedHead=false",
    "-c",
    "safe.directory=*",
    "-c",
    "protocol.version=2",
    "-c",
    "init.defaultBranch=main",
];

/// Where a repository is, when that is another machine: `git@host:path` and `ssh://` are judged as a host is.
fn address(repo: &str) -> Option<Url> {
    let host = match repo.split_once("://") {
        Some(("http" | "https", _)) => return repo.parse().ok(),
        Some(("ssh", _)) => repo.parse::<Url>().ok()?.host_str()?.to_owned(),
        Some(_) => return None,
        None => {
            let (host, _) =
                repo.split_once(':').filter(|(host, path)| !host.contains('/') && !path.starts_with(':'))?;
            host.rsplit_once('@').map_or(host, |(_, host)| host).to_owned()
        }
    };
    format!("https://{host}/").parse().ok()
}

fn is_local(repo: &str) -> bool {
    repo.starts_with("file:///") || repo.starts_with('/')
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && looks_like_commit(text)
}

fn looks_like_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `Receiving objects:  42% (1/2)`.
fn share(line: &str) -> Option<f64> {
    let (_, rest) = line.split_once("Receiving objects:")?;
    Some(rest.trim().split('%').next()?.parse::<f64>().ok()? / 100.0)
}

/// What it said that tells of an error.
fn told(lines: &[String]) -> String {
    let is_error = |line: &&String| line.starts_with("fatal:") || line.starts_with("error:");
    let errors: Vec<_> = lines.iter().filter(is_error).map(String::as_str).collect();
    match errors.as_slice() {
        [] => lines.last().cloned().unwrap_or_else(|| "it said nothing".to_owned()),
        errors => errors.join("; "),
    }
}

#[rustfmt::skip]
const ADVICE: &[(&str, &str)] = &[
    ("couldn't find remote ref", "correct provisioning.source.ref"),
    ("could not read Username", "the repository wants credentials, or does not exist; use ssh:// with a key, or a local one with file:///"),
    ("Permission denied (publickey", "load the key that the repository wants into the ssh agent of llama-orch"),
    ("Host key verification failed", "connect to the host with ssh once, as the user of llama-orch, and accept its key"),
    ("unable to update url base from redirection", "the repository has moved; give its new address in provisioning.source.repo"),
    ("returned error: 301", "the repository has moved; give its new address in provisioning.source.repo"),
    ("Could not resolve host", "see whether this machine is online, or use a local repository with file:///"),
    ("does not appear to be a git repository", "correct provisioning.source.repo"),
    ("No space left on device", "make room, or set engines.cache_dir to a larger disk"),
];

fn advice(detail: &str) -> Option<&'static str> {
    ADVICE.iter().find(|(pattern, _)| detail.contains(pattern)).map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ORCH-3206: whatever a repository's address looks like, its host is what the policy is asked about.
    #[test]
    fn addresses() {
        for (repo, host) in [
            ("https://github.com/ggml-org/llama.cpp", Some("github.com")),
            ("http://10.0.0.1:3000/x", Some("10.0.0.1")),
            ("ssh://git@example.org:2222/x", Some("example.org")),
            ("git@example.org:x/y.git", Some("example.org")),
            ("file:///srv/llama.cpp", None),
            ("/srv/llama.cpp", None),
            ("../other", None),
            ("ext::sh -c evil", None),
        ] {
            let found = address(repo).and_then(|url| url.host_str().map(ToOwned::to_owned));
            assert_eq!(found.as_deref(), host, "{repo}");
        }
        assert!(is_commit(&"a".repeat(40)) && looks_like_commit("a1b2c3d") && !looks_like_commit("b6891"));
        assert_eq!(share("Receiving objects:  42% (420/1000), 3.00 MiB"), Some(0.42));
    }
}
