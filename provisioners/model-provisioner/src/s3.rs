//! `s3://bucket/key` and `s3://bucket/folder/`.
//!
//! Requests are signed by URL, anew for each attempt, and go to AWS or to the service that `AWS_ENDPOINT_URL_S3` or
//! `AWS_ENDPOINT_URL` names. Without credentials they are not signed, which is what public buckets want.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use catalog_core::{Digest, FetchError, ModelRef};
use reqwest::header::{CONTENT_LENGTH, ETAG};
use rusty_s3::actions::{GetObject, ListObjectsV2, ListObjectsV2Response};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use std::time::Duration;
use url::Url;

use crate::outbound::Home;
use crate::source::{distinct_names, plain_name};
use crate::web::{Document, shown};
use crate::{Environment, Gate, Listing, RemoteFile, Request, Source};

/// Time within which an attempt has to begin; one that has begun may last as long as it likes.
const SIGNATURE_LASTS: Duration = Duration::from_secs(3600);
/// Most objects of a folder.
const MOST_OBJECTS: usize = 10_000;
/// Largest page of a list: 1,000 keys of 1 KiB, escaped, with all that is said of each.
const LARGEST_PAGE: usize = 8 << 20;
/// Largest error document.
const LARGEST_ERROR: usize = 64 << 10;
/// Asks for the checksums that an object was uploaded with.
const CHECKSUM_MODE: (&str, &str) = ("x-amz-checksum-mode", "ENABLED");
const REGION: &str = "us-east-1";

/// Objects of S3 and services that speak like it.
#[derive(Debug)]
pub struct S3 {
    environment: Environment,
}

/// A bucket and who asks for its objects.
struct Account {
    bucket: Bucket,
    credentials: Option<Credentials>,
}

impl S3 {
    /// Credentials, region and endpoint come from `environment`.
    #[must_use]
    pub fn new(environment: Environment) -> Self {
        Self { environment }
    }

    fn account(&self, bucket: &str) -> Result<Account, FetchError> {
        let text = |name| self.environment.text(name);
        let region = text("AWS_REGION").or(text("AWS_DEFAULT_REGION")).unwrap_or(REGION);
        if !region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
            return Err(FetchError::Unsupported(
                "AWS_REGION is not the name of a region, such as eu-west-1".to_owned(),
            ));
        }
        let own = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].into_iter().find_map(|name| Some((name, text(name)?)));
        let (name, endpoint) = own.map_or_else(|| ("AWS_REGION", aws(region)), |(name, url)| (name, url.to_owned()));
        // TLS certificates of AWS are for one label before its domain.
        let style = if own.is_some() || bucket.contains('.') { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let unusable = || FetchError::Unsupported(format!("{name} is not the URL of an S3 service: https://host"));
        let endpoint: Url = endpoint.parse().map_err(|_| unusable())?;
        let bucket = Bucket::new(endpoint, style, bucket.to_owned(), region.to_owned()).map_err(|_| unusable())?;
        Ok(Account { bucket, credentials: self.credentials()? })
    }

    fn credentials(&self) -> Result<Option<Credentials>, FetchError> {
        let text = |name| self.environment.text(name);
        match (text("AWS_ACCESS_KEY_ID"), text("AWS_SECRET_ACCESS_KEY")) {
            (Some(key), Some(secret)) => Ok(Some(match text("AWS_SESSION_TOKEN") {
                Some(token) => Credentials::new_with_token(key, secret, token),
                None => Credentials::new(key, secret),
            })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(half("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")),
            (None, Some(_)) => Err(half("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")),
        }
    }
}

fn half(there: &str, missing: &str) -> FetchError {
    FetchError::Unauthorized(format!("{there} is set and {missing} is not; set both, or neither for public buckets"))
}

fn aws(region: &str) -> String {
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://s3.{region}.{domain}")
}

fn of_s3(model: &ModelRef) -> Result<(&str, &str), FetchError> {
    match model {
        ModelRef::S3 { bucket, key } => Ok((bucket, key)),
        other => Err(FetchError::Unsupported(format!("{other} is not of S3"))),
    }
}

#[async_trait]
impl Source for S3 {
    fn home(&self, model: &ModelRef) -> Result<Home, FetchError> {
        let (bucket, _) = of_s3(model)?;
        Ok(Home::new(self.account(bucket)?.bucket.base_url().clone()))
    }

    async fn list(&self, model: &ModelRef, gate: &Gate) -> Result<Listing, FetchError> {
        let (bucket, key) = of_s3(model)?;
        let account = self.account(bucket)?;
        let single = !key.ends_with('/');
        let files = if single {
            vec![account.object(key, gate).await?]
        } else {
            let files = account.folder(key, gate).await?;
            distinct_names(&files)?;
            files
        };
        Ok(Listing { files, single, source_url: shown(&account.bucket.object_url(key)) })
    }

