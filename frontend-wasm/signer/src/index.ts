/**
 * The browser as a signing party. Start at {@link Duet}.
 *
 * @packageDocumentation
 */

export { Duet } from "./duet.js";
export { Failure } from "./errors.js";
export type * from "./types.js";
