// The oracles are libzstd compiled to WebAssembly, the zstd tool, and Node's own zstd where it has
// one. Replay a failure with SEED=….
import { spawnSync } from 'node:child_process';
import * as zlib from 'node:zlib';
import { compress, decompress, init } from '@bokuweb/zstd-wasm';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DecodeError } from '../../src/kernels/kernels.ts';
import { type Random, rng, SEED } from '../random.ts';
import { agree, damaged, run, sameBytes, sample } from './zstd-agree.ts';
import { join, randomFrame } from './zstd-frames.ts';

const slow = process.env.SLOW ? 20 : 1;
const replay = `SEED=${SEED}`;
await init();

/** The kernel alone: the twin takes its time over megabytes. */
function decodes(stream: Uint8Array, content: Uint8Array, random: Random, what: string): void {
  const { result, output } = run(stream, content.length, random.u32());
  assert.is(result, content.length, what);
  sameBytes(output, content, what);
}

function sizeOf(random: Random): number {
  return random.below(random.pick([2, 300, 5000, 65537, 65537, 300_000]));
}

{
  const test = suite('zstdDecode against libzstd');
  const random = rng();

  test('decodes every level', () => {
    for (let round = 0; round < 3 * slow; round++) {
      for (let level = 1; level <= 19; level++) {
        const content = sample(random, sizeOf(random));
        const stream = compress(content, level);
        decodes(stream, content, random, `level ${level}, ${content.length} bytes, ${replay}`);
        if (content.length > 70_000 || level % 3) continue;
        agree(stream, content.length, random, `level ${level}, ${replay}`);
      }
    }
  });

  test('decodes 2 MiB, in many blocks', () => {
    for (let i = 0; i < 3 * slow; i++) {
      const size = 0x200000 - random.below(3);
      const parts: Uint8Array[] = [];
      for (let left = size; left > 0; left -= parts.at(-1)!.length) {
        parts.push(sample(random, Math.min(left, 1 + random.below(300_000))));
      }
      const content = join(...parts);
      decodes(compress(content, random.pick([1, 3, 9])), content, random, replay);
    }
  });

  test('takes every truncation of small frames for one', () => {
    for (let i = 0; i < 6 * slow; i++) {
      const content = sample(random, 1 + random.below(3000));
      const stream = compress(content, 1 + random.below(19));
      for (let length = 1; length < stream.length; length++) {
        const { result } = run(stream.subarray(0, length), content.length, random.u32());
        assert.is(result, DecodeError.truncated, `${length} of ${stream.length}, ${replay}`);
      }
    }
  });

  // Where this decoder is the stricter one: libzstd decodes literals two at a time, and does not
  // see that a stream has not the second of the last two; given all of the input and a place for
  // all of the output, it has no need of a window, and looks at it and at block
  // sizes less closely.
  const stricter = new Set([
    'a stream of literals has bits left',
    'a stream of literals runs out',
    'an offset beyond the window',
    'a window above 128 MiB',
    'a block above the limit',
    'a block that gives more than one may',
    'more literals than a block may have',
  ]);

  /** The verdict of libzstd on a whole buffer, or `undefined` if it can't be asked. */
  const ask = (stream: Uint8Array): Uint8Array | 'refused' | undefined => {
    // Its binding allocates what the header promises, and does not look whether that worked.
    const known = contentSize(stream);
    if (known !== undefined && (known === 0 || known > 1 << 20)) return undefined;
    try {
      return decompress(stream);
    } catch {
      return 'refused';
    }
  };

  test('accepts and refuses what libzstd does', () => {
    const count = { accepted: 0, refused: 0, stricter: 0 };
    for (let i = 0; i < 4000 * slow; i++) {
      const what = `stream ${i}, ${replay}`;
      let { stored, content } = randomFrame(random);
      if (random.oneIn(2)) {
        content = sample(random, 1 + random.below(2000));
        stored = compress(content, 1 + random.below(19));
      }
      const stream = random.oneIn(20) ? stored : damaged(stored, random);
      const theirs = ask(stream);
      if (theirs === undefined) continue;
      if (theirs === 'refused') {
        const { content: ours } = agree(stream, content.length, random, what);
        count.refused++;
        // It decodes all of the input; here what follows a full output does not matter.
        if (ours) assert.is(frameBytes(stream, ours.length) < stream.length, true, what);
        continue;
      }
      const { content: ours, reason } = agree(stream, theirs.length, random, what);
      if (ours) {
        sameBytes(ours, theirs, what);
        count.accepted++;
      } else {
        assert.ok(stricter.has(reason!), `${reason}, ${what}`);
        count.stricter++;
      }
    }
    assert.ok(count.accepted > 100 && count.refused > 1000, `${JSON.stringify(count)} ${replay}`);
  });

  test.run();
}

