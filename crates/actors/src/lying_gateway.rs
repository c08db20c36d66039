//! A gateway under an attacker's control: a relay in front of the real one. It forwards everything
//! that it does not lie about, so that a device notices nothing else. It plays parties of its own
//! with the real cryptography. They return receipts and acknowledgements, and keep the shares.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result, bail};
use axum::{
    Json, Router,
    extract::{
        State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use duet_adversary::test_fixtures;
use duet_harness::{anvil::http_client, stack::TENANT};
use duet_party::compute::system_rng;
use duet_protocol::{
    admission::AdmissionToken,
    arithmetic::default_arithmetic,
    card::Card,
    codec,
    curve::{Scalar, scalar_from_bytes},
    identity::PartyKeys,
    ids::{CardFingerprint, PartyId, ShareIndex},
    package::{PreparedShare, Receiver},
    receipt::ReceiptBundle,
};
use duet_wire::{
    card_request::{CardReply, CardRequest},
    gateway::{ClientFrame, DEVICE_PATH, Destination, ServerFrame},
    share_request::{ShareReply, ShareRequest},
};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_tungstenite::{WebSocketStream, tungstenite};

use crate::{
    browser::socket::upgrade,
    stage::{now_ms, random},
};

/// How long an admission token is valid, in seconds.
const TOKEN_LIFE_S: u64 = 3600;

/// What the gateway lies about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Nothing.
    Nothing,
    /// `/v1/info` has the honest names with the attacker's fingerprints and tokens, and claims to
    /// be for trials. The cards are the attacker's.
    Fingerprints,
    /// As [`Self::Fingerprints`], with names of the attacker's own.
    Names,
    /// `/v1/info` is honest. The cards are the attacker's.
    Cards,
    /// The service's receipts are changed.
    Receipts,
    /// The service's acknowledgements are changed.
    Acknowledgements,
}

impl std::str::FromStr for Lie {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "nothing" => Self::Nothing,
            "fingerprints" => Self::Fingerprints,
            "names" => Self::Names,
            "cards" => Self::Cards,
            "receipts" => Self::Receipts,
            "acknowledgements" => Self::Acknowledgements,
            other => bail!("there is no lie `{other}`"),
        })
    }
}

/// A party that the attacker plays.
struct Impostor {
    role: &'static str,
    index: ShareIndex,
    keys: PartyKeys,
    card: Card,
    prepared: Option<PreparedShare>,
}

impl Impostor {
    fn new(role: &'static str, index: ShareIndex, name: &str) -> Result<Self> {
        let mut entropy = system_rng();
        let keys = PartyKeys::generate(&mut entropy);
        let (parameters, trapdoor) =
            test_fixtures::ring_pedersen(usize::from(u8::from(index)), default_arithmetic(), &mut entropy);
        let card = Card::new_verifier(name.parse()?, &keys, &parameters, &trapdoor, &mut entropy);
        Ok(Self { role, index, keys, card, prepared: None })
    }

    fn token(&self) -> Result<AdmissionToken> {
        let until_s = now_ms() / 1000 + TOKEN_LIFE_S;
        let party = self.card.party().clone();
        Ok(AdmissionToken::issue(&self.keys, party, TENANT.parse()?, random(), until_s, 100))
    }

    /// Answers as an honest party would.
    fn answer(&mut self, message: &[u8], peer: &Card) -> Result<Vec<u8>> {
        let reply = match codec::decode(message)? {
            ShareRequest::Prepare { package } => {
                let pinned: BTreeMap<PartyId, CardFingerprint> =
                    [(peer.party().clone(), peer.fingerprint())].into();
                let receiver = Receiver {
                    index: self.index,
                    keys: &self.keys,
                    card: &self.card,
                    pinned: &pinned,
                    arithmetic: default_arithmetic(),
                };
                let prepared = receiver.open(&package)?.verify(&receiver, now_ms() / 1000, 0)?;
                let receipt = codec::encode(&prepared.receipt(&self.keys, &self.card))?;
                self.prepared = Some(prepared);
                ShareReply::Receipt { receipt }
            }
            ShareRequest::Commit { bundle } => {
                let bundle: ReceiptBundle = codec::decode(&bundle)?;
                let prepared = self.prepared.as_ref().context("nothing is prepared")?;
                let order = bundle.verify(prepared, &self.card, &[peer])?;
                ShareReply::CommitAck { acknowledgement: codec::encode(&order.acknowledge(&self.keys))? }
            }
        };
        Ok(codec::encode(&reply)?)
    }

