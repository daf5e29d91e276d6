/** Lending what somebody else closes. */
import { standIn } from './stand-in.ts';

/**
 * The same storage or disk, which whoever is given it may close without effect: its owner goes on
 * using it.
 */
export function borrowed<T extends { close(): unknown }>(owned: T): T {
  return standIn<{ close(): unknown }>(owned, { close: async () => {} }) as T;
}
