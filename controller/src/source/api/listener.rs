//! A client that notes what is heard of the kinds that are watched.
//!
//! Bookmarks, and that a watch has come to its end, say that nothing has changed; the watcher keeps both to itself. So
//! they are noted here, on the way from the connection to the watcher.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Request;
use http_body::{Body, Frame};
use kube::Client;

use crate::heard::Heard;

/// A client that asks by `client` and notes in `heard` what watches say.
pub(super) fn noting(client: Client, namespace: String, heard: Heard) -> Client {
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let (client, heard, kind) = (client.clone(), heard.clone(), watched(&request));
        async move {
            let response = client.send(request).await?;
            Ok::<_, kube::Error>(response.map(|body| Noting { body, heard, kind }))
        }
    });
    Client::new(service, namespace)
}

/// The body of an answer, of which it is noted when something comes of it.
struct Noting<B> {
    body: B,
    heard: Heard,
    /// The kind, if it is watched.
    kind: Option<String>,
}

impl<B: Body + Unpin> Body for Noting<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let Self { body, heard, kind } = self.get_mut();
        let frame = ready!(Pin::new(body).poll_frame(context));
        if let (Some(kind), None | Some(Ok(_))) = (kind, &frame) {
            heard.note(kind);
        }
        Poll::Ready(frame)
    }
}

/// The kind that a request watches, by the plural at the end of its path.
fn watched<B>(request: &Request<B>) -> Option<String> {
    let uri = request.uri();
    let watches = uri.query()?.split('&').any(|parameter| matches!(parameter, "watch=true" | "watch=1"));
    let kind = uri.path().rsplit('/').next().filter(|_| watches)?;
    Some(kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_are_told_from_other_requests_by_kind() {
        for (uri, expected) in [
            ("/api/v1/pods?&watch=true&resourceVersion=7", Some("pods")),
            ("/apis/networking.k8s.io/v1/networkpolicies?watch=1", Some("networkpolicies")),
            ("/api/v1/nodes?fieldSelector=metadata.name%3Dn1&watch=true", Some("nodes")),
            ("/api/v1/pods?limit=500", None),
            ("/api/v1/pods", None),
            ("/api/v1/pods?watch=false", None),
        ] {
            let request = Request::get(uri).body(()).expect("a request");
            assert_eq!(watched(&request).as_deref(), expected, "{uri}");
        }
    }
}
