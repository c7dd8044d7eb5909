//! Where things are by default: sockets, the data folder of `up`, the mesh folder.

use std::path::{Path, PathBuf};

/// The data folder of `up`.
pub(crate) const UP_FOLDER: &str = ".ravelin";
/// The mesh folder that is taken when none is named.
pub(crate) const SHOP_FOLDER: &str = "policies/examples/shop";
const CA_SOCKET_INSTALLED: &str = "/var/lib/ravelin/ca/admin.sock";
const AGENT_SOCKET_INSTALLED: &str = "/run/ravelin/agent.sock";
const AGENT_ADMIN_SOCKET_INSTALLED: &str = "/run/ravelin/agent-admin.sock";

/// The CA to talk to: what was named, else the mesh of `up` in this folder, else the installed one.
pub(crate) fn server_address(named: Option<&str>) -> String {
    named.map_or_else(
        || {
            socket_address(
                &Path::new(UP_FOLDER).join("ca/admin.sock"),
                CA_SOCKET_INSTALLED,
            )
        },
        ToOwned::to_owned,
    )
}

/// The Workload API socket to talk to, as a path.
pub(crate) fn agent_socket(named: Option<&str>) -> PathBuf {
    named.map_or_else(
        || {
            existing(
                &Path::new(UP_FOLDER).join("agent.sock"),
                AGENT_SOCKET_INSTALLED,
            )
        },
        socket_path,
    )
}

/// The agent's admin socket, as a path.
pub(crate) fn agent_admin_socket(named: Option<&str>) -> PathBuf {
    named.map_or_else(
        || {
            existing(
                &Path::new(UP_FOLDER).join("agent-admin.sock"),
                AGENT_ADMIN_SOCKET_INSTALLED,
            )
        },
        socket_path,
    )
}

/// The mesh folder: what was named, else the current folder if it is one, else the example.
pub(crate) fn mesh_folder(named: Option<&Path>) -> PathBuf {
    named.map_or_else(
        || {
            if Path::new("ravelin.yaml").is_file() {
                PathBuf::from(".")
            } else {
                PathBuf::from(SHOP_FOLDER)
            }
        },
        Path::to_path_buf,
    )
}

/// `unix:PATH`, `unix://PATH` or a bare path as a path.
pub(crate) fn socket_path(text: &str) -> PathBuf {
    let bare = text
        .strip_prefix("unix://")
        .or_else(|| text.strip_prefix("unix:"))
        .unwrap_or(text);
    PathBuf::from(bare)
}

fn existing(of_up: &Path, installed: &str) -> PathBuf {
    if of_up.exists() {
        of_up.to_path_buf()
    } else {
        PathBuf::from(installed)
    }
}

fn socket_address(of_up: &Path, installed: &str) -> String {
    format!("unix:{}", existing(of_up, installed).display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_named_as_a_path_or_as_a_uri() {
        for text in ["/run/a.sock", "unix:/run/a.sock", "unix:///run/a.sock"] {
            assert_eq!(socket_path(text), PathBuf::from("/run/a.sock"), "{text}");
        }
        assert_eq!(
            socket_path("unix:.ravelin/a.sock"),
            PathBuf::from(".ravelin/a.sock")
        );
    }
}
