//! Tells what happens, and how long it takes.
#![expect(clippy::print_stdout, reason = "it narrates on stdout")]

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// A stage that ended before this program was started.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    name: String,
    took: Duration,
}

impl std::str::FromStr for Stage {
    type Err = String;

    /// Reads `NAME=SECONDS`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, seconds) = text.split_once('=').ok_or("no =")?;
        let seconds = seconds.parse().map_err(|error| format!("no seconds: {error}"))?;
        let took = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
        Ok(Self { name: name.to_owned(), took })
    }
}

/// Numbers the steps, and prints how long each took.
#[derive(Debug)]
pub(crate) struct Narrator {
    step: u32,
    started: Instant,
    first_signature: Option<Duration>,
}

impl Narrator {
    pub(crate) fn new() -> Self {
        Self { step: 0, started: Instant::now(), first_signature: None }
    }

    /// Announces a step, runs it, and prints how long it took.
    pub(crate) async fn step<T>(&mut self, title: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.step += 1;
        println!("\n[{}] {title}", self.step);
        let started = Instant::now();
        let done = work.await.with_context(|| format!("step {} failed ({title})", self.step))?;
        detail("done in", &format!("{:.2} s", started.elapsed().as_secs_f64()));
        Ok(done)
    }

    /// Notes that the first signature is made.
    pub(crate) fn signed(&mut self) {
        self.first_signature.get_or_insert_with(|| self.started.elapsed());
    }

    /// Prints the seconds of each stage, of which `before` ended before this program was started.
    pub(crate) fn report(&self, before: &[Stage]) {
        println!("\nSeconds of each stage:");
        let mut passed = Duration::ZERO;
        for Stage { name, took } in before {
            seconds(name, *took);
            passed += *took;
        }
        if let Some(first) = self.first_signature {
            seconds("running to the first signature", first);
            seconds("= the first signature after", passed + first);
        }
        seconds("everything", passed + self.started.elapsed());
    }
}

fn seconds(name: &str, took: Duration) {
    println!("    {name:<32} {:>6.1}", took.as_secs_f64());
}

/// Prints one fact about the last step.
pub(crate) fn detail(name: &str, value: &str) {
    println!("    {name:<22} {value}");
}

/// Prints the timings that a command reported of its steps.
pub(crate) fn details_of_steps(document: &Value) {
    for step in document.get("steps").and_then(Value::as_array).into_iter().flatten() {
        let name = step.get("name").and_then(Value::as_str).unwrap_or_default();
        detail(&format!("- {name}"), &format!("{} ms", member(step, "millis")));
    }
}

/// A member as JSON, or nothing.
pub(crate) fn member(document: &Value, name: &str) -> String {
    document.get(name).map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::Stage;

    #[test]
    fn stages_are_read_from_arguments() {
        let stage = "compiling the tool=12.5".parse::<Stage>();
        assert!(
            stage.is_ok_and(|stage| stage.name == "compiling the tool" && stage.took.as_millis() == 12_500)
        );
        for wrong in ["compiling", "compiling=", "compiling=-1"] {
            assert!(wrong.parse::<Stage>().is_err(), "{wrong}");
        }
    }
}
