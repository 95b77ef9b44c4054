//! Brings images (LO-CTR-04, ORCH-3802).

use std::time::Instant;

use narration_core::redact;
use serde::{Deserialize, Deserializer};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio_util::sync::CancellationToken;

use crate::client::{clean, tail};
use crate::error::{ClientError, PullError, is_no_image};
use crate::executor::Spawned;
use crate::image::{ImageDigest, ImageRef};
use crate::narrate;
use crate::runtime::Runtime;

/// An image that is on this machine, as identity records have it: `{image, tag?, digest}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulledImage {
    /// What it was asked for as, with the digest it turned out to have.
    pub image: ImageRef,
    /// The digest of its manifest. Docker gives an image that was built here none until it is pushed; there it is the
    /// digest of its configuration, which names it as exactly.
    pub digest: ImageDigest,
    /// What containers are started from: one image and no other, whatever happens to its tag.
    pub reference: String,
    /// The runtime's own id of it.
    pub id: String,
    /// It was asked for by its tag alone, which may mean another image tomorrow. A warning was logged.
    pub unpinned: bool,
    /// It was fetched just now.
    pub fetched: bool,
}

/// How far a pull is. Clients tell steps and not bytes when nobody watches them on a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullProgress {
    /// What the client said last, redacted.
    pub line: String,
    /// Layers that were begun.
    pub layers_begun: u32,
    /// Layers that are here. Podman tells when all are.
    pub layers_done: u32,
}

impl Runtime {
    /// The image, if it is on this machine: under the digest that is wanted, or under the tag when no digest is.
    ///
    /// # Errors
    /// When the client fails.
    pub async fn present(&self, image: &ImageRef) -> Result<Option<PulledImage>, PullError> {
        let call = self.command(["image", "inspect", &image.reference()]);
        let answer = match self.ask(&call, self.limits().ask).await {
            Ok(answer) => answer,
            Err(error) if is_no_image(&error) => return Ok(None),
            Err(error) => return Err(PullError::of(image, self.backend(), error)),
        };
        let images: Vec<Inspected> = serde_json::from_str(&answer).map_err(|source| {
            let error = ClientError::Unreadable { backend: self.backend(), operation: "image inspect", source };
            PullError::of(image, self.backend(), error)
        })?;
        let Some(found) = images.into_iter().next() else { return Ok(None) };
        found.pulled(image).map(Some)
    }

    /// Brings an image, unless it is here. With a digest it is that image or an error; with a tag alone what is here under
    /// it is taken as it is, and the digest is reported so that it can be pinned.
    ///
    /// The caller has asked the outbound policy about [`ImageRef::registry`].
    ///
    /// # Errors
    /// See [`PullError`]. Once `cancel` fires or the future is dropped, the client is ended; what it had of the image is
    /// left to the runtime, which goes on from there the next time.
    pub async fn pull(
        &self,
        image: &ImageRef,
        progress: &mut (dyn FnMut(PullProgress) + Send),
        cancel: &CancellationToken,
    ) -> Result<PulledImage, PullError> {
        let started = Instant::now();
        let outcome = self.bring(image, progress, cancel).await;
        match &outcome {
            Ok(pulled) => narrate::pulled(self.backend(), pulled, started.elapsed()),
            Err(error) => narrate::not_pulled(self.backend(), image, error),
        }
        outcome
    }

