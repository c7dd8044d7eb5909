//! `ravelin svid mint`: the CA issues an SVID for any SPIFFE ID, without attestation. For administrators alone; each use is a
//! leaf of the audit log.

use super::bundle::pem_block;
use super::token::spiffe_id_message;
use crate::arguments::Shared;
use crate::connection::{Ca, ask};
use crate::exit::{Failure, Outcome};
use crate::output::{print_one, time_of_secs};
use clap::{Args, Subcommand};
use ravelin_proto::pb::spire::api::server::svid::v1::{MintJwtsvidRequest, MintX509svidRequest};
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_runtime::durable;
use rcgen::{CertificateParams, KeyPair, SanType};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// Which kind to mint.
#[derive(Debug, Subcommand)]
pub(crate) enum MintCommand {
    /// An X509-SVID with a fresh key
    X509(MintX509Arguments),
    /// A JWT-SVID
    Jwt(MintJwtArguments),
}

/// The X509-SVID to mint.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ravelin svid mint x509 --spiffe-id spiffe://shop.example/backup --ttl 10m --write ./backup"
)]
pub(crate) struct MintX509Arguments {
    /// Whose
    #[arg(long)]
    spiffe_id: SpiffeId,
    /// How long it lives; the CA's default otherwise
    #[arg(long, value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
    /// A DNS name for it
    #[arg(long = "dns-name")]
    dns_names: Vec<String>,
    /// Folder for svid.pem and svid.key
    #[arg(long, value_name = "FOLDER")]
    write: PathBuf,
}

/// The JWT-SVID to mint.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ravelin svid mint jwt --spiffe-id spiffe://shop.example/backup --audience payments --ttl 1m"
)]
pub(crate) struct MintJwtArguments {
    /// Whose
    #[arg(long)]
    spiffe_id: SpiffeId,
    /// Who is to accept it
    #[arg(long, required = true)]
    audience: Vec<String>,
    /// How long it lives; the CA's default otherwise
    #[arg(long, value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
}

/// Runs a verb.
pub(crate) async fn run(command: MintCommand, shared: Shared) -> Outcome {
    match command {
        MintCommand::X509(mint) => mint_x509(mint, &shared).await,
        MintCommand::Jwt(mint) => {
            let ca = Ca::connect(&shared).await?;
            let (token, expires_at) =
                jwt(&ca, &mint.spiffe_id, mint.audience, seconds(mint.ttl)?).await?;
            print_one(
                json!({"expires_at": time_of_secs(expires_at), "token": token}),
                shared.output,
            )
        }
    }
}

/// A JWT-SVID from the CA and when it expires (Unix seconds).
pub(crate) async fn jwt(
    ca: &Ca,
    spiffe_id: &SpiffeId,
    audience: Vec<String>,
    ttl: i32,
) -> Result<(String, i64), Failure> {
    let request = MintJwtsvidRequest {
        id: Some(spiffe_id_message(spiffe_id)),
        audience,
        ttl,
    };
    let svid = ca
        .svids()
        .mint_jwtsvid(ask(request))
        .await
        .map_err(|status| Failure::status("mint a JWT-SVID", &status))?
        .into_inner()
        .svid
        .unwrap_or_default();
    Ok((svid.token, svid.expires_at))
}

async fn mint_x509(mint: MintX509Arguments, shared: &Shared) -> Outcome {
    let (csr, key) = request(&mint)?;
    let ca = Ca::connect(shared).await?;
    let request = MintX509svidRequest {
        csr,
        ttl: seconds(mint.ttl)?,
    };
    let svid = ca
        .svids()
        .mint_x509svid(ask(request))
        .await
        .map_err(|status| Failure::status("mint an X509-SVID", &status))?
        .into_inner()
        .svid
        .unwrap_or_default();
    durable::create_private_dir(&mint.write)
        .map_err(|error| Failure::file("create", &mint.write, error))?;
    let chain: String = svid
        .cert_chain
        .iter()
        .map(|der| pem_block("CERTIFICATE", der))
        .collect();
    let files = [("svid.pem", chain, 0o644), ("svid.key", key, 0o600)];
    for (name, text, mode) in files {
        let path = mint.write.join(name);
        durable::write_atomically(&path, text.as_bytes(), mode)
            .map_err(|error| Failure::file("write", &path, error))?;
    }
    print_one(
        json!({
            "spiffe_id": mint.spiffe_id,
            "expires_at": time_of_secs(svid.expires_at),
            "certificate": mint.write.join("svid.pem").display().to_string(),
            "key": mint.write.join("svid.key").display().to_string(),
        }),
        shared.output,
    )
}

/// A certificate request (DER) and its key (PEM).
fn request(mint: &MintX509Arguments) -> Result<(Vec<u8>, String), Failure> {
    let failed =
        |error: rcgen::Error| Failure::usage(format!("cannot make a certificate request: {error}"));
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new(mint.dns_names.clone()).map_err(failed)?;
    let id = rcgen::string::Ia5String::try_from(mint.spiffe_id.as_str()).map_err(failed)?;
    params.subject_alt_names.push(SanType::URI(id));
    let csr = params.serialize_request(&key).map_err(failed)?;
    Ok((csr.der().to_vec(), key.serialize_pem()))
}

fn seconds(ttl: Option<Duration>) -> Result<i32, Failure> {
    i32::try_from(ttl.unwrap_or_default().as_secs())
        .map_err(|_| Failure::usage("--ttl is longer than an SVID can live"))
}
