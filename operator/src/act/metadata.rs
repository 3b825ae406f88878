//! Lists of metadata, read as Protobuf: it costs the API server a quarter of what JSON does, and of each object only the
//! UID and the labels are decoded.
//!
//! Field numbers are those of `generated.proto` in k8s.io/apimachinery, which never change.

use std::collections::HashMap;

use http::header::{ACCEPT, HeaderValue};
use http_body_util::BodyExt as _;
use kube::api::ListParams;
use kube::client::{Body, Client};
use kube::core::{Request, Status};
use prost::Message;
use prost::bytes::Bytes;

/// What is asked for, and how.
const LIST: HeaderValue =
    HeaderValue::from_static("application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
/// What the answer is.
const LISTED: &str = "PartialObjectMetadataList";
/// What each answer begins with.
const MAGIC: &[u8] = b"k8s\0";

/// A page of a list.
#[derive(PartialEq, Message)]
pub(super) struct Page {
    #[prost(message, optional, tag = "1")]
    metadata: Option<PageMeta>,
    #[prost(message, repeated, tag = "2")]
    items: Vec<Item>,
}

impl Page {
    /// Takes the token of the next page, and the UID and labels of each object. One without metadata counts: as none
    /// that is known.
    pub(super) fn into_parts(self) -> (Option<String>, impl Iterator<Item = (String, HashMap<String, String>)>) {
        let token = self.metadata.map(|metadata| metadata.token).filter(|token| !token.is_empty());
        let items = self.items.into_iter().map(|item| item.metadata.unwrap_or_default());
        (token, items.map(|metadata| (metadata.uid, metadata.labels)))
    }
}

#[derive(PartialEq, Message)]
struct PageMeta {
    #[prost(string, tag = "3")]
    token: String,
}

#[derive(PartialEq, Message)]
struct Item {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Meta>,
}

#[derive(PartialEq, Message)]
struct Meta {
    #[prost(string, tag = "5")]
    uid: String,
    #[prost(map = "string, string", tag = "11")]
    labels: HashMap<String, String>,
}

/// What every object is wrapped in.
#[derive(PartialEq, Message)]
struct Envelope {
    #[prost(message, optional, tag = "1")]
    kind: Option<Kind>,
    #[prost(bytes = "bytes", tag = "2")]
    raw: Bytes,
}

#[derive(PartialEq, Message)]
struct Kind {
    #[prost(string, tag = "2")]
    name: String,
}

/// Why a request was refused.
#[derive(PartialEq, Message)]
struct Refusal {
    #[prost(string, tag = "3")]
    message: String,
    #[prost(string, tag = "4")]
    reason: String,
}

/// What is no object of Kubernetes.
#[derive(Debug, thiserror::Error)]
enum Foreign {
    #[error("the answer is no Protobuf of Kubernetes")]
    Unmarked,
    #[error("the answer is a {0:?}")]
    Other(String),
    #[error("the answer cannot be decoded: {0}")]
    Broken(#[from] prost::DecodeError),
}

/// Asks for one page of a list.
///
/// # Errors
/// The API server refused, was out of reach, or answered with something else.
pub(super) async fn list(client: &Client, path: &str, params: &ListParams) -> Result<Page, kube::Error> {
    let mut request = Request::new(path).list(params).map_err(kube::Error::BuildRequest)?.map(Body::from);
    request.headers_mut().insert(ACCEPT, LIST);
    let answer = client.send(request).await?;
    let code = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    if !code.is_success() {
        return Err(kube::Error::Api(refusal(body, code.as_u16()).boxed()));
    }
    unwrap(body, LISTED).map_err(|error| kube::Error::Service(error.into()))
}

/// A proxy before the API server refuses in its own words.
fn refusal(body: Bytes, code: u16) -> Status {
    if let Ok(Refusal { message, reason }) = unwrap(body.clone(), "Status") {
        return Status::failure(&message, &reason).with_code(code);
    }
    let said = serde_json::from_slice::<Status>(&body);
    said.unwrap_or_else(|_| Status::failure(String::from_utf8_lossy(&body).trim(), "Unknown")).with_code(code)
}

fn unwrap<T: Message + Default>(body: Bytes, wanted: &str) -> Result<T, Foreign> {
    let object = body.strip_prefix(MAGIC).ok_or(Foreign::Unmarked)?;
    let Envelope { kind, raw } = Envelope::decode(body.slice_ref(object))?;
    let kind = kind.unwrap_or_default().name;
    if kind != wanted {
        return Err(Foreign::Other(kind));
    }
    Ok(T::decode(raw)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the API server wraps it.
    fn wrapped(kind: &str, object: &impl Message) -> Bytes {
        let envelope = Envelope { kind: Some(Kind { name: kind.to_owned() }), raw: object.encode_to_vec().into() };
        [MAGIC, &envelope.encode_to_vec()].concat().into()
    }

    #[test]
    fn a_page_is_its_uids_and_labels_and_the_token_of_the_next() {
        let labels = HashMap::from([("app".to_owned(), "demo".to_owned())]);
        let meta = Meta { uid: "uid-1".to_owned(), labels: labels.clone() };
        let page = Page {
            metadata: Some(PageMeta { token: "next".to_owned() }),
            items: vec![Item { metadata: Some(meta) }, Item::default()],
        };
        let (token, items) = unwrap::<Page>(wrapped(LISTED, &page), LISTED).unwrap().into_parts();
        assert_eq!(token.as_deref(), Some("next"));
        let nameless = (String::new(), HashMap::new());
        assert_eq!(items.collect::<Vec<_>>(), [("uid-1".to_owned(), labels), nameless], "none is left out");
        let (token, items) = unwrap::<Page>(wrapped(LISTED, &Page::default()), LISTED).unwrap().into_parts();
        assert_eq!((token, items.count()), (None, 0), "the last page names no next one");
    }

    #[test]
    fn a_refusal_says_why_whoever_made_it() {
        let own = Refusal { message: "it is too old".to_owned(), reason: "Expired".to_owned() };
        let own = refusal(wrapped("Status", &own), 410);
        assert_eq!((own.code, own.reason.as_str(), own.message.as_str()), (410, "Expired", "it is too old"));
        let json =
            br#"{"kind":"Status","status":"Failure","message":"slow down","reason":"TooManyRequests","code":429}"#;
        let json = refusal(Bytes::from_static(json), 429);
        assert_eq!((json.code, json.reason.as_str(), json.message.as_str()), (429, "TooManyRequests", "slow down"));
        let text = refusal(Bytes::from_static(b"bad gateway\xff\n"), 502);
        assert_eq!((text.code, text.message.as_str()), (502, "bad gateway\u{fffd}"));
    }

    #[test]
    fn what_is_no_list_is_an_error_and_not_an_empty_one() {
        let whole = wrapped(LISTED, &Page { metadata: None, items: vec![Item::default()] });
        let part = whole.slice(..whole.len() - 1);
        for foreign in [Bytes::new(), Bytes::from_static(b"{}"), part, wrapped("Status", &Refusal::default())] {
            assert!(unwrap::<Page>(foreign.clone(), LISTED).is_err(), "{foreign:?}");
        }
    }
}
