//! One device's socket, from the challenge to the close.

use core::time::Duration;
use std::sync::Arc;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use duet_protocol::{
    codec::{self, Message as _},
    ids::WalletId,
};
use duet_wire::{
    Code, Refusal,
    audit::{Event, Refused},
    gateway::{
        Authentication, ClientFrame, Destination, GATEWAY_PROTOCOL, Limits, MAX_BUILD_LENGTH_BYTES,
        MAX_FORWARDED_SIZE_BYTES, ServerFrame,
    },
};
use futures::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tracing::Instrument as _;

use crate::{
    addresses::Connection,
    device::Device,
    gateway::Gateway,
    metrics,
    outbox::{Gone, Outbox},
    waiting,
};

/// How many frames may wait to be written to one socket. When it is full, requests wait to send
/// their replies, and no further ones are read.
const OUTBOX_FRAMES: usize = 32;

/// How many requests of one socket may be under way at once. A device needs two or three. At this
/// bound no further frame is read.
const MAX_REQUESTS: usize = 16;

/// How long a peer may take to answer a close.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// The largest WebSocket message that the gateway reads. It exceeds the largest frame, so that a
/// frame that is somewhat too large is read and its sender learns why it is refused.
pub(crate) const MAX_MESSAGE_SIZE_BYTES: usize = 1024 * 1024;

/// Why a socket ends.
#[derive(Debug)]
enum End {
    /// The device closed it, or it broke.
    Gone,
    /// The device sent an invalid frame, or one that is not allowed at that point.
    Violation { code: u16, reason: &'static str },
    /// The gateway is stopping.
    GoingAway,
    /// The device was silent for too long.
    Idle(&'static str),
}

impl End {
    /// The metrics label: one of [`metrics::ENDS`].
    const fn name(&self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Violation { .. } => "violation",
            Self::GoingAway => "going_away",
            Self::Idle(_) => "idle",
        }
    }

    /// The close frame for the device. `None` when the connection is gone.
    fn close(&self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::Gone => return None,
            Self::Violation { code, reason } => (*code, *reason),
            Self::GoingAway => (close_code::AWAY, "the gateway stops; connect again"),
            Self::Idle(reason) => (close_code::AWAY, *reason),
        };
        Some(CloseFrame { code, reason: reason.into() })
    }
}

/// Serves one device until its socket ends.
pub(crate) async fn run(gateway: Arc<Gateway>, socket: WebSocket, connection: Arc<Connection>) {
    let (sink, mut stream) = socket.split();
    let (sender, receiver) = mpsc::channel(OUTBOX_FRAMES);
    // When this future ends, its tasks end.
    let mut background = JoinSet::new();
    background.spawn(write(sink, receiver, gateway.limits.write));
    let outbox = Outbox(sender);
    let device = Arc::new(Device::default());
    let (nudge, nudges) = mpsc::channel(waiting::NUDGES);
    background.spawn(waiting::run(Arc::clone(&gateway), Arc::clone(&device), nudges, outbox.clone()));
    let now = Instant::now();
    let mut conversation = Conversation {
        gateway,
        connection,
        device,
        outbox,
        nudge,
        challenge: [0; 32],
        greeted: false,
        requests: JoinSet::new(),
        opened_at: now,
        heard_at: now,
        pinged_at: now,
        asked_at: now,
    };
    let end = conversation.run(&mut stream).await;
    tracing::debug!(?end, "socket ends");
    conversation.gateway.metrics.socket_ended(end.name());
    if matches!(end, End::GoingAway) {
        // Requests under way may still be answered.
        let drain = conversation.gateway.limits.drain;
        timeout(drain, async { while conversation.requests.join_next().await.is_some() {} }).await.ok();
    }
    let Conversation { outbox, requests, .. } = conversation;
    drop(requests);
    if let Some(frame) = end.close() {
        let closing = async {
            outbox.0.send(Message::Close(Some(frame))).await.ok();
            // The writer ends after it has written the close frame.
            outbox.0.closed().await;
            // Dropping a connection with unread data resets it, and the close frame may be lost.
            while let Some(Ok(_)) = stream.next().await {}
        };
        timeout(CLOSE_DEADLINE, closing).await.ok();
    }
}

/// Writes frames until there are no more, one takes too long, or the socket is closed.
async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut frames: mpsc::Receiver<Message>,
    deadline: Duration,
) {
    while let Some(frame) = frames.recv().await {
        let is_last = matches!(frame, Message::Close(_));
        if !matches!(timeout(deadline, sink.send(frame)).await, Ok(Ok(()))) || is_last {
            break;
        }
    }
}

struct Conversation {
    gateway: Arc<Gateway>,
    connection: Arc<Connection>,
    device: Arc<Device>,
    outbox: Outbox,
    nudge: mpsc::Sender<WalletId>,
    challenge: [u8; 32],
    greeted: bool,
    requests: JoinSet<()>,
    opened_at: Instant,
    heard_at: Instant,
    pinged_at: Instant,
    asked_at: Instant,
}

