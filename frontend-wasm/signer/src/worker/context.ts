/** What the worker's parts share. */

import type { WorkerSettings } from "../protocol.js";
import type { JobId } from "../types.js";
import type { Database } from "./database.js";
import type { Engine } from "./engine.js";
import type { Line } from "./line.js";
import type { Tabs } from "./tabs.js";
import type { Wallets } from "./wallets.js";

export interface Context {
  readonly settings: WorkerSettings;
  readonly engine: Engine;
  readonly database: Database;
  readonly tabs: Tabs;
  readonly line: Line;
  readonly wallets: Wallets;
  /** Own jobs of this tab whose callers were told that nothing was signed. */
  readonly abandoned: Set<JobId>;
}
