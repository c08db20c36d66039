//! A client of a node's JSON-RPC 2.0 interface over HTTP, for one call at a time.

use reqwest::{Client, Url};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

/// Why a call has no result.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CallError {
    /// The node answers with an error.
    Refused(Refusal),
    /// There is no answer, or none that the method allows.
    Unusable,
}

/// A node's error, as it answers with it.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Refusal {
    /// The error's number.
    pub(crate) code: i64,
    /// The node's words.
    pub(crate) message: String,
}

/// A client of one node.
#[derive(Debug)]
pub(crate) struct JsonRpc {
    client: Client,
    url: Url,
}

impl JsonRpc {
    /// A client of the node at `url`. The HTTP client sets deadlines and the proxy.
    pub(crate) const fn new(client: Client, url: Url) -> Self {
        Self { client, url }
    }

    /// Calls a method, and reads its result.
    ///
    /// # Errors
    /// When the node refuses, when it does not answer, or when its answer is no `T`.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        parameters: impl Serialize + Send,
    ) -> Result<T, CallError> {
        let parameters = serde_json::to_value(parameters).map_err(|_| CallError::Unusable)?;
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters});
        let answer = self.client.post(self.url.clone()).json(&request).send().await;
        let answer = answer.map_err(|_| CallError::Unusable)?;
        let succeeded = answer.status().is_success();
        let body = answer.bytes().await.map_err(|_| CallError::Unusable)?;
        let mut members: Map<String, Value> =
            serde_json::from_slice(&body).map_err(|_| CallError::Unusable)?;
        // Some nodes send the error with a status of failure, and others with one of success.
        if let Some(error) = members.remove("error").filter(|error| !error.is_null()) {
            let refusal = serde_json::from_value(error).map_err(|_| CallError::Unusable)?;
            return Err(CallError::Refused(refusal));
        }
        let result = members.remove("result").filter(|_| succeeded).ok_or(CallError::Unusable)?;
        serde_json::from_value(result).map_err(|_| CallError::Unusable)
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, http::StatusCode, routing::post};
    use tokio::net::TcpListener;

    use super::*;

    /// The result of a call to a node that answers with this status and body.
    async fn called<T: DeserializeOwned>(status: StatusCode, body: &'static str) -> Result<T, CallError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let node = Router::new().route("/", post(move || async move { (status, body) }));
        tokio::spawn(async move { axum::serve(listener, node).await });
        // The program does this at its start. Another test may have done it already.
        rustls::crypto::ring::default_provider().install_default().ok();
        JsonRpc::new(Client::new(), url).call("eth_chainId", ["latest"]).await
    }

    #[tokio::test]
    async fn results_and_refusals_are_told_from_unusable_answers() {
        let (ok, bad) = (StatusCode::OK, StatusCode::BAD_REQUEST);
        assert_eq!(called(ok, r#"{"id": 1, "result": 5}"#).await, Ok(5));
        assert_eq!(called(ok, r#"{"id": 1, "result": 5, "error": null}"#).await, Ok(5));
        assert_eq!(called::<Option<u64>>(ok, r#"{"id": 1, "result": null}"#).await, Ok(None));
        let refused = r#"{"id": 1, "error": {"code": -32601, "message": "no such method"}}"#;
        for status in [ok, bad] {
            let refusal = Refusal { code: -32601, message: "no such method".to_owned() };
            assert_eq!(called::<u64>(status, refused).await, Err(CallError::Refused(refusal)));
        }
        for (status, body) in [
            (ok, r#"{"id": 1, "result": "five"}"#),
            (ok, r#"{"id": 1}"#),
            (ok, r#"{"id": 1, "error": "text"}"#),
            (ok, "<html>"),
            (bad, r#"{"id": 1, "result": 5}"#),
        ] {
            assert_eq!(called::<u64>(status, body).await, Err(CallError::Unusable), "{body}");
        }
        // A missing result is no missing receipt.
        assert_eq!(called::<Option<u64>>(ok, r#"{"id": 1}"#).await, Err(CallError::Unusable));
    }
}
