//! The answers of paths to methods that they do not support.

use duet_wire::Code;
use reqwest::{Method, StatusCode};

use crate::rig::{DEADLINE, Rig, TOKEN, problem};

#[tokio::test]
async fn a_wrong_method__should_be_refused_with_those_that_are_right() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let document: serde_json::Value = rig.get(&running.url, "/v1/openapi.json").await.json().await.unwrap();
    let paths = document["paths"].as_object().unwrap();
    let mut refused = 0;
    for (path, methods) in paths {
        let url = format!("{}{}", running.url, path.replace("{id}", "0"));
        let taken: Vec<String> = methods
            .as_object()
            .unwrap()
            .keys()
            .map(|method| method.to_uppercase())
            .filter(|method| Method::from_bytes(method.as_bytes()).is_ok() && method != "PARAMETERS")
            .collect();
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS]
        {
            if taken.iter().any(|taken| *taken == method.as_str()) {
                continue;
            }
            let request = rig.http.request(method.clone(), &url).bearer_auth(TOKEN).timeout(DEADLINE);
            let answer = request.send().await.unwrap();
            let allow = answer.headers().get("allow").map(|allow| allow.to_str().unwrap().to_owned());
            let allow = allow.unwrap_or_else(|| panic!("{method} {path}: no Allow"));
            let allowed: Vec<&str> = allow.split(',').map(str::trim).collect();
            problem(answer, StatusCode::METHOD_NOT_ALLOWED, Code::MethodNotAllowed).await;
            for taken in &taken {
                assert!(allowed.contains(&taken.as_str()), "{method} {path}: {taken} is not in {allow}");
            }
            // HEAD comes with GET, and no other method exists.
            let head = usize::from(taken.iter().any(|taken| taken == "GET"));
            assert_eq!(allowed.len(), taken.len() + head, "{method} {path}: {allow}, but {taken:?}");
            refused += 1;
        }
        if taken.iter().any(|taken| taken == "GET") && !path.contains("events") {
            let ask = async |method: Method| {
                rig.http.request(method, &url).bearer_auth(TOKEN).timeout(DEADLINE).send().await.unwrap()
            };
            let (get, head) = (ask(Method::GET).await, ask(Method::HEAD).await);
            assert_eq!(head.status(), get.status(), "{path}");
            assert_eq!(head.headers().get("content-type"), get.headers().get("content-type"), "{path}");
            assert_eq!(head.bytes().await.unwrap().len(), 0, "{path}");
        }
    }
    assert!(refused > 60, "only {refused} were asked");
    // An unknown path stays unknown.
    problem(rig.get(&running.url, "/v1/nothing").await, StatusCode::NOT_FOUND, Code::NotFound).await;
    running.stop().await;
}
