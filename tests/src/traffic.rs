//! What the broker has seen of one connection, by its own count: so that a test can act when a
//! message has passed, without being a part of the conversation.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::time::{interval, timeout};

use crate::{anvil::http_client, broker::Broker};

/// How often the broker is asked.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// How long a message may take to pass.
const DEADLINE: Duration = Duration::from_secs(60);

/// Messages of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Published by the client.
    pub sent: u64,
    /// Delivered to it.
    pub received: u64,
}

/// The broker's book of connections.
#[derive(Debug)]
pub struct Connections {
    client: reqwest::Client,
    url: String,
}

impl Connections {
    /// The book of `broker`.
    ///
    /// # Errors
    /// When there can be no HTTP client.
    pub fn of(broker: &Broker) -> Result<Self> {
        Ok(Self { client: http_client()?, url: format!("{}/connz", broker.monitoring_url()) })
    }

    /// The number of the newest connection; 0 before the first.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn newest(&self) -> Result<u64> {
        Ok(self.all().await?.iter().filter_map(|one| number(one, "cid")).max().unwrap_or_default())
    }

    /// The first connection after number `before`, once there is one.
    ///
    /// # Errors
    /// When a minute passes before.
    pub async fn first_after(&self, before: u64) -> Result<u64> {
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
        timeout(DEADLINE, opened).await.context("nobody connected in time")?
    }

    /// What has passed on connection `number` by now, also after it was closed.
    ///
    /// # Errors
    /// When the broker does not know it for a minute: it takes one that closes from its list of
    /// open ones some time before it writes it down among the closed.
    pub async fn traffic(&self, connection: u64) -> Result<Traffic> {
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

    /// Waits until `reached` holds of what has passed on a connection.
    ///
    /// # Errors
    /// When a minute passes before, or the connection is closed; with what had passed.
    pub async fn until(&self, connection: u64, reached: impl Fn(Traffic) -> bool) -> Result<()> {
        let mut look_again = interval(LOOK_INTERVAL);
        let mut last = Traffic::default();
        let passing = async {
            loop {
                look_again.tick().await;
                // What passed is read after it: a connection may close with the very message that
                // is waited for.
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
