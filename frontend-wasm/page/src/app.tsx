import { useEffect } from "preact/hooks";

import { Button, IconButton } from "./components/button";
import { Dialog } from "./components/dialog";
import { Icon, Logo, type IconName } from "./components/icon";
import { InterruptedBanner } from "./components/interrupted";
import { lazy } from "./components/lazy";
import { ErrorNotice } from "./components/notice";
import { View } from "./components/view";
import { BUILD } from "./config";
import { href, leave, leavingFor, reasonToStay, route, type Route } from "./router";
import { connection, open, opening, waitingTotal, walletById, wallets } from "./state/duet";
import { interrupted } from "./state/interrupted";
import { shownTheme, theme } from "./state/settings";
import { WalletsView } from "./views/wallets";
import { WelcomeView } from "./views/welcome";

const CreateView = lazy(async () => (await import("./views/create")).CreateView);
const RestoreView = lazy(async () => (await import("./views/restore")).RestoreView);
const WalletView = lazy(async () => (await import("./views/wallet")).WalletView);
const WalletSettingsView = lazy(
  async () => (await import("./views/wallet-settings")).WalletSettingsView,
);
const SendView = lazy(async () => (await import("./views/send")).SendView);
const MessageView = lazy(async () => (await import("./views/message")).MessageView);
const TypedDataView = lazy(async () => (await import("./views/typed-data")).TypedDataView);
const InboxView = lazy(async () => (await import("./views/inbox")).InboxView);
const VerifyView = lazy(async () => (await import("./views/verify")).VerifyView);
const SettingsView = lazy(async () => (await import("./views/settings")).SettingsView);

export function App() {
  useEffect(() => void open(), []);
  return (
    <div
      class="shell"
      data-testid="app"
      data-ready={String(opening.value === "ready")}
      data-build={BUILD}
    >
      <a
        class="skip"
        href="#main"
        data-testid="skip-link"
        onClick={event => {
          // The hash is the route, so the link must not change it.
          event.preventDefault();
          document.querySelector<HTMLElement>("#main h1")?.focus();
        }}
      >
        Skip to the content
      </a>
      <Header />
      <Banners />
      <Current />
      <LeaveDialog />
      <footer class="footer">
        <span>This browser makes keys and signs with its share. No party keeps a whole key.</span>
      </footer>
    </div>
  );
}

/** Asks before a view is left that the owner still needs. */
function LeaveDialog() {
  if (leavingFor.value === null) return null;
  const stay = () => {
    leavingFor.value = null;
  };
  return (
    <Dialog testId="leave-dialog" title="Leave now?" onClose={stay}>
      <p>{reasonToStay.value}</p>
      <div class="actions">
        <Button testId="leave-stay" tone="primary" onClick={stay}>
          Stay
        </Button>
        <Button testId="leave-anyway" tone="danger" onClick={leave}>
          Leave
        </Button>
      </div>
    </Dialog>
  );
}

const CONNECTION_TEXTS = {
  connecting: "Connecting",
  online: "Connected",
  offline: "Offline",
  "stale-page": "Out of date",
} as const;

function Header() {
  const { view } = route.value;
  const dark = shownTheme() === "dark";
  const onWallets = !["inbox", "verify", "settings", "not-found"].includes(view);
  return (
    <header class="header">
      <div class="header-inner">
        <a class="brand" href="#/" aria-label="Duet, to the wallets">
          <Logo />
          <span>Duet</span>
        </a>
        <nav class="nav" aria-label="Main">
          <NavLink
            to={{ view: "home" }}
            testId="nav-wallets"
            icon="wallet"
            text="Wallets"
            current={onWallets}
          />
          <NavLink
            to={{ view: "inbox" }}
            testId="nav-inbox"
            icon="inbox"
            text="Inbox"
            current={view === "inbox"}
            count={waitingTotal.value}
          />
          <NavLink
            to={{ view: "verify" }}
            testId="nav-verify"
            icon="shield"
            text="Verify"
            current={view === "verify"}
          />
          <NavLink
            to={{ view: "settings" }}
            testId="nav-settings"
            icon="settings"
            text="Settings"
            current={view === "settings"}
          />
        </nav>
        <div class="header-side">
          <span
            class="connection"
            data-testid="connection"
            data-state={connection.value}
            role="status"
          >
            {CONNECTION_TEXTS[connection.value]}
          </span>
          <IconButton
            testId="theme-toggle"
            icon={dark ? "sun" : "moon"}
            label={dark ? "Switch to light" : "Switch to dark"}
            onClick={() => {
              theme.value = dark ? "light" : "dark";
            }}
          />
        </div>
      </div>
    </header>
  );
}

interface NavLinkProps {
  to: Route;
  testId: string;
  icon: IconName;
  text: string;
  current: boolean;
  count?: number;
}

function NavLink({ to, testId, icon, text, current, count = 0 }: NavLinkProps) {
  return (
    <a href={href(to)} data-testid={testId} aria-current={current ? "page" : undefined}>
      <Icon name={icon} />
      {text}
      {count > 0 && (
        <>
          <span class="count" data-testid="inbox-count">
            {count}
          </span>
          <span class="visually-hidden">waiting</span>
        </>
      )}
    </a>
  );
}

function Banners() {
  const state = connection.value;
  return (
    <div role="status">
      {state === "stale-page" && (
        <div class="banner" data-testid="stale-banner">
          <span>
            The gateway now serves another version of this page. Reload before you sign; your
            wallets stay in this browser.
          </span>
          <Button testId="stale-reload" small onClick={() => location.reload()}>
            Reload
          </Button>
        </div>
      )}
      {state === "offline" && (
        <div class="banner" data-testid="offline-banner">
          The gateway is out of reach. You can look at wallets, but not sign. The page keeps trying
          to connect.
        </div>
      )}
      {interrupted.value && opening.value === "ready" && (
        <InterruptedBanner running={interrupted.value} />
      )}
    </div>
  );
}

function Current() {
  const state = opening.value;
  if (state === "opening") return <main class="main" id="main" aria-busy="true" />;
  if (state !== "ready") {
    return (
      <View name="failed" title="Duet could not start" narrow>
        <ErrorNotice error={state} onRetry={() => void open()} />
      </View>
    );
  }
  const at = route.value;
  switch (at.view) {
    case "home":
      return wallets.value.length === 0 ? <WelcomeView /> : <WalletsView />;
    case "create":
      return <CreateView />;
    case "restore":
      return <RestoreView />;
    case "inbox":
      return <InboxView />;
    case "verify":
      return <VerifyView />;
    case "settings":
      return <SettingsView />;
    case "not-found":
      return <NotFound what="This page" />;
    default: {
      const wallet = walletById(at.wallet);
      if (!wallet) return <NotFound what="This wallet" />;
      // Keyed, so that nothing typed for one wallet is kept for another.
      switch (at.view) {
        case "wallet":
          return <WalletView key={wallet.id} wallet={wallet} />;
        case "send":
          return <SendView key={wallet.id} wallet={wallet} />;
        case "message":
          return <MessageView key={wallet.id} wallet={wallet} />;
        case "typed-data":
          return <TypedDataView key={wallet.id} wallet={wallet} />;
        case "wallet-settings":
          return <WalletSettingsView key={wallet.id} wallet={wallet} />;
      }
    }
  }
}

function NotFound({ what }: { what: string }) {
  return (
    <View
      name="not-found"
      title={`${what} is not here`}
      lead="It may be in another browser, or the link is wrong."
      narrow
    >
      <p>
        <a href="#/">To the wallets</a>
      </p>
    </View>
  );
}
