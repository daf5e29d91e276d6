/**
 * Runs a stream through kernel and twin, in places where a step beyond their buffers shows: guard
 * bytes around the output, and one of the two buffers against the end of the memory, past which
 * an access traps.
 */
import * as assert from 'uvu/assert';
import { ARENA_BASE, INPUT_SLACK } from '../../src/kernels/kernels.ts';
import { wasmKernels } from '../../src/kernels/wasm.ts';
import { type Random, SEED } from '../random.ts';
import { decodeZstd, ZstdRefusal } from './twin/zstd-decode.ts';

const PAGE = 0x10000;
const GUARD = 128;
/** Largest input and output that a test asks for. */
const PLACE = 0x280000;

const memory = new WebAssembly.Memory({ initial: (ARENA_BASE + 2 * PLACE) / PAGE });
const all = new Uint8Array(memory.buffer);
const kernels = wasmKernels(memory);

export interface Outcome {
  /** What the kernel returned. */
  readonly result: number;
  /** What came out, where the stream was accepted. */
  readonly content: Uint8Array | undefined;
  /** Why the twin refused the stream. */
  readonly reason: string | undefined;
}

/** One run of the kernel with `size` bytes of output; `noise` fills what it must not depend on. */
export function run(
  stream: Uint8Array,
  size: number,
  noise: number,
): { result: number; output: Uint8Array } {
  const inputLast = (noise & 1) !== 0;
  const end = all.length;
  const near = ARENA_BASE + GUARD + ((noise >> 1) & 63);
  const src = inputLast ? end - INPUT_SLACK - stream.length : near;
  const dst = inputLast ? near : end - size;
  all.fill(noise, src - GUARD, src);
  all.set(stream, src);
  all.fill(noise >> 8, src + stream.length, src + stream.length + INPUT_SLACK);
  all.fill(0xa5, dst - GUARD, Math.min(dst + size + GUARD, end));
  const result = kernels.zstdDecode(src, stream.length, dst, size);
  for (let i = 1; i <= GUARD; i++) {
    const after = dst + size + i - 1;
    if (all[dst - i] !== 0xa5 || (after < end && all[after] !== 0xa5)) {
      assert.unreachable(`wrote outside of the output, noise ${noise}, SEED=${SEED}`);
    }
  }
  return { result, output: all.subarray(dst, dst + size) };
}

/** Holds the kernel to the twin's verdict: same result, same bytes. */
export function agree(stream: Uint8Array, size: number, random: Random, what: string): Outcome {
  const { result, output } = run(stream, size, random.u32());
  const expected = new Uint8Array(size);
  try {
    decodeZstd(stream, expected);
  } catch (err) {
    if (!(err instanceof ZstdRefusal)) throw err;
    if (result !== err.code) {
      assert.unreachable(`${what}: ${result} instead of ${err.code} (${err.message})`);
    }
    return { result, content: undefined, reason: err.message };
  }
  if (result !== size) assert.unreachable(`${what}: ${result} instead of ${size}`);
  sameBytes(output, expected, what);
  return { result, content: expected, reason: undefined };
}

export function sameBytes(actual: Uint8Array, expected: Uint8Array, what: string): void {
  if (actual.length !== expected.length) {
    assert.unreachable(`${what}: ${actual.length} bytes instead of ${expected.length}`);
  }
  for (let i = 0; i < actual.length; i++) {
    if (actual[i] !== expected[i]) {
      assert.unreachable(`${what}: byte ${i} is ${actual[i]}, not ${expected[i]}`);
    }
  }
}

/** A damaged copy: bits flipped, bytes changed, moved, left out. */
export function damaged(stream: Uint8Array, random: Random): Uint8Array {
  const out = [...stream];
  for (let left = 1 + random.below(3); left > 0; left--) {
    const at = random.below(random.oneIn(2) ? Math.min(out.length, 40) : out.length);
    switch (random.below(5)) {
      case 0:
      case 1:
        out[at]! ^= 1 << random.below(8);
        break;
      case 2:
        out[at] = random.below(256);
        break;
      case 3:
        out.splice(at, 1 + random.below(4));
        break;
      default:
        out.splice(at, 0, random.below(256));
    }
    if (out.length === 0) break;
  }
  return Uint8Array.from(out);
}

/** Bytes of one of the kinds that disks hold: each makes encoders choose other modes. */
export function sample(random: Random, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  switch (random.below(6)) {
    case 0: // noise
      for (let i = 0; i < length; i++) bytes[i] = random.u32();
      break;
    case 1: {
      // a short period
      const period = 1 + random.below(random.oneIn(2) ? 4 : 40);
      for (let i = 0; i < length; i++) bytes[i] = (i % period) * 37;
      break;
    }
    case 2: {
      // text: words again and again
      const words = Array.from({ length: 60 }, () =>
        Array.from({ length: 1 + random.below(9) }, () => 97 + random.below(26)),
      );
      for (let i = 0; i < length; i++) {
        for (const c of random.pick(words)) bytes[i++] = c;
        bytes[i] = 32;
      }
      break;
    }
    case 3: // few values, unevenly
      for (let i = 0; i < length; i++) bytes[i] = random.below(random.below(16) + 1);
      break;
    case 4: // records: counters, pointers, zeros
      for (let i = 0; i < length; i++) {
        bytes[i] = i % 16 < 4 ? i >> ((i % 4) * 8) : i % 16 < 6 ? random.u32() : 0;
      }
      break;
    default: // noise that comes back from afar
      for (let i = 0; i < length; i++) {
        if (random.oneIn(20) && i > 300) {
          const distance = 1 + random.below(i);
          const end = Math.min(length, i + 3 + random.below(300));
          for (; i < end; i++) bytes[i] = bytes[i - distance]!;
        }
        if (i < length) bytes[i] = random.u32();
      }
  }
  return bytes;
}
