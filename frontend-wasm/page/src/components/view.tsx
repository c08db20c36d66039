import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

import { navigations } from "../router";
import { Icon } from "./icon";

interface ViewProps {
  /** The view's name in `data-view`. */
  name: string;
  title: string;
  lead?: ComponentChildren;
  back?: { href: string; text: string } | undefined;
  narrow?: boolean | undefined;
  children: ComponentChildren;
}

/** The main part of the page. When one comes here from another view, the heading takes the focus. */
export function View({ name, title, lead, back, narrow, children }: ViewProps) {
  const heading = useRef<HTMLHeadingElement>(null);
  useLayoutEffect(() => {
    document.title = `${title} · Duet`;
    if (navigations.peek() > 0) heading.current?.focus({ preventScroll: true });
  }, [name]);
  return (
    <main class="main" id="main" data-testid="view" data-view={name}>
      <div class={narrow === true ? "view view-narrow" : "view"}>
        <div class="view-head">
          {back && (
            <a class="back" href={back.href} data-testid="back">
              <Icon name="back" />
              {back.text}
            </a>
          )}
          <h1 ref={heading} tabIndex={-1}>
            {title}
          </h1>
          {lead && <p class="view-lead">{lead}</p>}
        </div>
        {children}
      </div>
    </main>
  );
}

/** A heading that takes the focus when it appears: the next step of what one is doing. */
export function StepHeading({ children }: { children: ComponentChildren }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useLayoutEffect(() => heading.current?.focus(), []);
  return (
    <h2 ref={heading} tabIndex={-1}>
      {children}
    </h2>
  );
}
