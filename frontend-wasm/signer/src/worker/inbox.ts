/** Jobs that wait for the owner. */

import type { JobId, WaitingJob, WalletId } from "../types.js";
import type { Context } from "./context.js";
import { unexpected } from "./line.js";
import type { Call } from "./rpc.js";

/** The oldest waiting jobs of a wallet, as many as one answer holds. Those whose request does not verify are left out. */
export async function inbox(context: Context, call: Call<"inbox">, id: WalletId): Promise<WaitingJob[]> {
  const reply = await context.wallets.use(id, ({ device }) =>
    context.line.approval(id, (nowMs) => device.listJobs(nowMs), call.signal),
  );
  if (reply.kind !== "jobs") unexpected("orchestrator");
  const { abandoned, line } = context;
  return reply.jobs.filter(({ job }) => {
    if (!abandoned.has(job)) return true;
    // Its caller was told that nothing was signed.
    const refuse = context.wallets.use(id, ({ device }) => line.approval(id, (nowMs) => device.rejectJob(job, nowMs)));
    refuse.then(() => abandoned.delete(job), () => undefined);
    return false;
  });
}

/** Refuses a job for good. */
export async function reject(context: Context, call: Call<"reject">, id: WalletId, job: JobId): Promise<undefined> {
  const reply = await context.wallets.use(id, ({ device }) =>
    context.line.approval(id, (nowMs) => device.rejectJob(job, nowMs), call.signal),
  );
  if (reply.kind !== "done") unexpected("orchestrator");
}
