//! What tenants have at the orchestrators, with the tenants' own tokens.

use std::{collections::BTreeMap, time::Duration};

use duet_orchestrator::api::{JobView, WalletView};
use duet_protocol::ids::WalletId;
use duet_wire::{JobStateName, Refusal, TenantId, job::AttemptOutcome};
use futures::future::join_all;

use crate::{
    api::ApiClient,
    commands::doctor::{
        command::DoctorCommand,
        facts::{
            OrchestratorFacts, Readiness, Reason, TenantFacts, Told, Unasked, Unsigned, UnusablePair,
            WebhookFacts, Work,
        },
    },
    config::ApiOptions,
    error::CliError,
};

/// How many jobs one page has at most.
const PAGE: u16 = 200;

/// How many pages of queued jobs are read.
const MAX_PAGES: usize = 10;

/// How many wallets of jobs are asked for beyond the first page of wallets.
const MAX_FURTHER_WALLETS: usize = 16;

/// The time for all questions about one tenant, in patiences.
const TENANT_PATIENCES: u32 = 4;

/// Looks at every tenant whose token is given, through the first orchestrator that is ready.
pub(super) async fn look(
    command: &DoctorCommand,
    orchestrators: &[OrchestratorFacts],
    patience: Duration,
) -> Told<Vec<TenantFacts>> {
    let tenants = named(command)?;
    let is_ready = |facts: &&OrchestratorFacts| matches!(facts.readiness, Readiness::Ready { .. });
    let Some(ready) = orchestrators.iter().find(is_ready) else {
        return Err(Unasked {
            why: "no orchestrator is ready to answer".to_owned(),
            remedy: "Mend what the check `orchestrators` names.".to_owned(),
        });
    };
    let options = ApiOptions { api_url: ready.url.clone(), ..command.api.clone() };
    let looks = tenants.iter().map(|tenant| async {
        let work = match ApiClient::new(&options, &command.credentials, tenant, patience * TENANT_PATIENCES) {
            Ok(api) => work(&api).await,
            Err(error) => Err(error),
        };
        TenantFacts { tenant: tenant.to_string(), work: work.map_err(|error| reason_of(&error)) }
    });
    Ok(join_all(looks).await)
}

/// The tenants to look at: the named one, or all with a token in the credentials directory.
fn named(command: &DoctorCommand) -> Told<Vec<TenantId>> {
    if let Some(tenant) = &command.tenant {
        return Ok(vec![tenant.clone()]);
    }
    let unasked = |why: &str| Unasked {
        why: why.to_owned(),
        remedy: "Give --credentials DIR with tokens/TENANT, or --tenant NAME and --api-token-file FILE."
            .to_owned(),
    };
    let Some(directory) = &command.credentials.credentials else {
        return Err(unasked("no tenant is named"));
    };
    let entries =
        std::fs::read_dir(directory.join("tokens")).map_err(|_| unasked("there is no tenant's token"))?;
    // Any other file there, for example an editor's backup, is no tenant's.
    let mut tenants: Vec<TenantId> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    tenants.sort();
    if tenants.is_empty() { Err(unasked("there is no tenant's token")) } else { Ok(tenants) }
}

fn reason_of(error: &CliError) -> Reason {
    Reason { code: error.code().as_str().to_owned(), message: error.to_string() }
}

fn refusal(Refusal { code, message }: &Refusal) -> Reason {
    Reason { code: code.to_string(), message: message.clone() }
}

