/**
 * Reading from storage that may give less at a time than there is. What is read short of a table,
 * without a word, would look like entries that are not there, and be written back as such.
 */
import { type Awaitable, settled } from '../base/awaitable.ts';
import { Qcow2Error } from '../base/errors.ts';
import type { Storage } from './storage.ts';

/**
 * Reads as `Storage.read` does; fewer bytes than asked for only where the storage ends.
 * @throws Qcow2Error IO where it gives nothing although it goes on
 */
export function readFully(storage: Storage, at: number, into: Uint8Array): Awaitable<number> {
  const read = storage.read(at, into);
  if (!settled(read)) return read.then((got) => (got < into.length ? rest(got) : got));
  return read < into.length ? rest(read) : read;

  function rest(first: number): Awaitable<number> {
    const size = storage.size();
    if (settled(size) && at + first >= size) return first;
    return readOn(storage, at, into, first);
  }
}

async function readOn(
  storage: Storage,
  at: number,
  into: Uint8Array,
  first: number,
): Promise<number> {
  let done = first;
  while (done < into.length && at + done < (await storage.size())) {
    const got = await storage.read(at + done, into.subarray(done));
    if (got === 0) {
      throw new Qcow2Error('IO', `short read of '${storage.name}'`, at + done);
    }
    done += got;
  }
  return done;
}
