//! The broker's own count of messages on a connection. With it, a test can act when a message has
//! passed, without taking part in the conversation.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use duet_harness::{anvil::http_client, broker::Broker};
use serde_json::Value;
use tokio::time::{interval, timeout};

/// The interval at which the broker is asked.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// How long a message may take to pass.
const DEADLINE: Duration = Duration::from_secs(60);

/// The messages of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Published by the client.
    pub(crate) sent: u64,
    /// Delivered to the client.
    pub(crate) received: u64,
}

/// The connections of a broker, from its monitoring.
#[derive(Debug)]
pub(crate) struct Connections {
    client: reqwest::Client,
    url: String,
}

impl Connections {
    /// The connections of `broker`.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub(crate) fn of(broker: &Broker) -> Result<Self> {
        Ok(Self { client: http_client()?, url: format!("{}/connz", broker.monitoring_url()) })
    }

    /// The number of the newest connection. 0 before the first.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub(crate) async fn newest(&self) -> Result<u64> {
        Ok(self.all().await?.iter().filter_map(|one| number(one, "cid")).max().unwrap_or_default())
    }

    /// The number of the first connection after `before`. Waits for one.
    ///
    /// # Errors
    /// After a minute.
    pub(crate) async fn first_after(&self, before: u64) -> Result<u64> {
        let mut look_again = interval(LOOK_INTERVAL);
        let opened = async {
            loop {
                look_again.tick().await;
                let all = self.all().await?;
                if let Some(first) =
                    all.iter().filter_map(|one| number(one, "cid")).filter(|n| *n > before).min()
                {
                    return Ok(first);
                }
            }
        };
        timeout(DEADLINE, opened).await.context("no client connected in time")?
    }

    /// The messages on connection `number` so far. Also works after it was closed.
    ///
    /// # Errors
    /// When the broker does not list it for a minute. The broker removes a closing connection from
    /// the open ones some time before it lists it as closed.
    pub(crate) async fn traffic(&self, connection: u64) -> Result<Traffic> {
        let mut look_again = interval(LOOK_INTERVAL);
        let listed = async {
            loop {
                look_again.tick().await;
                let all = self.all().await?;
                let Some(one) = all.iter().find(|one| number(one, "cid") == Some(connection)) else {
                    continue;
                };
                let count = |name| number(one, name).with_context(|| format!("no {name}"));
                return Ok(Traffic { sent: count("in_msgs")?, received: count("out_msgs")? });
            }
        };
        timeout(DEADLINE, listed).await.context("no such connection")?
    }

    /// Waits until `reached` is true of the messages on a connection.
    ///
    /// # Errors
    /// After a minute, or when the connection is closed. The error contains the last count.
    pub(crate) async fn until(&self, connection: u64, reached: impl Fn(Traffic) -> bool) -> Result<()> {
        let mut look_again = interval(LOOK_INTERVAL);
        let mut last = Traffic::default();
        let passing = async {
            loop {
                look_again.tick().await;
                // Read the count after this: a connection may close with the awaited message.
                let is_closed = self.is_closed(connection).await?;
                last = self.traffic(connection).await?;
                if reached(last) {
                    return Ok::<_, anyhow::Error>(());
                }
                if is_closed {
                    bail!("the connection was closed");
                }
            }
        };
        match timeout(DEADLINE, passing).await {
            Ok(result) => result.with_context(|| format!("{last:?} had passed")),
            Err(_) => bail!("only {last:?} passed in {DEADLINE:?}"),
        }
    }

    async fn is_closed(&self, connection: u64) -> Result<bool> {
        let all = self.list("open").await?;
        Ok(all.iter().all(|one| number(one, "cid") != Some(connection)))
    }

    async fn all(&self) -> Result<Vec<Value>> {
        self.list("all").await
    }

    async fn list(&self, state: &str) -> Result<Vec<Value>> {
        let url = format!("{}?state={state}&limit=4096", self.url);
        let document: Value = self.client.get(url).send().await?.json().await?;
        Ok(document.get("connections").and_then(Value::as_array).cloned().unwrap_or_default())
    }
}

fn number(connection: &Value, name: &str) -> Option<u64> {
    connection.get(name)?.as_u64()
}
