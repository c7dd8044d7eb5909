//! An application that keeps what it gets byte by byte, and reads it as strictly as RFC 9112 allows: a message that a
//! lenient reader could take for something else is a fault of the proxy, whoever sent it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// One request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// `METHOD target|body`, then `|name: value` for each trailer.
    pub line: String,
    /// The head as it was read, in lower-case names.
    pub headers: Vec<(String, String)>,
}

/// What arrived, and what to answer instead of the echo.
#[derive(Clone)]
pub struct Recorder {
    pub address: SocketAddr,
    seen: Arc<watch::Sender<Vec<Seen>>>,
    faults: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<Answers>>,
}

/// Paths, and the bytes to answer with.
type Answers = Vec<(String, Vec<u8>, bool)>;

impl Recorder {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let recorder = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            faults: Arc::default(),
            answers: Arc::default(),
        };
        let shared = recorder.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let recorder = shared.clone();
                tokio::spawn(async move { recorder.serve(stream).await });
            }
        });
        recorder
    }

    /// Answers requests for `path` with these bytes, and closes if `closes`.
    pub fn answer(&self, path: &str, bytes: &[u8], closes: bool) {
        let mut answers = self.answers.lock().unwrap();
        answers.push((path.to_owned(), bytes.to_vec(), closes));
    }

    pub fn clear(&self) {
        self.seen.send_replace(Vec::new());
    }

    /// `METHOD target|body` of each request since the last `clear`.
    pub fn lines(&self) -> Vec<String> {
        let seen = self.seen.borrow();
        seen.iter().map(|seen| seen.line.clone()).collect()
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    /// Messages that were not strictly well-formed.
    pub fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap().clone()
    }

    fn fault(&self, what: &str, bytes: &[u8]) {
        let shown = String::from_utf8_lossy(bytes).into_owned();
        self.faults
            .lock()
            .unwrap()
            .push(format!("{what}: {shown:?}"));
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut buffer = Vec::new();
        loop {
            let Some(head) = read_until(&mut stream, &mut buffer, b"\r\n\r\n").await else {
                return;
            };
            let (line, headers) = match strict_head(&head) {
                Ok(head) => head,
                Err(what) => {
                    self.fault(what, &head);
                    return;
                }
            };
            let target = line.split(' ').nth(1).unwrap().to_owned();
            if target.starts_with("/early") {
                self.push(&line, "", headers);
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly";
                if stream.write_all(answer).await.is_err() {
                    return;
                }
                let _ = read_body(&mut stream, &mut buffer, &[]).await;
                return;
            }
            let body = match read_body(&mut stream, &mut buffer, &headers).await {
                Ok(Some(body)) => body,
                Ok(None) => return,
                Err(what) => {
                    self.fault(what, &head);
                    return;
                }
            };
            let echo = self.push(&line, &body, headers);
            let scripted = self
                .answers
                .lock()
                .unwrap()
                .iter()
                .find(|(path, _, _)| *path == target)
                .cloned();
            if let Some((_, bytes, closes)) = scripted {
                let _ = stream.write_all(&bytes).await;
                if closes {
                    return;
                }
                continue;
            }
            if target.starts_with("/hang") {
                continue;
            }
            let size: usize = target
                .strip_prefix("/size/")
                .and_then(|size| size.parse().ok())
                .unwrap_or(0);
            let mut text = format!("seen: {echo}\n").into_bytes();
            text.resize(text.len().max(size), b'.');
            let mut answer =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len()).into_bytes();
            if !line.starts_with("HEAD ") {
                answer.extend_from_slice(&text);
            }
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    }

    fn push(&self, line: &str, body: &str, headers: Vec<(String, String)>) -> String {
        let body = body.replace('\r', "\\r").replace('\n', "\\n");
        let line = format!("{}|{body}", line.trim_end_matches(" HTTP/1.1"));
        self.seen.send_modify(|seen| {
            seen.push(Seen {
                line: line.clone(),
                headers,
            });
        });
        line
    }
}

