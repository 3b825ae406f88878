//! What requests over https trust.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// The trust that requests over https rest on: the roots that browsers ship, and those of SSL_CERT_FILE.
///
/// # Errors
/// The settings of TLS are refused.
pub fn client() -> Result<ClientConfig, String> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(file) = std::env::var_os("SSL_CERT_FILE") {
        let read = CertificateDer::pem_file_iter(&file);
        let found = read.map_err(|error| format!("SSL_CERT_FILE {}: {error}", file.display()))?;
        roots.add_parsable_certificates(found.filter_map(Result::ok));
    }
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth())
}
