//! `models add`: registers a model, with what vouches for it.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use api_types::{CatalogModel, ModelSignature, Sbom, TrustMode, TrustPolicy};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use openapi_client::Client;

use super::details;
use crate::args::AddArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;

/// Registers a model and shows its record.
pub(super) async fn add(client: &Client, args: AddArgs, json: bool) -> Result<Exit, Failure> {
    let record = client.create_model(&model(args)?).await?;
    if json {
        output::json(&record)?;
    } else {
        output::write(&details::facts_of(&record))?;
    }
    Ok(Exit::Ok)
}

fn model(args: AddArgs) -> Result<CatalogModel, Failure> {
    let signature = match (&args.signature, &args.certificate) {
        (Some(signature), Some(certificate)) => Some(signed(signature, certificate, args.signer, args.algo)?),
        _ => None,
    };
    Ok(CatalogModel {
        id: args.model.to_string(),
        digest: args.digest,
        source_url: args.source_url,
        tags: args.tag,
        manifests: Vec::new(),
        signatures: signature.into_iter().collect(),
        sbom: args.sbom.zip(args.sbom_digest).map(|(uri, digest)| Sbom { uri, digest }),
        trust_policy: args.strict.then(strict),
    })
}

/// Strict trust asks for a signature by itself.
fn strict() -> TrustPolicy {
    TrustPolicy {
        mode: TrustMode::Strict,
        allowed_registries: Vec::new(),
        require_signature: false,
        require_sbom: false,
        ca_roots: Vec::new(),
    }
}

fn signed(
    signature: &Path,
    certificate: &Path,
    signer: Option<String>,
    algo: String,
) -> Result<ModelSignature, Failure> {
    let bytes = read(signature)?;
    let pem = String::from_utf8(read(certificate)?).ok().filter(|text| text.contains("-----BEGIN CERTIFICATE-----"));
    let pem = pem.ok_or_else(|| {
        let what = format!("{} holds no certificate", certificate.display());
        Failure::usage(what, "give a PEM file; `openssl x509 -inform der -in FILE` makes one of a DER file")
    })?;
    let named = || certificate.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(ModelSignature {
        signer: signer.unwrap_or_else(named),
        algo,
        verified: false,
        timestamp_ms: written_ms(signature),
        signature: Some(in_base64(&bytes)),
        certificate: Some(pem),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display()), "name a readable file"))
}

/// Some tools write signatures in base64. A raw one is never that by chance.
fn in_base64(signature: &[u8]) -> String {
    let text = signature.trim_ascii();
    match BASE64_STANDARD.decode(text) {
        Ok(raw) if !raw.is_empty() => BASE64_STANDARD.encode(raw),
        _ => BASE64_STANDARD.encode(signature),
    }
}

/// When a signature was made: when its file was written.
fn written_ms(path: &Path) -> i64 {
    let written = std::fs::metadata(path).and_then(|file| file.modified()).unwrap_or_else(|_| SystemTime::now());
    let age = written.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::in_base64;

    #[test]
    fn a_signature_is_encoded_once() {
        assert_eq!(in_base64(&[0x30, 0x45, 0x02, 0xff]), "MEUC/w==");
        assert_eq!(in_base64(b"MEUC/w==\n"), "MEUC/w==");
    }
}
