//! Records of later releases: shown, kept, and left to those who understand them.

use duet_bus::{
    Address, Bus, Role,
    kv::{self, Bucket, Entry, Key},
    streams::StorageSettings,
};
use duet_orchestrator::api::JobPage;
use duet_wire::{Code, JobId, JobRecord, JobStateName, SigningRequest};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::rig::{DEADLINE, Rig, TOKEN, now_ms, problem};

const BACKEND: &[&str] = &["service+partner"];
const DEVICE: &[&str] = &["device+service"];

/// The broker as another orchestrator sees it, whose records are any JSON.
struct Later {
    bus: Bus,
    jobs: Bucket<Value>,
    sessions: Bucket<Value>,
}

impl Later {
    async fn new(rig: &Rig) -> Self {
        let bus = rig.broker.connect(Role::Orchestrator).await.unwrap();
        let settings = StorageSettings::default();
        let jobs = bus.ensure_bucket(kv::JOBS, &settings).await.unwrap();
        let sessions = bus.ensure_bucket(kv::SESSIONS, &settings).await.unwrap();
        Self { bus, jobs, sessions }
    }

    /// Stores and announces the record that a submission of `request` would make, after `edit`.
    async fn submit(&self, rig: &Rig, request: &Value, edit: impl FnOnce(&mut Value)) -> (Key, JobId) {
        let signed = rig.signed(request);
        let record =
            JobRecord::new(signed.clone(), &SigningRequest::from_json(&signed.body).unwrap(), now_ms());
        let mut document = serde_json::to_value(&record).unwrap();
        edit(&mut document);
        let tenant = "demo".parse().unwrap();
        let key = Key::from((&tenant, record.id));
        self.jobs.create(&key, &document).await.unwrap();
        let address = Address::Job(tenant);
        self.bus.publish_stored(&address, record.id.to_string(), None, DEADLINE).await.unwrap();
        (key, record.id)
    }

    async fn job(&self, key: &Key) -> Entry<Value> {
        self.jobs.get(key).await.unwrap().unwrap()
    }

    /// The job's record, once its end was published.
    async fn told(&self, key: &Key) -> Value {
        let told = async {
            loop {
                let record = self.job(key).await.value;
                if record["end_published_at_ms"].is_number() {
                    return record;
                }
                tokio::time::sleep(core::time::Duration::from_millis(10)).await;
            }
        };
        timeout(DEADLINE, told).await.unwrap()
    }
}

async fn shown(rig: &Rig, url: &str, job: JobId) -> Value {
    let answer = rig.get(url, &format!("/v1/jobs/{job}")).await;
    let (status, body) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(status, StatusCode::OK, "{body}");
    serde_json::from_str(&body).unwrap()
}

async fn listed(rig: &Rig, url: &str) -> Vec<(JobId, String)> {
    let page: JobPage = rig.get(url, "/v1/jobs").await.json().await.unwrap();
    page.jobs.into_iter().map(|job| (job.id, job.state.to_string())).collect()
}

/// Waits until the orchestrator has worked through what was announced before.
async fn a_job_is_signed(rig: &Rig, url: &str, key: &str) -> JobId {
    let job = rig.accepted(url, &rig.request(key, BACKEND)).await;
    assert_eq!(rig.settled(url, &job).await.state, JobStateName::Signed);
    job.id
}

#[tokio::test]
async fn states_and_codes_of_a_later_release__should_be_shown_and_waited_on() {
    let rig = Rig::with(|config| config.queue.max_in_flight = 1).await;
    let orchestrator = rig.start().await;
    let url = orchestrator.url.as_str();
    let later = Later::new(&rig).await;
    // Flat, and in an object of its own.
    let (flat, flat_id) = later
        .submit(&rig, &rig.request("flat", BACKEND), |record| {
            record["state"] = json!("paused");
            record["until"] = json!(5);
        })
        .await;
    let (own, own_id) = later
        .submit(&rig, &rig.request("own", BACKEND), |record| {
            record["state"] = json!({ "name": "paused", "until": 5 });
        })
        .await;
    let (failed, failed_id) = later
        .submit(&rig, &rig.request("failed", BACKEND), |record| {
            record["state"] = json!("failed");
            record["code"] = json!("no-such-code-yet");
            record["message"] = json!("It says why.");
            record["end_published_at_ms"] = json!(1);
        })
        .await;
    let before = [later.job(&flat).await, later.job(&own).await, later.job(&failed).await];
    let healthy = a_job_is_signed(&rig, url, "healthy").await;

    for id in [flat_id, own_id] {
        assert_eq!(shown(&rig, url, id).await["state"], "paused");
        let cancel = format!("{url}/v1/jobs/{id}/cancel");
        let answer = rig.http.post(cancel).bearer_auth(TOKEN).timeout(DEADLINE).send().await.unwrap();
        let refused = problem(answer, StatusCode::CONFLICT, Code::Conflict).await;
        assert!(refused["detail"].as_str().unwrap().contains("paused"), "{refused}");
    }
    let view = shown(&rig, url, failed_id).await;
    assert_eq!((&view["state"], &view["failure"]["code"]), (&json!("failed"), &json!("no-such-code-yet")));
    let mut listed = listed(&rig, url).await;
    listed.sort_unstable();
    let mut expected = [(flat_id, "paused"), (own_id, "paused"), (failed_id, "failed"), (healthy, "signed")]
        .map(|(id, state)| (id, state.to_owned()));
    expected.sort_unstable();
    assert_eq!(listed, expected);
    // The same requests again are the same jobs.
    let answer = rig.submit(url, &rig.request("flat", BACKEND)).await;
    assert!(matches!(answer.status(), StatusCode::OK | StatusCode::CONFLICT), "{answer:?}");
    assert_eq!([later.job(&flat).await, later.job(&own).await, later.job(&failed).await], before);
}

