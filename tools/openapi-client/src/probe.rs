//! Readiness: the one answer whose body is the same whether the status is good or bad.

use api_types::pool::Readiness;
use reqwest::Method;

use crate::call::Call;
use crate::{Client, ClientError};

pub(crate) const OPERATIONS: &[&str] = &["get_readyz"];

impl Client {
    /// Whether tasks are taken. Not being ready is an answer, not an error.
    ///
    /// `GET /readyz`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn get_readyz(&self) -> Result<Readiness, ClientError> {
        let reply = self.exchange(&Call::new(Method::GET, &["readyz"])).await?;
        match reply.parse(self) {
            Ok(readiness) => Ok(readiness),
            Err(error) => Err(reply.successful(self).err().unwrap_or(error)),
        }
    }
}