async fn work(api: &ApiClient) -> Result<Work, CliError> {
    let (queued, has_more) = all(api, JobStateName::Queued).await?;
    let (running, _) = all(api, JobStateName::Running).await?;
    let (awaiting, _) = all(api, JobStateName::AwaitingOwner).await?;
    let mut ended = api.jobs(Some(JobStateName::Failed), None, PAGE).await?.jobs;
    ended.extend(api.jobs(Some(JobStateName::Expired), None, PAGE).await?.jobs);
    let mut wallets: BTreeMap<WalletId, WalletView> = BTreeMap::new();
    let first = api.first_wallets().await;
    let is_told = first.as_ref().map(|_| ()).map_err(reason_of);
    if let Ok(first) = first {
        wallets.extend(first.into_iter().map(|wallet| (wallet.id, wallet)));
        further_wallets(api, queued.iter().chain(&ended), &mut wallets).await;
    }
    let pairs: Vec<UnusablePair> = wallets.values().flat_map(unusable).collect();
    Ok(Work {
        queued: queued
            .iter()
            .map(|job| Unsigned {
                job: job.id.to_string(),
                at_ms: job.put_back_at_ms.unwrap_or(job.created_at_ms),
                // An orchestrator of the version before says no reason.
                reason: waits_for(job).or_else(|| last_failure(job)).or_else(|| {
                    let wallet = job.wallet.to_string();
                    pairs.iter().find(|pair| pair.wallet == wallet).map(|pair| pair.reason.clone())
                }),
            })
            .collect(),
        has_more,
        running: running.len(),
        awaiting_owner: awaiting.len(),
        failed: ended
            .iter()
            .map(|job| Unsigned {
                job: job.id.to_string(),
                at_ms: job.settled_at_ms.unwrap_or(job.updated_at_ms),
                reason: last_failure(job).or_else(|| job.ending.failure.as_ref().map(refusal)),
            })
            .collect(),
        wallets: is_told.map(|()| wallets.len()),
        pairs,
        webhooks: webhooks(api).await?,
    })
}

/// Jobs in a state, and whether there are more than were read.
async fn all(api: &ApiClient, state: JobStateName) -> Result<(Vec<JobView>, bool), CliError> {
    let (mut jobs, mut after) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let page = api.jobs(Some(state), after, PAGE).await?;
        jobs.extend(page.jobs);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok((jobs, after.is_some()))
}

/// Adds the wallets of jobs that are not known yet.
async fn further_wallets(
    api: &ApiClient,
    jobs: impl Iterator<Item = &JobView>,
    known: &mut BTreeMap<WalletId, WalletView>,
) {
    let mut asked = 0;
    for job in jobs {
        if asked == MAX_FURTHER_WALLETS {
            break;
        }
        if !known.contains_key(&job.wallet) {
            asked += 1;
            // A wallet that no party knows any more has no pairs to look at.
            if let Ok(wallet) = api.wallet(job.wallet).await {
                known.insert(wallet.id, wallet);
            }
        }
    }
}

fn unusable(wallet: &WalletView) -> Vec<UnusablePair> {
    let pairs = wallet.pairs.iter().filter(|pair| !pair.usable);
    let unusable = pairs.filter_map(|pair| {
        let reason = refusal(pair.reason.as_ref()?);
        Some(UnusablePair { wallet: wallet.id.to_string(), pair: pair.pair.to_string(), reason })
    });
    unusable.collect()
}

/// Why the job waits.
fn waits_for(job: &JobView) -> Option<Reason> {
    let waiting = job.waiting.as_ref()?;
    Some(Reason { code: waiting.code.to_string(), message: waiting.message.clone() })
}

/// Why the last attempt failed.
fn last_failure(job: &JobView) -> Option<Reason> {
    match job.history.last()?.outcome.as_ref()? {
        AttemptOutcome::Failed { code, message, .. } => {
            Some(Reason { code: code.to_string(), message: message.clone() })
        }
        AttemptOutcome::Signed | AttemptOutcome::Expired | AttemptOutcome::Unknown => None,
    }
}

async fn webhooks(api: &ApiClient) -> Result<Vec<WebhookFacts>, CliError> {
    let mut facts = Vec::new();
    for webhook in api.webhooks().await?.webhooks {
        let mut last_error = None;
        if webhook.failing_since_ms.is_some() {
            let log = api.webhook_deliveries(webhook.id, 1).await?;
            last_error = log.deliveries.into_iter().next().and_then(|delivery| delivery.error);
        }
        facts.push(WebhookFacts {
            id: webhook.id.to_string(),
            url: webhook.url,
            failing_since_ms: webhook.failing_since_ms,
            disabled: webhook.disabled.map(|disabled| disabled.reason),
            last_error,
        });
    }
    Ok(facts)
}
