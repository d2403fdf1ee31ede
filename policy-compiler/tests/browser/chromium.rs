//! A headless Chromium, driven through its `DevTools` protocol over pipes.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// What the browser is called.
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// The longest that a page takes to load.
const BOUND: Duration = Duration::from_secs(60);

/// A browser with one page.
pub(crate) struct Browser {
    child: Child,
    requests: ChildStdin,
    messages: BufReader<ChildStdout>,
    session: Option<String>,
    last: u64,
    complaints: Vec<Value>,
}

impl Browser {
    /// Starts it; `None`, and a word on standard error, where there is none.
    pub(crate) fn start() -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders = std::env::split_paths(&path);
        let Some(program) = folders
            .find_map(|folder| PROGRAMS.map(|name| folder.join(name)).into_iter().find(|it| it.is_file()))
        else {
            // Not captured as other output of a test is. Without standard error there is nobody to tell.
            let missing = "left out: there is no Chromium in PATH (Debian: apt-get install chromium)";
            let _ = writeln!(std::io::stderr(), "{missing}");
            return None;
        };
        // The protocol is spoken on descriptors 3 and 4. As root, in a container, there is no sandbox.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 >/dev/null 2>&1"])
            .arg(program)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--remote-debugging-pipe",
                "--window-size=1400,900",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (requests, messages) =
            (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut browser = Self { child, requests, messages, session: None, last: 0, complaints: Vec::new() };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let attached =
            browser.call("Target.attachToTarget", &json!({"targetId": target["targetId"], "flatten": true}));
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        browser.call("Page.enable", &json!({}));
        browser.call("Log.enable", &json!({}));
        browser.call("Runtime.enable", &json!({}));
        Some(browser)
    }

    /// Makes a request and waits for its result.
    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.last += 1;
        let mut request = json!({"id": self.last, "method": method, "params": params});
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        self.requests.write_all(format!("{request}\0").as_bytes()).unwrap();
        loop {
            let mut message = Vec::new();
            self.messages.read_until(0, &mut message).unwrap();
            assert_eq!(message.pop(), Some(0), "the browser ended");
            let message: Value = serde_json::from_slice(&message).unwrap();
            if message["id"] == self.last {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            if matches!(message["method"].as_str(), Some("Log.entryAdded" | "Runtime.exceptionThrown")) {
                self.complaints.push(message);
            }
        }
    }

    /// Loads a file.
    pub(crate) fn open(&mut self, file: &Path) {
        self.call("Page.navigate", &json!({"url": format!("file://{}", file.display())}));
        let begin = Instant::now();
        while self.get("document.readyState + document.title.includes('podfence')") != json!("completetrue") {
            assert!(begin.elapsed() < BOUND, "the page is not loaded");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The value of an expression.
    pub(crate) fn get(&mut self, expression: &str) -> Value {
        let result = self.call("Runtime.evaluate", &json!({"expression": expression, "returnByValue": true}));
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// The text that an expression gives.
    pub(crate) fn text(&mut self, expression: &str) -> String {
        self.get(expression).as_str().unwrap().to_owned()
    }

    /// Clicks into the middle of an element with the mouse.
    pub(crate) fn click(&mut self, element: &str) {
        let place = self.get(&format!(
            "(() => {{ const element = {element}; element.scrollIntoView({{block: 'center', inline: 'center'}}); \
             const {{x, y, width, height}} = element.getBoundingClientRect(); return [x + width / 2, y + height / 2]; }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let click =
                json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", &click);
        }
    }

    /// Presses a key.
    pub(crate) fn key(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            self.call("Input.dispatchKeyEvent", &json!({"type": kind, "key": key}));
        }
    }

    /// Types into what has the focus.
    pub(crate) fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", &json!({"text": text}));
    }

    /// Chooses an option of a `select`.
    pub(crate) fn choose(&mut self, id: &str, value: &str) {
        self.get(&format!(
            "(() => {{ const select = document.getElementById('{id}'); select.value = '{value}'; \
             select.dispatchEvent(new Event('input', {{bubbles: true}})); }})()"
        ));
    }

    /// What the browser has logged: violations of the page's policy, exceptions.
    pub(crate) fn complaints(&self) -> Vec<Value> {
        self.complaints.clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
