/** Storage whose host copies ranges, as that of files does, as many bytes of each as it is told. */
import { settled } from '../../src/base/awaitable.ts';
import { standIn } from '../../src/storage/stand-in.ts';
import type { Storage } from '../../src/storage/storage.ts';

/** @param bytesMax of a range of so many bytes, how many are copied */
export function copying(
  storage: Storage,
  bytesMax: (length: number) => number = (length) => length,
): Storage {
  return standIn<Storage>(storage, {
    async copyFrom(source, from, at, length) {
      const bytes = new Uint8Array(Math.min(length, bytesMax(length)));
      const read = source.read(from, bytes);
      // A file that ends sooner has no more.
      const got = settled(read) ? read : await read;
      const written = storage.write(at, bytes.subarray(0, got));
      if (!settled(written)) await written;
      return got;
    },
  });
}
