//! Resources that strangers cannot use up.

use duet_actors::{
    browser::socket::{DEADLINE, Socket, tcp, upgrade},
    stage::name as party,
};
use duet_harness::{
    broker::Broker,
    duet::Duet,
    duet::text,
    stack::{PAGE_ORIGIN, Server},
};
use duet_protocol::codec::{self, Message as _};
use duet_wire::{
    Code,
    card_request::CardRequest,
    gateway::{ClientFrame, Destination},
};
use futures::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use tokio_tungstenite::tungstenite::{Error, Message};

/// A gateway with a broker behind it, and no parties.
pub(crate) struct Alone {
    pub(crate) gateway: Server,
    pub(crate) url: String,
    pub(crate) broker: Broker,
    _logs: tempfile::TempDir,
}

impl Alone {
    pub(crate) async fn start(more: &[&str]) -> Self {
        let broker = Broker::start().await.unwrap();
        let logs = tempfile::tempdir().unwrap();
        let duet = Duet::new(broker.credentials()).with("DUET_NATS_URL", &broker.url());
        let listen = ["gateway", "--listen", "127.0.0.1:0", "--origin", PAGE_ORIGIN];
        let mut gateway = Server::new("gateway", duet, &[&listen, more].concat(), logs.path());
        let ready = gateway.start().await.unwrap();
        let url = text(&ready, "/url").unwrap().to_owned();
        Self { gateway, url, broker, _logs: logs }
    }
}

pub(crate) fn card() -> (Destination, Vec<u8>) {
    (Destination::Card(party("service")), codec::encode(&CardRequest::Card).unwrap())
}

/// A gateway without parties answers that no party listens. That is a served request.
pub(crate) async fn is_served(socket: &mut Socket) {
    let (to, message) = card();
    assert_eq!(socket.refused(to, message).await.unwrap(), Code::NoPairAvailable);
}

#[tokio::test]
async fn other_pages__should_get_no_socket() {
    let alone = Alone::start(&[]).await;
    for origin in
        [None, Some("https://evil.example"), Some("null"), Some("https://wallet.example.evil.example")]
    {
        let refused = upgrade(&alone.url, "127.0.0.1", origin).await.unwrap_err();
        let Error::Http(response) = refused else { panic!("{refused}") };
        assert_eq!(response.status(), 401, "{origin:?}");
    }
    is_served(&mut Socket::open(&alone.url).await.unwrap()).await;
}

#[tokio::test]
async fn frames_that_are_none__should_close_the_socket_with_a_reason() {
    let alone = Alone::start(&[]).await;
    let hello = |protocol| ClientFrame::Hello { protocol, build: String::new() };
    let encoded = |frame: &ClientFrame| codec::encode(frame).unwrap();
    let (to, message) = card();
    let request = ClientFrame::Request { id: 1, to, message };
    let mut trailing = encoded(&request);
    trailing.push(0);
    let long_build = ClientFrame::Hello { protocol: 1, build: "a".repeat(200) };
    // The frames after the challenge, and the code with which the socket is closed.
    for (frames, code) in [
        (vec![encoded(&request)], 1008),
        (vec![encoded(&hello(2))], 1008),
        (vec![encoded(&long_build)], 1008),
        (vec![encoded(&hello(1)), encoded(&hello(1))], 1008),
        (vec![vec![]], 1003),
        (vec![encoded(&hello(1)), vec![0x60, 0x01, 0xff]], 1003),
        (vec![encoded(&hello(1)), vec![0x61; 40]], 1003),
        (vec![encoded(&hello(1)), trailing], 1003),
        (vec![encoded(&hello(1)), vec![0x60; ClientFrame::MAX_SIZE_BYTES + 1]], 1009),
    ] {
        let mut socket = Socket::silent(&alone.url, "127.0.0.1").await.unwrap();
        for frame in &frames {
            socket.send_bytes(frame.clone()).await.unwrap();
        }
        let (closed, reason) = socket.closed().await.unwrap();
        assert_eq!(closed, code, "{reason}");
        assert!(!reason.is_empty());
    }
    let mut socket = Socket::open(&alone.url).await.unwrap();
    socket.stream.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.closed().await.unwrap().0, 1003);

    // An oversized frame is not even read to its end. The network decides whether the reason gets
    // through.
    let mut socket = Socket::open(&alone.url).await.unwrap();
    let sent = socket.stream.send(Message::Binary(vec![0x60; 8 << 20].into())).await;
    if sent.is_ok() {
        let ended = timeout(DEADLINE, async { while let Some(Ok(_)) = socket.stream.next().await {} }).await;
        assert!(ended.is_ok());
    }
    is_served(&mut Socket::open(&alone.url).await.unwrap()).await;
}

#[tokio::test]
async fn flood_of_tiny_frames__should_not_keep_an_honest_device_from_being_served() {
    let alone = Alone::start(&["--frames-per-second", "20"]).await;
    let mut floods = Vec::new();
    for _ in 0..4 {
        let mut socket = Socket::open_from(&alone.url, "127.0.0.2").await.unwrap();
        floods.push(tokio::spawn(async move {
            let leave =
                codec::encode(&ClientFrame::Leave { wallet: duet_protocol::ids::WalletId([0; 32]) }).unwrap();
            for _ in 0..20_000 {
                if socket.stream.send(Message::Binary(leave.clone().into())).await.is_err() {
                    return;
                }
            }
            let (to, message) = card();
            // The answer comes only after everything before it was read.
            socket.request(to, message).await.ok();
        }));
    }
    let mut honest = Socket::open(&alone.url).await.unwrap();
    for _ in 0..20 {
        is_served(&mut honest).await;
    }
    assert!(floods.iter().all(|flood| !flood.is_finished()), "the flood was read as fast as it came");
    for flood in floods {
        flood.abort();
    }
}

