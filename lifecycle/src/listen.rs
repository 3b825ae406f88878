//! Listening for both families of addresses, on machines that have one of them alone too.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Listens on an address. `::` is every address of IPv4 and IPv6; on a machine without IPv6, of IPv4.
///
/// # Errors
/// The address is taken or not ours.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    or_without_ipv6(address, listen)
}

fn or_without_ipv6<T>(address: SocketAddr, listen: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match listen(address) {
        Err(error) if is_any_ipv6(address) && lacks_ipv6(&error) => {
            listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
        }
        outcome => outcome,
    }
}

fn is_any_ipv6(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

/// Whether the kernel has no IPv6, or no address of it.
fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    if is_any_ipv6(address) {
        // The machine's default may be IPv6 alone.
        rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::net::{Ipv6Addr, TcpStream};

    use super::*;

    #[tokio::test]
    async fn any_address_is_reached_by_both_families() {
        let listener = bind("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let has_ipv6 = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        if has_ipv6 {
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        }
        let taken = bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        let plain = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        TcpStream::connect(plain.local_addr().unwrap()).unwrap();
    }

    /// The addresses that were tried, where this one fails so.
    fn tried(address: &str, fails: Errno) -> (Vec<String>, bool) {
        let tried = RefCell::new(Vec::new());
        let outcome = or_without_ipv6(address.parse().unwrap(), |at| {
            tried.borrow_mut().push(at.to_string());
            if at.is_ipv6() { Err(io::Error::from(fails)) } else { Ok(()) }
        });
        (tried.into_inner(), outcome.is_ok())
    }

    #[test]
    fn a_machine_without_ipv6_listens_on_ipv4() {
        for fails in [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL] {
            assert_eq!(tried("[::]:8080", fails), (vec!["[::]:8080".to_owned(), "0.0.0.0:8080".to_owned()], true));
            // An address that was meant is not replaced by another.
            assert_eq!(tried("[::1]:8080", fails), (vec!["[::1]:8080".to_owned()], false));
        }
        for fails in [Errno::ADDRINUSE, Errno::ACCESS] {
            assert_eq!(tried("[::]:8080", fails), (vec!["[::]:8080".to_owned()], false));
        }
    }
}
