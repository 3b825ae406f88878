//! Owns the checks made before anything is touched: root, room on the disk, free ports.

use std::net::TcpListener;
use std::path::Path;

use crate::components::PORTS;
use crate::packages::debian;
use crate::place::Place;
use crate::{Error, place, tool};

/// Sources of Go modules, the compiler's cache, the programs and the images need this much.
const WANTED_GIB: u64 = 6;

const GIB: f64 = (1_u64 << 30) as f64;

/// Whether we may do all this.
pub(crate) fn root() -> Result<(), Error> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(Error::NotRoot) }
}

/// Whether there is room for the builds and for the cluster.
pub(crate) fn room(place: &Place) -> Result<(), Error> {
    for folder in [place.root(), &place::cache()?] {
        // The nearest folder that exists is on the same disk.
        let Some(there) = folder.ancestors().find(|ancestor| ancestor.exists()) else { continue };
        enough(folder, free(there)?)?;
    }
    Ok(())
}

/// Bytes that are free on the disk of a folder.
///
/// # Errors
/// The folder cannot be looked at.
pub fn free(folder: &Path) -> Result<u64, Error> {
    let disk = rustix::fs::statvfs(folder).map_err(Error::os(format!("look at the disk of {}", folder.display())))?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn enough(folder: &Path, free: u64) -> Result<(), Error> {
    if free >= WANTED_GIB << 30 {
        return Ok(());
    }
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let free_gib = free as f64 / GIB;
    Err(Error::DiskFull { path: folder.to_owned(), free_gib, wanted_gib: WANTED_GIB })
}

/// Whether every port is free. To be asked once our own leftovers are gone.
pub(crate) fn ports() -> Result<(), Error> {
    for (port, component) in PORTS {
        // Listening on every address also finds those who listen on one of them.
        if TcpListener::bind(("0.0.0.0", port)).is_err() {
            return Err(Error::PortTaken { port, component, owner: owner(port) });
        }
    }
    Ok(())
}

fn owner(port: u16) -> String {
    let filter = format!("sport = :{port}");
    let answer = tool::run(debian("ss").args(["-H", "-l", "-t", "-n", "-p", &filter]), "asking who listens");
    answer
        .ok()
        .and_then(|text| parse_owner(&text))
        .unwrap_or_else(|| format!("another program (see `ss -ltnp '{filter}'`)"))
}

/// Reads `users:(("name",pid=123,fd=4))`.
fn parse_owner(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("((\"")?;
    let (name, rest) = rest.split_once('"')?;
    let (_, rest) = rest.split_once("pid=")?;
    let pid: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some(format!("{name} (process {pid})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_port_is_read() {
        let line = "LISTEN 0 4096 127.0.0.1:6443 0.0.0.0:* users:((\"k3s-server\",pid=123,fd=14))";
        assert_eq!(parse_owner(line).unwrap(), "k3s-server (process 123)");
        assert_eq!(parse_owner(""), None);
    }

    #[test]
    fn a_full_disk_says_how_much_is_missing() {
        assert!(enough(Path::new("/x"), 7 << 30).is_ok());
        let text = enough(Path::new("/x"), 3 << 29).unwrap_err().to_string();
        assert!(text.contains("1.5 GiB") && text.contains("/x") && text.contains("6 GiB"), "{text}");
    }
}
