//! Measures how much resident memory ten thousand queued jobs cost the orchestrator, on the real
//! broker.
//!
//! Prints one flat JSON object for `cargo xtask bench`. It stops both parties first, so that the
//! jobs stay queued. It submits them in batches over HTTP.
#![expect(clippy::print_stdout, reason = "the figures are its output")]

use anyhow::{Context as _, Result, ensure};
use duet_harness::{http::Api, process::resident_bytes, stack::Stack};
use duet_wire::{
    Priority,
    batch::{BatchItem, BatchRequest, MAX_BATCH_ITEMS},
};
use serde_json::json;

/// The number of queued jobs.
const JOBS: usize = 10_000;

#[tokio::main]
async fn main() -> Result<()> {
    let mut stack = Stack::start().await?;
    let wallet = stack.create_wallet("device", "personal_message").await?;
    let api = Api::new(&stack, &wallet)?;
    // This opens connections, and the parties report what they know of the wallet.
    api.sign_message("warm up").await?;
    stack.service.process()?.pause()?;
    stack.partner.process()?.pause()?;
    let process = stack.orchestrator.process()?.id().context("the orchestrator runs")?;
    let before = resident_bytes(process)?;

    let numbers: Vec<usize> = (0..JOBS).collect();
    for part in numbers.chunks(MAX_BATCH_ITEMS) {
        let mut items = Vec::with_capacity(part.len());
        for number in part {
            let payload = json!({"kind": "personal_message", "text": format!("payout number {number}")});
            let request = api.request(&payload, &format!("memory-{number}"))?;
            items.push(BatchItem { request, priority: Priority::Normal, repeat_digest: false });
        }
        let answer = api.submit_batch(&BatchRequest { items }).await?;
        ensure!(answer.status == 202, "a batch was refused: {answer:?}");
    }
    let after = resident_bytes(process)?;
    let open = api.get("/v1/jobs?state=queued&limit=200").await?;
    ensure!(open.body.pointer("/next").is_some(), "there is more than a page of queued jobs");
    stack.service.process()?.resume()?;
    stack.partner.process()?.resume()?;

    let grown = after.saturating_sub(before);
    println!(
        "{}",
        json!({
            "stack.memory.orchestrator.idle": {"bytes": before},
            "stack.memory.orchestrator.10000_queued": {"bytes": after},
            "stack.memory.orchestrator.per_10000_jobs": {"bytes": grown},
        })
    );
    ensure!(after < 200 * 1024 * 1024, "ten thousand queued jobs cost {after} bytes");
    Ok(())
}
