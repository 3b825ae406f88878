//! A container's own health check: one GET over loopback, for images without a shell.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// The whole check takes no longer than a few of these.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the server on this machine's loopback address.
///
/// # Errors
/// It does not answer, or not with 200.
pub fn check(port: u16, path: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    if head == *b"HTTP/1.1 200" { Ok(()) } else { Err(std::io::Error::other(String::from_utf8_lossy(&head))) }
}
