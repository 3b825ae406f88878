//! A good token is let in, and each single thing that can be wrong with one is named.

use proptest::prelude::*;

use super::*;

/// Made by `openssl genpkey -algorithm ed25519`, and signed by `openssl pkeyutl -sign -rawin`.
const OPENSSL_KEY: &str = "MC4CAQAwBQYDK2VwBCIEIEYd/EJKbog+s/MEA2B0fVAEO5moeNZoaTcr9GpH4iRT";
const OPENSSL_PUBLIC: &str = "7HQznS2RJV512crsGf2dLF_vhBM6O0V_OgeobYYFwFI";
const OPENSSL_TOKEN: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJFZERTQSJ9.eyJhdWQiOiJwb2QtMSIsInJ1bnRpbWVfdWlkIjoicnVudGltZS0xIiwibmJmIjoxMDAwLCJleHAiOjEwNjAsImVwb2NoIjo3LCJ2ZXJiIjoicGF1c2UiLCJib2R5X3NoYTI1NiI6IjFiM3VjZ0JacXBUNGlqVV8td01tUU9mU3o4Rk1HaDRaNjlKTjlVaHJ6bWMifQ.SG_Sohbh5ipUhSViizkuz9Vb_B_HdM3m9lYIatj3utvIhxRbnbFV-uYFenQg4dhAYndeA_zjI8yCGsqvF1lsCw";

const BODY: &[u8] = br#"{"epoch":7}"#;
const NOW: i64 = 1_000;

fn openssl_key() -> SigningKey {
    SigningKey::from_pkcs8(&base64::prelude::BASE64_STANDARD.decode(OPENSSL_KEY).unwrap()).unwrap()
}

fn new_key() -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate().unwrap()).unwrap()
}

fn seal(key: &SigningKey) -> Seal<'_> {
    Seal { key, pod_uid: "pod-1", runtime_uid: "runtime-1", epoch: 7, now: NOW, lease_end: i64::MAX }
}

fn expected() -> Expected<'static> {
    Expected { pod_uid: "pod-1", runtime_uid: "runtime-1", verb: "pause", body: BODY }
}

fn keys(key: &SigningKey) -> Vec<String> {
    vec![key.public().to_owned()]
}

