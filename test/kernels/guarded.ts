/**
 * Where kernel tests put their bytes: one memory with an input area, and an output area of which
 * every byte that a kernel leaves alone is known.
 */
import * as assert from 'uvu/assert';
import { ARENA_BASE } from '../../src/kernels/kernels.ts';
import { builds } from './builds.ts';
import type { Twinned } from './twin/kernels.ts';

/** Start of the inputs. Tests add a few bytes to it: no kernel asks for an alignment. */
export const IN = ARENA_BASE;
/** Start of the outputs. */
export const OUT = ARENA_BASE + 0x200000;
/** Untouched bytes on both sides of an output. */
export const GUARD = 64;

export const memory = new WebAssembly.Memory({ initial: ARENA_BASE / 65536 + 48 });
export const view = new DataView(memory.buffer);
export const bytes = new Uint8Array(memory.buffer);

/** Every build, bound to the one memory. */
export const bound = Object.entries(builds).map(([name, make]) => [name, make(memory)] as const);
const wasm = builds.wasm(memory);
const twin = builds.twin(memory);

/** Puts big-endian words at `at`. */
export function put(at: number, ...words: bigint[]): void {
  words.forEach((word, i) => {
    view.setBigUint64(at + i * 8, BigInt.asUintN(64, word));
  });
}

/** Fills the output area: `size` bytes at OUT, and the guards. */
export function arm(size: number): void {
  bytes.fill(0xa5, OUT - GUARD, OUT + size + GUARD);
}

function outputs(size: number): Uint8Array {
  return bytes.slice(OUT - GUARD, OUT + size + GUARD);
}

function firstDifference(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return i - GUARD;
  return -1;
}

/**
 * Runs a call on both builds, each with fresh output bytes: result, output and the bytes around it
 * must agree. `prepare` restores what else the call changes.
 * @returns the result
 */
export function agree(
  what: string,
  size: number,
  call: (kernels: Twinned, out: number) => number,
  prepare: () => void = () => undefined,
): number {
  arm(size);
  prepare();
  const expected = call(twin, OUT);
  const expectedBytes = outputs(size);
  arm(size);
  prepare();
  const result = call(wasm, OUT);
  const resultBytes = outputs(size);
  if (result !== expected) assert.unreachable(`${what}: ${result} instead of ${expected}`);
  const at = firstDifference(resultBytes, expectedBytes);
  if (at >= 0) {
    assert.unreachable(
      `${what}: output byte ${at} is ${resultBytes[at + GUARD]}, not ${expectedBytes[at + GUARD]}`,
    );
  }
  for (let i = 0; i < GUARD; i++) {
    if (resultBytes[i] !== 0xa5 || resultBytes[GUARD + size + i] !== 0xa5) {
      assert.unreachable(`${what}: wrote outside of the output`);
    }
  }
  return result;
}

/** Pairs of u32 at OUT. */
export function pairsAt(count: number): [number, number][] {
  return Array.from({ length: count }, (_, i) => [
    view.getUint32(OUT + i * 8, true),
    view.getUint32(OUT + i * 8 + 4, true),
  ]);
}
