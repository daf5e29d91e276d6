/**
 * Runs the zstd encoder in places where a step beyond its buffers shows, and has what it gives
 * decoded.
 */
import * as assert from 'uvu/assert';
import { ARENA_BASE } from '../../src/kernels/kernels.ts';
import { wasmKernels } from '../../src/kernels/wasm.ts';
import { type Random, SEED } from '../random.ts';
import { decodeZstd } from './twin/zstd-decode.ts';
import { run, sameBytes } from './zstd-agree.ts';

const PAGE = 0x10000;
const GUARD = 128;
/** Largest input and output that a test asks for. */
const PLACE = 0x280000;

const memory = new WebAssembly.Memory({ initial: (ARENA_BASE + 2 * PLACE) / PAGE });
const all = new Uint8Array(memory.buffer);
const kernels = wasmKernels(memory);

/** The levels that the kernel has. */
export const LEVELS = [1, 2, 3, 4, 5, 6, 7, 8, 9] as const;

/** What an encoding is asked for. */
export interface Job {
  readonly level: number;
  readonly dstMax: number;
  /** Chooses the places of the buffers, and fills what the result must not depend on. */
  readonly noise: number;
}

/** One call of the kernel: its result, and a copy of the `dstMax` bytes that it may write. */
export function encode(content: Uint8Array, job: Job): { result: number; output: Uint8Array } {
  const { level, dstMax, noise } = job;
  const inputLast = (noise & 1) !== 0;
  const near = ARENA_BASE + GUARD + ((noise >> 1) & 63);
  const src = inputLast ? all.length - content.length : near;
  const dst = inputLast ? near : all.length - dstMax;
  all.fill(noise, src - GUARD, Math.min(src + content.length + GUARD, all.length));
  all.set(content, src);
  all.fill(0xa5, dst - GUARD, Math.min(dst + dstMax + GUARD, all.length));
  // What an earlier call left behind makes no difference.
  if (noise & 2) all.fill(noise >> 8, 0x10000, 0x200000);
  const result = kernels.zstdEncode(src, content.length, dst, dstMax, level);
  for (let i = 1; i <= GUARD; i++) {
    const after = dst + dstMax + i - 1;
    if (all[dst - i] !== 0xa5 || (after < all.length && all[after] !== 0xa5)) {
      assert.unreachable(`wrote outside of the output, noise ${noise}, SEED=${SEED}`);
    }
  }
  sameBytes(all.subarray(src, src + content.length), content, `input changed, SEED=${SEED}`);
  return { result, output: all.slice(dst, dst + dstMax) };
}

/** The frame of a content, proven to hold it by the decoder, and where short by its twin. */
export function frameOf(
  content: Uint8Array,
  level: number,
  random: Random,
  what: string,
): Uint8Array {
  const dstMax = content.length + 1000;
  const { result, output } = encode(content, { level, dstMax, noise: random.u32() });
  if (!(result > 0 && result <= dstMax)) assert.unreachable(`${what}: result ${result}`);
  const stream = output.subarray(0, result);
  const decoded = run(stream, content.length, random.u32());
  assert.is(decoded.result, content.length, what);
  sameBytes(decoded.output, content, what);
  if (content.length < 20_000) {
    const expected = new Uint8Array(content.length);
    decodeZstd(stream, expected);
    sameBytes(expected, content, `${what}, by the twin`);
  }
  return stream;
}
