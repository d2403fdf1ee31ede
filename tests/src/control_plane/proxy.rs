//! A proxy in front of an API server: it changes objects on their way to a client, holds them back or swallows them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use ureq::http::Request;

use super::Api;
use crate::namespace::Namespace;

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// What becomes of the answers to requests for a kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Treatment {
    /// They pass.
    #[default]
    Pass,
    /// They are held back until they may pass, lists and watches alike.
    Hold,
    /// What watches say is held back until it may pass. Lists pass.
    Late,
    /// Watches say everything twice, and then once more what they said before that. Lists pass.
    Repeat,
    /// Watches begin and then say nothing, those that are open too. Lists pass.
    Silence,
}

/// What is done to each object.
type Change = Box<dyn Fn(&mut Value) + Send + Sync>;

/// A proxy. It listens as long as this process lives.
pub struct Proxy {
    address: SocketAddr,
    dealings: Arc<Dealings>,
}

/// What the connections share.
struct Dealings {
    api: Api,
    change: Change,
    /// By the plural of the kind.
    treatments: Mutex<BTreeMap<String, Treatment>>,
}

impl Proxy {
    /// Starts one for the clients of a namespace whose loopback device is up. Every object in what the API server
    /// answers to a GET, be it a list or a watch, is given to `change` first.
    pub(super) fn start(
        clients: &Namespace,
        api: Api,
        change: impl Fn(&mut Value) + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = clients.run(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?))?;
        let address = listener.local_addr()?;
        let dealings = Arc::new(Dealings { api, change: Box::new(change), treatments: Mutex::default() });
        let of_all = dealings.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let dealings = of_all.clone();
                // A client that goes away ends its connection, and nothing else.
                std::thread::spawn(move || drop(dealings.serve(connection)));
            }
        });
        Ok(Self { address, dealings })
    }

    /// From now on this becomes of the answers to requests for a kind, such as `pods`.
    pub fn treat(&self, kind: &str, treatment: Treatment) {
        let mut treatments = self.dealings.treatments.lock().unwrap_or_else(PoisonError::into_inner);
        treatments.insert(kind.to_owned(), treatment);
    }

    /// Where it listens, as a kubeconfig has it.
    pub(super) fn server(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Dealings {
    /// Answers one request, and closes the connection.
    fn serve(&self, mut connection: TcpStream) -> Result<()> {
        let mut reader = BufReader::new(connection.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let (method, target) = line.trim_end().split_once(' ').context("no request line")?;
        let target = target.split(' ').next().unwrap_or_default();
        let mut request = Request::builder().method(method).uri(self.api.url(target));
        let (mut length, mut header) = (0, String::new());
        while reader.read_line(&mut header)? > 2 {
            let (name, value) = header.split_once(':').context("no header")?;
            match (&*name.to_ascii_lowercase(), value.trim()) {
                ("content-length", value) => length = value.parse()?,
                (name @ ("authorization" | "content-type" | "accept"), value) => {
                    request = request.header(name, value);
                }
                _ => {}
            }
            header.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let kind = path.rsplit('/').next().unwrap_or_default();
        self.wait_while(kind, &[Treatment::Hold]);
        let mut answer = self.api.forward(request.body(body)?)?;
        let status = answer.status();
        write!(
            connection,
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
        )?;
        let lines = BufReader::new(answer.body_mut().as_reader()).lines();
        let watches = query.split('&').any(|parameter| parameter == "watch=true");
        match method {
            "GET" => self.relay(kind, watches, lines, &mut connection),
            _ => lines.into_iter().try_for_each(|line| Ok(writeln!(connection, "{}", line?)?)),
        }
    }

    /// Relays an answer. A list is one line, and so is each event of a watch.
    fn relay(
        &self,
        kind: &str,
        watches: bool,
        lines: impl Iterator<Item = std::io::Result<String>>,
        connection: &mut TcpStream,
    ) -> Result<()> {
        let mut silenced = false;
        let mut before = String::new();
        // Where the answer breaks off, so does this one.
        for line in lines.map_while(Result::ok) {
            let held = if watches { &[Treatment::Hold, Treatment::Late][..] } else { &[Treatment::Hold] };
            self.wait_while(kind, held);
            if watches && self.treatment(kind) == Treatment::Silence {
                silenced = true;
                continue;
            }
            if silenced {
                // What was swallowed is lost, unless the client asks again.
                return Ok(());
            }
            let mut value: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
            value["items"].as_array_mut().into_iter().flatten().for_each(|item| (self.change)(item));
            (self.change)(&mut value["object"]);
            let line = format!("{value}\n");
            connection.write_all(line.as_bytes())?;
            if watches && self.treatment(kind) == Treatment::Repeat {
                connection.write_all(format!("{line}{before}").as_bytes())?;
            }
            before = line;
        }
        // The end of a watch would say something too.
        while watches && self.treatment(kind) == Treatment::Silence {
            std::thread::sleep(INTERVAL);
        }
        Ok(())
    }

    /// Waits while the answers of a kind are treated in one of these ways.
    fn wait_while(&self, kind: &str, treatments: &[Treatment]) {
        while treatments.contains(&self.treatment(kind)) {
            std::thread::sleep(INTERVAL);
        }
    }

    fn treatment(&self, kind: &str) -> Treatment {
        let treatments = self.treatments.lock().unwrap_or_else(PoisonError::into_inner);
        treatments.get(kind).copied().unwrap_or_default()
    }
}
