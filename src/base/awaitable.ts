/** Values that may be there already. */

/** An answer now, or a promise of one. */
export type Awaitable<T> = T | Promise<T>;

/** True when the answer is here: what a hot path asks before it awaits. */
export function settled<T>(value: Awaitable<T>): value is T {
  return !(value instanceof Promise);
}
