//! Sources of earlier versions, from the repository's own history.

use std::path::Path;

use anyhow::Result;

use crate::run::{command, output, root, visibly};

/// Checks out the commit at `source`, in a clone that shares this repository's objects. What was
/// changed there is lost.
pub(crate) fn check_out(source: &Path, commit: &str) -> Result<()> {
    let resolved = output(command("git").args(["rev-parse", "--verify", &format!("{commit}^{{commit}}")]))?;
    if !source.join(".git").exists() {
        visibly(command("git").args(["clone", "--quiet", "--shared", "--no-checkout", "."]).arg(source))?;
    }
    visibly(command("git").arg("-C").arg(source).args([
        "checkout",
        "--quiet",
        "--force",
        "--detach",
        resolved.trim(),
    ]))?;
    // The harness looks for the broker in its own tree.
    let (tools, linked) = (root().join(".tools"), source.join(".tools"));
    if tools.exists() && !linked.exists() {
        std::os::unix::fs::symlink(tools, linked)?;
    }
    Ok(())
}
