//! Event streams through a reverse proxy that buffers responses.

use futures::StreamExt as _;
use reqwest::{Response, header};
use tokio::time::timeout;

use crate::{
    nginx::Nginx,
    rig::{DEADLINE, Rig, TOKEN},
};

/// The next part of a body that is still open, or `""` at its end.
async fn part(response: &mut (impl futures::Stream<Item = reqwest::Result<bytes::Bytes>> + Unpin)) -> String {
    let part = timeout(DEADLINE, response.next()).await.expect("nginx holds the stream back");
    part.map(|bytes| String::from_utf8(bytes.unwrap().to_vec()).unwrap()).unwrap_or_default()
}

/// What was read of a body once it contains `wanted`.
async fn until(
    body: &mut (impl futures::Stream<Item = reqwest::Result<bytes::Bytes>> + Unpin),
    wanted: &str,
) -> String {
    let mut read = String::new();
    while !read.contains(wanted) {
        let next = part(body).await;
        assert!(!next.is_empty(), "the stream ended after {read:?}");
        read.push_str(&next);
    }
    read
}

#[tokio::test(flavor = "multi_thread")]
async fn events__should_come_through_nginx_as_they_happen() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let nginx = Nginx::in_front_of(&running.url).await.unwrap();
    let client = nginx.client().unwrap();
    let open = async |path: &str| -> Response {
        let request = client.get(format!("http://orchestrator{path}")).bearer_auth(TOKEN);
        let response =
            timeout(DEADLINE, request.send()).await.expect("not even a header comes through").unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-cache, no-transform");
        assert!(!response.headers().contains_key(header::CONTENT_ENCODING));
        response
    };

    // The job waits for its owner, so its stream stays open after the first event.
    let job = rig.accepted(&running.url, &rig.request("parked", &["device+service"])).await;
    let mut events = open(&format!("/v1/jobs/{}/events", job.id)).await.bytes_stream();
    let first = until(&mut events, "awaiting_owner").await;
    assert!(first.starts_with(": open\n\n"), "{first}");
    // No job has ended, so there is no event. The reader still learns at once that the stream is
    // open.
    let mut ends = open("/v1/results/events").await.bytes_stream();
    assert_eq!(until(&mut ends, "\n\n").await, ": open\n\n");

    rig.cancel(&running.url, &job).await.error_for_status().unwrap();
    until(&mut events, "cancelled").await;
    until(&mut ends, &job.id.to_string()).await;
    running.stop().await;
}
