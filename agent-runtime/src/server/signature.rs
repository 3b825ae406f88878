//! The signature of a webhook, as GitHub signs: `X-Hub-Signature-256: sha256=<hexadecimal HMAC of the body>`.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// Why a body is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// There is no signature.
    #[error("sign the body: X-Hub-Signature-256: sha256=<hexadecimal HMAC-SHA256 of the body>")]
    Missing,
    /// It is not 64 hexadecimal digits after `sha256=`.
    #[error("X-Hub-Signature-256 is sha256= and 64 hexadecimal digits")]
    Malformed,
    /// It is of another body or by another key.
    #[error("the signature does not fit the body and the secret")]
    Wrong,
}

/// Checks a body's signature, in time that does not depend on where it differs.
///
/// # Errors
/// There is none, or it is of another body or by another key.
pub fn verify(secret: &[u8], header: Option<&str>, body: &[u8]) -> Result<(), Rejected> {
    let given = header.ok_or(Rejected::Missing)?.strip_prefix("sha256=").ok_or(Rejected::Malformed)?;
    let given = decode(given).ok_or(Rejected::Malformed)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).map_err(|_| Rejected::Wrong)?;
    mac.update(body);
    let wanted: [u8; 32] = mac.finalize().into_bytes().into();
    if bool::from(wanted.ct_eq(&given)) { Ok(()) } else { Err(Rejected::Wrong) }
}

fn decode(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.chars().map(|c| u8::try_from(c.to_digit(16)?).ok()).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).filter_map(|pair| Some(pair.first()? * 16 + pair.get(1)?)).collect();
    if digits.len() == 64 { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of GitHub's own documentation.
    const SECRET: &[u8] = b"It's a Secret to Everybody";
    const SIGNED: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    #[test]
    fn githubs_own_example_is_let_in() {
        assert_eq!(verify(SECRET, Some(SIGNED), b"Hello, World!"), Ok(()));
        assert_eq!(verify(SECRET, None, b"Hello, World!"), Err(Rejected::Missing));
    }

    proptest! {
        #[test]
        fn any_other_byte_is_refused(at in 0usize..13, to in any::<u8>()) {
            let mut body = *b"Hello, World!";
            prop_assume!(body[at] != to);
            body[at] = to;
            prop_assert_eq!(verify(SECRET, Some(SIGNED), &body), Err(Rejected::Wrong));
        }

        #[test]
        fn no_header_makes_it_panic(header in ".{0,100}") {
            prop_assert!(verify(SECRET, Some(&header), b"x").is_err());
            let prefixed = format!("sha256={header}");
            prop_assert!(verify(SECRET, Some(&prefixed), b"x").is_err());
        }
    }
}
