//! What tenants have at the orchestrators: wallets, jobs and webhooks.

use std::collections::BTreeMap;

use duet_wire::Code;

use super::words::{counted, span, unasked};
use crate::commands::doctor::{
    facts::{Reason, TenantFacts, Told, Unsigned, UnusablePair, WebhookFacts, Work},
    finding::{Cause, Check, Finding},
};

/// How far back jobs without a signature are of interest, in milliseconds: an hour.
const LATELY_MS: u64 = 3_600_000;

/// How many jobs a finding names.
const NAMED_JOBS: usize = 3;

/// Runs a check over every tenant whose work can be seen.
fn each_tenant(
    name: &'static str,
    tenants: &Told<Vec<TenantFacts>>,
    count: impl Fn(&Work) -> String,
    check: impl Fn(&str, &Work) -> Vec<Finding>,
) -> Check {
    let tenants = match tenants {
        Ok(tenants) => tenants,
        Err(why) => {
            let findings = vec![unasked(name, why)];
            return Check { name, summary: "not asked".to_owned(), findings };
        }
    };
    let (mut seen, mut findings) = (Vec::new(), Vec::new());
    for TenantFacts { tenant, work } in tenants {
        match work {
            Ok(work) => {
                seen.push(format!("{tenant}: {}", count(work)));
                findings.extend(check(tenant, work));
            }
            Err(_) => findings.push(Finding::skipped(
                tenant.as_str(),
                "the tenant's work cannot be seen",
                "Mend what the check `tenants` names.",
            )),
        }
    }
    let summary = if seen.is_empty() { "not looked at".to_owned() } else { seen.join("; ") };
    Check { name, summary, findings }
}

/// Whether the work of each tenant can be seen.
pub(super) fn tenants(tenants: &Told<Vec<TenantFacts>>) -> Check {
    let name = "tenants";
    match tenants {
        Ok(tenants) => {
            let findings = tenants
                .iter()
                .filter_map(|tenant| Some(refused(&tenant.tenant, tenant.work.as_ref().err()?)));
            Check { name, summary: counted(tenants.len(), "tenant"), findings: findings.collect() }
        }
        Err(why) => Check { name, summary: "not asked".to_owned(), findings: vec![unasked("tenants", why)] },
    }
}

fn refused(tenant: &str, Reason { code, message }: &Reason) -> Finding {
    let message = format!("{code}: {message}");
    if code == Code::Unauthorized.as_str() {
        let remedy = format!(
            "Give --api-token-file the token that the orchestrator knows for {tenant}, or have the orchestrator read \
             the same DIR/tokens and restart it."
        );
        return Finding::warning(Cause::TenantRefused, tenant, message, remedy);
    }
    Finding::skipped(tenant, message, "Run the doctor again once the check `orchestrators` is ok.")
}

/// Whether every pair of the wallets can sign.
pub(super) fn wallets(tenants: &Told<Vec<TenantFacts>>) -> Check {
    let count = |work: &Work| counted(*work.wallets.as_ref().unwrap_or(&0), "wallet");
    each_tenant("wallets", tenants, count, |tenant, work| {
        if let Err(Reason { code, message }) = &work.wallets {
            let why = format!("{code}: {message}");
            return vec![Finding::skipped(tenant, why, "Mend what the check `parties` names.")];
        }
        // A party that does not answer is another check's.
        let silences =
            [Code::Deadline, Code::NoSeat, Code::Overloaded, Code::NoPairAvailable, Code::BrokerUnreachable];
        let is_silence = |code: &str| silences.iter().any(|silence| silence.as_str() == code);
        work.pairs
            .iter()
            .filter(|pair| !is_silence(&pair.reason.code))
            .map(|pair| unusable(tenant, pair))
            .collect()
    })
}

fn unusable(tenant: &str, UnusablePair { wallet, pair, reason }: &UnusablePair) -> Finding {
    let subject = format!("{tenant} {wallet} {pair}");
    let Reason { code, message } = reason;
    let message = format!("{code}: {message}");
    let initiator = pair.split('+').next().unwrap_or("the initiator");
    if code == Code::Locked.as_str() {
        let remedy = format!(
            "Find out with `duet party status` at {initiator} whose card locked it, and why. Then run `duet party \
             accept-culprit CARD` and `duet party rotate --tenant {tenant}` there."
        );
        Finding::failed(Cause::KeyLocked, subject, message, remedy)
    } else if code == Code::NeedsRotation.as_str() {
        let remedy = format!("Run `duet party rotate --tenant {tenant}` at {initiator}.");
        Finding::failed(Cause::KeyNeedsRotation, subject, message, remedy)
    } else {
        let remedy = format!("docs/errors.md#{code} has cause and remedy.");
        Finding::warning(Cause::PairUnusable, subject, message, remedy)
    }
}

