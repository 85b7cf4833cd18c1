//! One request: deadlines, bounds, and the server's refusals as errors.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;
use skerry_wire::api::ApiError;

use crate::error::chain;
use crate::{Client, ClientError};

/// Body of a request; uploads stream theirs.
pub type UploadBody = BoxBody<Bytes, std::io::Error>;

/// From request to whole answer, for all but uploads.
const DEADLINE: Duration = Duration::from_secs(60);
/// From the first byte of an upload to its answer: a layer of many GB over a slow line.
const UPLOAD_DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// What to look at when there is no connection.
const NO_CONNECTION: &str = "\n  Is the server running, is this its address, and is `ca` in the configuration its CA?";
/// The longest answer.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

impl Client {
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let bytes = self.call(Method::GET, path, None, empty(), DEADLINE).await?;
        self.decode(Method::GET, path, &bytes)
    }

    pub(crate) async fn get_bytes(&self, path: &str) -> Result<Vec<u8>, ClientError> {
        Ok(self.call(Method::GET, path, None, empty(), DEADLINE).await?.to_vec())
    }

    pub(crate) async fn send<B: Serialize, T: DeserializeOwned>(&self, method: Method, path: &str, body: &B) -> Result<T, ClientError> {
        let json = serde_json::to_vec(body).expect("the API's types have no map keys that JSON lacks");
        let body = Full::new(Bytes::from(json)).map_err(|never| match never {}).boxed();
        let bytes = self.call(method.clone(), path, Some("application/json"), body, DEADLINE).await?;
        self.decode(method, path, &bytes)
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.call(Method::DELETE, path, None, empty(), DEADLINE).await.map(|_| ())
    }

    pub(crate) async fn upload(&self, path: &str, body: UploadBody) -> Result<(), ClientError> {
        self.call(Method::PUT, path, Some("application/octet-stream"), body, UPLOAD_DEADLINE).await.map(|_| ())
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&'static str>,
        body: UploadBody,
        deadline: Duration,
    ) -> Result<Bytes, ClientError> {
        let url = format!("{}{path}", self.base);
        let transport = |reason: String| ClientError::Transport { method: method.clone(), url: url.clone(), reason };
        let mut request = Request::builder().method(method.clone()).uri(&url).header(AUTHORIZATION, self.authorization.clone());
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let request = request.body(body).map_err(|e| transport(e.to_string()))?;
        let exchange = async {
            let response = self.pool.request(request).await.map_err(|e| {
                let hint = if e.is_connect() { NO_CONNECTION } else { "" };
                transport(chain(&e) + hint)
            })?;
            let status = response.status();
            let bytes = collect(response, MAX_ANSWER).await.map_err(|e| match e {
                Collect::TooLong => ClientError::TooLong { method: method.clone(), url: url.clone(), limit: MAX_ANSWER },
                Collect::Broken(reason) => transport(reason),
            })?;
            if status.is_success() { Ok(bytes) } else { Err(refused(status, &bytes)) }
        };
        match tokio::time::timeout(deadline, exchange).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::TimedOut { method: method.clone(), url: url.clone(), seconds: deadline.as_secs() }),
        }
    }

    fn decode<T: DeserializeOwned>(&self, method: Method, path: &str, bytes: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(bytes).map_err(|e| ClientError::Decode {
            method,
            url: format!("{}{path}", self.base),
            reason: e.to_string(),
        })
    }
}

enum Collect {
    TooLong,
    Broken(String),
}

async fn collect(response: Response<Incoming>, limit: usize) -> Result<Bytes, Collect> {
    let collected = Limited::new(response.into_body(), limit).collect().await;
    collected
        .map(http_body_util::Collected::to_bytes)
        .map_err(|e| if e.is::<LengthLimitError>() { Collect::TooLong } else { Collect::Broken(chain(&*e)) })
}

fn refused(status: StatusCode, bytes: &[u8]) -> ClientError {
    let error = serde_json::from_slice(bytes).unwrap_or_else(|_| ApiError {
        code: status.as_str().to_owned(),
        message: format!("the server answered {status}"),
        hint: Some("Is this the address of a Skerry server, with no other proxy in between?".to_owned()),
    });
    ClientError::Refused { status, error }
}

fn empty() -> UploadBody {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// A value inside a path or a query: everything but unreserved characters (RFC 3986) is escaped.
pub(crate) fn query_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_escaped() {
        assert_eq!(query_escape("shop/till:2.1"), "shop%2Ftill%3A2.1");
        assert_eq!(query_escape("a-b_c.~"), "a-b_c.~");
    }

    #[tokio::test]
    async fn nobody_listens() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let ca_pem = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().cert.pem().into_bytes();
        let connection = crate::Connection { server: format!("https://127.0.0.1:{port}"), ca_pem, token: "t".to_owned() };
        let error = Client::new(&connection).unwrap().status().await.unwrap_err();
        assert!(error.is_transient());
        let text = error.to_string();
        assert!(text.contains("/v1/status") && text.contains("refused") && text.ends_with(NO_CONNECTION), "{text}");
    }

    #[test]
    fn a_refusal_that_is_not_ours_says_so() {
        let ClientError::Refused { error, .. } = refused(StatusCode::BAD_GATEWAY, b"<html>") else { panic!("not a refusal") };
        assert!(error.message.contains("502"));
    }
}