async fn read_until(stream: &mut TcpStream, buffer: &mut Vec<u8>, end: &[u8]) -> Option<Vec<u8>> {
    loop {
        let found = buffer.windows(end.len()).position(|window| window == end);
        if let Some(position) = found {
            let rest = buffer.split_off(position + end.len());
            return Some(std::mem::replace(buffer, rest));
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

type Head = (String, Vec<(String, String)>);

/// RFC 9112 sections 3 and 5, without any of the leniencies.
fn strict_head(head: &[u8]) -> Result<Head, &'static str> {
    let text = &head[..head.len() - 4];
    let is_plain = text.iter().enumerate().all(|(at, byte)| match byte {
        b'\r' => text.get(at + 1) == Some(&b'\n'),
        b'\n' => at > 0 && text[at - 1] == b'\r',
        b'\t' => true,
        byte => *byte >= 0x20 && *byte != 0x7f,
    });
    if !is_plain {
        return Err("a control character in a head");
    }
    let text = String::from_utf8_lossy(text).into_owned();
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let parts: Vec<&str> = line.split(' ').collect();
    let is_request = parts.len() == 3 && !parts[1].is_empty() && parts[2] == "HTTP/1.1";
    if !is_request {
        return Err("no request line");
    }
    let mut headers = Vec::new();
    for field in lines {
        let (name, value) = field.split_once(':').ok_or("a field without colon")?;
        let is_name = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
        if !is_name {
            return Err("a malformed field name");
        }
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let count = |name: &str| headers.iter().filter(|(known, _)| known == name).count();
    if count("host") != 1 {
        return Err("not exactly one host");
    }
    if count("content-length") + count("transfer-encoding") > 1 {
        return Err("a length that is told twice");
    }
    Ok((line.to_owned(), headers))
}

/// The body as text; none when the connection ended first.
async fn read_body(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    headers: &[(String, String)],
) -> Result<Option<String>, &'static str> {
    let of = |name: &str| {
        headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    };
    let mut body = Vec::new();
    if let Some(length) = of("content-length") {
        if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("a malformed content-length");
        }
        let length: usize = length.parse().map_err(|_| "a huge content-length")?;
        while buffer.len() < length {
            match stream.read_buf(buffer).await {
                Ok(count) if count > 0 => {}
                _ => return Ok(None),
            }
        }
        let rest = buffer.split_off(length);
        body = std::mem::replace(buffer, rest);
    } else if let Some(coding) = of("transfer-encoding") {
        if coding != "chunked" {
            return Err("a coding other than chunked");
        }
        let mut trailers = String::new();
        loop {
            let Some(line) = read_until(stream, buffer, b"\r\n").await else {
                return Ok(None);
            };
            let size = std::str::from_utf8(&line[..line.len() - 2]).map_err(|_| "chunk size")?;
            if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err("a malformed chunk size");
            }
            let size = usize::from_str_radix(size, 16).map_err(|_| "a huge chunk")?;
            if size == 0 {
                break;
            }
            while buffer.len() < size + 2 {
                match stream.read_buf(buffer).await {
                    Ok(count) if count > 0 => {}
                    _ => return Ok(None),
                }
            }
            let rest = buffer.split_off(size + 2);
            let chunk = std::mem::replace(buffer, rest);
            if !chunk.ends_with(b"\r\n") {
                return Err("a chunk without end");
            }
            body.extend_from_slice(&chunk[..size]);
        }
        loop {
            let Some(line) = read_until(stream, buffer, b"\r\n").await else {
                return Ok(None);
            };
            if line == b"\r\n" {
                break;
            }
            trailers.push('|');
            trailers.push_str(String::from_utf8_lossy(&line).trim_end());
        }
        body.extend_from_slice(trailers.as_bytes());
    }
    Ok(Some(String::from_utf8_lossy(&body).into_owned()))
}
