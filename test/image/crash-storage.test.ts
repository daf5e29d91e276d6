// Storage that loses power, in small cases whose states can be told by hand.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { rng, SEED } from '../random.ts';
import { CrashFiles } from './crash-storage.ts';
import { PagedBytes } from './paged-bytes.ts';

const FILE = 'a';
const replay = `SEED=${SEED}`;
const sector = (byte: number, count = 1) => new Uint8Array(512 * count).fill(byte);

/** The first byte of each sector, of every state: as text, to compare sets of. */
function statesOf(files: CrashFiles, subsets = 1000): string[] {
  const seen = new Set<string>();
  for (const state of files.states(rng(), { subsets })) {
    const bytes = state.files.bytes(FILE).toBytes();
    const heads = Array.from({ length: bytes.length / 512 }, (_, i) => bytes[i * 512]);
    seen.add(`${state.cut}:${heads.join('')}`);
  }
  return [...seen].sort();
}

const test = suite('crash storage');

test('a change that is not flushed is there or not', () => {
  const files = CrashFiles.empty(FILE);
  files.open(FILE).write(0, sector(1));
  assert.equal(statesOf(files), ['0:', '1:', '1:1'], replay);
});

test('a flush makes what came before it last, whatever comes after', () => {
  const files = CrashFiles.empty(FILE);
  const file = files.open(FILE);
  file.write(0, sector(1));
  file.flush();
  file.write(512, sector(2));
  assert.equal(statesOf(files), ['0:', '1:', '1:1', '2:1', '3:1', '3:12'], replay);
});

test('later changes may be there without earlier ones', () => {
  const files = CrashFiles.empty(FILE);
  const file = files.open(FILE);
  file.write(0, sector(1));
  file.write(512, sector(2));
  assert.equal(statesOf(files), ['0:', '1:', '1:1', '2:', '2:02', '2:1', '2:12'], replay);
});

test('an older version of a sector does not win over a newer one', () => {
  const files = CrashFiles.empty(FILE);
  const file = files.open(FILE);
  file.write(0, sector(1));
  file.write(0, sector(2));
  assert.equal(statesOf(files), ['0:', '1:', '1:1', '2:', '2:1', '2:2'], replay);
});

test('writes and zeroings are torn at sectors', () => {
  const files = new CrashFiles(new Map([[FILE, PagedBytes.from(sector(7, 2))]]));
  files.open(FILE).write(0, sector(1, 2));
  assert.equal(statesOf(files), ['0:77', '1:11', '1:17', '1:71', '1:77'], replay);
  const zeroed = new CrashFiles(new Map([[FILE, PagedBytes.from(sector(7, 2))]]));
  zeroed.open(FILE).zero(0, 1024);
  assert.equal(statesOf(zeroed), ['0:77', '1:00', '1:07', '1:70', '1:77'], replay);
});

test('a sector is never torn, wherever a write starts', () => {
  const files = new CrashFiles(new Map([[FILE, PagedBytes.from(new Uint8Array(2048))]]));
  files.open(FILE).write(300, new Uint8Array(1000).fill(5));
  for (const state of files.states(rng(), { subsets: 300 })) {
    const bytes = state.files.bytes(FILE).toBytes();
    for (let at = 0; at < 2048; at += 512) {
      const [from, to] = [Math.max(at, 300), Math.min(at + 512, 1300)];
      const part = bytes.subarray(from, Math.max(from, to));
      assert.ok(
        part.every((byte) => byte === part[0]),
        `${state.about} ${replay}`,
      );
    }
  }
});

test('truncation is lost as a whole, and cut bytes do not come back', () => {
  const files = new CrashFiles(new Map([[FILE, PagedBytes.from(sector(7, 2))]]));
  const file = files.open(FILE);
  file.truncate(512);
  file.truncate(1024);
  assert.equal(statesOf(files), ['0:77', '1:7', '1:77', '2:7', '2:70', '2:77'], replay);
});

test('a flush covers one file, and only what came before it began', () => {
  const files = CrashFiles.empty(FILE, 'b');
  const [a, b] = [files.open(FILE), files.open('b')];
  a.write(0, sector(1));
  b.flush();
  const finish = a.startFlush();
  a.write(512, sector(2));
  finish();
  const last = statesOf(files).filter((state) => state.startsWith('4:'));
  assert.equal(last, ['4:1', '4:12'], replay);
  assert.ok(statesOf(files).includes('2:'), 'the flush of the other file covers nothing here');
});

test('states are cheap, and do not touch each other or the file', () => {
  const big = new Uint8Array(8 * 2 ** 20).fill(3);
  const files = new CrashFiles(new Map([[FILE, PagedBytes.from(big)]]));
  const file = files.open(FILE);
  for (let i = 0; i < 300; i++) file.write(i * 4096, sector(9));
  let count = 0;
  for (const { files: found } of files.states(rng(), { subsets: 4 })) {
    found.open(FILE).write(count, Uint8Array.of(1));
    count++;
  }
  assert.ok(count > 1000);
  const now = files.now.bytes(FILE).toBytes();
  assert.ok(now.every((byte, i) => byte === (i % 4096 < 512 && i < 300 * 4096 ? 9 : 3)));
});

test('pages behave as an array does', () => {
  const next = rng();
  let bytes = new PagedBytes();
  let model = new Uint8Array();
  const grow = (size: number) => {
    if (size <= model.length) return;
    const grown = new Uint8Array(size);
    grown.set(model);
    model = grown;
  };
  for (let step = 0; step < 400; step++) {
    const at = next.below(20_000);
    const length = 1 + next.below(next.pick([10, 5000, 20_000]));
    const what = next.below(5);
    if (what < 2) {
      const from = new Uint8Array(length).fill(1 + next.below(255));
      bytes.write(at, from);
      grow(at + length);
      model.set(from, at);
    } else if (what === 2) {
      bytes.zero(at, length);
      grow(at + length);
      model.fill(0, at, at + length);
    } else if (what === 3) {
      bytes.truncate(at);
      grow(at);
      model = model.slice(0, at);
    } else {
      const before = bytes;
      bytes = before.copy();
      before.write(next.below(20_000), new Uint8Array(9000).fill(0xee));
    }
    assert.equal(bytes.toBytes(), model, `step ${step} ${replay}`);
  }
});

test('a closed handle is of no use', () => {
  const file = CrashFiles.empty(FILE).open(FILE);
  file.close();
  assert.throws(() => file.write(0, sector(1)), /closed/);
});

test.run();
