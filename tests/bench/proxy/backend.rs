//! The application behind every proxy: HTTP/1.1 with two prepared answers, on a thread of its own. It is not measured.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Bytes of the small answer's body.
pub(crate) const SMALL_BYTES: usize = 64;
/// Bytes of the big answer's body.
pub(crate) const BULK_BYTES: usize = 1_000_000;
/// The path of the small answer.
pub(crate) const SMALL_PATH: &str = "/inventory/apples";
/// The path of the big answer.
pub(crate) const BULK_PATH: &str = "/inventory/bulk";

/// Starts it; it ends with the process.
pub(crate) fn start() -> SocketAddr {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let (small, bulk): (&[u8], &[u8]) = (answer(SMALL_BYTES), answer(BULK_BYTES));
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, small, bulk));
            }
        });
    });
    address
}

fn answer(bytes: usize) -> &'static [u8] {
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {bytes}\r\n\r\n")
            .into_bytes();
    answer.resize(answer.len() + bytes, b'x');
    answer.leak()
}

/// Answers one head after the other; no request has a body.
async fn serve(mut stream: TcpStream, small: &'static [u8], bulk: &'static [u8]) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut buffer = Vec::with_capacity(8192);
    loop {
        while let Some(end) = head_end(&buffer) {
            let is_bulk = buffer[..end].starts_with(b"GET /inventory/bulk");
            buffer.drain(..end);
            let answer = if is_bulk { bulk } else { small };
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
        match stream.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Where the first head of `bytes` ends.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    let found = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(found + 4)
}
