// Every call to the storage fails once. Replay a failure with SEED=…, all calls with SLOW=1.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { rng, SEED } from '../random.ts';
import { runFaults } from './faults.ts';
import { qcow2Engine } from './qcow2-engine.ts';
import { SLOW } from './slow.ts';
import { scriptedWorkload } from './workload.ts';
import { SMALL, type WriteSetting } from './write-engine.ts';

const kinds: readonly (readonly [name: string, fixed: Partial<WriteSetting>])[] = [
  ['small clusters', {}],
  ['subclusters', { clusterBits: 14, extended: true, size: 512 * 1024 }],
  ['lazy refcounts', { lazy: true }],
  ['a backing file', { backingBytes: 50_000 }],
  ['a data file', { dataFile: 'file' }],
];
const partials = ['none', 'half', 'all'] as const;

const test = suite('qcow2 and failing storage');

for (const [name, fixed] of kinds) {
  const setting = { ...SMALL, size: 80 * 1024, ...fixed };
  for (const forever of [false, true]) {
    const words = forever ? 'from some call on' : 'once';
    test(`storage that fails ${words} harms no image with ${name}`, async () => {
      const next = rng();
      for (const kind of ['read', 'write', 'zero', 'truncate', 'flush'] as const) {
        const partial = next.pick(partials);
        const how = kind === 'write' && next.oneIn(2) ? 'NO_SPACE' : 'IO';
        const runs = await runFaults(qcow2Engine(), setting, scriptedWorkload(setting), next, {
          kinds: [kind],
          how,
          forever,
          partial,
          delayed: next.oneIn(3),
          stride: SLOW ? 1 : 11,
        }).catch((cause) => {
          throw new Error(`SEED=${SEED} ${cause.message}`, { cause });
        });
        assert.ok(runs > 0);
      }
    });
  }
}

test.run();
