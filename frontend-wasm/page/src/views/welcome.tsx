import { LinkButton } from "../components/button";
import { Icon } from "../components/icon";
import { View } from "../components/view";
import { href } from "../router";

/** What one sees before there is a wallet. */
export function WelcomeView() {
  return (
    <View
      name="welcome"
      title="An Ethereum wallet with its key in three shares"
      lead="This browser makes the key, splits it into three shares, and erases it. Any two shares sign together. No single share can, not even the service's."
    >
      <div class="actions">
        <LinkButton
          testId="welcome-create"
          tone="primary"
          href={href({ view: "create" })}
          icon="plus"
        >
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
              <p class="soft">
                Sealed in this browser by your passphrase or passkey, and opened only while you
                sign.
              </p>
            </div>
          </li>
          <li class="actor-service">
            <Icon name="server" />
            <div>
              <h3>The service holds the second</h3>
              <p class="soft">
                It checks each request itself, then signs with you. Alone it cannot sign.
              </p>
            </div>
          </li>
          <li class="actor-partner">
            <Icon name="person" />
            <div>
              <h3>The third share is a spare</h3>
              <p class="soft">
                A partner holds it, or a file that only you can open. If this browser is lost, you
                come back with the backup file of your own share. You make that file when you create
                the wallet.
              </p>
            </div>
          </li>
        </ol>
      </section>
      <p class="soft">
        Do you only want to check a signature?{" "}
        <a href={href({ view: "verify" })} data-testid="welcome-verify">
          Verify it here
        </a>
        , without a wallet.
      </p>
    </View>
  );
}
