//! Signatures judged by ethers and viem, which had no part in making them (`tests/js/verify.mjs`).

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{process, programs};

/// Loading two JavaScript libraries takes most of a second, more on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// Both libraries' verdict about each check, in the form that `verify.mjs` describes.
///
/// # Errors
/// When Node cannot be run or a check holds for one of the libraries not.
pub async fn verify(checks: &[Value]) -> Result<Value> {
    let mut node = Command::new("node");
    node.arg(programs::judges()?);
    let output = process::run(node, &json!(checks).to_string(), DEADLINE).await?;
    if !output.status.success() {
        bail!("ethers or viem disagrees: {}{}", output.stdout, output.stderr);
    }
    Ok(serde_json::from_str(&output.stdout)?)
}