    async fn bring(
        &self,
        image: &ImageRef,
        progress: &mut (dyn FnMut(PullProgress) + Send),
        cancel: &CancellationToken,
    ) -> Result<PulledImage, PullError> {
        if let Some(present) = self.present(image).await? {
            return Ok(present);
        }
        if image.is_local() {
            return Err(PullError::NotBuilt { image: image.clone() });
        }
        narrate::pulling(self.backend(), image);
        let fetch = tokio::time::timeout(self.limits().pull, self.fetch(image, progress));
        let fetched = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(PullError::Canceled { image: image.clone() }),
            fetched = fetch => fetched,
        };
        let (backend, limit) = (self.backend(), self.limits().pull);
        let late = |_| Err(ClientError::TimedOut { backend, operation: "pull".to_owned(), limit });
        fetched.unwrap_or_else(late).map_err(|error| PullError::of(image, backend, error))?;
        let pulled = self.present(image).await?.ok_or_else(|| PullError::NotFound { image: image.clone(), backend })?;
        Ok(PulledImage { fetched: true, ..pulled })
    }

    async fn fetch(
        &self,
        image: &ImageRef,
        progress: &mut (dyn FnMut(PullProgress) + Send),
    ) -> Result<(), ClientError> {
        let backend = self.backend();
        let call = self.command(["pull", &image.reference()]);
        let spawned = self.0.executor.spawn(&call).map_err(|source| ClientError::start(backend, source))?;
        let Spawned { stdout, stderr, exit } = spawned;
        // Podman tells its steps on one of them, docker on the other.
        let (mut out, mut err) = (BufReader::new(stdout).lines(), BufReader::new(stderr).lines());
        let mut steps = Steps::default();
        let mut complaints = Vec::new();
        let talk = |source| ClientError::Talk { backend, source };
        let (mut out_open, mut err_open) = (true, true);
        while out_open || err_open {
            tokio::select! {
                line = out.next_line(), if out_open => match line.map_err(talk)? {
                    Some(line) => steps.take(&line, progress),
                    None => out_open = false,
                },
                line = err.next_line(), if err_open => match line.map_err(talk)? {
                    Some(line) => {
                        steps.take(&line, progress);
                        complaints.extend_from_slice(line.as_bytes());
                        complaints.push(b'\n');
                    }
                    None => err_open = false,
                },
            }
        }
        let code = exit.await.map_err(talk)?;
        let complaints = tail(&mut &complaints[..]).await.map_err(talk)?;
        if code == 0 { Ok(()) } else { Err(ClientError::failed(backend, code, clean(&complaints))) }
    }
}

#[derive(Default)]
struct Steps {
    begun: u32,
    done: u32,
}

impl Steps {
    fn take(&mut self, line: &str, progress: &mut (dyn FnMut(PullProgress) + Send)) {
        if line.contains("Copying blob") || line.ends_with("Pulling fs layer") {
            self.begun += 1;
        } else if line.ends_with("Already exists") {
            self.begun += 1;
            self.done += 1;
        } else if line.ends_with("Pull complete") {
            self.done += 1;
        } else if line.contains("Copying config") {
            self.done = self.begun;
        }
        let line = redact(line).into_owned();
        progress(PullProgress { line, layers_begun: self.begun, layers_done: self.done });
    }
}

/// What `image inspect` says about one image; both clients.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    #[serde(deserialize_with = "with_or_without_algorithm")]
    id: ImageDigest,
    /// Podman's alone.
    digest: Option<String>,
    repo_digests: Option<Vec<String>>,
}

/// Docker's ids begin with `sha256:`, podman's do not.
fn with_or_without_algorithm<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ImageDigest, D::Error> {
    let id = String::deserialize(deserializer)?;
    format!("sha256:{}", id.trim_start_matches("sha256:")).parse().map_err(serde::de::Error::custom)
}

impl Inspected {
    fn pulled(self, wanted: &ImageRef) -> Result<PulledImage, PullError> {
        let digest = self.digest(wanted);
        if wanted.digest.as_ref().is_some_and(|wanted| *wanted != digest) {
            return Err(PullError::DigestMismatch { image: wanted.clone(), found: digest });
        }
        let id = self.id.as_str().trim_start_matches("sha256:").to_owned();
        let reference = if digest == self.id { id.clone() } else { format!("{}@{digest}", wanted.image) };
        let image = ImageRef { digest: Some(digest.clone()), ..wanted.clone() };
        Ok(PulledImage { image, digest, reference, id, unpinned: wanted.digest.is_none(), fetched: false })
    }

    /// The digest that was asked for, if the image has it, or else the one it is known by. An image of several platforms has
    /// a digest of its list and one of its own; either may be asked for.
    fn digest(&self, wanted: &ImageRef) -> ImageDigest {
        let in_repositories = self.repo_digests.iter().flatten().filter_map(|entry| entry.rsplit_once('@'));
        let here = in_repositories.clone().filter(|(repository, _)| *repository == wanted.image);
        let texts = here.chain(in_repositories).map(|(_, digest)| digest).chain(self.digest.as_deref());
        let known: Vec<ImageDigest> = texts.filter_map(|text| text.parse().ok()).chain([self.id.clone()]).collect();
        let asked_for = known.iter().find(|known| wanted.digest.as_ref() == Some(known));
        asked_for.or(known.first()).cloned().unwrap_or_else(|| self.id.clone())
    }
}
