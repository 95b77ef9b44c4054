//! One file behind a URL.

use async_trait::async_trait;
use catalog_core::{FetchError, ModelRef};
use reqwest::StatusCode;
use reqwest::header::CONTENT_LENGTH;
use url::Url;

use crate::download::{content_range, validator};
use crate::outbound::Home;
use crate::source::{Listing, RemoteFile, Source, plain_name};
use crate::web::{Gate, Range, Request, shown};

/// `https:` and, with its limits, `http:`.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpsSource;

impl HttpsSource {
    fn url(model: &ModelRef) -> Result<&Url, FetchError> {
        match model {
            ModelRef::Url { url } => Ok(url),
            _ => Err(FetchError::Unsupported(format!("{model} is no URL"))),
        }
    }
}

#[async_trait]
impl Source for HttpsSource {
    fn home(&self, model: &ModelRef) -> Result<Home, FetchError> {
        Self::url(model).map(|url| Home::new(url.clone()))
    }

    /// Asks for the first byte, which tells the size and whether the file is there.
    async fn list(&self, model: &ModelRef, gate: &Gate) -> Result<Listing, FetchError> {
        let url = Self::url(model)?;
        let request = Request::new(url.clone());
        let response = gate.get(&request, Some(&Range { from: 0, to: Some(0), if_range: None })).await?;
        let headers = response.headers();
        let size = match response.status() {
            StatusCode::PARTIAL_CONTENT => content_range(headers).map(|(_, _, total)| total),
            StatusCode::OK => headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()),
            StatusCode::RANGE_NOT_SATISFIABLE => None,
            _ => return Err(refused(&response, self.advice())),
        };
        let place = model.cache_path().unwrap_or_default();
        let name = place.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| FetchError::Unsupported(format!("{} names no file", shown(url))))?;
        let file = RemoteFile { name: plain_name(name)?, request, size, digest: None, version: validator(headers) };
        Ok(Listing { files: vec![file], single: true, source_url: model.to_string() })
    }

    fn advice(&self) -> &'static str {
        "a URL is asked for without credentials; use one that needs none, or hf:, s3: or oci:"
    }
}

/// The error for an answer that is not what was asked for.
pub(crate) fn refused(response: &reqwest::Response, advice: &str) -> FetchError {
    let status = response.status().as_u16();
    refusal(status, &shown(response.url()), advice)
}

/// The error for a status.
pub(crate) fn refusal(status: u16, what: &str, advice: &str) -> FetchError {
    let text = format!("{what} answered {status}");
    match status {
        401 | 403 => FetchError::Unauthorized(format!("{text}; {advice}")),
        404 | 410 => FetchError::NotFound(text),
        _ => FetchError::Source(text),
    }
}
