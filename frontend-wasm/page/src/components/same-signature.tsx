/** What an owner should know before logging in to sites that make keys from a signature. */
export function SameSignature({ testId }: { testId: string }) {
  return (
    <p class="soft" data-testid={testId}>
      This browser gives the same message the same signature each time. A backup does not hold these signatures. A site that makes
      keys from one may not know this wallet any more on a device that replaces this one.
    </p>
  );
}
