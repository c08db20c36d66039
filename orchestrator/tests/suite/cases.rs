//! Submits the inputs of `tests/cases` over HTTP, one by one and in a batch.

use std::fs;

use duet_harness::programs::repository;
use duet_orchestrator::api::{BatchAnswer, ItemStatus, JobView};
use serde_json::{Value, json};

use crate::rig::Rig;

const DEVICE: &[&str] = &["device+service"];

fn cases(name: &str) -> Vec<Value> {
    let file = repository().join("tests/cases").join(name);
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// A payload and its expected outcome: the signed digest where it is known, or what the refusal
/// names.
struct Case {
    name: String,
    payload: Value,
    digest: Option<String>,
    refused: Option<Vec<String>>,
}

fn transactions(way: &str) -> impl Iterator<Item = Case> {
    cases("transactions.json")
        .into_iter()
        .filter(move |case| case["via"].as_array().unwrap().contains(&way.into()))
        .map(|case| {
            let mut payload = json!({ "kind": "transaction", "chainId": 1, "nonce": 0, "gas": 100_000 });
            if case["request"].get("gasPrice").is_none() {
                payload["maxFeePerGas"] = 2.into();
                payload["maxPriorityFeePerGas"] = 1.into();
            }
            payload.as_object_mut().unwrap().extend(case["request"].as_object().unwrap().clone());
            let names =
                |members: &Vec<Value>| members.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
            Case {
                name: case["name"].to_string(),
                payload,
                digest: None,
                refused: case["refused"].as_array().map(names),
            }
        })
}

fn documents() -> impl Iterator<Item = Case> {
    cases("typed-data.json").into_iter().flat_map(|case| {
        let payload = |undeclared: &str| {
            let mut payload = case["document"].clone();
            payload["kind"] = "typed_data".into();
            payload["undeclared"] = undeclared.into();
            payload
        };
        let text = |member: &str| case[member].as_str().map(str::to_owned);
        let as_given = Case {
            name: case["name"].to_string(),
            payload: payload("refuse"),
            digest: text("digest"),
            refused: text("refused_at").map(|path| vec![path]),
        };
        let dropped = text("digest_when_dropped").map(|digest| Case {
            name: format!("{}, dropped", case["name"]),
            payload: payload("drop"),
            digest: Some(digest),
            refused: None,
        });
        [Some(as_given), dropped].into_iter().flatten().collect::<Vec<_>>()
    })
}

impl Case {
    /// A request whose transaction differs from that of every other case.
    fn request(&self, rig: &Rig, number: usize) -> Value {
        let mut request = rig.request(&format!("case-{number}"), DEVICE);
        request["payload"] = self.payload.clone();
        if request["payload"]["kind"] == "transaction" {
            request["payload"]["nonce"] = number.into();
        }
        request
    }

    fn check(&self, outcome: Result<String, String>) {
        match (outcome, &self.refused) {
            (Ok(digest), None) => {
                let wanted = self.digest.as_deref().unwrap_or(&digest);
                assert_eq!(digest, wanted, "{}", self.name);
            }
            (Err(problem), Some(names)) => {
                assert!(names.iter().all(|name| problem.contains(name)), "{}: {problem}", self.name);
            }
            (outcome, _) => panic!("{}: {outcome:?}", self.name),
        }
    }
}

fn digest(digest: impl AsRef<[u8]>) -> String {
    format!("0x{}", hex::encode(digest))
}

#[tokio::test]
async fn inputs_of_the_field__should_have_their_wanted_outcome_over_http() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    for (number, case) in transactions("http").chain(documents()).enumerate() {
        let response = rig.submit(&orchestrator.url, &case.request(&rig, number)).await;
        let status = response.status();
        let body = response.text().await.unwrap();
        case.check(if status.is_client_error() {
            Err(body)
        } else {
            assert!(status.is_success(), "{}: {body}", case.name);
            Ok(digest(serde_json::from_str::<JobView>(&body).unwrap().digest))
        });
    }
    orchestrator.stop().await;
}

#[tokio::test]
async fn inputs_of_the_field__should_have_their_wanted_outcome_in_a_batch() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let cases: Vec<Case> = transactions("batch").chain(documents()).collect();
    let requests: Vec<Value> =
        cases.iter().enumerate().map(|(number, case)| case.request(&rig, number)).collect();
    let response = rig.submit_batch(&orchestrator.url, &requests).await;
    let answer: BatchAnswer = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(answer.items.len(), cases.len());
    for (case, item) in cases.iter().zip(&answer.items) {
        case.check(match (&item.problem, item.status) {
            (Some(problem), ItemStatus::Refused) => Err(serde_json::to_string(problem).unwrap()),
            // The digest of its job, as the orchestrator shows it.
            _ => {
                let job = item.job.unwrap();
                let shown = rig.get(&orchestrator.url, &format!("/v1/jobs/{job}")).await;
                Ok(digest(shown.json::<JobView>().await.unwrap().digest))
            }
        });
    }
    orchestrator.stop().await;
}