    async fn request(&self, model: &ModelRef, file: &RemoteFile, _gate: &Gate) -> Result<Request, FetchError> {
        let (bucket, key) = of_s3(model)?;
        let key = if key.ends_with('/') { format!("{key}{}", file.name) } else { key.to_owned() };
        Ok(self.account(bucket)?.get(&key))
    }

    fn advice(&self) -> &'static str {
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, with temporary ones AWS_SESSION_TOKEN too, to credentials that may \
         read it"
    }
}

impl Account {
    fn get(&self, key: &str) -> Request {
        Request::new(GetObject::new(&self.bucket, self.credentials.as_ref(), key).sign(SIGNATURE_LASTS))
    }

    /// One object, by the headers of its answer: whoever may read an object may still not be let list the bucket.
    async fn object(&self, key: &str, gate: &Gate) -> Result<RemoteFile, FetchError> {
        let name = plain_name(key.rsplit('/').next().unwrap_or(key))?;
        let mut action = GetObject::new(&self.bucket, self.credentials.as_ref(), key);
        let (header, value) = CHECKSUM_MODE;
        action.headers_mut().insert(header, value);
        let mut probe = Request::new(action.sign(SIGNATURE_LASTS));
        probe.headers.push((header, value.to_owned()));
        let response = gate.get(&probe, None).await?;
        if !response.status().is_success() {
            let document = gate.read(response, LARGEST_ERROR).await?;
            return Err(self.refusal(&format!("s3://{}/{key}", self.bucket.name()), &document));
        }
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        Ok(RemoteFile {
            name,
            request: self.get(key),
            size: header(CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok()),
            digest: header("x-amz-checksum-sha256").and_then(whole_checksum),
            version: header(ETAG.as_str()).map(ToOwned::to_owned),
        })
    }

    /// All objects below a folder.
    async fn folder(&self, prefix: &str, gate: &Gate) -> Result<Vec<RemoteFile>, FetchError> {
        let shown = format!("s3://{}/{prefix}", self.bucket.name());
        let mut files = Vec::new();
        let mut after = None;
        loop {
            let page = self.page(&shown, prefix, after.as_deref(), gate).await?;
            for object in page.contents {
                let outside = || FetchError::Source(format!("{shown}: the list holds an object that is not below it"));
                let name = object.key.strip_prefix(prefix).ok_or_else(outside)?;
                // What some programs make of a folder: an object without content.
                if name.is_empty() || name.ends_with('/') && object.size == Some(0) {
                    continue;
                }
                if files.len() == MOST_OBJECTS {
                    return Err(FetchError::Unsupported(format!("{shown} has more than {MOST_OBJECTS} objects")));
                }
                files.push(RemoteFile {
                    name: plain_name(name)?,
                    request: self.get(&object.key),
                    size: object.size,
                    digest: None,
                    version: object.etag,
                });
            }
            match page.next_continuation_token {
                Some(next) if after.as_ref() != Some(&next) => after = Some(next),
                Some(_) => return Err(FetchError::Source(format!("{shown}: the list does not end"))),
                None if files.is_empty() => return Err(FetchError::NotFound(format!("{shown} has no objects"))),
                None => return Ok(files),
            }
        }
    }

    async fn page(
        &self,
        shown: &str,
        prefix: &str,
        after: Option<&str>,
        gate: &Gate,
    ) -> Result<ListObjectsV2Response, FetchError> {
        let mut action = ListObjectsV2::new(&self.bucket, self.credentials.as_ref());
        action.with_prefix(prefix);
        if let Some(after) = after {
            action.with_continuation_token(after);
        }
        let document = gate.document(&Request::new(action.sign(SIGNATURE_LASTS)), LARGEST_PAGE).await?;
        if !document.status.is_success() {
            return Err(self.refusal(shown, &document));
        }
        let text = std::str::from_utf8(&document.body).ok();
        let page = text.and_then(|text| ListObjectsV2::parse_response(text).ok());
        page.ok_or_else(|| {
            FetchError::Source(format!("{shown}: the answer is no list of objects; is it an S3 service?"))
        })
    }

