// The checker against images that are whole, and with one thing wrong at a time.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { rng, SEED } from '../random.ts';
import { MemoryFiles, PagedBytes } from './paged-bytes.ts';
import { checkQcow2 } from './qcow2-check.ts';
import { toyEngine } from './toy-qcow2.ts';
import { IMAGE, SMALL } from './write-engine.ts';

/**
 * Clusters of 512 bytes: 0 header, 1 refcount table, 2 refcount block, 3 L1 table, 4 data of guest
 * cluster 0, 5 its L2 table, 6 and 7 data of guest clusters 1 and 2.
 */
async function sample(): Promise<Uint8Array> {
  const files = MemoryFiles.empty(IMAGE);
  const disk = await toyEngine().create(files, SMALL);
  for (let i = 0; i < 3; i++) await disk.write(i * 512, new Uint8Array(512).fill(1 + i));
  await disk.close();
  return files.bytes(IMAGE).toBytes();
}

const at = (cluster: number) => cluster * 512;
const REFCOUNT = (cluster: number) => at(2) + cluster * 2;
const L2 = (index: number) => at(5) + index * 8;
const check = (bytes: Uint8Array) => checkQcow2(PagedBytes.from(bytes));

const test = suite('qcow2 check');

test('an image that is whole has nothing wrong', async () => {
  const { corruptions, leaks, leaksPastEnd, dirty } = check(await sample());
  assert.equal(
    { corruptions, leaks, leaksPastEnd, dirty },
    {
      corruptions: [],
      leaks: 0,
      leaksPastEnd: 0,
      dirty: false,
    },
  );
});

type Damage = readonly [fact: string, patch: readonly (readonly [number, number])[], RegExp];

const damages: Damage[] = [
  ['a refcount of 0', [[REFCOUNT(6) + 1, 0]], /0xc00 \(data\): refcount 0, referenced 1/],
  ['a refcount of 0 of a table', [[REFCOUNT(5) + 1, 0]], /\(L2 table\): refcount 0/],
  [
    'a refcount block that nothing counts',
    [[REFCOUNT(2) + 1, 0]],
    /\(refcount block\): refcount 0/,
  ],
  ['COPIED with a refcount of 2', [[REFCOUNT(6) + 1, 2]], /COPIED, and the refcount is 2/],
  ['no COPIED with a refcount of 1', [[L2(1), 0]], /not COPIED, and the refcount is 1/],
  ['no COPIED in the L1 table', [[at(3), 0]], /L1 entry 0 \(active\): not COPIED/],
  ['a reserved bit in an L1 entry', [[at(3) + 7, 1]], /L1 entry 0 \(active\): reserved bits/],
  ['a reserved bit in an L2 entry', [[L2(1) + 7, 2]], /reserved bits in/],
  ['a reserved bit in the refcount table', [[at(1) + 7, 1]], /refcount block 0: reserved bits/],
  ['data past the end of the file', [[L2(1) + 4, 1]], /past the end of the file/],
  ['data in the L2 table', [[L2(1) + 6, 0x0a]], /is data, and L2 table as well/],
  [
    'data in the header',
    [
      [L2(1) + 6, 0],
      [L2(1) + 7, 0],
      [L2(1), 0xc0],
    ],
    /compressed data in the/,
  ],
  ['an L1 table past the end', [[45, 1]], /L1 table at 0x10600 is past the end/],
  ['an L1 table that is too small', [[39, 0]], /the L1 table has 0 of/],
  ['compressed and COPIED', [[L2(1), 0xc0]], /compressed and COPIED/],
  ['the corrupt bit', [[79, 2]], /the corrupt bit/],
  ['an unknown feature', [[75, 1]], /unknown incompatible/],
  ['another magic', [[0, 0]], /not a qcow2 image/],
];

for (const [fact, patch, message] of damages) {
  test(`finds ${fact}`, async () => {
    const bytes = await sample();
    for (const [offset, byte] of patch) bytes[offset] = byte;
    const { corruptions } = check(bytes);
    assert.match(corruptions.join('\n'), message);
  });
}

test('counts leaks, and those past the end of the file by themselves', async () => {
  const bytes = await sample();
  bytes[L2(1)] = 0;
  bytes.fill(0, L2(1), L2(2));
  bytes[REFCOUNT(100) + 1] = 1;
  const { corruptions, leaks, leaksPastEnd } = check(bytes);
  assert.equal(
    { corruptions, leaks, leaksPastEnd },
    { corruptions: [], leaks: 1, leaksPastEnd: 1 },
  );
});

test('a dirty image may have wrong refcounts, and nothing else', async () => {
  const bytes = await sample();
  bytes[79] = 1;
  bytes[REFCOUNT(6) + 1] = 0;
  const first = check(bytes);
  assert.is(first.dirty, true);
  assert.equal(first.corruptions, []);
  assert.is(first.stale.length, 2);
  bytes[L2(1) + 6] = 0x0a;
  assert.is(check(bytes).corruptions.length, 1);
});

test('never throws, whatever the bytes are', async () => {
  const next = rng();
  const whole = await sample();
  for (let round = 0; round < 300; round++) {
    const bytes = whole.slice(0, next.oneIn(3) ? next.below(whole.length) : whole.length);
    for (let i = next.below(20); i >= 0; i--) {
      const metadata = next.pick([0, 0, 1, 2, 3, 5]);
      bytes[at(metadata) + next.below(next.pick([8, 112, 512]))] = next.pick([0, 1, 255, 128]);
    }
    try {
      check(bytes);
    } catch (cause) {
      throw new Error(`round ${round}, SEED=${SEED}: ${(cause as Error).stack}`);
    }
  }
});

test.run();
