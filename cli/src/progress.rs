//! Shows the progress of long work on standard error, as named steps and bars.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::output::Output;

/// How long one step of a command took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct StepTiming {
    /// The step's stable name.
    pub(crate) name: &'static str,
    /// How long it took, in milliseconds.
    pub(crate) millis: u64,
}

/// The named steps of one command. They are shown as they begin, and reported with their timings.
#[derive(Debug)]
pub(crate) struct Steps {
    spinner: ProgressBar,
    current: Option<(&'static str, &'static str, Instant)>,
    finished: Vec<StepTiming>,
}

impl Steps {
    /// No step has begun.
    pub(crate) fn new(output: Output) -> Self {
        let spinner =
            if output.draws_progress() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        spinner.enable_steady_tick(Duration::from_millis(100));
        Self { spinner, current: None, finished: Vec::new() }
    }

    /// Ends the current step and begins the next. `name` is for programs, `sentence` for people.
    pub(crate) fn begin(&mut self, name: &'static str, sentence: &'static str) {
        self.end();
        self.spinner.set_message(sentence);
        self.current = Some((name, sentence, Instant::now()));
    }

    /// Begins a step, unless it is the current one.
    pub(crate) fn continue_or_begin(&mut self, name: &'static str, sentence: &'static str) {
        if self.current.is_none_or(|(current, ..)| current != name) {
            self.begin(name, sentence);
        }
    }

    fn end(&mut self) {
        if let Some((name, sentence, since)) = self.current.take() {
            let millis = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.spinner.println(format!("  {sentence}: {millis} ms"));
            // A step that the command left and resumed counts once.
            match self.finished.iter_mut().find(|step| step.name == name) {
                Some(step) => step.millis = step.millis.saturating_add(millis),
                None => self.finished.push(StepTiming { name, millis }),
            }
        }
    }

    /// Ends the current step, and returns the timings of all steps.
    pub(crate) fn finish(mut self) -> Vec<StepTiming> {
        self.end();
        self.spinner.finish_and_clear();
        self.finished
    }
}

/// A bar over `total` units of work of about the same size.
pub(crate) fn bar(output: Output, total: u64, sentence: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(
        Some(total),
        if output.draws_progress() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() },
    );
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} [{bar:32}] {pos}/{len} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(sentence);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
