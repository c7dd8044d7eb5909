//! Unix sockets that know the process at the other end by pidfd, so that a process number that is used again cannot
//! stand in for it (threat 1), and that gRPC's C core can talk to.

mod authority;
mod hpack;
mod huffman;
mod listener;
mod peer;
mod stream;

pub use listener::{UdsError, UdsListener};
pub use peer::PeerProcess;
pub use stream::UdsStream;
