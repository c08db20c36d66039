//! Refusals as `application/problem+json` (RFC 9457).

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use core::time::Duration;
use duet_queue::store::StoreFailure;
use duet_wire::{
    error::{Code, Problem, Refusal},
    ids::JobId,
};
use serde::Serialize;

use crate::jobs::StoreError;

/// The media type of a problem.
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Why a request failed.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    problem: Box<Problem>,
    retry_after: Option<Duration>,
    job: Option<JobId>,
}

impl ApiError {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Problem::new(code, detail).into()
    }

    /// Adds the job that the request collides with.
    pub(crate) const fn with_job(mut self, job: JobId) -> Self {
        self.job = Some(job);
        self
    }

    /// Adds when to try again.
    pub(crate) const fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    /// The problem, and when to try again.
    pub(crate) fn into_parts(self) -> (Problem, Option<Duration>) {
        (*self.problem, self.retry_after)
    }

    /// The body of the answer.
    pub(super) fn body(&self) -> Vec<u8> {
        serde_json::to_vec(&Body { problem: &self.problem, job: self.job }).unwrap_or_default()
    }

    /// The refusal of a request that names a stored job and has no version of its own.
    pub(super) fn about_job(refusal: Refusal) -> Self {
        match refusal.code {
            Code::UnsupportedVersion => StoreError(StoreFailure::Newer(refusal.message)).into(),
            _ => refusal.into(),
        }
    }

    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("there is no such {what}"))
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        // An unreachable dependency may be back soon. A lack of room lasts a little longer.
        let retry_after = match problem.status {
            429 => Some(Duration::from_secs(5)),
            503 => Some(Duration::from_secs(1)),
            _ => None,
        };
        Self { problem: Box::new(problem), retry_after, job: None }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Problem::from(error).into()
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Problem::from(refusal).into()
    }
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(flatten)]
    problem: &'a Problem,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<JobId>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, self.body()).into_response();
        // The layer that counts answers reads the code.
        response.extensions_mut().insert(self.problem.code);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        if let Some(pause) = self.retry_after {
            // In whole seconds, rounded up and never 0, which would invite a storm of requests.
            let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(location) = self.job.and_then(|job| HeaderValue::try_from(format!("/v1/jobs/{job}")).ok())
        {
            headers.insert(header::LOCATION, location);
        }
        response
    }
}
