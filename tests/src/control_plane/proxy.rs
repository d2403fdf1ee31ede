//! A proxy in front of an API server that changes objects on their way to a client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::Value;
use ureq::http::Request;

use super::Api;
use crate::namespace::Namespace;

/// What is done to each object.
type Change = Arc<dyn Fn(&mut Value) + Send + Sync>;

/// A proxy. It listens as long as this process lives.
#[derive(Debug)]
pub(super) struct Proxy {
    address: SocketAddr,
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
        let change: Change = Arc::new(change);
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let (api, change) = (api.clone(), change.clone());
                // A client that goes away ends its connection, and nothing else.
                std::thread::spawn(move || drop(serve(connection, &api, &change)));
            }
        });
        Ok(Self { address })
    }

    /// Where it listens, as a kubeconfig has it.
    pub(super) fn server(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Answers one request, and closes the connection.
fn serve(mut connection: TcpStream, api: &Api, change: &Change) -> Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let (method, path) = line.trim_end().split_once(' ').context("no request line")?;
    let path = path.split(' ').next().unwrap_or_default();
    let mut request = Request::builder().method(method).uri(api.url(path));
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
    let mut answer = api.forward(request.body(body)?)?;
    let status = answer.status();
    write!(connection, "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")?;
    // A list is one line, and so is each event of a watch.
    for line in BufReader::new(answer.body_mut().as_reader()).lines() {
        let line = line?;
        let mut value: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        if method == "GET" {
            value["items"].as_array_mut().into_iter().flatten().for_each(|item| change(item));
            change(&mut value["object"]);
        }
        writeln!(connection, "{value}")?;
    }
    Ok(())
}
