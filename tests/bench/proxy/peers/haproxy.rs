//! HAProxy: HTTP/1.1 between the two, which costs it less than HTTP/2 does.

use std::net::SocketAddr;
use std::process::Command;

use ravelin_tests::ports::free_address;

use crate::system::{Ground, System, find, version};

/// Starts its pair.
pub(super) fn start(ground: &Ground) -> Result<System, String> {
    let program = find("haproxy").ok_or("not installed")?;
    let (outbound, inbound) = (free_address(), free_address());
    let pem = ground.pem;
    let called = config(
        &format!(
            "{inbound} ssl crt {} ca-file {} verify required alpn h2,http/1.1",
            pem.inventory.display(),
            pem.bundle.display()
        ),
        ground.app,
        "",
    );
    let caller = config(
        &outbound.to_string(),
        inbound,
        &format!(
            " ssl crt {} ca-file {} verify required verifyhost inventory.shop no-ssl-reuse alpn http/1.1",
            pem.orders.display(),
            pem.bundle.display()
        ),
    );
    let command = |side: &str, text: &str| {
        let config = ground.folder.join(format!("haproxy-{side}.cfg"));
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(&program);
        command.args(["-db", "-q", "-f"]).arg(&config);
        command
    };
    Ok(System::start(
        "haproxy",
        format!(
            "{}, HTTP/1.1 between the two",
            version(&program, "-v").replace(" - https://haproxy.org/", "")
        ),
        ground.folder,
        (outbound, command("outbound", &caller)),
        (inbound, command("inbound", &called)),
    ))
}

fn config(bind: &str, next: SocketAddr, tls: &str) -> String {
    format!(
        "global
  nbthread 1
  maxconn 8192
  ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
  ssl-default-bind-curves X25519
  ssl-default-server-options ssl-min-ver TLSv1.3
  ssl-default-server-ciphersuites TLS_AES_128_GCM_SHA256
  tune.ssl.cachesize 0
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  http-reuse always
frontend calls
  bind {bind}
  default_backend next
backend next
  server next {next}{tls}
"
    )
}
