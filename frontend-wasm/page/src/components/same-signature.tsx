/** What an owner should know before logging in to sites that make keys from a signature. */
export function SameSignature({ testId }: { testId: string }) {
  return (
    <p class="soft" data-testid={testId}>
      Some sites derive keys from a signature. This browser signs the same message with the same
      signature each time, but a backup does not contain these signatures. On another device, such a
      site may not know this wallet any more.
    </p>
  );
}
