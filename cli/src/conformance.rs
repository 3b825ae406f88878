//! conformance: whether a server of one's own speaks the contract.

use std::net::ToSocketAddrs as _;
use std::time::Duration;

use lifecycle::client::Client;
use lifecycle::conformance::{Check, run as try_all};

use crate::arguments::Conformance;
use crate::error::Error;

/// Tries every promise of the contract and says how each went.
pub(crate) async fn run(task: &Conformance) -> Result<(), Error> {
    let place = authority(&task.url)?;
    let addresses = place.to_socket_addrs();
    let mut addresses = addresses.map_err(|error| Error::Input(format!("{place} cannot be looked up: {error}")))?;
    let address = addresses.next().ok_or_else(|| Error::Input(format!("{place} has no address")))?;
    let client = Client::new(Duration::from_secs(2));
    let checks = try_all(&client, address, task.timeout, |check| println!("{}", line(check))).await;
    let tried = checks.iter().filter(|check| !check.is_skipped).count();
    let broken = checks.iter().filter(|check| check.outcome.is_err()).count();
    println!("{} of {tried} promises kept", tried - broken);
    if broken == 0 { Ok(()) } else { Err(Error::Unwell(broken)) }
}

fn line(check: &Check) -> String {
    match &check.outcome {
        Ok(()) if check.is_skipped => format!("-      {}", check.promise),
        Ok(()) => format!("ok     {}", check.promise),
        Err(reason) => format!("WRONG  {}: {reason}", check.promise),
    }
}

/// Host and port of a plain URL: the operator speaks HTTP to a pod's address and nothing else.
fn authority(url: &str) -> Result<String, Error> {
    let wrong = |why: &str| Error::Input(format!("{url}: {why}; give a URL such as http://localhost:8080"));
    let uri: http::Uri = url.parse().map_err(|error| wrong(&format!("{error}")))?;
    if uri.scheme_str().is_some_and(|scheme| scheme != "http") {
        return Err(wrong("the contract is spoken over http"));
    }
    if !matches!(uri.path(), "" | "/") {
        return Err(wrong("the paths are the contract's own"));
    }
    let host = uri.host().ok_or_else(|| wrong("there is no host in it"))?;
    Ok(format!("{host}:{}", uri.port_u16().unwrap_or(80)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_host_and_a_port() {
        assert_eq!(authority("http://localhost:8080").unwrap(), "localhost:8080");
        assert_eq!(authority("http://[::1]:8080/").unwrap(), "[::1]:8080");
        assert_eq!(authority("http://pod").unwrap(), "pod:80");
        for wrong in ["https://pod", "http://pod/api", "/api", "http://"] {
            assert!(authority(wrong).unwrap_err().to_string().contains("http://localhost:8080"), "{wrong}");
        }
    }
}
