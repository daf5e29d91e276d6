// Power cuts at every moment of a workload on qcow2 images. Replay a failure with SEED=…, go on
// for long with SLOW=1.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { rng, SEED } from '../random.ts';
import { runPowerCuts } from './power-cut.ts';
import { qcow2Engine } from './qcow2-engine.ts';
import { SLOW } from './slow.ts';
import { randomWorkload, scriptedWorkload } from './workload.ts';
import { SMALL, type WriteSetting } from './write-engine.ts';

const kinds: readonly (readonly [name: string, fixed: Partial<WriteSetting>])[] = [
  ['small clusters', {}],
  ['clusters of 4 KiB', { clusterBits: 12, size: 128 * 1024 }],
  ['subclusters', { clusterBits: 14, extended: true, size: 512 * 1024 }],
  ['lazy refcounts', { lazy: true }],
  ['narrow refcounts', { refcountBits: 1 }],
  ['wide refcounts', { refcountBits: 64 }],
  ['version 2', { version: 2 }],
  ['a backing file', { backingBytes: 50_000 }],
  ['a data file', { dataFile: 'file' }],
  ['zstd', { compression: 'zstd' }],
];

const test = suite('qcow2 and power cuts');

for (const [kind, [name, fixed]] of kinds.entries()) {
  const setting = { ...SMALL, size: 80 * 1024, ...fixed };

  test(`no cut of a scripted workload harms an image with ${name}`, async () => {
    const limits = SLOW ? { subsets: 6 } : { subsets: 2, cutsMax: 40 };
    const workload = scriptedWorkload(setting);
    const states = await runPowerCuts(qcow2Engine(), setting, workload, rng(), limits);
    assert.ok(states > 20, `SEED=${SEED}`);
  });

  test(`nor does one of a random workload with ${name}`, async () => {
    for (let round = 0; round < (SLOW ? 6 : 1); round++) {
      const next = rng((SEED ^ Math.imul(kind * 1000 + round + 1, 0x9e3779b1)) | 0);
      const resize = !next.oneIn(4);
      const batches = randomWorkload(next, setting, { batches: 24, concurrent: true, resize });
      const limits = SLOW ? { subsets: 3, cutsMax: 150 } : { subsets: 2, cutsMax: 40 };
      const engine = qcow2Engine(next.pick([1, 4096, 65536]));
      const options = { ...limits, delayed: next.oneIn(2) };
      await runPowerCuts(engine, setting, batches, next, options).catch((cause) => {
        throw new Error(`SEED=${SEED} round ${round}\n${cause.message}`, { cause });
      });
    }
  });
}

test.run();
