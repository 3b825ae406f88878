//! HTTP/1.1 as far as the clients here need it: requests as bytes, and finding the end of an answer.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// No single answer takes longer, long polls aside.
const PATIENCE: Duration = Duration::from_secs(10);

/// The bytes of a request that keeps its connection.
pub(crate) fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// Where the parts of a whole answer lie in what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) code: u16,
    /// Where the body begins.
    pub(crate) body: usize,
    /// Where it ends.
    pub(crate) end: usize,
}

/// Finds an answer with a Content-Length; none while some of it is missing.
pub(crate) fn parse(bytes: &[u8]) -> anyhow::Result<Option<Answer>> {
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(bytes.get(..head).unwrap_or_default()).context("the head is not text")?;
    let code = text.get(9..12).and_then(|code| code.parse().ok()).with_context(|| format!("no status: {text}"))?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let body = head + 4;
    let end = body + length.with_context(|| format!("an answer without a length: {text}"))?;
    Ok((bytes.len() >= end).then_some(Answer { code, body, end }))
}

/// A connection that is waited on, for what is not timed to the microsecond.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream })
    }

    /// Sends a request; gives the status code and the body.
    pub(crate) fn ask(&mut self, request: &[u8]) -> anyhow::Result<(u16, String)> {
        self.stream.write_all(request)?;
        let mut got = Vec::new();
        loop {
            let mut more = [0; 4096];
            let count = match self.stream.read(&mut more) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                Err(error) => return Err(error).context("no answer"),
            };
            got.extend_from_slice(more.get(..count).unwrap_or_default());
            if let Some(answer) = parse(&got)? {
                let body = got.get(answer.body..answer.end).unwrap_or_default();
                return Ok((answer.code, String::from_utf8_lossy(body).into_owned()));
            }
        }
    }

    /// Sends a request that must be answered with a code of the 200s.
    pub(crate) fn demand(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
        let (code, text) = self.ask(&request(method, path, body))?;
        if !(200..300).contains(&code) {
            bail!("{method} {path} was answered {code}: {text}");
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        let bytes = b"HTTP/1.1 202 Accepted\r\ncontent-length: 5\r\nx: y\r\n\r\nhelloHTTP/1.1";
        let answer = parse(bytes).unwrap().unwrap();
        assert_eq!((answer.code, &bytes[answer.body..answer.end]), (202, b"hello".as_slice()));
        assert_eq!(parse(&bytes[..answer.end - 1]).unwrap(), None);
        assert_eq!(parse(&bytes[..20]).unwrap(), None);
    }

    #[test]
    fn an_answer_without_a_length_is_refused() {
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
