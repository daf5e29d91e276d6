import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { ErrorCode } from '../../src/base/errors.ts';
import {
  type BitmapDirectoryEntry,
  BitmapFlag,
  checkTableLength,
  parseBitmapDirectory,
  parseBitmapExtension,
  serializeBitmapDirectoryEntry,
  serializeBitmapExtension,
} from '../../src/format/bitmap-directory.ts';
import { type Random, rng, SEED } from '../random.ts';
import { put, refused } from './refused.ts';

const AT = 0x30000;
const CLUSTER = 65536;
const LIMITS = { clusterSize: CLUSTER, diskSize: 2 ** 40 };

const extension = suite('bitmaps extension');

extension('comes back as it was written', () => {
  const next = rng();
  for (let i = 0; i < 500; i++) {
    const value = {
      count: 1 + next.below(65535),
      directoryBytes: next.below(1024 * 65535 + 1),
      directoryOffset: next.below(2 ** 40) * CLUSTER,
    };
    const back = parseBitmapExtension(serializeBitmapExtension(value), AT, CLUSTER);
    assert.equal(back, value, `SEED=${SEED}`);
  }
});

extension('each field that is wrong is refused where it is', () => {
  const wrong: [field: number, bytes: number, value: number | bigint, ErrorCode, RegExp][] = [
    [0, 4, 0, 'CORRUPT', /^found bitmaps extension with zero bitmaps$/],
    [0, 4, 65536, 'UNSUPPORTED', /^bitmaps_ext: Image has 65536 bitmaps, exceeding/],
    [0, 4, 2 ** 32 - 1, 'UNSUPPORTED', /4294967295 bitmaps/],
    [4, 4, 1, 'CORRUPT', /^bitmaps_ext: Reserved field is not zero$/],
    [8, 8, 1024 * 65535 + 1, 'UNSUPPORTED', /size \(67107841\) exceeds/],
    [8, 8, 2n ** 32n, 'UNSUPPORTED', /size \(4294967296\) exceeds/],
    [8, 8, 2n ** 64n - 1n, 'UNSUPPORTED', /size \(18446744073709551615\) exceeds/],
    [16, 8, 512, 'CORRUPT', /^bitmaps_ext: invalid bitmap directory offset$/],
    [16, 8, 2n ** 63n + 512n, 'CORRUPT', /^bitmaps_ext: invalid bitmap directory offset$/],
  ];
  for (const [field, bytes, value, code, message] of wrong) {
    const good = { count: 1, directoryBytes: 32, directoryOffset: CLUSTER };
    const data = serializeBitmapExtension(good);
    put(data, field, bytes, value);
    refused(() => parseBitmapExtension(data, AT, CLUSTER), code, AT + field, message);
  }
});

extension('one that is cut short is refused', () => {
  const data = serializeBitmapExtension({ count: 1, directoryBytes: 32, directoryOffset: 0 });
  for (let length = 0; length < 24; length++) {
    assert.throws(() => parseBitmapExtension(data.subarray(0, length), AT, CLUSTER), /cut short$/);
  }
});

extension.run();

const directory = suite('bitmap directory');

/** An entry that covers a disk of 2^40 bytes. */
function randomEntry(next: Random): BitmapDirectoryEntry {
  const granularityBits = 13 + next.below(19);
  const inUse = next.oneIn(2);
  const exact = Math.ceil(2 ** (40 - granularityBits) / 8 / CLUSTER);
  return {
    tableOffset: (1 + next.below(2 ** 39)) * CLUSTER,
    tableEntries: inUse ? 1 + next.below(8192) : exact,
    flags: (inUse ? BitmapFlag.inUse : 0) | (next.oneIn(2) ? BitmapFlag.auto : 0),
    granularityBits,
    extraData: new Uint8Array(),
    name: 'bïtmap '.repeat(40).slice(0, 1 + next.below(250)),
  };
}

const bytesOf = (entries: readonly BitmapDirectoryEntry[]) =>
  new Uint8Array(entries.flatMap((entry) => [...serializeBitmapDirectoryEntry(entry)]));

const parse = (bytes: Uint8Array, count: number, limits = LIMITS) =>
  parseBitmapDirectory(bytes, AT, { count, ...limits });

