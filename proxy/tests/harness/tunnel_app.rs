//! An application that leaves HTTP where it is asked to, byte by byte: no library between the test and the wire.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// `/echo` changes to the protocol that was asked for, says `welcome ` with its head, sends back every byte, and `bye`
/// at the end. `/refuse` answers 426, `/plain` 200, `/other` changes to a protocol that nobody asked for.
pub struct TunnelApp {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl TunnelApp {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&seen)));
            }
        });
        Self { address, heads }
    }

    /// Every head that came.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let lower = head.to_ascii_lowercase();
    let asked = lower.split("\r\nupgrade: ").nth(1).unwrap_or_default();
    let asked = asked.split("\r\n").next().unwrap_or_default().to_owned();
    seen.lock().unwrap().push(head);
    let answer = match path.rsplit('/').next().unwrap_or_default() {
        "echo" => &format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {asked}\r\n\r\nwelcome "
        ),
        "other" => {
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n"
        }
        "refuse" => "HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n",
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    };
    // A caller that went away is its own affair.
    let _ = stream.write_all(answer.as_bytes()).await;
    if answer.ends_with("welcome ") {
        let (mut read, mut write) = stream.split();
        if tokio::io::copy(&mut read, &mut write).await.is_ok() {
            let _ = write.write_all(b"bye").await;
            let _ = write.shutdown().await;
        }
    }
}
