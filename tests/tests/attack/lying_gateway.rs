//! N* controls the gateway. It names its own parties, shows its own cards and changes receipts. But
//! the dealer decides whom it deals to: with pinned parties it seals nothing to others. Chromium
//! plays a page's part (`tests/browser/scenarios/lying-gateway.mjs`).

use std::fs;

use anyhow::{Context as _, Result};
use duet_actors::{
    browser::{
        device::{Device, Recipient},
        socket::Socket,
    },
    lying_gateway::{Lie, LyingGateway},
};
use duet_harness::stack::Stack;
use duet_protocol::{card::CardRefusal, curve::SecretScalar, keygen::PaperRefusal};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_believes_a_gateway__should_give_its_whole_key_away() -> Result<()> {
    let stack = Stack::start().await?;
    for lie in [Lie::Fingerprints, Lie::Names] {
        let gateway = LyingGateway::start(stack.gateway_url(), lie).await?;
        let device = Device::create(gateway.url(), &mut Socket::open(gateway.url()).await?).await?;
        let stolen = SecretScalar::new(gateway.stolen_key()?.context("the attacker has not both shares")?)?;
        assert_eq!(
            stolen.public().to_bytes(),
            device.wallet.share().wallet().public_key().to_bytes(),
            "{lie:?}"
        );
    }
    eprintln!("evidence: keys of devices that believe the gateway = 2; stolen = 2");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_with_pinned_parties__should_deal_to_no_others() -> Result<()> {
    let stack = Stack::start().await?;
    let pinned = Recipient::named_by(stack.gateway_url()).await?;
    let gateway = LyingGateway::start(stack.gateway_url(), Lie::Nothing).await?;
    for lie in [Lie::Fingerprints, Lie::Cards] {
        gateway.lie(lie)?;
        let refused =
            Device::deal(pinned.clone(), &mut Socket::open(gateway.url()).await?).await.unwrap_err();
        assert!(
            matches!(refused.downcast_ref(), Some(CardRefusal::Fingerprint { .. })),
            "{lie:?}: {refused:?}"
        );
        assert_eq!((gateway.packages(), gateway.stolen_key()?), (0, None), "{lie:?}");
    }
    for lie in [Lie::Receipts, Lie::Acknowledgements] {
        gateway.lie(lie)?;
        let refused =
            Device::deal(pinned.clone(), &mut Socket::open(gateway.url()).await?).await.unwrap_err();
        let culprit = refused.downcast_ref().map(PaperRefusal::party);
        assert_eq!(culprit.map(ToString::to_string).as_deref(), Some("service"), "{lie:?}: {refused:?}");
    }
    // Honest again, it serves. Other names are not even asked for.
    for lie in [Lie::Names, Lie::Nothing] {
        gateway.lie(lie)?;
        Device::deal(pinned.clone(), &mut Socket::open(gateway.url()).await?).await?;
        assert_eq!(gateway.packages(), 0);
    }
    eprintln!("evidence: lies = 4; packages sealed to others = 0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command__should_deal_to_the_configured_parties_alone() -> Result<()> {
    let stack = Stack::start().await?;
    let device = stack.device("device")?;
    let arguments = stack.wallet_arguments();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name).unwrap();
        arguments[at + 1].as_str()
    };
    let tokens = [
        "--service-token-file",
        option("--service-token-file"),
        "--partner-token-file",
        option("--partner-token-file"),
    ];
    // No configuration pins the parties.
    let refusal = device.refused(&[&["wallet", "create"], &tokens[..]].concat()).await?;
    assert_eq!(refusal.code, "usage", "{refusal:?}");

    let file = stack.directory().join("config.json");
    let path = file.to_string_lossy().into_owned();
    let configured = |service: &str| {
        json!({"gateway": "https://gateway.example", "parties": [
            {"role": "service", "name": "service", "fingerprint": service},
            {"role": "partner", "name": "partner", "fingerprint": option("--partner-fingerprint"),
             "token": fs::read_to_string(option("--partner-token-file")).unwrap().trim()},
        ]})
    };
    let create =
        ["wallet", "create", "--parties", &path, "--service-token-file", option("--service-token-file")];
    // The broker shows another card than the configuration names.
    fs::write(&file, configured(&"5a".repeat(32)).to_string())?;
    let refusal = device.refused(&create).await?;
    assert_eq!(refusal.code, "card-mismatch", "{refusal:?}");
    let resumed = device.json(&["wallet", "resume"]).await?;
    assert_eq!(resumed["wallets"], json!([]), "nothing was dealt");

    fs::write(&file, configured(option("--service-fingerprint")).to_string())?;
    let created = device.json(&create).await?;
    assert_eq!(created["wallet"]["status"], "ready");
    Ok(())
}
