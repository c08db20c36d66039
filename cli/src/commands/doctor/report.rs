//! The report: one line per check, and what to do about each that is not ok.

use std::fmt;

use serde::Serialize;

use super::finding::{Check, Finding, Status};

/// The result of all checks.
#[derive(Debug)]
pub(crate) struct Report {
    checks: Vec<Check>,
}

impl Report {
    /// The report of these checks.
    pub(crate) fn new(checks: Vec<Check>) -> Self {
        Self { checks }
    }

    /// The names of checks that failed.
    pub(crate) fn failed(&self) -> Vec<&'static str> {
        self.checks.iter().filter(|check| check.status() == Status::Failed).map(|check| check.name).collect()
    }

    fn count(&self, status: Status) -> usize {
        self.checks.iter().filter(|check| check.status() == status).count()
    }
}

impl Serialize for Report {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line<'a> {
            check: &'static str,
            status: Status,
            summary: &'a str,
            findings: &'a [Finding],
        }
        #[derive(Serialize)]
        struct Document<'a> {
            healthy: bool,
            checks: Vec<Line<'a>>,
        }
        let lines = self.checks.iter().map(|check| Line {
            check: check.name,
            status: check.status(),
            summary: &check.summary,
            findings: &check.findings,
        });
        Document {
            healthy: self.count(Status::Failed) + self.count(Status::Skipped) == 0,
            checks: lines.collect(),
        }
        .serialize(serializer)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            writeln!(f, "{:<8} {:<14} {}", check.status(), check.name, check.summary)?;
            for Finding { cause, status, subject, message, remedy } in &check.findings {
                writeln!(f, "         {status}: {subject}: {message} [{}]", cause.as_str())?;
                if *status != Status::Skipped {
                    writeln!(f, "           means: {}", cause.meaning().trim())?;
                }
                writeln!(f, "           do:    {remedy}")?;
            }
        }
        write!(
            f,
            "{} ok, {} warnings, {} failed, {} skipped",
            self.count(Status::Ok),
            self.count(Status::Warning),
            self.count(Status::Failed),
            self.count(Status::Skipped)
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::doctor::finding::Cause;

    fn report() -> Report {
        let away = Finding::failed(Cause::PartyAway, "partner", "no worker answers", "Start one.");
        let check = |name, findings| Check { name, summary: "1 asked".to_owned(), findings };
        Report::new(vec![check("broker", Vec::new()), check("parties", vec![away])])
    }

    #[test]
    fn the_document_is_pinned() {
        assert_eq!(report().failed(), ["parties"]);
        assert_eq!(
            serde_json::to_value(report()).unwrap(),
            json!({"healthy": false, "checks": [
                {"check": "broker", "status": "ok", "summary": "1 asked", "findings": []},
                {"check": "parties", "status": "failed", "summary": "1 asked", "findings": [{
                    "code": "party-away", "status": "failed", "subject": "partner", "message": "no worker answers",
                    "meaning": "No worker of the party takes work: no pair with this party signs.",
                    "remedy": "Start one."}]},
            ]})
        );
    }

    #[test]
    fn a_check_that_is_not_ok_says_what_to_do() {
        assert_eq!(
            report().to_string(),
            "ok       broker         1 asked\n\
             failed   parties        1 asked\n         \
             failed: partner: no worker answers [party-away]\n           \
             means: No worker of the party takes work: no pair with this party signs.\n           \
             do:    Start one.\n\
             1 ok, 0 warnings, 1 failed, 0 skipped"
        );
    }
}
