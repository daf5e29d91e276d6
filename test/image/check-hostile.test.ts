/**
 * `check` and its repairs on images that nobody vouches for: a result or a typed error, in little
 * time and memory, and never harm to what was sound. Replay with SEED=….
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error, Qcow2Error } from '../../src/base/errors.ts';
import { checkStorage } from '../../src/image/qcow2/check.ts';
import type { CheckResult } from '../../src/image/qcow2/check-findings.ts';
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import { type Random, rng, SEED } from '../random.ts';
import { checkQcow2 } from './qcow2-check.ts';
import { SLOW } from './slow.ts';

const ROUNDS = SLOW ? 5000 : 100;

/** Storage of bytes, which must not grow past what an image of this size has reason to. */
function storageOf(bytes: Uint8Array) {
  const storage = memoryStorage(bytes.slice());
  return Object.assign(storage, {
    close() {},
    truncate(size: number) {
      if (size > bytes.length + 2 ** 24) throw new Qcow2Error('NO_SPACE', 'File too large');
      return Object.getPrototypeOf(storage).truncate.call(storage, size);
    },
  });
}

async function bytesOf(storage: ReturnType<typeof memoryStorage>): Promise<Uint8Array> {
  const all = new Uint8Array(await storage.size());
  await storage.read(0, all);
  return all;
}

/** A sound image with data here and there. */
async function soundImage(next: Random): Promise<Uint8Array> {
  const clusterSize = next.pick([512, 1024, 4096, 16384]);
  const storage = Object.assign(memoryStorage(), { close() {} });
  const image = await Qcow2Image.create(storage, {
    size: 512 * (20 + next.below(2000)),
    clusterSize,
    refcountBits: next.pick([1, 2, 4, 8, 16, 32, 64]),
    ...(clusterSize === 16384 && next.oneIn(2) ? { extendedL2: true } : {}),
  });
  for (let i = next.below(8); i >= 0; i--) {
    const sectors = image.size / 512;
    const at = next.below(sectors);
    const count = 1 + next.below(Math.min(60, sectors - at));
    if (next.oneIn(4)) await image.zero(at * 512, count * 512);
    else await image.write(at * 512, new Uint8Array(count * 512).fill(1 + i));
  }
  await image.close();
  return bytesOf(storage);
}

/** Overwrites bytes anywhere, most of them in the header and the tables in front. */
function damage(next: Random, bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer);
  for (let i = 1 + next.below(6); i > 0; i--) {
    const end = next.pick([112, bytes.length, Math.min(bytes.length, 16384)]);
    const at = next.below(Math.max(1, end - 8));
    const kind = next.below(5);
    if (kind === 0) bytes[at] = next.u32();
    else if (kind === 1) bytes[at]! ^= 1 << next.below(8);
    else if (kind === 2) view.setUint32(at - (at % 4), next.pick([0, 1, 0x7fff_ffff, 2 ** 32 - 1]));
    else if (kind === 3) view.setUint32(at - (at % 4), next.u32());
    else bytes.copyWithin(at, next.below(bytes.length), bytes.length);
  }
}

const test = suite('check of hostile images');

test('gives a result or a typed error, and what it repaired is sound', async () => {
  for (let round = 0; round < ROUNDS; round++) {
    const next = rng((SEED ^ Math.imul(round + 1, 0x9e3779b1)) | 0);
    const bytes = await soundImage(next);
    damage(next, bytes);
    for (const repair of [undefined, 'leaks', 'all'] as const) {
      const storage = storageOf(bytes);
      let result: CheckResult | undefined;
      try {
        result = await checkStorage(storage, { repair, countBytes: next.pick([2 ** 12, 2 ** 20]) });
      } catch (cause) {
        if (!isQcow2Error(cause)) {
          throw new Error(`SEED=${SEED} round ${round} ${repair}: ${cause}`, { cause });
        }
      }
      if (repair === undefined) assert.equal(await bytesOf(storage), bytes);
      if (repair !== 'all' || !result || result.corruptions + result.checkErrors > 0) continue;
      const again = await checkStorage(storage);
      const what = `SEED=${SEED} round ${round}`;
      assert.is(again.corruptions + again.checkErrors + again.leaks, 0, what);
    }
  }
});

test('a sound image stays as it is, whatever the repair', async () => {
  for (let round = 0; round < 30; round++) {
    const bytes = await soundImage(rng(SEED + round));
    for (const repair of ['leaks', 'all'] as const) {
      const storage = storageOf(bytes);
      const { corruptions, leaks } = await checkStorage(storage, { repair });
      assert.is(corruptions + leaks, 0);
      assert.equal(await bytesOf(storage), bytes);
    }
    const size = bytes.length;
    const read = (at: number, into: Uint8Array) => {
      into.set(bytes.subarray(at, at + into.length));
      return Math.max(0, Math.min(into.length, size - at));
    };
    assert.equal(checkQcow2({ size, read }).corruptions, []);
  }
});

test.run();
