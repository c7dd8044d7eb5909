//! What the admin listener tells of one live connection. Called by `connections`.

use serde::Serialize;

use crate::connections::Direction;

/// One line of the admin listener's `/connections`.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectionLine {
    /// Number within the worker.
    pub id: u64,
    /// Which way it goes.
    pub direction: Direction,
    /// What is spoken.
    pub protocol: &'static str,
    /// The other end.
    pub address: String,
    /// SPIFFE ID of the peer.
    pub peer: Option<String>,
    /// Serial number of the peer's SVID.
    pub serial: Option<String>,
    /// When it was opened.
    pub opened: String,
    /// Calls so far.
    pub calls: u64,
    /// Why no more calls are taken.
    pub refusal: Option<&'static str>,
}
