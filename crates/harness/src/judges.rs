//! Signatures verified by ethers and viem, which took no part in making them
//! (`tests/js/verify.mjs`).

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{process, programs};

/// Loading two JavaScript libraries takes most of a second, and longer on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// The verdicts of both libraries on each check. `verify.mjs` describes the format of checks.
///
/// # Errors
/// When Node cannot be run, or when a library rejects a signature.
pub async fn verify(checks: &[Value]) -> Result<Value> {
    let mut node = Command::new("node");
    node.arg(programs::judges()?);
    let output = process::run(node, &json!(checks).to_string(), DEADLINE).await?;
    if !output.status.success() {
        bail!("ethers or viem disagrees: {}{}", output.stdout, output.stderr);
    }
    Ok(serde_json::from_str(&output.stdout)?)
}