/// Verifies against a key of its own, so that only what `with` changes can be wrong.
fn outcome(with: impl FnOnce(Seal<'_>) -> Seal<'_>, expected: &Expected<'_>, now: i64) -> Result<Claims, Rejected> {
    let key = new_key();
    let token = with(seal(&key)).token("pause", BODY);
    verify(&token, &keys(&key), expected, now)
}

#[test]
fn a_token_that_openssl_made_is_let_in() {
    assert_eq!(openssl_key().public(), OPENSSL_PUBLIC);
    let claims = verify(OPENSSL_TOKEN, &[OPENSSL_PUBLIC.to_owned()], &expected(), NOW).unwrap();
    assert_eq!((claims.epoch, claims.exp), (7, 1_060));
}

#[test]
fn what_is_sealed_is_let_in_and_says_what_was_sealed() {
    let claims = outcome(|seal| seal, &expected(), NOW).unwrap();
    assert_eq!((claims.aud.as_str(), claims.runtime_uid.as_str()), ("pod-1", "runtime-1"));
    assert_eq!((claims.nbf, claims.exp, claims.epoch), (NOW, NOW + MAX_LIFETIME_SECONDS, 7));
    assert_eq!(claims.check_epoch(Some(7)), Ok(()));
    for other in [Some(6), Some(8), None] {
        assert_eq!(claims.check_epoch(other), Err(Rejected::WrongEpoch { signed: 7 }));
    }
}

#[test]
fn any_of_the_pods_keys_may_have_signed_and_no_other() {
    let (old, new, other) = (new_key(), new_key(), new_key());
    let both = vec![new.public().to_owned(), old.public().to_owned()];
    for key in [&old, &new] {
        assert!(verify(&seal(key).token("pause", BODY), &both, &expected(), NOW).is_ok());
    }
    let token = seal(&other).token("pause", BODY);
    assert_eq!(verify(&token, &both, &expected(), NOW), Err(Rejected::WrongKey));
    assert_eq!(verify(&token, &[], &expected(), NOW), Err(Rejected::WrongKey));
    assert_eq!(verify(&token, &["no key".to_owned()], &expected(), NOW), Err(Rejected::WrongKey));
}

#[test]
fn it_is_for_one_pod_one_runtime_one_verb_and_one_body() {
    let at = |change: Expected<'_>| outcome(|seal| seal, &change, NOW);
    assert_eq!(at(Expected { pod_uid: "pod-2", ..expected() }), Err(Rejected::WrongPod));
    assert_eq!(at(Expected { runtime_uid: "runtime-2", ..expected() }), Err(Rejected::WrongRuntime));
    assert_eq!(at(Expected { verb: "stop", ..expected() }), Err(Rejected::WrongVerb { signed: "pause".to_owned() }));
    assert_eq!(at(Expected { body: b"{\"epoch\":8}", ..expected() }), Err(Rejected::AlteredBody));
}

#[test]
fn it_holds_from_its_beginning_to_its_end_and_the_leeway_of_clocks() {
    let end = NOW + MAX_LIFETIME_SECONDS + LEEWAY_SECONDS;
    let at = |now| outcome(|seal| seal, &expected(), now);
    assert!(at(NOW - LEEWAY_SECONDS).is_ok() && at(end - 1).is_ok());
    assert_eq!(at(end), Err(Rejected::Expired { at: NOW + MAX_LIFETIME_SECONDS, now: end }));
    let early = NOW - LEEWAY_SECONDS - 1;
    assert_eq!(at(early), Err(Rejected::NotYetValid { from: NOW, now: early }));
}

#[test]
fn it_never_outlives_the_operators_lease() {
    let claims = outcome(|seal| Seal { lease_end: NOW + 4, ..seal }, &expected(), NOW).unwrap();
    assert_eq!(claims.exp, NOW + 4);
    let late = NOW + 4 + LEEWAY_SECONDS;
    assert!(matches!(
        outcome(|seal| Seal { lease_end: NOW + 4, ..seal }, &expected(), late),
        Err(Rejected::Expired { .. })
    ));
}

/// Signs any claims under any header, as somebody with the key could.
fn forge(key: &SigningKey, header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let signature = BASE64.encode(key.pair.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

#[test]
fn a_longer_life_than_the_contracts_is_refused_even_when_signed() {
    let key = openssl_key();
    let body = BASE64.encode(digest(&SHA256, BODY));
    let claims = |exp: i64| {
        format!(
            r#"{{"aud":"pod-1","runtime_uid":"runtime-1","nbf":{NOW},"exp":{exp},"epoch":7,"verb":"pause","body_sha256":"{body}"}}"#
        )
    };
    let header = r#"{"alg":"EdDSA"}"#;
    let at = |exp| verify(&forge(&key, header, &claims(exp)), &keys(&key), &expected(), NOW);
    assert!(at(NOW + 60).is_ok());
    assert_eq!(at(NOW + 61), Err(Rejected::TooLong { seconds: 61 }));
    assert_eq!(at(i64::MAX), Err(Rejected::TooLong { seconds: i64::MAX - NOW }));
}

#[test]
fn other_algorithms_and_shapes_are_refused() {
    let key = openssl_key();
    let good = OPENSSL_TOKEN.split('.').nth(1).unwrap();
    let claims = String::from_utf8(BASE64.decode(good).unwrap()).unwrap();
    let at = |token: &str| verify(token, &keys(&key), &expected(), NOW);
    assert!(at(&forge(&key, r#"{"alg":"EdDSA"}"#, &claims)).is_ok());
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"HS256"}"#, r#"{"typ":"JWT"}"#, "x"] {
        assert_eq!(at(&forge(&key, header, &claims)), Err(Rejected::Malformed), "{header}");
    }
    assert_eq!(at(&forge(&key, r#"{"alg":"EdDSA"}"#, "{}")), Err(Rejected::Malformed));
    let unsigned = OPENSSL_TOKEN.rsplit_once('.').unwrap().0;
    assert_eq!(at(&format!("{unsigned}.")), Err(Rejected::WrongKey));
    for token in ["", ".", "..", "a.b", unsigned, &"x.".repeat(MAX_TOKEN_BYTES)] {
        assert_eq!(at(token), Err(Rejected::Malformed), "{token:.40}");
    }
}

#[test]
fn every_reason_has_a_word_of_its_own_and_the_key_shows_only_its_public_half() {
    let all = [
        Rejected::KeysUnknown,
        Rejected::Missing,
        Rejected::Malformed,
        Rejected::WrongKey,
        Rejected::WrongPod,
        Rejected::WrongRuntime,
        Rejected::Expired { at: 0, now: 0 },
        Rejected::NotYetValid { from: 0, now: 0 },
        Rejected::TooLong { seconds: 61 },
        Rejected::AlteredBody,
        Rejected::WrongVerb { signed: String::new() },
        Rejected::WrongEpoch { signed: 0 },
    ];
    let words: std::collections::BTreeSet<&str> = all.iter().map(Rejected::kind).collect();
    assert_eq!(words.len(), all.len());
    let shown = format!("{:?}", openssl_key());
    assert_eq!(shown, format!("SigningKey {{ public: {OPENSSL_PUBLIC:?}, .. }}"));
    assert_eq!(SigningKey::from_pkcs8(b"x").unwrap_err(), KeyError::Unreadable);
}

proptest! {
    #[test]
    fn a_token_with_any_other_byte_is_refused(at in 0usize..OPENSSL_TOKEN.len(), to in any::<char>()) {
        let mut token: Vec<char> = OPENSSL_TOKEN.chars().collect();
        prop_assume!(token[at] != to);
        token[at] = to;
        let token: String = token.into_iter().collect();
        prop_assert!(verify(&token, &[OPENSSL_PUBLIC.to_owned()], &expected(), NOW).is_err());
    }

    #[test]
    fn no_token_makes_it_panic(token in ".{0,200}") {
        prop_assert!(verify(&token, &[OPENSSL_PUBLIC.to_owned()], &expected(), NOW).is_err());
    }

    #[test]
    fn it_is_let_in_exactly_within_its_life(start in -1_000i64..1_000, lease in 0i64..200, now in -2_000i64..2_000) {
        let key = openssl_key();
        let token = Seal { now: start, lease_end: start + lease, ..seal(&key) }.token("pause", BODY);
        let good = verify(&token, &keys(&key), &expected(), now).is_ok();
        let life = start - LEEWAY_SECONDS..start + lease.min(MAX_LIFETIME_SECONDS) + LEEWAY_SECONDS;
        prop_assert_eq!(good, life.contains(&now));
    }
}