directory('comes back as it was written', () => {
  const next = rng();
  for (let i = 0; i < 300; i++) {
    const entries = Array.from({ length: 1 + next.below(6) }, () => randomEntry(next));
    assert.equal(parse(bytesOf(entries), entries.length), entries, `SEED=${SEED}`);
  }
});

const GOOD: BitmapDirectoryEntry = {
  tableOffset: CLUSTER,
  tableEntries: 32,
  flags: 0,
  granularityBits: 16,
  extraData: new Uint8Array(),
  name: 'b',
};

directory('each field that is wrong is refused where it is', () => {
  const constraints = "Bitmap 'b' doesn't satisfy the constraints";
  const wrong: [field: number, bytes: number, value: number | bigint, string | RegExp][] = [
    [0, 8, 0, constraints],
    [0, 8, 512, constraints],
    [0, 8, 2n ** 64n - 1n, /out of range$/],
    [8, 4, 0, constraints],
    [8, 4, 31, constraints],
    [8, 4, 8193, constraints],
    [8, 4, 2 ** 32 - 1, constraints],
    [12, 4, 8, constraints],
    [12, 4, 2 ** 31, constraints],
    [16, 1, 0, constraints],
    [16, 1, 2, constraints],
    [17, 1, 8, constraints],
    [17, 1, 32, constraints],
    [17, 1, 255, constraints],
    [18, 2, 0, "Bitmap '' doesn't satisfy the constraints"],
    [20, 4, 1, 'Bitmap extra data is not supported'],
  ];
  for (const [field, bytes, value, message] of wrong) {
    const data = bytesOf([GOOD]);
    put(data, field, bytes, value);
    refused(() => parse(data, 1), 'CORRUPT', AT + field, message);
  }
});

directory('a name may have 1023 bytes', () => {
  const name = 'x'.repeat(1023);
  assert.is(parse(bytesOf([{ ...GOOD, name }]), 1)[0]?.name, name);
  const longer = bytesOf([{ ...GOOD, name: `${name}x` }]);
  refused(() => parse(longer, 1), 'CORRUPT', AT + 18, /doesn't satisfy the constraints$/);
});

directory('an entry that reaches past the end is refused', () => {
  const data = bytesOf([GOOD]);
  for (const [field, bytes, value] of [
    [18, 2, 65535],
    [20, 4, 2 ** 20],
  ] as const) {
    const copy = data.slice();
    put(copy, field, bytes, value);
    refused(() => parse(copy, 1), 'CORRUPT', AT + 18, 'Broken bitmap directory');
  }
  const endless = data.slice();
  put(endless, 20, 4, 2 ** 32 - 1);
  refused(() => parse(endless, 1), 'CORRUPT', AT + 20, 'Bitmap extra data is not supported');
  for (let length = 1; length < 24; length++) {
    const part = data.subarray(0, length);
    refused(() => parse(part, 1), 'CORRUPT', AT, 'Broken bitmap directory');
  }
});

directory('the number of entries has to be right', () => {
  const data = bytesOf([GOOD, GOOD]);
  const more = 'More bitmaps found than specified in header extension';
  refused(() => parse(data, 1), 'CORRUPT', AT + 32, more);
  // As with qemu-img: what is no whole entry is no further one.
  const tail = new Uint8Array(data.length + 1);
  tail.set(data);
  refused(() => parse(tail, 2), 'CORRUPT', AT + data.length, 'Broken bitmap directory');
  const less = 'Less bitmaps found than specified in header extension';
  refused(() => parse(data, 3), 'CORRUPT', AT, less);
  const none = 'Requested bitmap directory size is zero';
  refused(() => parse(new Uint8Array(), 1), 'CORRUPT', AT, none);
});

directory('a bitmap in use may be of another size, a consistent one may not', () => {
  const small = { ...LIMITS, diskSize: 2 ** 20 };
  const inUse = bytesOf([{ ...GOOD, flags: BitmapFlag.inUse }]);
  for (const entry of parse(inUse, 1, small)) checkTableLength(entry, small);
  const [entry] = parse(bytesOf([GOOD]), 1, small);
  const check = () => checkTableLength(entry!, small);
  refused(check, 'CORRUPT', GOOD.tableOffset, /^Could not read bitmap/);
  checkTableLength(entry!, LIMITS);
});

directory.run();
