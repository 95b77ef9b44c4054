//! Clients that say what a test wants.

use std::collections::VecDeque;
use std::io::{self, Cursor};
use std::path::Path;
use std::sync::{Arc, Mutex};

use container_runtime::{Backend, Call, Detector, Executor, HostPaths, Preference, Runtime, Spawned};

/// What a client says to one call.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// The beginning of the call that it is for.
    pub(crate) to: &'static str,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Nothing if it never ends.
    pub(crate) code: Option<i32>,
}

/// What succeeds and says this.
pub(crate) fn says(to: &'static str, stdout: &str) -> Reply {
    Reply { to, stdout: stdout.to_owned(), stderr: String::new(), code: Some(0) }
}

/// What fails and complains about this.
pub(crate) fn fails(to: &'static str, code: i32, stderr: &str) -> Reply {
    Reply { to, stdout: String::new(), stderr: stderr.to_owned(), code: Some(code) }
}

/// What never ends.
pub(crate) fn hangs(to: &'static str) -> Reply {
    Reply { to, stdout: String::new(), stderr: String::new(), code: None }
}

/// Answers calls with replies in their order, and keeps the calls. A program without replies is not installed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    replies: Arc<Mutex<VecDeque<Reply>>>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Script {
    pub(crate) fn new(replies: impl IntoIterator<Item = Reply>) -> Self {
        let script = Self::default();
        script.add(replies);
        script
    }

    pub(crate) fn add(&self, replies: impl IntoIterator<Item = Reply>) {
        self.replies.lock().expect("not poisoned").extend(replies);
    }

    /// The calls since the last time.
    pub(crate) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().expect("not poisoned"))
    }

    /// Whether everything was said.
    pub(crate) fn is_over(&self) -> bool {
        self.replies.lock().expect("not poisoned").is_empty()
    }

    pub(crate) fn detector(&self, paths: HostPaths) -> Detector {
        Detector { paths, ..Detector::with_executor(Arc::new(self.clone())) }
    }
}

impl Executor for Script {
    fn spawn(&self, call: &Call) -> io::Result<Spawned> {
        let said = format!("{} {}", call.program, call.args.join(" "));
        let mut replies = self.replies.lock().expect("not poisoned");
        if !replies.iter().any(|reply| reply.to.starts_with(&call.program)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let Reply { to, stdout, stderr, code } = replies.pop_front().expect("one is there");
        assert!(said.starts_with(to), "{said:?} is called where {to:?} should be");
        self.calls.lock().expect("not poisoned").push(call.clone());
        let pipe = |text: String| Box::new(Cursor::new(text.into_bytes()));
        let exit = async move {
            match code {
                Some(code) => Ok(code),
                None => std::future::pending().await,
            }
        };
        Ok(Spawned { stdout: pipe(stdout), stderr: pipe(stderr), exit: Box::pin(exit) })
    }
}

/// A machine with nothing of NVIDIA's, and this distribution.
pub(crate) fn paths(folder: &Path, id: &str) -> HostPaths {
    let os_release = folder.join("os-release");
    std::fs::write(&os_release, format!("ID={id}\n")).expect("a folder of ours");
    HostPaths {
        os_release,
        cdi: vec![folder.join("cdi")],
        inits: vec![folder.join("os-release")],
        nvidia_hook: folder.join("no-hook"),
    }
}

/// What `info` really says, with `from` replaced by `to`.
pub(crate) fn info(backend: Backend, from: &str, to: &str) -> String {
    let text = match backend {
        Backend::Podman => include_str!("answers/podman-info.json"),
        Backend::Docker => include_str!("answers/docker-info.json"),
    };
    assert!(text.contains(from), "{from:?} is not in the answer");
    text.replace(from, to)
}

/// A runtime that was found by this answer to `info`.
pub(crate) async fn runtime(folder: &Path, backend: Backend, info: &str) -> (Runtime, Script) {
    let to = match backend {
        Backend::Podman => "podman info",
        Backend::Docker => "docker info",
    };
    let script = Script::new([says(to, info)]);
    let runtime = script.detector(paths(folder, "debian")).detect(Preference::Only(backend)).await.expect("it works");
    script.calls();
    (runtime, script)
}
