// The oracle is zlib itself, set up as QEMU sets up its reader. Replay a failure with SEED=….
import { readFileSync } from 'node:fs';
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { wasmKernels } from '../../src/kernels/wasm.ts';
import { rng, SEED } from '../random.ts';
import { anySample } from './deflate-samples.ts';
import { Bench, sameBytes } from './inflate-streams.ts';

const replay = `SEED=${SEED}`;
const SLOW = Boolean(process.env.SLOW);
const bench = new Bench(2 << 20);
const kernels = wasmKernels(bench.memory);

function deflate(plain: Uint8Array, level: number): Uint8Array {
  const encode = (src: number, srcBytes: number, dst: number, max: number) =>
    kernels.deflate(src, srcBytes, dst, max, level);
  return bench.run(encode, plain, plain.length + 400).plain;
}

/** What QEMU's reader makes of a stream, its window filled and emptied all the time. */
function inflate(stream: Uint8Array): Uint8Array {
  return inflateRawSync(stream, { windowBits: 12, chunkSize: 64 });
}

/** Program text, machine code and a table, in pieces as long as clusters. */
function* pieces(size: number): Generator<Buffer> {
  const code = readFileSync(process.execPath);
  for (const path of ['package-lock.json', 'dist/qcow2-img.js', 'src/kernels/kernels.ts']) {
    const bytes = readFileSync(path);
    for (let at = 0; at < Math.min(bytes.length, 4 * size); at += size) {
      yield bytes.subarray(at, at + size);
    }
  }
  for (let i = 1; i <= 4; i++) {
    const at = Math.floor((code.length * i) / 5);
    yield code.subarray(at, at + size);
  }
}

const test = suite('deflate against zlib');

test('zlib inflates what the kernel deflates, at every level', () => {
  const random = rng();
  for (let i = 0; i < (SLOW ? 3000 : 90); i++) {
    const plain = anySample(random, random.below(random.pick([600, 20000, 70001])));
    const level = 1 + (i % 9);
    sameBytes(inflate(deflate(plain, level)), plain, `level ${level}, ${replay}`);
  }
});

test('zlib inflates real files in clusters of every size', () => {
  for (let bits = 9; bits <= 21; bits += 2) {
    for (const plain of pieces(1 << bits)) {
      const level = bits > 16 ? 6 : 1 + (plain.length % 9);
      const stream = deflate(plain, level);
      sameBytes(inflateRawSync(stream, { windowBits: 12 }), plain, `2^${bits}, level ${level}`);
    }
  }
});

test("real files are smaller than zlib makes them at QEMU's settings", () => {
  const total = (of: (plain: Buffer) => Uint8Array) =>
    [...pieces(65536)].reduce((sum, plain) => sum + of(plain).length, 0);
  const zlib = (level: number) =>
    total((plain) => deflateRawSync(plain, { level, windowBits: 12, memLevel: 9 }));
  const ours = (level: number) => total((plain) => deflate(plain, level));
  assert.ok(ours(6) <= zlib(6), `level 6: ${ours(6)}, zlib ${zlib(6)}`);
  assert.ok(ours(9) <= zlib(9) * 0.98, `level 9: ${ours(9)}, zlib ${zlib(9)}`);
});

test('zlib refuses what a window of 4096 bytes does not hold', () => {
  const random = rng();
  const once = Uint8Array.from({ length: 4200 }, () => random.below(256));
  const plain = Uint8Array.from({ length: 12000 }, (_, i) => once[i % once.length]!);
  assert.throws(() => inflate(deflateRawSync(plain, { windowBits: 15 })));
});

test.run();
