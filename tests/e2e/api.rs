//! Reads of the API server over one `kubectl proxy`: a process of kubectl's for each look takes more of the processors
//! than what it looks at.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::{LazyLock, mpsc};

use serde_json::Value;

use crate::space::{PATIENCE, cluster};
use crate::statuses::bound;

/// The proxy of all tests. A thread of its own starts it and stays, since the proxy ends with the thread that did.
static PROXY: LazyLock<&'static Proxy> = LazyLock::new(|| {
    let (started, proxy) = mpsc::channel();
    std::thread::spawn(move || {
        started.send(&*Box::leak(Box::new(Proxy::start()))).unwrap();
        loop {
            std::thread::park();
        }
    });
    proxy.recv().unwrap()
});

/// `kubectl proxy`, for requests without the start of a process. It ends with this process.
pub(crate) struct Proxy {
    child: Child,
    address: String,
}

impl Proxy {
    pub(crate) fn start() -> Self {
        let mut kubectl = cluster().kubectl();
        kubectl.args(["proxy", "--port=0"]);
        let mut child = bound(&kubectl).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().to_owned();
        Self { child, address }
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        self.call("GET", path, "")
    }

    pub(crate) fn patch(&self, path: &str, body: &Value) -> Value {
        self.call("PATCH", path, &body.to_string())
    }

    fn call(&self, method: &str, path: &str, body: &str) -> Value {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/merge-patch+json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {answer:?}"));
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{method} {path}: {error}: {answer}"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// Where objects of a kind that tests look at often are; other kinds are kubectl's.
fn resource(kind: &str) -> Option<(&'static str, &'static str)> {
    Some(match kind {
        "agentruntime" | "agentruntimes" => ("/apis/agents.hive.dev/v1alpha1", "agentruntimes"),
        "configmap" | "configmaps" => ("/api/v1", "configmaps"),
        "deployment" | "deployments" => ("/apis/apps/v1", "deployments"),
        "persistentvolumeclaims" => ("/api/v1", "persistentvolumeclaims"),
        "pod" | "pods" => ("/api/v1", "pods"),
        "service" | "services" => ("/api/v1", "services"),
        _ => return None,
    })
}

/// One object, as `kubectl get -o json` shows it; none for a kind that is not known here.
pub(crate) fn get(namespace: &str, kind: &str, name: &str) -> Option<Value> {
    let (group, plural) = resource(kind)?;
    let mut object = PROXY.get(&format!("{group}/namespaces/{namespace}/{plural}/{name}"));
    assert_ne!(object["kind"], "Status", "{kind} {namespace}/{name}: {object}");
    forget_managers(&mut object);
    Some(object)
}

/// All objects of a kind, by a label selector; none for a kind that is not known here.
pub(crate) fn list(namespace: &str, kind: &str, selector: &str) -> Option<Vec<Value>> {
    let (group, plural) = resource(kind)?;
    let encoded = selector.replace('=', "%3D").replace(',', "%2C").replace('!', "%21");
    let mut list = PROXY.get(&format!("{group}/namespaces/{namespace}/{plural}?labelSelector={encoded}"));
    let items = list["items"].as_array_mut().unwrap_or_else(|| panic!("{kind} in {namespace}: no list"));
    items.iter_mut().for_each(forget_managers);
    Some(std::mem::take(items))
}

/// As kubectl does.
fn forget_managers(object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
}
