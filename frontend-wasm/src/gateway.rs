//! The gateway's frames, one for each binary message of its WebSocket.

use duet_protocol::codec;
use duet_wire::gateway::{ClientFrame, Destination, GATEWAY_PROTOCOL, ServerFrame};
use js_sys::Reflect;
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

use crate::{
    convert::{bytes, encoded, parse},
    failure::{Failure, outcome},
    object::object,
};

/// The version of the frames that is spoken here.
#[wasm_bindgen(js_name = gatewayProtocol)]
#[must_use]
pub fn gateway_protocol() -> u16 {
    GATEWAY_PROTOCOL
}

/// The first frame: which page this is. The proof for a wallet is `DeviceWallet.authenticate`.
#[wasm_bindgen(js_name = helloFrame, unchecked_return_type = "Result<Uint8Array>")]
#[must_use]
pub fn hello_frame(build: &str) -> JsValue {
    outcome(encoded(&ClientFrame::Hello { protocol: GATEWAY_PROTOCOL, build: build.to_owned() }))
}

/// A message to be forwarded.
#[wasm_bindgen(js_name = requestFrame, unchecked_return_type = "Result<Uint8Array>")]
#[must_use]
pub fn request_frame(
    id: u32,
    #[wasm_bindgen(unchecked_param_type = "GatewayDestination")] to: &JsValue,
    message: Vec<u8>,
) -> JsValue {
    outcome(destination(to).and_then(|to| encoded(&ClientFrame::Request { id, to, message })))
}

/// The wallet has been locked.
#[wasm_bindgen(js_name = leaveFrame, unchecked_return_type = "Result<Uint8Array>")]
#[must_use]
pub fn leave_frame(wallet: &str) -> JsValue {
    outcome(parse("wallet", wallet).and_then(|wallet| encoded(&ClientFrame::Leave { wallet })))
}

fn text(of: &JsValue, name: &str) -> Result<String, Failure> {
    Reflect::get(of, &name.into())
        .ok()
        .and_then(|value| value.as_string())
        .ok_or_else(|| Failure::malformed("to", format_args!("expected the text `{name}`")))
}

fn destination(to: &JsValue) -> Result<Destination, Failure> {
    let session = || text(to, "session").and_then(|session| parse("to.session", &session));
    match text(to, "kind")?.as_str() {
        "card" => Ok(Destination::Card(parse("to.party", &text(to, "party")?)?)),
        "share" => Ok(Destination::Share(parse("to.party", &text(to, "party")?)?)),
        "approval" => Ok(Destination::Approval(parse("to.wallet", &text(to, "wallet")?)?)),
        "round" => Ok(Destination::Round { session: session()?, to: parse("to.to", &text(to, "to")?)? }),
        "outcome" => Ok(Destination::Outcome { session: session()? }),
        "event" => Ok(Destination::Event { session: session()? }),
        other => Err(Failure::malformed("to", format_args!("there is no destination `{other}`"))),
    }
}

/// Reads a frame of the gateway.
#[wasm_bindgen(js_name = readFrame, unchecked_return_type = "Result<ServerFrame>")]
#[must_use]
pub fn read_frame(frame: &[u8]) -> JsValue {
    outcome(codec::decode::<ServerFrame>(frame).map(read).map_err(Failure::from))
}

fn read(frame: ServerFrame) -> JsValue {
    match frame {
        ServerFrame::Challenge { nonce, protocol, build, limits } => object([
            ("kind", "challenge".into()),
            ("nonce", bytes(&nonce)),
            ("protocol", protocol.into()),
            ("build", build.into()),
            (
                "limits",
                object([("maxFrameBytes", limits.max_frame_bytes.into()), ("idleS", limits.idle_s.into())]),
            ),
        ]),
        ServerFrame::Authenticated { wallet } => {
            object([("kind", "authenticated".into()), ("wallet", wallet.to_string().into())])
        }
        ServerFrame::Reply { id, message } => {
            object([("kind", "reply".into()), ("id", id.into()), ("message", bytes(&message))])
        }
        ServerFrame::Refused { id, refusal } => object([
            ("kind", "refused".into()),
            ("id", id.map_or(JsValue::UNDEFINED, JsValue::from)),
            (
                "refusal",
                object([("code", refusal.code.to_string().into()), ("message", refusal.message.into())]),
            ),
        ]),
        ServerFrame::Waiting { wallet, jobs } => {
            object([("kind", "waiting".into()), ("wallet", wallet.to_string().into()), ("jobs", jobs.into())])
        }
    }
}
