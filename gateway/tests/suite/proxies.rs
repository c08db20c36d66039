//! Behind proxies, limits count the clients' connections.

use duet_actors::browser::socket::upgrade_with;
use duet_harness::stack::PAGE_ORIGIN;
use tokio_tungstenite::{WebSocketStream, tungstenite::Error};

use crate::bounds::Alone;

type Upgraded = Result<WebSocketStream<tokio::net::TcpStream>, Error>;

const ONE_EACH: [&str; 2] = ["--max-connections-per-address", "1"];

/// A socket through a proxy at `from`, which names its client in a header.
async fn through(alone: &Alone, from: &str, header: &'static str, value: &str) -> Upgraded {
    upgrade_with(&alone.url, from, Some(PAGE_ORIGIN), &[(header, value)]).await
}

fn is_overloaded(refused: Upgraded) -> bool {
    matches!(refused, Err(Error::Http(response)) if response.status() == 503)
}

#[tokio::test]
async fn clients_of_a_trusted_proxy__should_count_by_their_own_address() {
    let more = [&ONE_EACH[..], &["--trusted-proxy", "127.0.0.2/32"]].concat();
    let alone = Alone::start(&more).await;
    let visit = async |clients: &str| through(&alone, "127.0.0.2", "x-forwarded-for", clients).await;
    let _one = visit("198.51.100.1").await.unwrap();
    let _other = visit("198.51.100.2").await.unwrap();
    assert!(is_overloaded(visit("198.51.100.1").await));
    // What a client writes itself stands left of the proxy's entry, and is not trusted.
    assert!(is_overloaded(visit("203.0.113.5, 198.51.100.1").await));
    assert!(is_overloaded(visit("198.51.100.77, 127.0.0.2, 198.51.100.2").await));
    visit("198.51.100.1, 203.0.113.5").await.unwrap();
}

#[tokio::test]
async fn a_client_that_is_no_trusted_proxy__should_not_choose_its_address() {
    for more in [&ONE_EACH[..], &[&ONE_EACH[..], &["--trusted-proxy", "10.0.0.0/8"]].concat()] {
        let alone = Alone::start(more).await;
        let _one = through(&alone, "127.0.0.2", "x-forwarded-for", "198.51.100.1").await.unwrap();
        assert!(through(&alone, "127.0.0.2", "x-forwarded-for", "198.51.100.2").await.is_err());
        let _other = through(&alone, "127.0.0.3", "x-forwarded-for", "198.51.100.1").await.unwrap();
    }
}

#[tokio::test]
async fn a_header_that_the_proxies_do_not_write__should_not_be_read() {
    let header = ["--trusted-proxy", "127.0.0.2/32", "--client-address-header", "forwarded"];
    let alone = Alone::start(&[&ONE_EACH[..], &header].concat()).await;
    let _one = through(&alone, "127.0.0.2", "forwarded", "for=198.51.100.1").await.unwrap();
    let _other =
        through(&alone, "127.0.0.2", "forwarded", "for=\"[2001:db8::5]:99\";proto=https").await.unwrap();
    assert!(is_overloaded(through(&alone, "127.0.0.2", "forwarded", "for=198.51.100.1").await));
    // Without the configured header, the connections count as the proxy's own.
    let _own = through(&alone, "127.0.0.2", "x-forwarded-for", "198.51.100.3").await.unwrap();
    assert!(is_overloaded(through(&alone, "127.0.0.2", "x-forwarded-for", "198.51.100.4").await));
}
