//! Measures how long one queued signature takes through the whole idle stack on this machine.
//!
//! Prints one flat JSON object for `cargo xtask bench`. The HTTP client measures the time, from
//! sending the request until the event stream reports the signature.
#![expect(clippy::print_stdout, reason = "the figures are its output")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use duet_harness::{http::Api, stack::Stack};
use serde_json::{Map, Value, json};

/// Signatures before counting begins. They open connections, and the partner learns the service's
/// Paillier key.
const WARM_UP: usize = 5;

/// Signatures that count.
const COUNTED: usize = 60;

#[tokio::main]
async fn main() -> Result<()> {
    let stack = Stack::start().await?;
    let wallet = stack.create_wallet("device", "personal_message").await?;
    let api = Api::new(&stack, &wallet)?;
    let mut latencies: Vec<Duration> = Vec::with_capacity(COUNTED);
    for number in 0..WARM_UP + COUNTED {
        let latency = api.sign_message(&format!("latency {number}")).await?;
        if number >= WARM_UP {
            latencies.push(latency);
        }
    }
    latencies.sort_unstable();
    let milliseconds = |duration: Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
    let quantile = |per_cent: usize| -> Result<f64> {
        let index = (latencies.len() * per_cent).div_ceil(100).saturating_sub(1);
        Ok(milliseconds(*latencies.get(index).context("there are latencies")?))
    };
    ensure!(latencies.len() == COUNTED, "not every signature was counted");
    let minimum = quantile(0)?;
    let mut figures = Map::new();
    for (name, per_cent) in [("stack.queue.p50", 50), ("stack.queue.p99", 99)] {
        let figure = json!({"median_ms": quantile(per_cent)?, "min_ms": minimum, "n": COUNTED});
        figures.insert(name.to_owned(), figure);
    }
    println!("{}", Value::Object(figures));
    Ok(())
}