#[tokio::test]
async fn one_address__should_have_so_many_connections_and_no_more() {
    let alone = Alone::start(&["--max-connections-per-address", "2"]).await;
    let first = Socket::open_from(&alone.url, "127.0.0.2").await.unwrap();
    let _second = Socket::open_from(&alone.url, "127.0.0.2").await.unwrap();
    assert!(upgrade(&alone.url, "127.0.0.2", Some(PAGE_ORIGIN)).await.is_err());
    is_served(&mut Socket::open(&alone.url).await.unwrap()).await;
    // A place that was given back can be taken again. The gateway decides when it notices.
    drop(first);
    timeout(DEADLINE, async {
        while upgrade(&alone.url, "127.0.0.2", Some(PAGE_ORIGIN)).await.is_err() {
            tokio::time::sleep(core::time::Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn wallets_being_made__should_be_bounded_per_address() {
    let alone = Alone::start(&["--shares-per-minute", "4"]).await;
    let prepare = duet_wire::share_request::ShareRequest::Prepare { package: vec![1] };
    let message = codec::encode(&prepare).unwrap();
    let share = || Destination::Share(party("service"));
    let mut socket = Socket::open_from(&alone.url, "127.0.0.2").await.unwrap();
    assert_eq!(socket.refused(share(), message.clone()).await.unwrap(), Code::NoPairAvailable);
    let mut codes = Vec::new();
    for _ in 0..8 {
        codes.push(socket.refused(share(), message.clone()).await.unwrap());
    }
    assert!(codes.contains(&Code::Overloaded), "{codes:?}");
    let mut other = Socket::open(&alone.url).await.unwrap();
    assert_eq!(other.refused(share(), message).await.unwrap(), Code::NoPairAvailable);
}

#[tokio::test]
async fn a_client_that_takes_too_long_to_begin__should_be_disconnected() {
    let alone = Alone::start(&["--handshake", "500ms"]).await;
    // A header that never ends.
    let mut stream = tcp(&alone.url, "127.0.0.1").await.unwrap();
    stream.write_all(b"GET /v1/device HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ").await.unwrap();
    let mut answer = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("it was not disconnected").ok();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    // A connection without any request.
    let mut stream = tcp(&alone.url, "127.0.0.1").await.unwrap();
    let mut nothing = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut nothing)).await.expect("it was not disconnected").ok();
    // A device that does not greet.
    let mut socket = Socket::silent(&alone.url, "127.0.0.1").await.unwrap();
    assert_eq!(socket.closed().await.unwrap().0, 1008);
}

#[tokio::test]
async fn silent_socket__should_be_pinged_and_then_closed() {
    let alone = Alone::start(&["--idle", "1s", "--unauthenticated", "4s"]).await;
    // A device that answers pings stays, until it has asked for nothing for too long.
    let mut alive = Socket::open(&alone.url).await.unwrap();
    let mut pings = 0;
    loop {
        match timeout(DEADLINE, alive.stream.next()).await.unwrap() {
            Some(Ok(Message::Ping(_))) => pings += 1,
            Some(Ok(Message::Close(Some(close)))) => {
                assert_eq!(u16::from(close.code), 1001, "{}", close.reason);
                assert!(close.reason.contains("wallet"), "{}", close.reason);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(pings >= 3, "{pings}");
    // A socket that is read as raw bytes answers no pings.
    let silent = Socket::open(&alone.url).await.unwrap();
    let mut stream = silent.stream.into_inner();
    let mut bytes = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.expect("it was not closed").ok();
    // A close frame with code 1001.
    assert!(bytes.windows(4).any(|w| w[0] == 0x88 && w[2..] == 1001_u16.to_be_bytes()), "{bytes:02x?}");
}

#[tokio::test]
async fn gateway_told_to_stop__should_say_so_to_every_device_and_end() {
    let mut alone = Alone::start(&[]).await;
    let mut sockets = [Socket::open(&alone.url).await.unwrap(), Socket::open(&alone.url).await.unwrap()];
    for socket in &mut sockets {
        is_served(socket).await;
    }
    let (stopped, ()) = tokio::join!(alone.gateway.stop(), async {
        for socket in &mut sockets {
            assert_eq!(socket.closed().await.unwrap().0, 1001);
        }
    });
    assert_eq!(stopped.unwrap(), Some(0));
}

#[tokio::test]
async fn broker_out_of_reach__should_be_said_and_got_over() {
    let mut alone = Alone::start(&[]).await;
    let mut socket = Socket::open(&alone.url).await.unwrap();
    is_served(&mut socket).await;
    alone.broker.kill().await.unwrap();
    let client = duet_harness::anvil::http_client().unwrap();
    let ready = async || client.get(format!("{}/readyz", alone.url)).send().await.unwrap().status().as_u16();
    let becomes = async |status: u16| {
        timeout(DEADLINE, async {
            while ready().await != status {
                tokio::time::sleep(core::time::Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
    };
    becomes(503).await;
    alone.broker.resume().await.unwrap();
    becomes(200).await;
    is_served(&mut socket).await;
}
