//! A real browser, driven by the WebDriver protocol as a person would, and the process that serves what it looks at.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::plugin::binary;
use crate::space::{PATIENCE, cluster};

/// The key that the protocol gives elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A page in a browser, and what serves it; both go with the test.
pub(crate) struct Browser {
    driver: Child,
    driver_at: String,
    session: String,
    page: Child,
    page_at: String,
}

/// What stands behind `after`, up to a space or the end of a sentence, in what a process prints.
fn printed(child: &mut Child, after: &str) -> String {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let found = lines.by_ref().find_map(|line| {
        let rest = line.ok()?.split_once(after)?.1.to_owned();
        rest.split(' ').next().map(|word| word.trim_end_matches(['.', ',']).to_owned())
    });
    // Somebody has to read on, or the pipe fills.
    std::thread::spawn(move || lines.for_each(drop));
    found.unwrap_or_else(|| panic!("it never printed {after}"))
}

/// The plugin, which serves the dashboard.
fn serve(arguments: &[&str]) -> Child {
    let mut plugin = Command::new(binary());
    plugin.env("KUBECONFIG", cluster().kubeconfig()).args(arguments).stdout(Stdio::piped()).spawn().unwrap()
}

impl Browser {
    /// Opens the dashboard of a namespace; none where this machine has no browser, which is said.
    pub(crate) fn open(namespace: &str, size: (u32, u32)) -> Option<Self> {
        Self::look(size, || serve(&["--namespace", namespace, "dashboard", "--listen", "127.0.0.1:0"]), "http://")
    }

    /// As [`Self::open`], a dashboard that only shows.
    pub(crate) fn open_to_look(namespace: &str, size: (u32, u32)) -> Option<Self> {
        let arguments = ["--namespace", namespace, "dashboard", "--read-only", "--listen", "127.0.0.1:0"];
        Self::look(size, || serve(&arguments), "http://")
    }

    /// Looks at what a process serves that prints its address behind some words.
    pub(crate) fn look((width, height): (u32, u32), served: impl FnOnce() -> Child, said: &str) -> Option<Self> {
        let driver =
            Command::new("chromedriver").args(["--port=0"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let Ok(mut driver) = driver else {
            println!("skipped: there is no chromedriver here: apt-get install chromium chromium-driver");
            return None;
        };
        let driver_at = format!("127.0.0.1:{}", printed(&mut driver, "started successfully on port "));
        let mut page = served();
        let page_at = printed(&mut page, said);
        let window = format!("--window-size={width},{height}");
        let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", window.as_str()];
        let wanted = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": { "args": arguments } } } });
        let mut browser = Self { driver, driver_at, session: String::new(), page, page_at };
        let session = browser.ask("POST", "/session", &wanted).unwrap();
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        browser.go(&format!("http://{}", browser.page_at));
        Some(browser)
    }

    /// One request to the driver: what it answers, or why it does not.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let mut stream = TcpStream::connect(&self.driver_at).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let host = &self.driver_at;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        write!(stream, "{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        // The driver keeps the connection open: the answer is as long as its head says.
        let mut answer = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        while answer.read_line(&mut line).map_err(|error| error.to_string())? > 2 {
            let (name, value) = line.split_once(':').unwrap_or_default();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().map_err(|_| line.clone())?;
            }
            line.clear();
        }
        let mut body = vec![0; length];
        answer.read_exact(&mut body).map_err(|error| error.to_string())?;
        let body = String::from_utf8_lossy(&body);
        let value = serde_json::from_str::<Value>(&body).map_err(|error| format!("{error}: {body}"))?["value"].clone();
        if value["error"].is_string() { Err(value.to_string()) } else { Ok(value) }
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        self.ask("POST", &format!("{}{path}", self.session), body)
    }

    fn go(&self, url: &str) {
        self.post("/url", &json!({ "url": url })).unwrap();
    }

    /// Host and port of the page.
    pub(crate) fn host(&self) -> &str {
        self.page_at.split('/').next().unwrap()
    }

    /// Another page of the dashboard.
    pub(crate) fn visit(&self, path: &str) {
        self.go(&format!("http://{}{path}", self.host()));
    }

    /// Ends what serves the page; the page stays open.
    pub(crate) fn end_server(&mut self) {
        self.page.kill().unwrap();
        self.page.wait().unwrap();
    }

    /// Serves the same address again.
    pub(crate) fn serve_again(&mut self, namespace: &str, more: &[&str]) {
        let host = self.host().to_owned();
        let arguments = ["--namespace", namespace, "dashboard", "--listen", &host];
        self.page = serve(&[&arguments, more].concat());
        printed(&mut self.page, "http://");
    }

    /// Sends the server a signal, such as STOP, by which it hangs with its connections open.
    pub(crate) fn signal_server(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.page.id().to_string()]).status().unwrap();
        assert!(sent.success(), "{signal}");
    }

    /// Has the page shown as to a person who prefers light or dark.
    pub(crate) fn prefer(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let command = json!({ "cmd": "Emulation.setEmulatedMedia", "params": { "features": features } });
        self.post("/goog/cdp/execute", &command).unwrap();
    }

    /// Does something with an element as soon as it is there and lets it be done.
    fn with(&self, how: &str, selector: &str, action: &str, body: &Value) {
        let begun = Instant::now();
        loop {
            let found = self.post("/element", &json!({ "using": how, "value": selector }));
            let done = found.and_then(|element| {
                self.post(&format!("/element/{}/{action}", element[ELEMENT].as_str().unwrap_or_default()), body)
            });
            match done {
                Ok(_) => return,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{selector} lets nobody {action}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn click(&self, css: &str) {
        self.with("css selector", css, "click", &json!({}));
    }

    /// The button with this text.
    pub(crate) fn press(&self, text: &str) {
        let path = format!("//button[normalize-space()='{text}' and not(@disabled)]");
        self.with("xpath", &path, "click", &json!({}));
    }

    pub(crate) fn write(&self, css: &str, text: &str) {
        self.with("css selector", css, "value", &json!({ "text": text }));
    }

    /// What a script returns.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] })).unwrap()
    }

    /// The text of what is shown, or nothing while it is not there.
    pub(crate) fn text(&self, css: &str) -> String {
        let script = "return document.querySelector(arguments[0])?.innerText ?? ''";
        let text = self.post("/execute/sync", &json!({ "script": script, "args": [css] }));
        text.ok().and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Waits until a place shows something, and says how long that took.
    pub(crate) fn shows(&self, css: &str, wanted: &str) -> Duration {
        let begun = Instant::now();
        loop {
            let text = self.text(css);
            if text.contains(wanted) {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < PATIENCE, "{css} never shows {wanted:?}, but {text:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A picture of the window, as base64 of a PNG, kept where HIVE_SCREENSHOTS says.
    pub(crate) fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("HIVE_SCREENSHOTS") else { return };
        let picture = self.ask("GET", &format!("{}/screenshot", self.session), &Value::Null).unwrap();
        std::fs::write(std::path::Path::new(&folder).join(name), picture.as_str().unwrap()).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.ask("DELETE", &self.session, &Value::Null);
        for child in [&mut self.driver, &mut self.page] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