impl Conversation {
    async fn run(&mut self, stream: &mut SplitStream<WebSocket>) -> End {
        match self.challenge().await {
            Ok(()) => {}
            Err(end) => return end,
        }
        let stop = self.gateway.stop.clone();
        loop {
            let (wake_at, due) = self.next_deadline();
            let has_room = self.requests.len() < MAX_REQUESTS;
            let message = tokio::select! {
                biased;
                () = stop.cancelled() => return End::GoingAway,
                () = self.outbox.0.closed() => return End::Gone,
                Some(_) = self.requests.join_next(), if !self.requests.is_empty() => {
                    if !has_room {
                        // Nothing was read meanwhile, so the device's silence does not count.
                        self.heard_at = Instant::now();
                    }
                    continue;
                }
                () = sleep_until(wake_at) => {
                    match due {
                        Due::Ping => {
                            self.pinged_at = Instant::now();
                            if self.outbox.0.try_send(Message::Ping(bytes::Bytes::new())).is_err() {
                                tracing::debug!("no room for a ping: the device does not read");
                            }
                            continue;
                        }
                        Due::End(end) => return end,
                    }
                }
                message = stream.next(), if has_room => message,
            };
            let taken = tokio::select! {
                taken = self.take(message) => taken,
                () = stop.cancelled() => return End::GoingAway,
            };
            if let Err(end) = taken {
                return end;
            }
        }
    }

    async fn challenge(&mut self) -> Result<(), End> {
        getrandom::fill(&mut self.challenge).map_err(|error| {
            tracing::error!(%error, "no randomness for a challenge");
            End::Gone
        })?;
        let limits = Limits {
            max_frame_bytes: u32::try_from(ClientFrame::MAX_SIZE_BYTES).unwrap_or(u32::MAX),
            idle_s: u32::try_from(self.gateway.limits.idle.as_secs()).unwrap_or(u32::MAX),
        };
        let challenge = ServerFrame::Challenge {
            nonce: self.challenge,
            protocol: GATEWAY_PROTOCOL,
            build: self.gateway.build().await,
            limits,
        };
        self.outbox.frame(&challenge).await.map_err(|Gone| End::Gone)
    }

    /// The next action if the device stays silent, and its time.
    fn next_deadline(&self) -> (Instant, Due) {
        let limits = &self.gateway.limits;
        if !self.greeted {
            let reason = "no greeting came in time";
            let end = End::Violation { code: close_code::POLICY, reason };
            return (self.opened_at + limits.handshake, Due::End(end));
        }
        let ping = (self.heard_at.max(self.pinged_at) + limits.idle / 2, Due::Ping);
        if self.requests.len() >= MAX_REQUESTS {
            // No frame is read before one of them ends, and each has a deadline.
            return ping;
        }
        let mut next = (self.heard_at + limits.idle, Due::End(End::Idle("nothing was heard for too long")));
        if ping.0 < next.0 {
            next = ping;
        }
        let unauthenticated = self.asked_at + limits.unauthenticated;
        if !self.device.is_anyone() && self.requests.is_empty() && unauthenticated < next.0 {
            next = (unauthenticated, Due::End(End::Idle("no wallet was authenticated for too long")));
        }
        next
    }

