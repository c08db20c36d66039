//! A WebSocket to a gateway, frame by frame.

use std::{net::SocketAddr, time::Duration};

use duet_protocol::{
    codec,
    ids::{PartyId, WalletId},
};
use duet_wire::{
    Code, Refusal,
    gateway::{Authentication, ClientFrame, DEVICE_PATH, Destination, GATEWAY_PROTOCOL, ServerFrame},
    signing::Identity,
};
use futures::{SinkExt as _, StreamExt as _};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _, protocol::CloseFrame},
};

/// The longest any test waits for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

pub(crate) fn party(name: &str) -> PartyId {
    name.parse().unwrap()
}

/// A socket whose challenge has been read.
pub(crate) struct Socket {
    pub(crate) stream: WebSocketStream<TcpStream>,
    pub(crate) challenge: [u8; 32],
    pub(crate) build: String,
    next_id: u32,
    /// Frames that came while another was waited for.
    pushed: Vec<ServerFrame>,
}

/// Where a gateway listens.
pub(crate) fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().unwrap()
}

/// Connects from a loopback address of our choice: `127.0.0.2` is another visitor than `127.0.0.1`.
pub(crate) async fn tcp(url: &str, from: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    timeout(DEADLINE, socket.connect(address(url))).await.unwrap().unwrap()
}

/// Asks for a socket in the name of a page of `origin`.
pub(crate) async fn upgrade(
    url: &str,
    from: &str,
    origin: Option<&str>,
) -> Result<WebSocketStream<TcpStream>, Error> {
    upgrade_with(url, from, origin, &[]).await
}

/// The same with more headers, as a proxy writes them.
pub(crate) async fn upgrade_with(
    url: &str,
    from: &str,
    origin: Option<&str>,
    headers: &[(&'static str, &str)],
) -> Result<WebSocketStream<TcpStream>, Error> {
    let stream = tcp(url, from).await;
    let mut request =
        format!("{}{DEVICE_PATH}", url.replacen("http", "ws", 1)).into_client_request().unwrap();
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", origin.parse().unwrap());
    }
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    let (stream, _) = timeout(DEADLINE, client_async(request, stream)).await.unwrap()?;
    Ok(stream)
}

impl Socket {
    /// Connects and reads the challenge, no more.
    pub(crate) async fn silent(url: &str, from: &str) -> Self {
        let stream = upgrade(url, from, Some(duet_tests::stack::PAGE_ORIGIN)).await.unwrap();
        let mut socket =
            Self { stream, challenge: [0; 32], build: String::new(), next_id: 1, pushed: Vec::new() };
        let frame = socket.frame().await;
        let ServerFrame::Challenge { nonce, protocol, build, limits } = frame else { panic!("{frame:?}") };
        assert_eq!(protocol, GATEWAY_PROTOCOL);
        assert!(limits.max_frame_bytes >= 512 * 1024 && limits.idle_s > 0);
        socket.challenge = nonce;
        socket.build = build;
        socket
    }

    /// Connects and greets.
    pub(crate) async fn open(url: &str) -> Self {
        Self::open_from(url, "127.0.0.1").await
    }

    pub(crate) async fn open_from(url: &str, from: &str) -> Self {
        let mut socket = Self::silent(url, from).await;
        socket.send(&ClientFrame::Hello { protocol: GATEWAY_PROTOCOL, build: "test".to_owned() }).await;
        socket
    }

    pub(crate) async fn send(&mut self, frame: &ClientFrame) {
        self.send_bytes(codec::encode(frame).unwrap()).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: Vec<u8>) {
        self.stream.send(Message::Binary(bytes.into())).await.unwrap();
    }

    async fn message(&mut self) -> Option<Result<Message, Error>> {
        timeout(DEADLINE, self.stream.next()).await.expect("nothing came in time")
    }

    /// The next frame.
    pub(crate) async fn frame(&mut self) -> ServerFrame {
        if !self.pushed.is_empty() {
            return self.pushed.remove(0);
        }
        self.fresh_frame().await
    }

    async fn fresh_frame(&mut self) -> ServerFrame {
        loop {
            match self.message().await {
                Some(Ok(Message::Binary(bytes))) => return codec::decode(&bytes).unwrap(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("no frame: {other:?}"),
            }
        }
    }

    /// The close that ends this socket; frames before it are passed over.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.message().await {
                Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
                    return (code.into(), reason.to_string());
                }
                Some(Ok(Message::Close(None))) | None => panic!("closed without a reason"),
                Some(Ok(_)) => {}
                Some(Err(error)) => panic!("broken off: {error}"),
            }
        }
    }

    /// Sends a request and waits for its reply; what else comes meanwhile is kept.
    pub(crate) async fn request(&mut self, to: Destination, message: Vec<u8>) -> Result<Vec<u8>, Refusal> {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&ClientFrame::Request { id, to, message }).await;
        loop {
            match self.fresh_frame().await {
                ServerFrame::Reply { id: of, message } if of == id => return Ok(message),
                ServerFrame::Refused { id: Some(of), refusal } if of == id => return Err(refusal),
                other => self.pushed.push(other),
            }
        }
    }

    /// The code with which a request is refused.
    pub(crate) async fn refused(&mut self, to: Destination, message: Vec<u8>) -> Code {
        self.request(to, message).await.expect_err("it was forwarded").code
    }

    /// Proves to hold a wallet's device key.
    pub(crate) async fn authenticate(
        &mut self,
        wallet: WalletId,
        key: &impl Identity,
    ) -> Result<(), Refusal> {
        let proof = Authentication { challenge: self.challenge, wallet, issued_at_ms: now_ms() };
        self.prove(&proof.frame(key)).await
    }

    /// Sends a proof, whatever it is worth.
    pub(crate) async fn prove(&mut self, proof: &ClientFrame) -> Result<(), Refusal> {
        self.send(proof).await;
        loop {
            match self.fresh_frame().await {
                ServerFrame::Authenticated { .. } => return Ok(()),
                ServerFrame::Refused { id: None, refusal } => return Err(refusal),
                other => self.pushed.push(other),
            }
        }
    }

    /// Waits until it is told that `jobs` wait for the wallet's owner.
    pub(crate) async fn waits(&mut self, of: WalletId, expected: u32) {
        loop {
            if let ServerFrame::Waiting { wallet, jobs } = self.frame().await
                && wallet == of
                && jobs == expected
            {
                return;
            }
        }
    }
}
