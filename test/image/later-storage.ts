/** Storage whose writes are carried out by and by, as a file's are by threads of the host. */
import { tick } from '../../src/base/tick.ts';
import { standIn } from '../../src/storage/stand-in.ts';
import type { Storage } from '../../src/storage/storage.ts';

/** @param ticks how long the next write takes, in turns of the event loop */
export function answeringLater(storage: Storage, ticks: () => number = () => 1): Storage {
  const later = standIn<Storage>(storage, {
    async write(at, from) {
      for (let left = ticks(); left > 0; left--) await tick();
      await storage.write(at, from);
    },
  });
  return standIn<Storage>(storage, { background: () => later });
}