    /// What an answer means that is no success.
    fn refusal(&self, shown: &str, document: &Document) -> FetchError {
        let code = error_code(&document.body);
        let said = code.map_or_else(|| document.status.to_string(), ToOwned::to_owned);
        let region = document.header("x-amz-bucket-region").filter(|region| *region != self.bucket.region());
        match (document.status.as_u16(), code) {
            (_, Some("NoSuchBucket")) => {
                FetchError::NotFound(format!("{shown}: there is no such bucket at {}", self.host()))
            }
            (404, _) => FetchError::NotFound(format!("{shown}: there is no such object")),
            (301 | 307 | 400 | 403, _) if let Some(region) = region => {
                FetchError::Unsupported(format!("{shown} is in another region; set AWS_REGION={region}"))
            }
            (401 | 403, _) | (400, Some("ExpiredToken" | "InvalidToken")) => {
                FetchError::Unauthorized(format!("{shown}: {} refuses it ({said}); {}", self.host(), self.remedy(code)))
            }
            (400..=499, _) if document.status.as_u16() != 408 && document.status.as_u16() != 429 => {
                FetchError::Unsupported(format!("{shown}: {} refuses it ({said})", self.host()))
            }
            _ => FetchError::Source(format!("{shown}: {} failed ({said})", self.host())),
        }
    }

    fn remedy(&self, code: Option<&str>) -> &'static str {
        match code {
            _ if self.credentials.is_none() => "it is not public: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            Some("InvalidAccessKeyId") => "AWS_ACCESS_KEY_ID is not known there",
            Some("SignatureDoesNotMatch") => "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID",
            Some("ExpiredToken" | "InvalidToken") => "AWS_SESSION_TOKEN has expired or is wrong; get new credentials",
            Some("RequestTimeTooSkewed" | "RequestExpired") => "set this machine's clock",
            _ => "AWS_ACCESS_KEY_ID must belong to somebody who may read it, and it must exist",
        }
    }

    fn host(&self) -> &str {
        self.bucket.base_url().host_str().unwrap_or_default()
    }
}

/// The SHA-256 of a whole object; of one that came in parts there is only a checksum of checksums, `…-<parts>`.
fn whole_checksum(base64: &str) -> Option<Digest> {
    let bytes: [u8; 32] = STANDARD.decode(base64).ok()?.try_into().ok()?;
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().parse().ok()
}

/// The code of an error document.
fn error_code(body: &[u8]) -> Option<&str> {
    let (code, _) = std::str::from_utf8(body).ok()?.split_once("<Code>")?.1.split_once("</Code>")?;
    (code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(variables: &[(&str, &str)], model: &str) -> Result<String, String> {
        let value =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let home = S3::new(Environment::from_fn(value)).home(&model.parse().unwrap());
        home.map(|home| home.origin.to_string()).map_err(|error| error.to_string())
    }

    /// LO-MOD-05: the host that is asked is the one that region and endpoint say, and no part of a URL can be slipped in.
    #[test]
    fn where_buckets_are() {
        let model = "s3://models/m.gguf";
        for (variables, model, origin) in [
            (&[][..], model, "https://models.s3.us-east-1.amazonaws.com/"),
            (&[("AWS_DEFAULT_REGION", "eu-west-1")], model, "https://models.s3.eu-west-1.amazonaws.com/"),
            (&[("AWS_REGION", "cn-north-1")], model, "https://models.s3.cn-north-1.amazonaws.com.cn/"),
            (&[], "s3://my.models/m.gguf", "https://s3.us-east-1.amazonaws.com/my.models/"),
            (&[("AWS_ENDPOINT_URL", "https://minio.lan:9000/s3")], model, "https://minio.lan:9000/s3/models/"),
            (
                &[("AWS_ENDPOINT_URL_S3", "https://a.lan"), ("AWS_ENDPOINT_URL", "https://b.lan")],
                model,
                "https://a.lan/models/",
            ),
        ] {
            assert_eq!(home(variables, model).as_deref(), Ok(origin));
        }
        for (name, value) in
            [("AWS_REGION", "x.evil.example/"), ("AWS_ENDPOINT_URL", "ftp://secret@x"), ("AWS_ENDPOINT_URL_S3", "x")]
        {
            let error = home(&[(name, value)], model).unwrap_err();
            assert!(error.contains(name) && !error.contains(value), "{error}");
        }
    }

    /// ORCH-3703: only the checksum of a whole object says what a file must be.
    #[test]
    fn checksums() {
        let digest = Digest::of(b"model");
        let bytes: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&digest.hex()[2 * at..][..2], 16).unwrap()).collect();
        let whole = STANDARD.encode(bytes);
        assert_eq!(whole_checksum(&whole), Some(digest));
        for other in [format!("{whole}-2"), whole[4..].to_owned(), String::new(), "not base64!".to_owned()] {
            assert_eq!(whole_checksum(&other), None, "{other}");
        }
    }

    /// LO-MOD-03: of an error document nothing is shown but its code.
    #[test]
    fn codes_of_errors() {
        for (body, code) in [
            ("<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>m</Message></Error>", Some("NoSuchKey")),
            ("<Error><Code>X-Amz-Signature=secret</Code></Error>", None),
            ("<Error><Code>", None),
            ("", None),
        ] {
            assert_eq!(error_code(body.as_bytes()), code, "{body}");
        }
    }
}
