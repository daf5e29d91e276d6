/** Storage that holds nothing: writes are forgotten, reads give zeros or leave what is there. */
import { Qcow2Error } from '../base/errors.ts';
import { rangeCursor, type Storage } from './storage.ts';

/** What storage without bytes pretends to be. */
export interface NullStorageOptions {
  /** For messages. */
  readonly name: string;
  /** Bytes that it seems to have. */
  readonly size: number;
  /** Reads give zeros; otherwise they leave the reader's memory as it was. */
  readonly readZeroes: boolean;
}

/** Takes everything and keeps nothing. What it forgets it reports as written. */
export function nullStorage({ name, size, readZeroes }: NullStorageOptions): Storage {
  const storage: Storage = {
    name,
    writable: true,
    holdsNothing: !readZeroes,
    size: () => size,
    read(at, into) {
      const got = Math.max(0, Math.min(into.length, size - at));
      if (readZeroes) into.fill(0, 0, got);
      return got;
    },
    cursor: (from, to) => rangeCursor(storage, from, to),
    write() {},
    zero() {},
    discard() {},
    // Where reads give zeros there is no data to be found.
    dataRanges: (from, to) => (readZeroes || to <= from ? [] : [[from, to]]),
    truncate() {
      throw new Qcow2Error('UNSUPPORTED', 'Image format driver does not support resize');
    },
    flush() {},
    close() {},
    allocatedBytes: () => 0,
  };
  return storage;
}
