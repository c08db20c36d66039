import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";

import { IconButton } from "./button";

interface DialogProps {
  testId: string;
  title: string;
  onClose: () => void;
  children: ComponentChildren;
}

/** The browser's own modal dialog: it keeps the focus inside, closes on Escape, and gives the focus back. */
export function Dialog({ testId, title, onClose, children }: DialogProps) {
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement;
    element.current?.showModal();
    return () => {
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={element}
      class="dialog"
      data-testid={testId}
      aria-labelledby={`${testId}-title`}
      onClose={onClose}
      onClick={event => {
        // Only a press on the backdrop has the dialog itself as its target.
        if (event.target === event.currentTarget) event.currentTarget.close();
      }}
    >
      <div class="stack-loose">
        <div class="dialog-head">
          <h2 id={`${testId}-title`}>{title}</h2>
          <IconButton
            testId={testId.replace(/-dialog$/, "-close")}
            icon="close"
            label="Close"
            onClick={() => element.current?.close()}
          />
        </div>
        {children}
      </div>
    </dialog>
  );
}
