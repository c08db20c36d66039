/** Jobs that wait for the owner. */

import type { JobId, WaitingJob, WalletId } from "../types.js";
import type { Context } from "./context.js";
import type { DeviceWallet } from "./engine.js";
import { type Line, unexpected } from "./line.js";
import type { Call } from "./rpc.js";

/** The oldest waiting jobs of a wallet, as many as one answer holds. Those whose request does not verify are left out. */
export async function inbox(
  context: Context,
  call: Call<"inbox">,
  id: WalletId,
): Promise<WaitingJob[]> {
  const reply = await context.wallets.use(id, ({ device }) =>
    context.line.approval(id, nowMs => device.listJobs(nowMs), call.signal),
  );
  if (reply.kind !== "jobs") unexpected("orchestrator");
  const { abandoned, line } = context;
  return reply.jobs.filter(({ job }) => {
    if (!abandoned.has(job)) return true;
    // Its caller was told that nothing was signed.
    const refuse = context.wallets.use(id, ({ device }) => revoke(line, device, id, job));
    refuse.then(
      () => abandoned.delete(job),
      () => undefined,
    );
    return false;
  });
}

/** Refuses a job for good. */
export async function reject(
  context: Context,
  call: Call<"reject">,
  id: WalletId,
  job: JobId,
): Promise<undefined> {
  await context.wallets.use(id, ({ device }) => revoke(context.line, device, id, job, call.signal));
}

/** Revokes a job's request under the owner's key: service and partner refuse it from then on, from every sender. */
export async function revoke(
  line: Line,
  device: DeviceWallet,
  id: WalletId,
  job: JobId,
  signal?: AbortSignal,
): Promise<void> {
  const asked = await line.approval(id, nowMs => device.askJob(job, nowMs), signal);
  if (asked.kind !== "job" || asked.job !== job || asked.requestHash === undefined)
    unexpected("orchestrator");
  const { requestHash } = asked;
  const reply = await line.approval(id, nowMs => device.rejectJob(job, requestHash, nowMs), signal);
  if (reply.kind !== "done") unexpected("orchestrator");
}