    async fn take(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        let violation = |code, reason| Err(End::Violation { code, reason });
        let message = match message {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(broken(&error)),
            None => return Err(End::Gone),
        };
        self.heard_at = Instant::now();
        // Pings and pongs count too, because they cost as much to read.
        self.gateway.rates.frame(self.connection.key()).await;
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(_) => {
                self.gateway.metrics.frame(None);
                return violation(close_code::UNSUPPORTED, "frames are binary");
            }
            Message::Ping(_) | Message::Pong(_) => {
                self.gateway.metrics.control_frame();
                return Ok(());
            }
            Message::Close(_) => {
                self.gateway.metrics.control_frame();
                return Err(End::Gone);
            }
        };
        if bytes.len() > ClientFrame::MAX_SIZE_BYTES {
            self.gateway.metrics.frame(None);
            return violation(close_code::SIZE, "the frame is too large");
        }
        let frame = codec::decode(&bytes);
        self.gateway.metrics.frame(frame.as_ref().ok());
        match frame {
            Ok(ClientFrame::Hello { protocol, build }) => self.greet(protocol, &build).await,
            Ok(_) if !self.greeted => violation(close_code::POLICY, "the first frame is a greeting"),
            Ok(ClientFrame::Authenticate { wallet, issued_at_ms, signature }) => {
                self.authenticate(wallet, issued_at_ms, &signature).await
            }
            Ok(ClientFrame::Request { id, to, message }) => self.request(id, to, message).await,
            Ok(ClientFrame::Leave { wallet }) => {
                self.device.leave(wallet);
                self.asked_at = Instant::now();
                Ok(())
            }
            Err(error) => {
                tracing::debug!(%error, "a frame does not parse");
                violation(close_code::UNSUPPORTED, "the frame does not parse")
            }
        }
    }

    async fn greet(&mut self, protocol: u16, build: &str) -> Result<(), End> {
        if self.greeted {
            return Err(End::Violation { code: close_code::POLICY, reason: "one greeting is enough" });
        }
        if protocol != GATEWAY_PROTOCOL {
            let message = format!("this gateway speaks version {GATEWAY_PROTOCOL}; reload the page");
            self.refuse(None, Refusal::new(Code::UnsupportedVersion, message)).await?;
            return Err(End::Violation {
                code: close_code::POLICY,
                reason: "another version of the protocol",
            });
        }
        if build.len() > MAX_BUILD_LENGTH_BYTES {
            return Err(End::Violation { code: close_code::POLICY, reason: "the build's name is too long" });
        }
        tracing::debug!(?build, "a device greets");
        self.greeted = true;
        self.asked_at = Instant::now();
        Ok(())
    }

    async fn authenticate(
        &mut self,
        wallet: WalletId,
        issued_at_ms: u64,
        signature: &[u8; 64],
    ) -> Result<(), End> {
        let began = Instant::now();
        // Handled in order with the other frames, so that later frames can rely on it.
        let proof = Authentication { challenge: self.challenge, wallet, issued_at_ms };
        let checked = if self.device.has_room_for(wallet).is_err() {
            Err(Refusal::new(Code::Quota, "too many wallets on one connection"))
        } else if self.gateway.rates.device(wallet) {
            self.gateway.forwarder.authenticate(&proof, signature).await
        } else {
            Err(Refusal::new(Code::Overloaded, "too many requests about this wallet; slow down"))
        };
        self.heard_at = Instant::now();
        self.gateway.metrics.request("authenticate", began, &checked);
        match checked {
            Ok(key) => {
                tracing::debug!(%wallet, "a device is authenticated");
                self.gateway.audit.note(Event::DeviceAuthenticated { wallet, device: key });
                self.device.authenticated(wallet, key);
                self.outbox.frame(&ServerFrame::Authenticated { wallet }).await.map_err(|Gone| End::Gone)?;
                // Without room the wallet has its regular turn soon.
                self.nudge.try_send(wallet).ok();
                Ok(())
            }
            Err(refusal) => {
                tracing::info!(%wallet, code = %refusal.code, "a device's proof is refused");
                let refused = Refused::new("device", refusal.clone());
                self.gateway.audit.refused(Refused { wallet: Some(wallet), ..refused });
                if matches!(refusal.code, Code::BadSignature | Code::UnknownWallet) {
                    let delay = self.gateway.rates.refused_proof(self.connection.key());
                    if timeout(self.gateway.limits.handshake, delay).await.is_err() {
                        let reason = "too many proofs from this address did not hold";
                        return Err(End::Violation { code: close_code::POLICY, reason });
                    }
                }
                self.refuse(None, refusal).await
            }
        }
    }

    async fn refuse(&self, id: Option<u32>, refusal: Refusal) -> Result<(), End> {
        self.outbox.frame(&ServerFrame::Refused { id, refusal }).await.map_err(|Gone| End::Gone)
    }

    async fn request(&mut self, id: u32, to: Destination, message: Vec<u8>) -> Result<(), End> {
        let began = Instant::now();
        self.asked_at = began;
        let kind = metrics::kind(&to);
        let room = if message.len() > MAX_FORWARDED_SIZE_BYTES {
            Err(Refusal::new(Code::TooLarge, "the message is too large"))
        } else {
            let full = || Refusal::new(Code::Overloaded, "too many requests are under way; try again");
            self.connection.request().ok_or_else(full)
        };
        let room = match room {
            Ok(room) => room,
            Err(refusal) => {
                let refused = Err::<(), _>(refusal.clone());
                self.gateway.metrics.request(kind, began, &refused);
                return self.refuse(Some(id), refusal).await;
            }
        };
        let about = match to {
            Destination::Approval(wallet) => Some(wallet),
            _ => None,
        };
        let (gateway, device) = (Arc::clone(&self.gateway), Arc::clone(&self.device));
        let (outbox, nudge, from) = (self.outbox.clone(), self.nudge.clone(), self.connection.key());
        let span = tracing::debug_span!("device", otel.kind = "server", request = kind);
        let forwarding = async move {
            let forwarded = gateway.forwarder.forward(&device, &gateway.rates, from, to, message).await;
            gateway.metrics.request(kind, began, &forwarded);
            let reply = match forwarded {
                Ok(Some(message)) => ServerFrame::Reply { id, message: message.into() },
                Ok(None) => return,
                Err(refusal) => ServerFrame::Refused { id: Some(id), refusal },
            };
            drop(room);
            if outbox.frame(&reply).await.is_ok()
                && let Some(wallet) = about
            {
                // The owner's decision has most likely changed the number.
                nudge.try_send(wallet).ok();
            }
        };
        self.requests.spawn(forwarding.instrument(span));
        Ok(())
    }
}

/// The action that is due if the device stays silent.
enum Due {
    Ping,
    End(End),
}

/// Why reading failed: a message too large, or the connection.
fn broken(error: &axum::Error) -> End {
    use std::error::Error as _;
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.to_string().contains("too long") || inner.to_string().contains("too big") {
            return End::Violation { code: close_code::SIZE, reason: "the frame is too large" };
        }
        cause = inner.source();
    }
    tracing::debug!(%error, "the socket broke");
    End::Gone
}
