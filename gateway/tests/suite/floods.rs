//! Floods of slow strangers and of tiny frames. Memory stays bounded, and honest clients are
//! served.

use duet_actors::{
    browser::socket::{DEADLINE, Socket, tcp},
    tries::tries,
};
use duet_harness::process::resident_bytes;
use duet_protocol::{
    codec::{self, Message as _},
    ids::WalletId,
};
use duet_wire::gateway::ClientFrame;
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;

use crate::bounds::{Alone, card, is_served};

impl Alone {
    /// The gateway's resident memory, in KiB.
    fn resident_kib(&mut self) -> u64 {
        resident_bytes(self.gateway.process().unwrap().id().unwrap()).unwrap() / 1024
    }
}

/// The most memory that a flood may cost: a hundredth of what it sends, and some slack for the
/// allocator.
const MAX_GROWTH_KIB: u64 = 64 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn slow_strangers__should_not_keep_an_honest_device_from_being_served() {
    const EACH: usize = 48;
    let mut alone = Alone::start(&["--handshake", "2s"]).await;
    is_served(&mut Socket::open(&alone.url).await.unwrap()).await;
    let before = alone.resident_kib();
    // Headers that never end, one byte at a time, from several addresses. Also sockets that never
    // greet.
    let mut slow = Vec::new();
    for address in ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"] {
        for _ in 0..EACH / 4 {
            let mut stream = tcp(&alone.url, address).await.unwrap();
            stream.write_all(b"GET /v1/device HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ").await.unwrap();
            slow.push(tokio::spawn(async move {
                // Until the gateway disconnects it, as it must.
                while stream.write_all(b"a").await.is_ok() {
                    tokio::task::yield_now().await;
                    let mut answer = [0; 64];
                    if let Ok(Ok(0) | Err(_)) =
                        tokio::time::timeout(std::time::Duration::from_millis(50), stream.read(&mut answer))
                            .await
                    {
                        return;
                    }
                }
            }));
        }
    }
    let mut honest = Socket::open(&alone.url).await.unwrap();
    for _ in 0..20 {
        is_served(&mut honest).await;
    }
    let grown = alone.resident_kib().saturating_sub(before);
    assert!(grown < MAX_GROWTH_KIB, "{grown} KiB");
    for stranger in slow {
        tokio::time::timeout(DEADLINE, stranger).await.expect("it was disconnected").unwrap();
    }
    is_served(&mut honest).await;
    eprintln!(
        "evidence: slow strangers = {EACH}; all of them disconnected = yes; growth = {grown} KiB; honest requests served meanwhile = 20"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn memory__should_stay_bounded_under_a_flood_of_frames() {
    let frames = tries(100_000, 1_000_000);
    // As fast as the gateway reads: the test is not about its rate limit.
    let mut alone = Alone::start(&["--frames-per-second", "1000"]).await;
    let mut honest = Socket::open(&alone.url).await.unwrap();
    is_served(&mut honest).await;
    let before = alone.resident_kib();
    let mut floods = Vec::new();
    for address in ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"] {
        let socket = Socket::open_from(&alone.url, address).await.unwrap();
        floods.push(tokio::spawn(async move {
            let leave = codec::encode(&ClientFrame::Leave { wallet: WalletId([0; 32]) }).unwrap();
            let (mut sink, _unread) = socket.stream.split();
            let mut sent = 0;
            // What does not fit into the kernel's buffers waits here, with the attacker.
            while sent < frames / 4 && sink.feed(Message::Binary(leave.clone().into())).await.is_ok() {
                sent += 1;
            }
            sent
        }));
    }
    // Large frames as well, of the maximal size, from a further address.
    let mut large = Socket::open_from(&alone.url, "127.0.0.6").await.unwrap();
    let (to, _) = card();
    let message = vec![0x61; ClientFrame::MAX_SIZE_BYTES / 2];
    for id in 1..=8 {
        let frame = ClientFrame::Request { id, to: to.clone(), message: message.clone() };
        let Ok(bytes) = codec::encode(&frame) else { break };
        if large.stream.send(Message::Binary(bytes.into())).await.is_err() {
            break;
        }
    }
    let mut highest = 0;
    for _ in 0..40 {
        is_served(&mut honest).await;
        highest = highest.max(alone.resident_kib());
    }
    let grown = highest.saturating_sub(before);
    assert!(grown < MAX_GROWTH_KIB, "{grown} KiB");
    for flood in &floods {
        flood.abort();
    }
    is_served(&mut honest).await;
    eprintln!(
        "evidence: frames thrown = {frames}; growth of memory = {grown} KiB; honest requests served meanwhile = 40"
    );
}
