/** Images with damage that a repair undoes without a loss. */
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import type { Random } from '../random.ts';

const SIZE = 2 ** 19;

/** An image of clusters of 1 KiB with data in half of them. */
export async function soundImage(next: Random, refcountBits: 1 | 16 | 64): Promise<Uint8Array> {
  const storage = Object.assign(memoryStorage(), { close() {} });
  const image = await Qcow2Image.create(storage, { size: SIZE, clusterSize: 1024, refcountBits });
  for (let at = 0; at < SIZE; at += 16384) {
    await image.write(at, new Uint8Array(8192).fill(1 + next.below(255)));
  }
  await image.close();
  const bytes = new Uint8Array(await storage.size());
  await storage.read(0, bytes);
  return bytes;
}

/** Damage that a repair undoes without a loss, by what it is. */
export const DAMAGES: Readonly<Record<string, (next: Random, view: DataView) => void>> = {
  'refcounts are wrong': (next, view) => {
    const block = view.getUint32(view.getUint32(52) + 4);
    for (let i = 0; i < 30; i++) view.setUint8(block + next.below(400), next.pick([1, 2, 3, 0xff]));
  },
  'a refcount block is lost': (_next, view) => view.setUint32(view.getUint32(52) + 4, 0),
  'the refcount table is lost': (_next, view) => view.setUint32(56, 0),
  'COPIED flags are missing': (next, view) => {
    const l1 = view.getUint32(44);
    for (let i = 0; i < 3; i++) view.setUint8(l1 + i * 8, 0);
    // The last of the four.
    const table = view.getUint32(l1 + 3 * 8 + 4);
    for (let i = 0; i < 8; i++) view.setUint8(table + 8 * next.below(128), 0);
  },
};