    /// The share that it received.
    fn share(&self) -> Result<Option<Scalar>> {
        let Some(prepared) = &self.prepared else { return Ok(None) };
        // The secret is the last member of the record.
        let record = prepared.share().to_secret_bytes()?;
        let secret = record.last_chunk().context("a share of less than 32 bytes")?;
        Ok(Some(scalar_from_bytes(secret)?))
    }
}

/// The attacker's state: its parties, and how many packages they received.
struct Attacker {
    lie: Lie,
    service: Impostor,
    partner: Impostor,
    packages: usize,
}

impl Attacker {
    fn new(lie: Lie) -> Result<Self> {
        let [service, partner] =
            if lie == Lie::Names { ["mallory", "malloria"] } else { ["service", "partner"] };
        Ok(Self {
            lie,
            service: Impostor::new("service", ShareIndex::Service, service)?,
            partner: Impostor::new("partner", ShareIndex::Partner, partner)?,
            packages: 0,
        })
    }

    const fn has_parties(&self) -> bool {
        matches!(self.lie, Lie::Fingerprints | Lie::Names | Lie::Cards)
    }

    /// The impostor with this name, and the card of the other one.
    fn impostor(&mut self, name: &PartyId) -> Option<(&mut Impostor, &Card)> {
        let Self { service, partner, .. } = self;
        if service.card.party() == name {
            Some((service, &partner.card))
        } else if partner.card.party() == name {
            Some((partner, &service.card))
        } else {
            None
        }
    }

    /// The attacker's own answer to a request. `None` when it forwards the request.
    fn answer(&mut self, to: &Destination, message: &[u8]) -> Option<Result<Vec<u8>>> {
        if !self.has_parties() {
            return None;
        }
        match to {
            Destination::Card(name) => {
                let asks = matches!(codec::decode(message), Ok(CardRequest::Card));
                let (impostor, _) = self.impostor(name).filter(|_| asks)?;
                let card = codec::encode(&impostor.card);
                Some(card.and_then(|card| codec::encode(&CardReply::Card { card })).map_err(Into::into))
            }
            Destination::Share(name) => {
                let (impostor, peer) = self.impostor(name)?;
                let answer = impostor.answer(message, peer);
                self.packages += 1;
                Some(answer)
            }
            _ => None,
        }
    }

    /// A reply of the honest gateway, as the attacker changes it.
    fn change(&self, from: &Destination, reply: Vec<u8>) -> Vec<u8> {
        let is_service = matches!(from, Destination::Share(name) if name.as_str() == "service");
        // Flips a bit in the first half of the signature, which ends 32 bytes before the end.
        let spoil = |mut signed: Vec<u8>| {
            let at = signed.len().saturating_sub(40);
            if let Some(byte) = signed.get_mut(at) {
                *byte ^= 1;
            }
            signed
        };
        let changed = match (self.lie, codec::decode(&reply)) {
            (Lie::Receipts, Ok(ShareReply::Receipt { receipt })) if is_service => {
                ShareReply::Receipt { receipt: spoil(receipt) }
            }
            (Lie::Acknowledgements, Ok(ShareReply::CommitAck { acknowledgement })) if is_service => {
                ShareReply::CommitAck { acknowledgement: spoil(acknowledgement) }
            }
            _ => return reply,
        };
        codec::encode(&changed).unwrap_or(reply)
    }

    /// The attacker's version of `/v1/info`. `honest` is that of the honest gateway.
    fn info(&self, mut honest: Value) -> Result<Value> {
        if !matches!(self.lie, Lie::Fingerprints | Lie::Names) {
            return Ok(honest);
        }
        let impostors = [&self.service, &self.partner];
        let backends: Vec<Value> = impostors
            .iter()
            .map(|one| {
                json!({"role": one.role, "party": one.card.party(), "fingerprint": one.card.fingerprint().to_string()})
            })
            .collect();
        let mut admission = serde_json::Map::new();
        for one in impostors {
            admission.insert(one.card.party().to_string(), json!(one.token()?.to_string()));
        }
        let document = honest.as_object_mut().context("no object")?;
        document.insert("trial".to_owned(), json!(true));
        document.insert("backends".to_owned(), json!(backends));
        document.insert("admission".to_owned(), Value::Object(admission));
        Ok(honest)
    }
}

struct Relay {
    gateway: String,
    attacker: Mutex<Attacker>,
}

