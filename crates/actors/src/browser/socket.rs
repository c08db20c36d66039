//! A WebSocket to a gateway, frame by frame.

use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use duet_harness::stack::PAGE_ORIGIN;
use duet_protocol::{codec, ids::WalletId};
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

use crate::stage::now_ms;

/// The longest wait, unless a test sets another deadline.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The most unrequested frames that are kept: more than any test waits for. A further frame drops
/// the oldest.
const MAX_PUSHED: usize = 64;

/// A socket that has received its challenge.
#[derive(Debug)]
pub struct Socket {
    /// The raw stream, for frames that this type does not send.
    pub stream: WebSocketStream<TcpStream>,
    /// The gateway's challenge.
    pub challenge: [u8; 32],
    /// The build of the page that the gateway serves.
    pub build: String,
    deadline: Duration,
    next_id: u32,
    /// Frames that arrived while another one was awaited.
    pushed: VecDeque<ServerFrame>,
    is_at_rest: bool,
}

/// Connects from a chosen loopback address: for the gateway, `127.0.0.2` is another client than
/// `127.0.0.1`.
///
/// # Errors
/// When no server listens there, or when an address is invalid.
pub async fn tcp(url: &str, from: &str) -> io::Result<TcpStream> {
    let to: SocketAddr = url.trim_start_matches("http://").parse().map_err(io::Error::other)?;
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{from}:0").parse().map_err(io::Error::other)?)?;
    timeout(DEADLINE, socket.connect(to)).await?
}

/// Opens a socket for a page of `origin`.
///
/// # Errors
/// When the connection fails; [`Error::Http`] when the gateway refuses.
pub async fn upgrade(
    url: &str,
    from: &str,
    origin: Option<&str>,
) -> Result<WebSocketStream<TcpStream>, Error> {
    upgrade_with(url, from, origin, &[]).await
}

/// Opens a socket as [`upgrade`] does, with further headers, as a proxy adds them.
///
/// # Errors
/// As [`upgrade`].
pub async fn upgrade_with(
    url: &str,
    from: &str,
    origin: Option<&str>,
    headers: &[(&'static str, &str)],
) -> Result<WebSocketStream<TcpStream>, Error> {
    let stream = tcp(url, from).await?;
    let mut request = format!("{}{DEVICE_PATH}", url.replacen("http", "ws", 1)).into_client_request()?;
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", origin.parse()?);
    }
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse()?);
    }
    let (stream, _) = timeout(DEADLINE, client_async(request, stream)).await.map_err(io::Error::from)??;
    Ok(stream)
}

impl Socket {
    /// Connects, reads the challenge and sends nothing.
    ///
    /// # Errors
    /// When the gateway refuses the connection.
    pub async fn silent(url: &str, from: &str) -> Result<Self> {
        let mut socket = Self {
            stream: upgrade(url, from, Some(PAGE_ORIGIN)).await?,
            challenge: [0; 32],
            build: String::new(),
            deadline: DEADLINE,
            next_id: 1,
            pushed: VecDeque::new(),
            is_at_rest: true,
        };
        let frame = socket.frame().await?;
        let ServerFrame::Challenge { nonce, protocol, build, limits } = frame else { bail!("{frame:?}") };
        ensure!(protocol == GATEWAY_PROTOCOL, "the gateway speaks {protocol}");
        ensure!(limits.max_frame_bytes >= 512 * 1024 && limits.idle_s > 0, "{limits:?}");
        socket.challenge = nonce;
        socket.build = build;
        Ok(socket)
    }

    /// Connects and greets the gateway.
    ///
    /// # Errors
    /// As [`Self::silent`].
    pub async fn open(url: &str) -> Result<Self> {
        Self::open_from(url, "127.0.0.1").await
    }

    /// Connects and greets the gateway, from a chosen loopback address.
    ///
    /// # Errors
    /// As [`Self::silent`].
    pub async fn open_from(url: &str, from: &str) -> Result<Self> {
        let mut socket = Self::silent(url, from).await?;
        socket.send(&ClientFrame::Hello { protocol: GATEWAY_PROTOCOL, build: "test".to_owned() }).await?;
        Ok(socket)
    }

    /// This socket, with another deadline for each answer.
    #[must_use]
    pub const fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Whether every request has been answered. A socket with an unanswered request must not be
    /// used again.
    #[must_use]
    pub const fn is_at_rest(&self) -> bool {
        self.is_at_rest
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn send(&mut self, frame: &ClientFrame) -> Result<()> {
        self.send_bytes(codec::encode(frame)?).await
    }

    /// Sends bytes that need not be a valid frame.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_bytes(&mut self, bytes: Vec<u8>) -> Result<()> {
        Ok(self.stream.send(Message::Binary(bytes.into())).await?)
    }

