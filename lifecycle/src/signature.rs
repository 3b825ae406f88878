//! Signed commands: an EdDSA JWT that binds a command to one pod, one epoch, one verb and one body.
//!
//! The operator seals, a pod verifies. Nothing here reads a clock: the time is passed in, in Unix seconds.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The longest time for which a signature may hold, in seconds.
pub const MAX_LIFETIME_SECONDS: i64 = 60;
/// How far the clocks of an operator and a pod may lie apart, in seconds.
pub const LEEWAY_SECONDS: i64 = 10;
/// What is signed for a request of the status, in the place of a verb.
pub const READ: &str = "status";

/// A token is about 500 bytes; a longer one is not looked at.
const MAX_TOKEN_BYTES: usize = 4096;

/// A private key that signs commands. It shows only its public half.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Bytes that are no Ed25519 key, or no randomness to make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The bytes are not PKCS#8 of an Ed25519 key.
    #[error("not the PKCS#8 of an Ed25519 key")]
    Unreadable,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

impl SigningKey {
    /// Makes a new key, as PKCS#8 in DER.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn generate() -> Result<Vec<u8>, KeyError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::NoRandomness)?;
        Ok(document.as_ref().to_vec())
    }

    /// Reads a key from PKCS#8 in DER, of version 1 or 2.
    ///
    /// # Errors
    /// The bytes are something else.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| KeyError::Unreadable)?;
        let public = BASE64.encode(pair.public_key());
        Ok(Self { pair, public })
    }

    /// The public half as boot files carry it: 32 bytes in base64url.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }
}

/// What a signature says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// UID of the one pod that may obey.
    pub aud: String,
    /// UID of its AgentRuntime.
    pub runtime_uid: String,
    /// Not valid before, Unix seconds.
    pub nbf: i64,
    /// Not valid from then on, Unix seconds.
    pub exp: i64,
    /// The epoch of the command.
    pub epoch: i64,
    /// The verb, or `status` for a read.
    pub verb: String,
    /// SHA-256 of the body's bytes, in base64url.
    pub body_sha256: String,
}

impl Claims {
    /// Whether the epoch of a command or brake is the one that was signed. A command without an epoch is a person's,
    /// and nobody signs for people: without the fence it could be replayed.
    ///
    /// # Errors
    /// It is another, or there is none.
    pub fn check_epoch(&self, epoch: Option<i64>) -> Result<(), Rejected> {
        if epoch == Some(self.epoch) { Ok(()) } else { Err(Rejected::WrongEpoch { signed: self.epoch }) }
    }
}

/// What the operator signs with, and for whom.
#[derive(Clone, Copy, Debug)]
pub struct Seal<'a> {
    /// The key.
    pub key: &'a SigningKey,
    /// UID of the pod that is to obey.
    pub pod_uid: &'a str,
    /// UID of its AgentRuntime.
    pub runtime_uid: &'a str,
    /// The epoch of the command.
    pub epoch: i64,
    /// Now, Unix seconds.
    pub now: i64,
    /// The end of the operator's lease, Unix seconds; a signature never outlives it.
    pub lease_end: i64,
}

