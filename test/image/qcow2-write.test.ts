// Writing qcow2 images: random requests against an array of bytes. Replay a failure with SEED=…,
// go on for long with SLOW=1.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { rng, SEED } from '../random.ts';
import { qcow2Engine } from './qcow2-engine.ts';
import { SLOW } from './slow.ts';
import { randomWriteSetting, type WriteSetting } from './write-engine.ts';
import { runModel } from './write-model.ts';

const ROUNDS = SLOW ? 40 : 4;

const test = suite('writing qcow2');

const kinds: readonly (readonly [name: string, fixed: Partial<WriteSetting>])[] = [
  ['of all kinds', {}],
  ['with clusters of 512 bytes', { clusterBits: 9 }],
  ['with narrow refcounts', { version: 3, refcountBits: 1 }],
  ['with wide refcounts', { version: 3, refcountBits: 64, clusterBits: 9 }],
  ['with subclusters', { version: 3, extended: true }],
  ['with lazy refcounts', { version: 3, lazy: true }],
  ['of version 2', { version: 2 }],
  ['with a backing file', { backingBytes: 200_001, dataFile: 'none' }],
  ['with a data file', { version: 3, dataFile: 'file' }],
  ['with a raw data file', { version: 3, dataFile: 'raw' }],
  ['with zstd', { version: 3, compression: 'zstd', dataFile: 'none' }],
];

for (const [kind, [name, fixed]] of kinds.entries()) {
  test(`images ${name} hold what was written`, async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const seed = (SEED ^ Math.imul(kind * 1000 + round + 1, 0x9e3779b1)) | 0;
      const next = rng(seed);
      const setting = randomWriteSetting(next, fixed);
      const engine = qcow2Engine(next.pick([1, 4096, 65536, 1 << 20]));
      const options = {
        steps: SLOW ? 200 : 60,
        unit: next.pick([1, 512, 512]),
        delayed: next.oneIn(2),
      };
      await runModel(engine, setting, next, options).catch((cause) => {
        throw new Error(`SEED=${SEED} round ${round}\n${cause.stack}\n${cause.cause?.stack}`);
      });
    }
    assert.ok(true);
  });
}

test.run();
