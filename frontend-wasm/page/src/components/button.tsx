import type { ComponentChildren } from "preact";

import { Icon, type IconName } from "./icon";

export type ButtonTone = "primary" | "secondary" | "quiet" | "danger";

interface ButtonProps {
  testId: string;
  children: ComponentChildren;
  tone?: ButtonTone | undefined;
  small?: boolean | undefined;
  icon?: IconName | undefined;
  type?: "button" | "submit" | undefined;
  /** Shown as working, and not to be pressed again. */
  busy?: boolean | undefined;
  disabled?: boolean | undefined;
  /** Of a button that shows and hides something. */
  expanded?: boolean | undefined;
  onClick?: (() => void) | undefined;
  /** Further `data-…` attributes that tests wait for. */
  data?: Record<`data-${string}`, string> | undefined;
}

const classes = (tone: ButtonTone, small: boolean | undefined) =>
  `button button-${tone}${small === true ? " button-small" : ""}`;

export function Button({
  testId,
  children,
  tone = "secondary",
  small,
  icon,
  type = "button",
  busy,
  disabled,
  expanded,
  onClick,
  data,
}: ButtonProps) {
  return (
    <button
      type={type}
      class={classes(tone, small)}
      data-testid={testId}
      // A working button keeps the focus, so that keyboard users are not thrown to the top of the
      // page.
      aria-busy={busy === true}
      aria-disabled={busy === true}
      disabled={disabled === true}
      aria-expanded={expanded}
      onClick={event => {
        if (busy === true) event.preventDefault();
        else onClick?.();
      }}
      {...data}
    >
      {icon && busy !== true && <Icon name={icon} />}
      <span>{children}</span>
    </button>
  );
}

interface IconButtonProps {
  testId: string;
  icon: IconName;
  label: string;
  onClick: () => void;
  pressed?: boolean | undefined;
}

export function IconButton({ testId, icon, label, onClick, pressed }: IconButtonProps) {
  return (
    <button
      type="button"
      class="button button-icon"
      data-testid={testId}
      aria-label={label}
      title={label}
      aria-pressed={pressed}
      onClick={onClick}
    >
      <Icon name={icon} />
    </button>
  );
}

interface LinkButtonProps {
  testId: string;
  href: string;
  children: ComponentChildren;
  tone?: ButtonTone | undefined;
  small?: boolean | undefined;
  icon?: IconName | undefined;
}

export function LinkButton({
  testId,
  href,
  children,
  tone = "secondary",
  small,
  icon,
}: LinkButtonProps) {
  return (
    <a class={classes(tone, small)} href={href} data-testid={testId}>
      {icon && <Icon name={icon} />}
      <span>{children}</span>
    </a>
  );
}