#[tokio::test]
async fn a_record_for_later_readers__should_be_refused_and_left_alone() {
    let rig = Rig::with(|config| config.queue.max_in_flight = 1).await;
    let orchestrator = rig.start().await;
    let url = orchestrator.url.as_str();
    let later = Later::new(&rig).await;
    let request = rig.request("later", BACKEND);
    let (key, id) = later
        .submit(&rig, &request, |record| {
            record["schema"] = json!(99);
            record["min_reader"] = json!(99);
        })
        .await;
    let before = later.job(&key).await;
    let healthy = a_job_is_signed(&rig, url, "healthy").await;
    let answer = rig.get(url, &format!("/v1/jobs/{id}")).await;
    assert!(answer.headers().contains_key("retry-after"));
    problem(answer, StatusCode::SERVICE_UNAVAILABLE, Code::UnsupportedVersion).await;
    let cancel = format!("{url}/v1/jobs/{id}/cancel");
    for answer in [
        rig.http.post(cancel).bearer_auth(TOKEN).timeout(DEADLINE).send().await.unwrap(),
        rig.submit(url, &request).await,
    ] {
        problem(answer, StatusCode::SERVICE_UNAVAILABLE, Code::UnsupportedVersion).await;
    }
    assert_eq!(listed(&rig, url).await, [(healthy, "signed".to_owned())]);
    assert_eq!(later.job(&key).await, before);
}

#[tokio::test]
async fn a_request_of_a_later_version__should_be_left_alone() {
    let rig = Rig::with(|config| config.queue.max_in_flight = 1).await;
    let orchestrator = rig.start().await;
    let url = orchestrator.url.as_str();
    let later = Later::new(&rig).await;
    let (key, id) = later
        .submit(&rig, &rig.request("later", BACKEND), |record| {
            record["request"]["body"] = json!("{\"version\": 99}");
        })
        .await;
    let before = later.job(&key).await;
    a_job_is_signed(&rig, url, "healthy").await;
    let answer = rig.get(url, &format!("/v1/jobs/{id}")).await;
    problem(answer, StatusCode::SERVICE_UNAVAILABLE, Code::UnsupportedVersion).await;
    assert_eq!(later.job(&key).await, before);
}

/// `value` with one more member in every object.
fn extended(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| (name.clone(), extended(value)));
            let later = ("of_a_later_release".to_owned(), json!({ "since": 3 }));
            Value::Object(members.chain([later]).collect())
        }
        Value::Array(elements) => Value::Array(elements.iter().map(extended).collect()),
        other => other.clone(),
    }
}

#[tokio::test]
async fn members_of_a_later_release__should_be_kept_while_a_job_is_signed() {
    let mut rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let url = orchestrator.url.as_str();
    let later = Later::new(&rig).await;
    let marked = |value: &Value| value["of_a_later_release"] == json!({ "since": 3 });
    for (name, in_member) in [("flat", false), ("member", true)] {
        let (key, id) = later
            .submit(&rig, &rig.request(name, BACKEND), |record| {
                if in_member {
                    record["state"] = json!({ "name": "queued" });
                }
                *record = extended(record);
                record["schema"] = json!(2);
                record["min_reader"] = json!(2);
            })
            .await;
        let record = later.told(&key).await;
        assert!(marked(&record) && marked(&record["request"]), "{record}");
        assert_eq!((&record["schema"], &record["min_reader"]), (&json!(2), &json!(2)));
        let state = if in_member { &record["state"]["name"] } else { &record["state"] };
        assert_eq!(state, "signed");
        assert_eq!(shown(&rig, url, id).await["state"], "signed");
    }

    // A record that another release extends while the job waits, and its session's.
    rig.script(&[crate::rig::Act::Hold]);
    let job = rig.accepted(url, &rig.request("held", BACKEND)).await;
    let manifest = rig.held.recv().await.unwrap();
    let key = Key::from((&job.tenant, job.id));
    let session = Key::from(manifest.session);
    loop {
        let Entry { value, revision } = later.job(&key).await;
        if later.jobs.update(&key, &extended(&value), revision).await.is_ok() {
            break;
        }
    }
    let Entry { value, revision } = later.sessions.get(&session).await.unwrap().unwrap();
    later.sessions.update(&session, &extended(&value), revision).await.unwrap();
    rig.release(&manifest).await;
    let record = later.told(&key).await;
    let attempt = &record["attempts"][0];
    assert!(marked(&record) && marked(attempt), "{record}");
    assert_eq!((&record["state"], &attempt["outcome"]["outcome"]), (&json!("signed"), &json!("signed")));
    let ended = async {
        loop {
            let record = later.sessions.get(&session).await.unwrap().unwrap().value;
            if record["state"] == "signed" {
                return record;
            }
            tokio::time::sleep(core::time::Duration::from_millis(10)).await;
        }
    };
    let record = timeout(DEADLINE, ended).await.unwrap();
    assert!(marked(&record) && marked(&record["initiator"]), "{record}");
}

#[tokio::test]
async fn a_revocation__should_have_no_other_members() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let url = orchestrator.url.as_str();
    let job = rig.accepted(url, &rig.request("waits", DEVICE)).await;
    let proof = rig.revocation(url, &job, &rig.world.requester.clone()).await;
    let body = extended(&serde_json::to_value(proof).unwrap());
    let path = format!("{url}/v1/jobs/{}/cancel", job.id);
    let answer = rig.http.post(path).bearer_auth(TOKEN).timeout(DEADLINE).json(&body).send().await.unwrap();
    problem(answer, StatusCode::BAD_REQUEST, Code::MalformedJson).await;
}