    async fn message(&mut self) -> Result<Option<Result<Message, Error>>> {
        timeout(self.deadline, self.stream.next()).await.context("nothing came in time")
    }

    /// The next frame.
    ///
    /// # Errors
    /// When no frame arrives in time, or when the connection is closed.
    pub async fn frame(&mut self) -> Result<ServerFrame> {
        match self.pushed.pop_front() {
            Some(frame) => Ok(frame),
            None => self.fresh_frame().await,
        }
    }

    async fn fresh_frame(&mut self) -> Result<ServerFrame> {
        loop {
            match self.message().await? {
                Some(Ok(Message::Binary(bytes))) => return Ok(codec::decode(&bytes)?),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => bail!("no frame: {other:?}"),
            }
        }
    }

    /// The close frame that ends this socket, with its reason. Skips all frames before it.
    ///
    /// # Errors
    /// When it ends without a close frame, or not in time.
    pub async fn closed(&mut self) -> Result<(u16, String)> {
        loop {
            match self.message().await? {
                Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
                    return Ok((code.into(), reason.to_string()));
                }
                Some(Ok(Message::Close(None))) | None => bail!("closed without a reason"),
                Some(Ok(_)) => {}
                Some(Err(error)) => bail!("broken off: {error}"),
            }
        }
    }

    /// Sends a frame, and waits for the frame that `read` accepts as its answer. Keeps other frames
    /// that arrive.
    async fn answer<T>(
        &mut self,
        frame: &ClientFrame,
        read: impl Fn(ServerFrame) -> Result<Result<T, Refusal>, ServerFrame>,
    ) -> Result<T> {
        self.is_at_rest = false;
        let deadline = self.deadline;
        let answering = async {
            self.send(frame).await?;
            loop {
                match read(self.fresh_frame().await?) {
                    Ok(answer) => return anyhow::Ok(answer),
                    Err(other) => {
                        if self.pushed.len() >= MAX_PUSHED {
                            self.pushed.pop_front();
                        }
                        self.pushed.push_back(other);
                    }
                }
            }
        };
        let answer = timeout(deadline, answering).await.context("no answer came in time")??;
        self.is_at_rest = true;
        Ok(answer?)
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// A [`Refusal`] when the gateway refuses. Another error when the connection is closed or no
    /// answer arrives in time.
    pub async fn request(&mut self, to: Destination, message: Vec<u8>) -> Result<Vec<u8>> {
        let id = self.next_id;
        self.next_id += 1;
        self.answer(&ClientFrame::Request { id, to, message }, |frame| match frame {
            ServerFrame::Reply { id: of, message } if of == id => Ok(Ok(message)),
            ServerFrame::Refused { id: Some(of), refusal } if of == id => Ok(Err(refusal)),
            other => Err(other),
        })
        .await
    }

    /// The code with which a request is refused.
    ///
    /// # Errors
    /// When the request succeeds, or when the connection is closed.
    pub async fn refused(&mut self, to: Destination, message: Vec<u8>) -> Result<Code> {
        match self.request(to, message).await {
            Ok(_) => bail!("it was forwarded"),
            Err(error) => Ok(error.downcast::<Refusal>()?.code),
        }
    }

    /// Proves possession of a wallet's device key.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn authenticate(&mut self, wallet: WalletId, key: &impl Identity) -> Result<()> {
        let proof = Authentication { challenge: self.challenge, wallet, issued_at_ms: now_ms() };
        self.prove(&proof.frame(key)).await
    }

    /// Sends a proof, which may be invalid.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn prove(&mut self, proof: &ClientFrame) -> Result<()> {
        self.answer(proof, |frame| match frame {
            ServerFrame::Authenticated { .. } => Ok(Ok(())),
            ServerFrame::Refused { id: None, refusal } => Ok(Err(refusal)),
            other => Err(other),
        })
        .await
    }

    /// Waits until the gateway reports that `expected` jobs wait for the wallet's owner.
    ///
    /// # Errors
    /// When it does not report that in time.
    pub async fn waits(&mut self, of: WalletId, expected: u32) -> Result<()> {
        loop {
            if let ServerFrame::Waiting { wallet, jobs } = self.frame().await?
                && wallet == of
                && jobs == expected
            {
                return Ok(());
            }
        }
    }
}
