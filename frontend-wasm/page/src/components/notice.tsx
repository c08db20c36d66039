import type { ComponentChildren } from "preact";
import type { DuetError } from "@duet/signer";

import { explain } from "../text/errors";
import { Button } from "./button";
import { Icon, type IconName } from "./icon";

export type NoticeTone = "info" | "warn" | "bad" | "good";

const ICONS: Record<NoticeTone, IconName> = {
  info: "info",
  warn: "warning",
  bad: "error",
  good: "good",
};

interface NoticeProps {
  tone?: NoticeTone | undefined;
  title?: string | undefined;
  testId?: string | undefined;
  children?: ComponentChildren;
}

export function Notice({ tone = "info", title, testId, children }: NoticeProps) {
  return (
    <div class={`notice notice-${tone}`} data-testid={testId}>
      <Icon name={ICONS[tone]} />
      <div class="notice-body">
        {title && <p class="notice-title">{title}</p>}
        {children}
      </div>
    </div>
  );
}

interface ErrorNoticeProps {
  error: DuetError;
  onRetry?: (() => void) | undefined;
  onDismiss?: (() => void) | undefined;
}

/** A failure: what it means, what helps, and below it the exact message and its sender. */
export function ErrorNotice({ error, onRetry, onDismiss }: ErrorNoticeProps) {
  const { title, remedy, tone, again } = explain(error);
  return (
    <div
      class={`notice notice-${tone}`}
      role="alert"
      data-testid="error"
      data-kind={error.kind}
      data-code={error.code}
      data-by={error.by}
    >
      <Icon name={tone === "bad" ? "error" : "warning"} />
      <div class="notice-body">
        <p class="notice-title">{title}</p>
        <p>{remedy}</p>
        <p class="small soft">
          {error.message}
          {error.by && error.kind === "refused" && ` Said by ${error.by}.`}
          {error.by && error.kind === "party-unreachable" && ` Party: ${error.by}.`}
          {error.code && (
            <>
              {" "}
              Code: <code>{error.code}</code>
            </>
          )}
        </p>
        {((onRetry && again) || onDismiss || error.kind === "stale-page") && (
          <div class="actions">
            {error.kind === "stale-page" && (
              <Button testId="error-reload" small onClick={() => location.reload()}>
                Reload
              </Button>
            )}
            {onRetry && again && (
              <Button testId="error-retry" small onClick={onRetry}>
                Try again
              </Button>
            )}
            {onDismiss && (
              <Button testId="error-dismiss" small tone="quiet" onClick={onDismiss}>
                Dismiss
              </Button>
            )}
          </div>
        )}
      </div>
    </div>
  );
}