impl Relay {
    fn attacker(&self) -> MutexGuard<'_, Attacker> {
        self.attacker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A relay that serves until it is dropped.
pub struct LyingGateway {
    url: String,
    relay: Arc<Relay>,
    server: JoinHandle<()>,
}

impl std::fmt::Debug for LyingGateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LyingGateway").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Drop for LyingGateway {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl LyingGateway {
    /// Starts a relay in front of the gateway at `gateway`, on a free port of the loopback.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(gateway: &str, lie: Lie) -> Result<Self> {
        let relay =
            Arc::new(Relay { gateway: gateway.to_owned(), attacker: Mutex::new(Attacker::new(lie)?) });
        let router = Router::new()
            .route("/v1/info", get(info))
            .route(DEVICE_PATH, get(device))
            .with_state(Arc::clone(&relay));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.ok();
        });
        Ok(Self { url, relay, server })
    }

    /// The URL for devices.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Changes what it lies about, and makes new parties.
    ///
    /// # Errors
    /// Never, because the names are constants.
    pub fn lie(&self, lie: Lie) -> Result<()> {
        *self.relay.attacker() = Attacker::new(lie)?;
        Ok(())
    }

    /// How many messages of wallet creations its parties received.
    #[must_use]
    pub fn packages(&self) -> usize {
        self.relay.attacker().packages
    }

    /// The wallet's whole key, if the attacker received both shares: `x = 3·x2 − 2·x3`.
    ///
    /// # Errors
    /// When a share does not parse.
    pub fn stolen_key(&self) -> Result<Option<Scalar>> {
        let attacker = self.relay.attacker();
        let shares = attacker.service.share()?.zip(attacker.partner.share()?);
        Ok(shares.map(|(second, third)| Scalar::from(3_u64) * second - Scalar::from(2_u64) * third))
    }
}

async fn info(State(relay): State<Arc<Relay>>, headers: HeaderMap) -> Response {
    let asked = async {
        let url = format!("{}/v1/info", relay.gateway);
        let honest: Value = http_client()?.get(url).send().await?.error_for_status()?.json().await?;
        relay.attacker().info(honest)
    };
    let origin = headers.get(header::ORIGIN).cloned();
    match asked.await {
        Ok(document) => {
            let mut response = Json(document).into_response();
            if let Some(origin) = origin {
                response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            }
            response
        }
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    }
}

async fn device(State(relay): State<Arc<Relay>>, headers: HeaderMap, browser: WebSocketUpgrade) -> Response {
    let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    match upgrade(&relay.gateway, "127.0.0.1", origin).await {
        Ok(gateway) => browser.on_upgrade(|browser| async move {
            // Both sockets are closed after this, even after an error.
            pass_on(&relay, browser, gateway).await.ok();
        }),
        Err(error) => (StatusCode::UNAUTHORIZED, error.to_string()).into_response(),
    }
}

/// Forwards frames in both directions until one side ends.
async fn pass_on(
    relay: &Relay,
    mut browser: WebSocket,
    mut gateway: WebSocketStream<TcpStream>,
) -> Result<()> {
    let mut asked = BTreeMap::new();
    loop {
        tokio::select! {
            message = browser.recv() => match message.transpose()? {
                Some(Message::Binary(bytes)) => {
                    let own = match codec::decode(&bytes) {
                        Ok(ClientFrame::Request { id, to, message }) => {
                            let own = relay.attacker().answer(&to, &message).transpose()?;
                            asked.insert(id, to);
                            own.map(|message| ServerFrame::Reply { id, message })
                        }
                        _ => None,
                    };
                    match own {
                        Some(reply) => browser.send(Message::Binary(codec::encode(&reply)?.into())).await?,
                        None => gateway.send(tungstenite::Message::Binary(bytes)).await?,
                    }
                }
                Some(Message::Close(_)) | None => return Ok(()),
                Some(_) => {}
            },
            message = gateway.next() => match message.transpose()? {
                Some(tungstenite::Message::Binary(bytes)) => {
                    let bytes = match codec::decode(&bytes) {
                        Ok(ServerFrame::Reply { id, message }) => {
                            let message = match asked.remove(&id) {
                                Some(from) => relay.attacker().change(&from, message),
                                None => message,
                            };
                            codec::encode(&ServerFrame::Reply { id, message })?.into()
                        }
                        _ => bytes,
                    };
                    browser.send(Message::Binary(bytes)).await?;
                }
                Some(tungstenite::Message::Close(_)) | None => return Ok(()),
                Some(_) => {}
            },
        }
    }
}
