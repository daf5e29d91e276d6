// Frames that the encoder makes, decoded by libzstd: as a package, as a tool, and as Node has it.
import { spawnSync } from 'node:child_process';
import * as zlib from 'node:zlib';
import { compress, decompress, init } from '@bokuweb/zstd-wasm';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Random, rng, SEED } from '../random.ts';
import { sameBytes, sample } from './zstd-agree.ts';
import { encode, frameOf, LEVELS } from './zstd-encode-agree.ts';
import { contents } from './zstd-encode-samples.ts';
import { join } from './zstd-frames.ts';

const slow = process.env.SLOW ? 20 : 1;
const replay = `SEED=${SEED}`;
await init();

function randomContent(random: Random): { name: string; content: Uint8Array } {
  const name = random.pick(Object.keys(contents));
  const size = random.below(random.pick([600, 5000, 65537, 65537, 300_000]));
  return { name, content: contents[name]!(random, size) };
}

function decodesWith(
  decode: (stream: Uint8Array) => Uint8Array,
  random: Random,
  rounds: number,
): void {
  for (let i = 0; i < rounds; i++) {
    const level = LEVELS[i % LEVELS.length]!;
    const { name, content } = randomContent(random);
    const what = `${name}, level ${level}, ${content.length} bytes, ${replay}`;
    sameBytes(decode(frameOf(content, level, random, what)), content, what);
  }
}

{
  const test = suite('zstdEncode against libzstd');
  const random = rng();

  test('decodes', () => {
    decodesWith((stream) => decompress(stream), random, 60 * slow);
  });

  test('a cluster of every size', () => {
    for (let bits = 9; bits <= 21; bits++) {
      const level = random.pick(LEVELS);
      const content = contents['parts of all kinds']!(random, 2 ** bits);
      const what = `${2 ** bits} bytes, level ${level}, ${replay}`;
      sameBytes(decompress(frameOf(content, level, random, what)), content, what);
    }
  });

  // On contents of one kind it may be a little behind: what disks hold is for the bench.
  test('is about as small', () => {
    let ours = 0;
    let theirs = 0;
    for (let i = 0; i < 60 * slow; i++) {
      const content = sample(random, 65536);
      const dstMax = content.length - 1;
      const { result } = encode(content, { level: 3, dstMax, noise: random.u32() });
      ours += result || content.length;
      theirs += Math.min(compress(content, 3).length, content.length);
    }
    assert.ok(ours < theirs * 1.1, `${ours} and ${theirs} bytes, ${replay}`);
  });

  test.run();
}

{
  const test = suite('zstdEncode against the zstd tool');
  const random = rng();
  const zstd = (args: readonly string[], input: Uint8Array) =>
    spawnSync('zstd', ['-q', '-c', ...args], { input, maxBuffer: 1 << 27 });
  const missing = zstd(['--version'], new Uint8Array()).status !== 0;
  if (missing) console.log('zstd is not installed: its tests are skipped');
  const check = missing ? test.skip : test;

  check('decodes', () => {
    // Many frames at once: the tool takes its time to start.
    const all: { content: Uint8Array; stream: Uint8Array }[] = [];
    decodesWith(
      (stream) => {
        const content = decompress(stream);
        all.push({ content, stream });
        return content;
      },
      random,
      90 * slow,
    );
    const { stdout, stderr, status } = zstd(['-d'], join(...all.map(({ stream }) => stream)));
    assert.is(status, 0, `${stderr}, ${replay}`);
    sameBytes(stdout, join(...all.map(({ content }) => content)), replay);
  });

  test.run();
}

{
  const test = suite("zstdEncode against Node's zstd");
  const random = rng();
  const node = zlib as unknown as { zstdDecompressSync?: (bytes: Uint8Array) => Uint8Array };
  const { zstdDecompressSync: decode } = node;
  if (!decode) console.log('this Node has no zstd: its test is skipped');
  const check = decode ? test : test.skip;

  check('decodes', () => {
    decodesWith((stream) => decode!(stream), random, 60 * slow);
  });

  test.run();
}
