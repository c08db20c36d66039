import { LinkButton } from "../components/button";
import { Icon } from "../components/icon";
import { View } from "../components/view";
import { href } from "../router";

/** What one sees before there is a wallet. */
export function WelcomeView() {
  return (
    <View
      name="welcome"
      title="An Ethereum wallet whose key nobody holds"
      lead="The key is made here, split into three shares, and never put together again. Any two shares sign; no single one can, not even the service."
    >
      <div class="actions">
        <LinkButton testId="welcome-create" tone="primary" href={href({ view: "create" })} icon="plus">
          Create a wallet
        </LinkButton>
        <LinkButton testId="welcome-restore" href={href({ view: "restore" })} icon="refresh">
          Restore from a backup
        </LinkButton>
      </div>
      <section class="card welcome-shares" aria-labelledby="welcome-how">
        <h2 id="welcome-how">How it works</h2>
        <ol class="welcome-list">
          <li class="actor-device">
            <Icon name="device" />
            <div>
              <h3>Your share stays here</h3>
              <p class="soft">Sealed in this browser by your passphrase or passkey, and opened only while you sign.</p>
            </div>
          </li>
          <li class="actor-service">
            <Icon name="server" />
            <div>
              <h3>The service has one</h3>
              <p class="soft">It signs with you after checking for itself what is signed. Alone it can do nothing.</p>
            </div>
          </li>
          <li class="actor-partner">
            <Icon name="person" />
            <div>
              <h3>The third is your spare</h3>
              <p class="soft">With a partner, or in a file that only you can open. To come back after this browser is lost, you need a backup file of your own share, which you make with the wallet.</p>
            </div>
          </li>
        </ol>
      </section>
      <p class="soft">
        You only want to check a signature?{" "}
        <a href={href({ view: "verify" })} data-testid="welcome-verify">
          Verify it here
        </a>
        , without a wallet.
      </p>
    </View>
  );
}
