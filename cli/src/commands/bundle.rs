//! `ravelin bundle show | export`: the keys that the trust domain is verified with.

use crate::arguments::Shared;
use crate::connection::{Ca, ask};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Rows, put, time_of_secs};
use base64::Engine as _;
use clap::{Args, Subcommand, ValueEnum};
use ravelin_proto::bundle::{JwksContent, x509_authority_id};
use ravelin_proto::convert::bundle_from_pb;
use ravelin_proto::pb::spire::api::server::bundle::v1::GetBundleRequest;
use ravelin_proto::pb::spire::api::types::Bundle;
use serde_json::json;
use std::fmt::Write as _;
use std::path::PathBuf;

/// The verbs of `ravelin bundle`.
#[derive(Debug, Subcommand)]
pub(crate) enum BundleCommand {
    /// Show the keys of the bundle
    #[command(after_help = "Example:\n  ravelin bundle show")]
    Show,
    /// Write the bundle for another program
    Export(ExportArguments),
}

/// Form and place of an export.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ravelin bundle export --format pem --file bundle.pem\n  ravelin bundle export --format jwks"
)]
pub(crate) struct ExportArguments {
    /// Form of the bundle
    #[arg(long, value_enum, default_value_t = BundleFormat::Pem)]
    format: BundleFormat,
    /// Where to write it; stdout otherwise
    #[arg(long)]
    file: Option<PathBuf>,
}

/// Form of an exported bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BundleFormat {
    /// The X.509 authorities as PEM
    Pem,
    /// The SPIFFE bundle document (JWKS)
    Spiffe,
    /// The JWT keys alone, as a JWKS
    Jwks,
}

/// Runs a verb.
pub(crate) async fn run(command: BundleCommand, shared: Shared) -> Outcome {
    let ca = Ca::connect(&shared).await?;
    let bundle = get(&ca).await?;
    match command {
        BundleCommand::Show => show(&bundle, &shared),
        BundleCommand::Export(export) => {
            let text = match export.format {
                BundleFormat::Pem => pem(&bundle),
                BundleFormat::Spiffe => jwks(bundle, JwksContent::All)?,
                BundleFormat::Jwks => jwks(bundle, JwksContent::JwtOnly)?,
            };
            match export.file {
                Some(path) => std::fs::write(&path, text)
                    .map_err(|error| Failure::file("write", &path, error))?,
                None => put(&text)?,
            }
            Ok(Exit::Yes)
        }
    }
}

/// The bundle of the CA's own trust domain.
pub(crate) async fn get(ca: &Ca) -> Result<Bundle, Failure> {
    Ok(ca
        .bundles()
        .get_bundle(ask(GetBundleRequest { output_mask: None }))
        .await
        .map_err(|status| Failure::status("get the bundle", &status))?
        .into_inner())
}

/// The X.509 authorities as PEM, tainted ones left out.
pub(crate) fn pem(bundle: &Bundle) -> String {
    let mut text = String::new();
    for authority in bundle
        .x509_authorities
        .iter()
        .filter(|authority| !authority.tainted)
    {
        text.push_str(&pem_block("CERTIFICATE", &authority.asn1));
    }
    text
}

/// One PEM block (RFC 7468).
pub(crate) fn pem_block(label: &str, der: &[u8]) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        let _ = writeln!(text, "{line}");
        rest = after;
    }
    let _ = writeln!(text, "-----END {label}-----");
    text
}

fn jwks(bundle: Bundle, content: JwksContent) -> Result<String, Failure> {
    let bundle = bundle_from_pb(bundle)
        .map_err(|error| Failure::no(format!("the bundle of the CA is malformed: {error}")))?;
    Ok(format!("{}\n", bundle.to_jwks(content)))
}

fn show(bundle: &Bundle, shared: &Shared) -> Outcome {
    let mut rows = Rows::new(&[
        "trust_domain",
        "kind",
        "key_id",
        "tainted",
        "expires_at",
        "sequence",
    ]);
    for authority in &bundle.x509_authorities {
        let expires_at = x509_parser::parse_x509_certificate(&authority.asn1)
            .map_or(0, |(_, certificate)| {
                certificate.validity().not_after.timestamp()
            });
        rows.push(json!({
            "trust_domain": bundle.trust_domain,
            "kind": "x509",
            "key_id": x509_authority_id(&authority.asn1),
            "tainted": authority.tainted,
            "expires_at": time_of_secs(expires_at),
            "sequence": bundle.sequence_number,
        }));
    }
    for key in &bundle.jwt_authorities {
        rows.push(json!({
            "trust_domain": bundle.trust_domain,
            "kind": "jwt",
            "key_id": key.key_id,
            "tainted": key.tainted,
            "expires_at": time_of_secs(key.expires_at),
            "sequence": bundle.sequence_number,
        }));
    }
    rows.print(shared.output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pem_block_has_lines_of_64_characters() {
        let text = pem_block("CERTIFICATE", &[0; 60]);
        let lengths: Vec<usize> = text.lines().map(str::len).collect();
        assert_eq!(lengths, [27, 64, 16, 25]);
    }
}
