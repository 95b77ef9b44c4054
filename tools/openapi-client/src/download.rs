//! Answers that come piece by piece: a kept document, what an engine says.

use api_types::{ArtifactId, LogQuery, PoolId};
use bytes::Bytes;
use reqwest::{Method, Response, StatusCode};

use crate::call::{Call, Reply};
use crate::{Client, ClientError};

pub(crate) const OPERATIONS: &[&str] = &["download_artifact", "get_pool_logs"];

/// A body on its way.
#[derive(Debug)]
pub struct Download {
    client: Client,
    response: Response,
}

impl Download {
    /// The next piece, which ends anywhere; `None` when all of it has come. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// [`ClientError::Broken`] when the connection is lost before the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        self.response.chunk().await.map_err(|error| self.client.transport(error))
    }
}

impl Client {
    /// An artifact's canonical JSON, byte for byte what its id is the digest of.
    ///
    /// `GET /v1/artifacts/{id}/download`. There is no limit on how long it may take.
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn download_artifact(&self, id: &ArtifactId) -> Result<Download, ClientError> {
        self.download(&Call::new(Method::GET, &["v1", "artifacts", id.as_str(), "download"])).await
    }

    /// What a managed pool's engine has written, oldest first, and with `follow` what it writes from now on.
    ///
    /// `GET /v1/pools/{id}/logs`. There is no limit on how long it may take; one that is followed ends with the server.
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn get_pool_logs(&self, id: &PoolId, query: &LogQuery) -> Result<Download, ClientError> {
        self.download(&Call::new(Method::GET, &["v1", "pools", &id.to_string(), "logs"]).query(query)).await
    }

    async fn download(&self, call: &Call) -> Result<Download, ClientError> {
        let response = self.request(call).send().await.map_err(|error| self.transport(error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        if status == StatusCode::OK {
            return Ok(Download { client: self.clone(), response });
        }
        let reply = Reply::read(response).await.map_err(|error| self.transport(error))?.successful(self);
        Err(reply.err().unwrap_or_else(|| self.protocol(format!("{status} instead of a body"), &headers)))
    }
}
