/** The browser as a signing party. */
export type * from "./types.js";
