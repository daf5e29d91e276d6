/** A kernel against its TypeScript twin: the same call on the same bytes, taking turns. */
import { ARENA_BASE } from '../../src/kernels/kernels.ts';
import { builds } from '../../test/kernels/builds.ts';
import type { Twinned } from '../../test/kernels/twin/kernels.ts';

/** Rounds of each side; the median of an odd number is one of them. */
const ROUNDS = 61;
/**
 * How long one side works in a round, in milliseconds: less than the time slices of a busy machine,
 * so that most rounds are not interrupted and the median is that of one which was not.
 */
const ROUND_MS = 0.4;
/** How long each side works before the first round, in milliseconds. */
const WARM_UP_MS = 30;

export const memory = new WebAssembly.Memory({ initial: ARENA_BASE / 65536 + 496 });
export const view = new DataView(memory.buffer);
export const bytes = new Uint8Array(memory.buffer);
/** Start of the inputs, and of the outputs: far enough from each other for all benches. */
export const IN = ARENA_BASE;
export const OUT = ARENA_BASE + 0xf00000;

const wasm = builds.wasm(memory);
const twin = builds.twin(memory);

/** One line of a table: fills the input, then makes the call again and again. */
export interface Race {
  readonly name: string;
  /** How many units one call works on, and what a unit is. */
  readonly count: number;
  readonly unit: 'entry' | 'range' | 'bit' | 'byte';
  readonly fill: () => void;
  readonly call: (kernels: Twinned) => number;
}

function milliseconds(call: (kernels: Twinned) => number, kernels: Twinned, times: number): number {
  const start = performance.now();
  for (let i = 0; i < times; i++) call(kernels);
  return performance.now() - start;
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1]!;
}

/** Nanoseconds per unit of both sides. */
function run(race: Race): { kernel: number; twin: number } {
  race.fill();
  const sides = [wasm, twin].map((kernels) => {
    let times = 1;
    while (milliseconds(race.call, kernels, times) < ROUND_MS) times *= 2;
    return { kernels, times, samples: [] as number[] };
  });
  for (let round = 0; round < ROUNDS; round++) {
    for (const { kernels, times, samples } of sides) {
      samples.push((milliseconds(race.call, kernels, times) * 1e6) / (times * race.count));
    }
  }
  const [kernel, other] = sides.map(({ samples }) => median(samples));
  return { kernel: kernel!, twin: other! };
}

function speed(nanoseconds: number, unit: Race['unit']): string {
  return unit === 'byte'
    ? `${(1 / nanoseconds).toFixed(1)} GB/s`
    : `${nanoseconds.toFixed(nanoseconds < 1 ? 3 : 2)} ns/${unit}`;
}

/** Prints a table with a row for each. */
export function printRaces(title: string, races: readonly Race[]): void {
  // Once over all, so that both are compiled for every kind of input before they are timed.
  for (const race of races) {
    race.fill();
    for (const kernels of [wasm, twin]) {
      const start = performance.now();
      while (performance.now() - start < WARM_UP_MS) race.call(kernels);
    }
  }
  console.log(`\n${title.padEnd(44)}${'kernel'.padStart(16)}${'twin'.padStart(16)}   ratio`);
  for (const race of races) {
    const ns = run(race);
    console.log(
      `  ${race.name.padEnd(42)}${speed(ns.kernel, race.unit).padStart(16)}` +
        `${speed(ns.twin, race.unit).padStart(16)}${(ns.twin / ns.kernel).toFixed(1).padStart(7)}x`,
    );
  }
}
