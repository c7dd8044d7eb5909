//! nginx: HTTP/1.1 between the two, since its client side speaks nothing else.

use std::net::SocketAddr;
use std::process::Command;

use ravelin_tests::ports::free_address;

use crate::system::{Ground, System, find, version};

/// Starts its pair.
pub(super) fn start(ground: &Ground) -> Result<System, String> {
    let program = find("nginx").ok_or("not installed")?;
    let (outbound, inbound) = (free_address(), free_address());
    let pem = ground.pem;
    let tls = "TLSv1.3";
    let suite = "Ciphersuites TLS_AES_128_GCM_SHA256";
    let called = server(
        ground.app,
        &format!(
            "listen {inbound} ssl http2;
    ssl_certificate {0}; ssl_certificate_key {0};
    ssl_client_certificate {1}; ssl_verify_client on; ssl_verify_depth 3;
    ssl_protocols {tls}; ssl_conf_command {suite}; ssl_ecdh_curve X25519;
    ssl_session_cache off; ssl_session_tickets off;",
            pem.inventory.display(),
            pem.bundle.display(),
        ),
        "proxy_pass http://next;",
    );
    let caller = server(
        inbound,
        &format!("listen {outbound};"),
        &format!(
            "proxy_pass https://next;
      proxy_ssl_certificate {0}; proxy_ssl_certificate_key {0};
      proxy_ssl_trusted_certificate {1}; proxy_ssl_verify on; proxy_ssl_verify_depth 3;
      proxy_ssl_name inventory.shop; proxy_ssl_server_name on;
      proxy_ssl_protocols {tls}; proxy_ssl_conf_command {suite}; proxy_ssl_session_reuse off;",
            pem.orders.display(),
            pem.bundle.display(),
        ),
    );
    let command = |side: &str, text: &str| {
        let folder = ground.folder.join(format!("nginx-{side}"));
        std::fs::create_dir_all(&folder).unwrap();
        let config = folder.join("nginx.conf");
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(&program);
        command.arg("-p").arg(&folder).arg("-c").arg(&config);
        command.args(["-e", "error.log"]);
        command
    };
    Ok(System::start(
        "nginx",
        format!(
            "{}, HTTP/1.1 between the two",
            version(&program, "-v").replace("nginx version: ", "")
        ),
        ground.folder,
        (outbound, command("outbound", &caller)),
        (inbound, command("inbound", &called)),
    ))
}

fn server(next: SocketAddr, listen: &str, pass: &str) -> String {
    format!(
        "daemon off;
master_process off;
worker_processes 1;
pid nginx.pid;
error_log error.log error;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  upstream next {{ server {next}; keepalive 256; keepalive_requests 100000000; keepalive_timeout 600s; }}
  server {{
    {listen}
    keepalive_requests 100000000; keepalive_timeout 600s;
    location / {{
      proxy_http_version 1.1;
      proxy_set_header Connection \"\"; proxy_set_header Host $host;
      proxy_max_temp_file_size 0;
      {pass}
    }}
  }}
}}
"
    )
}
