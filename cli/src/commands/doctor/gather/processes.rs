//! What processes say over HTTP of themselves: `/healthz` and `/readyz`.

use std::time::Duration;

use duet_wire::Problem;
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use super::moment::now_ms;
use crate::{
    commands::doctor::facts::{OrchestratorFacts, OtherFacts, Readiness, Reading},
    outgoing::Route,
};

/// The largest answer that is read, in bytes.
const MAX_ANSWER_SIZE_BYTES: usize = 64 * 1024;

/// The members of `/healthz` that are read. Earlier builds have none of them.
#[derive(Default, Deserialize)]
struct Alive {
    version: Option<String>,
    now_ms: Option<u64>,
    max_in_flight: Option<usize>,
}

/// Asks an orchestrator what it is and whether it takes jobs.
pub(super) async fn orchestrator(url: &Url, patience: Duration) -> OrchestratorFacts {
    let readiness = readiness(url, patience).await;
    let sent_ms = now_ms();
    let alive = match readiness {
        Readiness::Unreachable(_) => None,
        _ => get(url, "healthz", patience).await.ok(),
    };
    let received_ms = now_ms();
    let Alive { version, now_ms, max_in_flight } =
        alive.and_then(|(_, body)| serde_json::from_slice(&body).ok()).unwrap_or_default();
    OrchestratorFacts {
        url: url.to_string(),
        readiness,
        version,
        max_in_flight,
        clock: now_ms.map(|now_ms| Reading::taken(now_ms, sent_ms, received_ms)),
    }
}

/// Asks another process whether it takes work.
pub(super) async fn other(url: &Url, patience: Duration) -> OtherFacts {
    OtherFacts { url: url.to_string(), readiness: readiness(url, patience).await }
}

async fn readiness(url: &Url, patience: Duration) -> Readiness {
    let (status, body) = match get(url, "readyz", patience).await {
        Ok(answer) => answer,
        Err(why) => return Readiness::Unreachable(why),
    };
    if status.is_success() {
        return Readiness::Ready(serde_json::from_slice(&body).unwrap_or_default());
    }
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => Readiness::Unready { code: problem.code.to_string(), detail: problem.detail },
        Err(_) => unready(status, &body),
    }
}

/// The readiness in a problem whose code a later build has added, or in no problem at all.
fn unready(status: StatusCode, body: &[u8]) -> Readiness {
    #[derive(Deserialize)]
    struct Later {
        code: String,
        detail: String,
    }
    match serde_json::from_slice::<Later>(body) {
        Ok(Later { code, detail }) => Readiness::Unready { code, detail },
        Err(_) => {
            Readiness::Unreachable(format!("it answers {status}, and that is no orchestrator's answer"))
        }
    }
}

async fn get(url: &Url, path: &str, patience: Duration) -> Result<(StatusCode, Vec<u8>), String> {
    let client = Route::to(url, "orchestrator").and_then(|route| route.client());
    let client = client.map_err(|error| error.to_string())?;
    let client = client.timeout(patience).build().map_err(|error| error.to_string())?;
    let url = url.join(path).map_err(|error| error.to_string())?;
    let mut answer = client.get(url).send().await.map_err(|error| described(&error))?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| described(&error))? {
        if body.len() + chunk.len() > MAX_ANSWER_SIZE_BYTES {
            return Err("its answer is too large".to_owned());
        }
        body.extend_from_slice(&chunk);
    }
    Ok((answer.status(), body))
}

/// What went wrong, down to the first cause.
fn described(error: &reqwest::Error) -> String {
    let how = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "nothing accepts the connection"
    } else {
        "the connection broke"
    };
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    format!("{how}: {cause}")
}