impl Seal<'_> {
    /// The token of a request: a compact JWS with the claims of this pod, verb and body.
    #[must_use]
    pub fn token(&self, verb: &str, body: &[u8]) -> String {
        let claims = json!({
            "aud": self.pod_uid,
            "runtime_uid": self.runtime_uid,
            "nbf": self.now,
            "exp": self.lease_end.min(self.now.saturating_add(MAX_LIFETIME_SECONDS)),
            "epoch": self.epoch,
            "verb": verb,
            "body_sha256": BASE64.encode(digest(&SHA256, body)),
        });
        let header = json!({ "alg": "EdDSA", "typ": "JWT" });
        let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = BASE64.encode(self.key.pair.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

/// The request that a token must be for.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// UID of this pod.
    pub pod_uid: &'a str,
    /// UID of its AgentRuntime.
    pub runtime_uid: &'a str,
    /// The verb of the path, or `status`.
    pub verb: &'a str,
    /// The bytes that came.
    pub body: &'a [u8],
}

/// Why a command is not taken for the operator's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The pod has neither a record nor a boot file yet, and so does not know whose commands to obey.
    #[error("no boot file has said yet whose commands this pod obeys")]
    KeysUnknown,
    /// There is no token.
    #[error("this pod obeys signed commands only: change spec.desiredState of its AgentRuntime")]
    Missing,
    /// It is not a token of the contract.
    #[error("the token is not a compact JWS with alg EdDSA and the contract's claims")]
    Malformed,
    /// None of the pod's keys made the signature.
    #[error("the signature is by none of this pod's keys")]
    WrongKey,
    /// It was signed for another pod, which may have had this address before.
    #[error("the command is signed for another pod, which may have had this address before")]
    WrongPod,
    /// It was signed for another AgentRuntime.
    #[error("the command is signed for another AgentRuntime")]
    WrongRuntime,
    /// It has run out, or the clocks lie apart.
    #[error("the signature ran out at {at}, and this pod's clock says {now} (Unix seconds)")]
    Expired {
        /// Its end.
        at: i64,
        /// The pod's time.
        now: i64,
    },
    /// It is from the future, or the clocks lie apart.
    #[error("the signature holds from {from}, and this pod's clock says {now} (Unix seconds)")]
    NotYetValid {
        /// Its beginning.
        from: i64,
        /// The pod's time.
        now: i64,
    },
    /// It claims to hold for longer than the contract lets it.
    #[error("a signature holds for at most {MAX_LIFETIME_SECONDS} seconds, and this one for {seconds}")]
    TooLong {
        /// What it claims.
        seconds: i64,
    },
    /// The body is not the one that was signed.
    #[error("the body is not the one that was signed")]
    AlteredBody,
    /// It was signed for another verb.
    #[error("the command is signed for {signed:?}")]
    WrongVerb {
        /// What it was signed for.
        signed: String,
    },
    /// The epoch in the body is not the one that was signed, or there is none.
    #[error("the command is signed for epoch {signed}, and its body says otherwise")]
    WrongEpoch {
        /// What it was signed for.
        signed: i64,
    },
}

impl Rejected {
    /// A stable word for programs: the `type` of the problem document.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::KeysUnknown => "keys_unknown",
            Self::Missing => "signature_missing",
            Self::Malformed => "signature_malformed",
            Self::WrongKey => "signature_wrong_key",
            Self::WrongPod => "signature_wrong_pod",
            Self::WrongRuntime => "signature_wrong_runtime",
            Self::Expired { .. } => "signature_expired",
            Self::NotYetValid { .. } => "signature_not_yet_valid",
            Self::TooLong { .. } => "signature_too_long",
            Self::AlteredBody => "signature_altered_body",
            Self::WrongVerb { .. } => "signature_wrong_verb",
            Self::WrongEpoch { .. } => "signature_wrong_epoch",
        }
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

/// Checks a token against the pod's public keys, the request and the time, in Unix seconds. Nothing of
/// the claims is believed before the signature is.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn verify(token: &str, keys: &[String], expected: &Expected<'_>, now: i64) -> Result<Claims, Rejected> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Rejected::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(Rejected::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(Rejected::Malformed)?;
    let header: Header = parse(header)?;
    if header.alg != "EdDSA" {
        return Err(Rejected::Malformed);
    }
    let signature = BASE64.decode(signature).map_err(|_| Rejected::Malformed)?;
    let mut public = keys.iter().filter_map(|key| BASE64.decode(key).ok());
    if !public.any(|key| UnparsedPublicKey::new(&ED25519, key).verify(signed.as_bytes(), &signature).is_ok()) {
        return Err(Rejected::WrongKey);
    }
    let claims: Claims = parse(claims)?;
    check(&claims, expected, now)?;
    Ok(claims)
}

fn parse<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, Rejected> {
    let bytes = BASE64.decode(part).map_err(|_| Rejected::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| Rejected::Malformed)
}

fn check(claims: &Claims, expected: &Expected<'_>, now: i64) -> Result<(), Rejected> {
    let seconds = claims.exp.saturating_sub(claims.nbf);
    if claims.aud != expected.pod_uid {
        return Err(Rejected::WrongPod);
    }
    if claims.runtime_uid != expected.runtime_uid {
        return Err(Rejected::WrongRuntime);
    }
    if seconds > MAX_LIFETIME_SECONDS {
        return Err(Rejected::TooLong { seconds });
    }
    if now >= claims.exp.saturating_add(LEEWAY_SECONDS) {
        return Err(Rejected::Expired { at: claims.exp, now });
    }
    if now < claims.nbf.saturating_sub(LEEWAY_SECONDS) {
        return Err(Rejected::NotYetValid { from: claims.nbf, now });
    }
    if claims.verb != expected.verb {
        return Err(Rejected::WrongVerb { signed: claims.verb.clone() });
    }
    if claims.body_sha256 != BASE64.encode(digest(&SHA256, expected.body)) {
        return Err(Rejected::AlteredBody);
    }
    Ok(())
}

#[cfg(test)]
#[path = "signature_tests.rs"]
mod tests;
