/** Storage whose first bytes wait: what is not complete cannot be taken for what it will be. */
import { settled } from '../base/awaitable.ts';
import { standIn } from './stand-in.ts';
import { rangeCursor, type Storage } from './storage.ts';

/** Bytes that are kept back: the magic number of an image. */
const HELD_BYTES = 4;

/** Storage as it will be, and the call that lets its first bytes go. */
export interface HeldHead {
  readonly storage: Storage;
  /** Writes the bytes that were kept back; from then on nothing is. */
  release(): Promise<void>;
}

/**
 * Keeps back what is written to the first bytes of empty storage. Whoever works with what this
 * gives sees them; the storage itself has zeros there until they are released.
 */
export function holdHead(inner: Storage): HeldHead {
  const head = new Uint8Array(HELD_BYTES);
  let length = 0;
  let held = true;
  const storage: Storage = standIn(inner, {
    read: (at, into) => {
      const read = inner.read(at, into);
      if (!held || at >= HELD_BYTES) return read;
      const finish = (got: number) => {
        const count = Math.max(0, Math.min(length - at, into.length));
        if (count > 0) into.set(head.subarray(at, at + count));
        return Math.max(got, count);
      };
      return settled(read) ? finish(read) : read.then(finish);
    },
    background: undefined,
    cursor: (from, to) => (held ? rangeCursor(storage, from, to) : inner.cursor(from, to)),
    write: (at, from) => {
      if (!held || at >= HELD_BYTES) return inner.write(at, from);
      const own = from.subarray(0, HELD_BYTES - at);
      head.set(own, at);
      length = Math.max(length, at + own.length);
      return inner.write(at + own.length, from.subarray(own.length));
    },
  });
  return {
    storage,
    release: async () => {
      await inner.write(0, head.subarray(0, length));
      held = false;
    },
  };
}
