import { encode } from "uqr";
import { useState } from "preact/hooks";

import { Button } from "./button";

/** An address in groups of four, which the eye can compare. Its text is the address, without spaces. */
export function AddressText({
  address,
  testId,
  large,
}: {
  address: string;
  testId?: string | undefined;
  large?: boolean | undefined;
}) {
  const groups = address.slice(2).match(/.{1,4}/g) ?? [];
  return (
    <span class={large === true ? "address address-large" : "address"} data-testid={testId}>
      {groups.map((group, index) => (
        <span key={index}>{index === 0 ? `0x${group}` : group}</span>
      ))}
    </span>
  );
}

interface CopyButtonProps {
  testId: string;
  text: string;
  what: string;
  small?: boolean | undefined;
}

export function CopyButton({ testId, text, what, small = true }: CopyButtonProps) {
  const [state, setState] = useState<"idle" | "copied" | "failed">("idle");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setState("copied");
    } catch {
      setState("failed");
    }
    setTimeout(() => setState("idle"), 2500);
  };
  return (
    <span class="copy">
      <Button
        testId={testId}
        small={small}
        icon={state === "copied" ? "check" : "copy"}
        onClick={() => void copy()}
      >
        <span aria-hidden="true">{state === "copied" ? "Copied" : "Copy"}</span>
        <span class="visually-hidden">Copy {what}</span>
      </Button>
      <span class="visually-hidden" role="status">
        {state === "copied" && <span data-testid="copied">Copied.</span>}
        {state === "failed" && "The browser did not allow copying. Select the text instead."}
      </span>
    </span>
  );
}

/** The address as a QR code. One path, so that it stays sharp at any size. */
export function AddressQr({ address, testId }: { address: string; testId: string }) {
  const { data, size } = encode(address, { ecc: "M", border: 2 });
  const path = data
    .flatMap((row, y) => row.map((dark, x) => (dark ? `M${x} ${y}h1v1h-1z` : "")))
    .join("");
  return (
    <svg
      class="qr"
      viewBox={`0 0 ${size} ${size}`}
      role="img"
      aria-label={`QR code of ${address}`}
      data-testid={testId}
      shape-rendering="crispEdges"
    >
      <path d={path} fill="#16211f" />
    </svg>
  );
}
