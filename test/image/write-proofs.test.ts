// The proofs of writing, proved: they find nothing in a writer that is right, and find each of its
// flaws. Replay a failure with SEED=….
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { rng, SEED } from '../random.ts';
import { runFaults } from './faults.ts';
import { runPowerCuts } from './power-cut.ts';
import { SLOW } from './slow.ts';
import { type Flaw, toyEngine } from './toy-qcow2.ts';
import { randomWorkload, scriptedWorkload } from './workload.ts';
import { SMALL, type WriteEngine } from './write-engine.ts';
import { runModel } from './write-model.ts';

const replay = `SEED=${SEED}`;
const rounds = SLOW ? 40 : 3;
const setting = { ...SMALL, clusterBits: 10, size: 40 * 1024 + 512 };
const aligned = { ...SMALL, clusterBits: 10, size: 40 * 1024 };

/** The first complaint of any of some tries. */
async function complaint(
  work: (round: number) => Promise<unknown>,
  tries: number,
): Promise<string> {
  for (let round = 0; round < tries; round++) {
    try {
      await work(round);
    } catch (cause) {
      return String((cause as Error).message);
    }
  }
  return '';
}

const model = (engine: WriteEngine, round: number) =>
  runModel(engine, setting, rng(SEED + round), { steps: 150, unit: 1, delayed: round % 2 === 1 });

const cuts = (engine: WriteEngine, round: number) => {
  const next = rng(SEED + round);
  const batches = randomWorkload(next, aligned, { batches: 16, concurrent: true });
  return runPowerCuts(engine, aligned, batches, next, { delayed: round % 2 === 1, cutsMax: 150 });
};

const scriptedCuts = (engine: WriteEngine) =>
  runPowerCuts(engine, aligned, scriptedWorkload(aligned), rng(), { cutsMax: 300 });

const faults = (engine: WriteEngine, round: number) =>
  runFaults(engine, aligned, scriptedWorkload(aligned), rng(SEED + round), {
    kinds: ['read', 'write', 'truncate', 'flush'],
    how: round % 2 === 0 ? 'IO' : 'NO_SPACE',
    forever: round % 3 === 1,
    partial: (['none', 'half', 'all'] as const)[round % 3]!,
    stride: SLOW ? 1 : 5,
  });

const test = suite('proofs of writing');

test('a writer that is right passes the model', async () => {
  assert.is(await complaint((round) => model(toyEngine(), round), rounds), '', replay);
});

test('a writer that is right survives power cuts', async () => {
  assert.is(await complaint(() => scriptedCuts(toyEngine()), 1), '', replay);
  assert.is(await complaint((round) => cuts(toyEngine(), round), rounds), '', replay);
});

test('a writer that is right survives failures', async () => {
  assert.is(await complaint((round) => faults(toyEngine(), round), rounds), '', replay);
});

for (const [flaw, proof, wanted] of [
  ['no locks', model, /./],
  ['no copy on write', model, /./],
  ['leaks', model, /leaked/],
  ['zeroes too much', model, /byte at/],
  ['shrinks only the size', model, /byte at|corrupt/],
  ['forgets COPIED', model, /not COPIED/],
  ['no barriers', cuts, /corruption|byte at|does not open/],
  ['flush does nothing', cuts, /./],
  ['linked before counted', cuts, /refcount 0, referenced|as well/],
  ['freed before unlinked', cuts, /refcount 0, referenced/],
  ['L1 before L2', cuts, /past the end|L2 entry/],
  ['plain errors', faults, /not one of our errors/],
  ['swallows errors', faults, /byte at/],
  ['gives up after an error', faults, /still fails/],
] as const satisfies readonly (readonly [Flaw, typeof model | typeof cuts, RegExp])[]) {
  test(`finds: ${flaw}`, async () => {
    const found = await complaint((round) => proof(toyEngine(flaw), round), 40);
    assert.match(found, wanted, `${replay}: ${found}`);
  });
}

test.run();
