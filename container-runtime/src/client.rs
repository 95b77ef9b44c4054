//! One call of a client from start to exit: bounded in time and in output.

use std::io;
use std::time::Duration;

use narration_core::redact;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::backend::Backend;
use crate::error::ClientError;
use crate::executor::{Call, Executor};

/// Most that is read of an answer. `inspect` of a hundred containers is a tenth of it.
const MOST_STDOUT: usize = 8 << 20;
/// How much of the end of what a client complains about is kept.
const KEPT_STDERR: usize = 16 << 10;

/// What a client said before it exited.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    /// Redacted.
    pub(crate) stderr: String,
}

impl Answer {
    /// The answer, unless the client says that it failed.
    pub(crate) fn success(self, backend: Backend) -> Result<String, ClientError> {
        if self.code == 0 { Ok(self.stdout) } else { Err(ClientError::failed(backend, self.code, self.stderr)) }
    }
}

/// Runs a client to its end. It is asked to end at the deadline, and when the future is dropped.
pub(crate) async fn answer(
    executor: &dyn Executor,
    backend: Backend,
    call: &Call,
    limit: Duration,
) -> Result<Answer, ClientError> {
    let mut spawned = executor.spawn(call).map_err(|source| ClientError::start(backend, source))?;
    let talk = async {
        let (stdout, stderr, code) = tokio::join!(head(&mut spawned.stdout), tail(&mut spawned.stderr), spawned.exit);
        io::Result::Ok((code?, stdout?, stderr?))
    };
    let (code, stdout, stderr) = tokio::time::timeout(limit, talk)
        .await
        .map_err(|_| ClientError::TimedOut { backend, operation: operation(call), limit })?
        .map_err(|source| ClientError::Talk { backend, source })?;
    Ok(Answer { code, stdout: String::from_utf8_lossy(&stdout).into_owned(), stderr: clean(&stderr) })
}

/// What the call is for, in the client's own word.
pub(crate) fn operation(call: &Call) -> String {
    call.args.first().cloned().unwrap_or_default()
}

/// What a client complains about, fit for a person.
pub(crate) fn clean(stderr: &[u8]) -> String {
    redact(String::from_utf8_lossy(stderr).trim()).into_owned()
}

/// The beginning; the rest is read and thrown away, so that the client does not wait.
async fn head(pipe: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    (&mut *pipe).take(MOST_STDOUT as u64).read_to_end(&mut kept).await?;
    tokio::io::copy(pipe, &mut tokio::io::sink()).await?;
    Ok(kept)
}

/// The end, where the reason is.
pub(crate) async fn tail(pipe: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = pipe.read(&mut piece).await?;
        if read == 0 {
            return Ok(kept);
        }
        kept.extend_from_slice(&piece[..read]);
        if kept.len() > KEPT_STDERR {
            kept.drain(..kept.len() - KEPT_STDERR);
        }
    }
}
