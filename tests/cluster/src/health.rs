//! Owns the waiting: every wait asks again and again until a deadline.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::Error;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a probe says: done, or why not yet. An error ends the wait.
pub(crate) type Answer = Result<Result<(), String>, Error>;

/// Asks until the answer is yes.
pub(crate) fn wait_for(
    what: &str,
    limit: Duration,
    logs: &Path,
    mut probe: impl FnMut() -> Answer,
) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        let Err(reason) = probe()? else { return Ok(()) };
        if begun.elapsed() >= limit {
            let hint = if reason.is_empty() { reason } else { format!("; at last: {reason}") };
            return Err(Error::Late { what: what.to_owned(), limit, logs: logs.to_owned(), hint });
        }
        thread::sleep(PAUSE);
    }
}

/// Whether a health endpoint on loopback answers 200.
pub(crate) fn http(port: u16, path: &str) -> Result<(), String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        stream.take(64).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = ask().map_err(|error| format!("port {port}: {error}"))?;
    if answer.split(' ').nth(1) == Some("200") { Ok(()) } else { Err(format!("port {port} answers {answer:?}")) }
}

/// Whether a name server knows the address of a name.
pub(crate) fn name(server: &str, name: &str) -> Result<(), String> {
    let ask = || -> std::io::Result<bool> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(&question(name), (server, 53))?;
        let mut answer = [0; 512];
        let (length, _) = socket.recv_from(&mut answer)?;
        Ok(answer.get(..length).is_some_and(answered))
    };
    match ask() {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("{server} does not know {name}")),
        Err(error) => Err(format!("{server}: {error}")),
    }
}

/// A question for an IPv4 address: one header, one name, type A, class IN.
fn question(name: &str) -> Vec<u8> {
    let mut packet = vec![0x41, 0x52, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap_or(0));
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, 1, 0, 1]);
    packet
}

/// Whether the answer has no error code and at least one record.
fn answered(packet: &[u8]) -> bool {
    matches!(packet, [_, _, _, flags, _, _, high, low, ..] if flags & 0x0f == 0 && (*high, *low) != (0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_question_has_the_name_in_labels() {
        let packet = question("a.bc");
        assert_eq!(packet.get(12..), Some(&b"\x01a\x02bc\0\0\x01\0\x01"[..]));
        assert!(!answered(&packet));
        assert!(answered(&[0, 0, 0x81, 0x80, 0, 1, 0, 1]));
        assert!(!answered(&[0, 0, 0x81, 0x83, 0, 1, 0, 1]));
    }

    #[test]
    fn health_is_a_status_of_200() {
        for (line, healthy) in [("HTTP/1.0 200 OK\r\n\r\nok", true), ("HTTP/1.0 503 No\r\n\r\n", false)] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                // Closing with something unread would reset the connection.
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    asked.extend(byte);
                }
                stream.write_all(line.as_bytes()).unwrap();
            });
            assert_eq!(http(port, "/healthz").is_ok(), healthy);
            server.join().unwrap();
        }
    }

    #[test]
    fn a_wait_ends_at_its_limit_with_the_last_answer() {
        let error = wait_for("the thing", Duration::ZERO, Path::new("/logs"), || Ok(Err("not yet".to_owned())));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("the thing") && text.contains("not yet") && text.contains("/logs"), "{text}");
    }
}
