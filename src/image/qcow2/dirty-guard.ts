/**
 * The dirty bit around changes of refcounts and COPIED flags that no order of writes keeps in step.
 * A crash in between leaves an image that is recounted when it is opened for writing next. Version
 * 2 has no such bit: there a crash may leave flags that differ from the refcounts, each in the
 * harmless direction (a write copies what it could have written in place), and clusters that count
 * too many references.
 */
import { Incompatible } from '../../format/feature-bits.ts';
import type { MetadataStore } from './metadata-store.ts';

/**
 * Runs `work` on an image whose caches are written, and writes them again. Where `work` fails but
 * has put counts and flags back, the bit goes too. Called with the metadata lock held.
 */
export async function withDirtyBit<T>(store: MetadataStore, work: () => Promise<T>): Promise<T> {
  const guards = store.header.version >= 3 && !store.order.lazy;
  await store.order.flush();
  if (guards) await store.setIncompatible(Incompatible.dirty, true);
  const settle = async () => {
    await store.order.flush();
    // Work may have left the refcounts behind: then the bit stays until the image is closed.
    if (guards && !store.unsound && !store.order.lazy)
      await store.setIncompatible(Incompatible.dirty, false);
  };
  let result: T;
  try {
    result = await work();
  } catch (cause) {
    // The error in hand says what happened; an image that stays dirty is repaired later.
    await settle().catch(() => {});
    throw cause;
  }
  await settle();
  return result;
}