/// Whether jobs wait for longer than they should, and whether some failed lately.
pub(super) fn jobs(tenants: &Told<Vec<TenantFacts>>, now_ms: u64, stuck_after_ms: u64) -> Check {
    let count = |work: &Work| {
        let more = if work.has_more { "at least " } else { "" };
        let Work { queued, running, awaiting_owner, .. } = work;
        format!("{more}{} queued, {running} running, {awaiting_owner} waiting for their owner", queued.len())
    };
    each_tenant("jobs", tenants, count, |tenant, work| {
        let waiting = work.queued.iter().filter(|job| job.at_ms.saturating_add(stuck_after_ms) < now_ms);
        let mut findings: Vec<Finding> = by_reason(waiting)
            .into_iter()
            .map(|(reason, jobs)| stuck(tenant, reason, &jobs, now_ms))
            .collect();
        let lately = work.failed.iter().filter(|job| job.at_ms.saturating_add(LATELY_MS) > now_ms);
        findings.extend(by_reason(lately).into_iter().map(|(reason, jobs)| failed(tenant, reason, &jobs)));
        findings
    })
}

/// Jobs by the code of their reason, each with the reason of the oldest.
fn by_reason<'a>(jobs: impl Iterator<Item = &'a Unsigned>) -> Vec<(Option<&'a Reason>, Vec<&'a Unsigned>)> {
    let mut groups: BTreeMap<Option<&str>, Vec<&Unsigned>> = BTreeMap::new();
    for job in jobs {
        groups.entry(job.reason.as_ref().map(|reason| reason.code.as_str())).or_default().push(job);
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    for group in &mut groups {
        group.sort_by_key(|job| job.at_ms);
    }
    groups.into_iter().map(|group| (group.first().and_then(|job| job.reason.as_ref()), group)).collect()
}

fn named(jobs: &[&Unsigned]) -> String {
    let names = jobs.iter().take(NAMED_JOBS).map(|job| job.job.as_str());
    let more = if jobs.len() > NAMED_JOBS { ", …" } else { "" };
    format!("{}{more}", names.collect::<Vec<_>>().join(", "))
}

fn stuck(tenant: &str, reason: Option<&Reason>, jobs: &[&Unsigned], now_ms: u64) -> Finding {
    let since = span(now_ms.saturating_sub(jobs.first().map_or(now_ms, |job| job.at_ms)));
    let (count, named) = (counted(jobs.len(), "job"), named(jobs));
    match reason {
        Some(Reason { code, message }) => Finding::failed(
            Cause::JobsStuck,
            tenant,
            format!("{count} ({named}), the oldest since {since}: {code}: {message}"),
            format!(
                "docs/errors.md#{code} has cause and remedy. The checks above may name the cause itself."
            ),
        ),
        None => Finding::warning(
            Cause::JobsWaiting,
            tenant,
            format!("{count} ({named}), the oldest since {since}"),
            "If the checks above are ok, more is queued than is signed: start further workers of each party, then \
             further orchestrators.",
        ),
    }
}

fn failed(tenant: &str, reason: Option<&Reason>, jobs: &[&Unsigned]) -> Finding {
    let why = reason.map_or_else(
        || "without a reason".to_owned(),
        |Reason { code, message }| format!("{code}: {message}"),
    );
    let code = reason.map_or("internal", |reason| reason.code.as_str());
    Finding::warning(
        Cause::JobsFailed,
        tenant,
        format!("{} ({}): {why}", counted(jobs.len(), "job"), named(jobs)),
        format!("Mend the cause (docs/errors.md#{code}). Then `duet job dead redrive JOB` puts a job back."),
    )
}

/// Whether receivers of webhooks accept results.
pub(super) fn webhooks(tenants: &Told<Vec<TenantFacts>>, now_ms: u64) -> Check {
    let count = |work: &Work| counted(work.webhooks.len(), "webhook");
    each_tenant("webhooks", tenants, count, |tenant, work| {
        work.webhooks.iter().filter_map(|webhook| receiver(tenant, webhook, now_ms)).collect()
    })
}

fn receiver(tenant: &str, webhook: &WebhookFacts, now_ms: u64) -> Option<Finding> {
    let WebhookFacts { id, url, failing_since_ms, disabled, last_error } = webhook;
    let subject = format!("{tenant} {id}");
    if let Some(why) = disabled {
        let remedy = format!("Mend the receiver, then `duet webhook enable {id} --tenant {tenant}`.");
        return Some(Finding::failed(Cause::WebhookDisabled, subject, format!("{url}: {why}"), remedy));
    }
    let since = span(now_ms.saturating_sub((*failing_since_ms)?));
    let error = last_error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
    let remedy = format!(
        "Mend the receiver: `duet webhook test {id} --tenant {tenant}` tries it, `duet webhook deliveries {id} \
         --tenant {tenant}` has what it answered."
    );
    let message = format!("{url} fails since {since}{error}");
    Some(Finding::warning(Cause::WebhookFailing, subject, message, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::{finding::Status, samples};

    fn tenants(work: Work) -> Told<Vec<TenantFacts>> {
        Ok(vec![TenantFacts { tenant: "demo".to_owned(), work: Ok(work) }])
    }

    fn causes(check: &Check) -> Vec<(Cause, Status)> {
        check.findings.iter().map(|finding| (finding.cause, finding.status)).collect()
    }

    fn reason(code: &str) -> Reason {
        Reason { code: code.to_owned(), message: "so".to_owned() }
    }

    fn job(name: &str, at_ms: u64, code: Option<&str>) -> Unsigned {
        Unsigned { job: name.to_owned(), at_ms, reason: code.map(reason) }
    }

    #[test]
    fn jobs_that_wait_are_grouped_by_their_reason() {
        let queued = vec![
            job("new", 990_000, Some("deadline")),
            job("a", 800_000, Some("clock-differs")),
            job("b", 700_000, Some("clock-differs")),
            job("c", 600_000, None),
        ];
        let check = jobs(&tenants(Work { queued, ..samples::work() }), 1_000_000, 60_000);
        let expected = [(Cause::JobsWaiting, Status::Warning), (Cause::JobsStuck, Status::Failed)];
        assert_eq!(causes(&check), expected);
        let message = &check.findings.last().unwrap().message;
        assert_eq!(message, "2 jobs (b, a), the oldest since 5 min: clock-differs: so");
        assert!(check.summary.starts_with("demo: 4 queued"));
    }

    #[test]
    fn jobs_that_failed_lately_are_told() {
        let failed = vec![job("a", 5_000_000, Some("locked")), job("b", 1, Some("locked"))];
        let check = jobs(&tenants(Work { failed, ..samples::work() }), 6_000_000, 60_000);
        assert_eq!(causes(&check), [(Cause::JobsFailed, Status::Warning)]);
        assert_eq!(check.findings.first().unwrap().message, "1 job (a): locked: so");
    }

    #[test]
    fn a_pair_says_why_it_cannot_sign() {
        let look = |code: &str| {
            let pair = UnusablePair {
                wallet: "w".to_owned(),
                pair: "service+partner".to_owned(),
                reason: reason(code),
            };
            causes(&wallets(&tenants(Work { pairs: vec![pair], ..samples::work() })))
        };
        assert_eq!(look("locked"), [(Cause::KeyLocked, Status::Failed)]);
        assert_eq!(look("needs-rotation"), [(Cause::KeyNeedsRotation, Status::Failed)]);
        assert_eq!(look("not-enrolled"), [(Cause::PairUnusable, Status::Warning)]);
        // The party's own check names it.
        assert_eq!(look("deadline"), []);
        let untold = Work { wallets: Err(reason("no-pair-available")), ..samples::work() };
        assert_eq!(causes(&wallets(&tenants(untold))), [(Cause::NotLookedAt, Status::Skipped)]);
    }

    #[test]
    fn receivers_fail_and_are_disabled() {
        let webhook = WebhookFacts {
            id: "01W".to_owned(),
            url: "https://r".to_owned(),
            failing_since_ms: None,
            disabled: None,
            last_error: Some("status 500".to_owned()),
        };
        let look = |webhook: WebhookFacts| {
            causes(&webhooks(&tenants(Work { webhooks: vec![webhook], ..samples::work() }), 600_000))
        };
        assert_eq!(look(webhook.clone()), []);
        let failing = WebhookFacts { failing_since_ms: Some(1), ..webhook.clone() };
        assert_eq!(look(failing.clone()), [(Cause::WebhookFailing, Status::Warning)]);
        let disabled = WebhookFacts { disabled: Some("too long".to_owned()), ..failing };
        assert_eq!(look(disabled), [(Cause::WebhookDisabled, Status::Failed)]);
    }

    #[test]
    fn a_tenant_that_cannot_be_seen_is_no_healthy_one() {
        assert_eq!(webhooks(&Err(samples::unasked()), 1).status(), Status::Skipped);
        let refused = |code| Ok(vec![TenantFacts { tenant: "demo".to_owned(), work: Err(reason(code)) }]);
        assert_eq!(
            causes(&super::tenants(&refused("unauthorized"))),
            [(Cause::TenantRefused, Status::Warning)]
        );
        assert_eq!(super::tenants(&refused("broker-unreachable")).status(), Status::Skipped);
        assert_eq!(wallets(&refused("unauthorized")).status(), Status::Skipped);
    }
}