/** The content size in a frame's header; `undefined` where it has none. */
function contentSize(stream: Uint8Array): number | undefined {
  const flags = stream[4] ?? 0;
  const single = (flags & 0x20) !== 0;
  const width = [single ? 1 : 0, 2, 4, 8][flags >> 6]!;
  if (width === 0) return undefined;
  const at = 5 + (single ? 0 : 1) + [0, 1, 2, 4][flags & 3]!;
  let size = width === 2 ? 256 : 0;
  for (let i = 0; i < width; i++) size += (stream[at + i] ?? 0) * 2 ** (8 * i);
  return size;
}

/** How much of the stream the kernel needs to give `size` bytes. */
function frameBytes(stream: Uint8Array, size: number): number {
  let length = stream.length;
  while (length > 0 && run(stream.subarray(0, length - 1), size, 0).result === size) length--;
  return length;
}

{
  const test = suite('zstdDecode against the zstd tool');
  const random = rng();
  const zstd = (args: readonly string[], input: Uint8Array) =>
    spawnSync('zstd', ['-q', '-c', ...args], { input, maxBuffer: 1 << 26 });
  const missing = zstd(['--version'], new Uint8Array()).status !== 0;
  if (missing) console.log('zstd is not installed: its tests are skipped');
  const check = missing ? test.skip : test;

  check('decodes what it writes, with and without checksum and content size', () => {
    for (let i = 0; i < 50 * slow; i++) {
      const content = sample(random, sizeOf(random));
      const level = random.pick([
        ['--fast=5'],
        ['--ultra', '-22'],
        ['--long=27'],
        [`-${1 + random.below(19)}`],
        [`-${1 + random.below(19)}`],
        [`-${1 + random.below(19)}`],
      ]);
      const args = [
        ...level,
        random.oneIn(2) ? '--check' : '--no-check',
        ...(random.oneIn(2) ? [`--stream-size=${content.length}`] : []),
        ...(random.oneIn(4) ? ['--no-compress-literals'] : []),
        ...(random.oneIn(4) ? ['--compress-literals'] : []),
      ];
      const { stdout, stderr, status } = zstd(args, content);
      assert.is(status, 0, `${args}: ${stderr}`);
      decodes(stdout, content, random, `${args}, ${content.length} bytes, ${replay}`);
    }
  });

  check('a damaged checksum', () => {
    const content = sample(random, 5000);
    const { stdout } = zstd(['--check'], content);
    for (let bit = 1; bit <= 32; bit++) {
      const stream = Uint8Array.from(stdout);
      stream[stream.length - 1 - ((bit - 1) >> 3)]! ^= 1 << (bit & 7);
      const { result } = run(stream, content.length, bit);
      assert.is(result, DecodeError.checksum);
    }
  });

  check('reads the frames made by hand, too', () => {
    const frames = Array.from({ length: 400 * slow }, () => randomFrame(random));
    const { stdout, stderr, status } = zstd(['-d'], join(...frames.map((one) => one.stored)));
    assert.is(status, 0, `${stderr}, ${replay}`);
    sameBytes(stdout, join(...frames.map((one) => one.content)), replay);
  });

  test.run();
}

{
  const test = suite("zstdDecode against Node's zstd");
  const random = rng();
  type Codec = (bytes: Uint8Array) => Uint8Array;
  const node = zlib as unknown as { zstdCompressSync?: Codec; zstdDecompressSync?: Codec };
  const { zstdCompressSync: encode, zstdDecompressSync: decode } = node;
  if (!encode || !decode) console.log('this Node has no zstd: its tests are skipped');
  const check = encode && decode ? test : test.skip;

  check('decodes what it writes, and the other way round', () => {
    for (let i = 0; i < 50 * slow; i++) {
      const content = sample(random, sizeOf(random));
      decodes(encode!(content), content, random, replay);
      const made = randomFrame(random);
      sameBytes(decode!(made.stored), made.content, replay);
    }
  });

  test.run();
}
