import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { U64 } from '../../src/base/be.ts';
import type { ErrorCode } from '../../src/base/errors.ts';
import {
  extensionsEnd,
  type Header,
  headerGeometry,
  isQcow2,
  parseBackingName,
  parseHeader,
  serializeHeader,
} from '../../src/format/header.ts';
import { type Random, rng, SEED } from '../random.ts';
import { buildImage } from './image-builder.ts';
import { put, refused } from './refused.ts';

const test = suite('header');

/** A header that breaks no rule. */
function randomHeader(next: Random): Header {
  const version = next.pick([2, 3] as const);
  const v3 = version === 3;
  const extendedL2 = v3 && next.oneIn(3);
  const clusterBits = extendedL2 ? 14 + next.below(8) : 9 + next.below(13);
  const clusterSize = 2 ** clusterBits;
  const headerLength = v3 ? next.pick([104, 112, 120, Math.min(clusterSize, 4096)]) : 72;
  const zstd = headerLength > 104 && next.oneIn(2);
  const offset = () => next.below(2 ** 32) * clusterSize;
  const word = (low = next.u32()): U64 => ({ high: v3 ? next.u32() : 0, low: v3 ? low : 0 });
  const l1Entries = 1 + next.below(1000);
  const l2Entries = clusterSize / (extendedL2 ? 16 : 8);
  const bytes = next.below(l1Entries * l2Entries * clusterSize);
  return {
    version,
    backingNameOffset: next.below(clusterSize + 1),
    backingNameLength: next.below(1024),
    clusterBits,
    size: bytes - (bytes % 512),
    sizeTail: bytes % 512,
    cryptMethod: next.below(3),
    l1Entries,
    l1Offset: offset(),
    refcountTableOffset: offset(),
    refcountTableClusters: 1 + next.below(2 ** 23 / clusterSize),
    snapshotCount: next.below(65537),
    snapshotsOffset: offset(),
    incompatible: { high: 0, low: next.below(8) + (zstd ? 8 : 0) + (extendedL2 ? 16 : 0) },
    compatible: word(),
    autoclear: word(),
    refcountOrder: v3 ? next.below(7) : 4,
    headerLength,
    compression: zstd ? 'zstd' : 'deflate',
    unknownFields: new Uint8Array(v3 ? Math.max(0, headerLength - 105) : 0).map(() =>
      next.below(256),
    ),
    ...(v3 ? {} : { incompatible: { high: 0, low: 0 } }),
  };
}

test('comes back as it was written', () => {
  const next = rng();
  for (let i = 0; i < 2000; i++) {
    const header = randomHeader(next);
    const bytes = serializeHeader(header);
    assert.is(bytes.length, header.headerLength);
    assert.equal(parseHeader(bytes), header, `SEED=${SEED}`);
    // What follows is not the header's.
    const longer = new Uint8Array(bytes.length + 100).fill(0xff);
    longer.set(bytes);
    assert.equal(parseHeader(longer), header, `SEED=${SEED}`);
  }
});

test('only qcow2 of version 2 and later is told by its first bytes', () => {
  const { bytes } = buildImage();
  assert.is(isQcow2(bytes), true);
  assert.is(isQcow2(bytes.subarray(0, 8)), true);
  assert.is(isQcow2(bytes.subarray(0, 7)), false);
  assert.is(isQcow2(new Uint8Array(8)), false);
  put(bytes, 4, 4, 1);
  assert.is(isQcow2(bytes), false);
  put(bytes, 4, 4, 9);
  assert.is(isQcow2(bytes), true);
});

/** A field's value, what the header is refused with, and where. */
type Wrong = readonly [
  at: number,
  bytes: number,
  value: number | bigint,
  ErrorCode,
  number,
  RegExp,
];

const OFFSETS = [1n, 511n, 2n ** 32n + 8n, 2n ** 62n, 2n ** 63n, 2n ** 64n - 512n];

const WRONG: readonly Wrong[] = [
  [0, 4, 0, 'NOT_QCOW2', 0, /^Image is not in qcow2 format$/],
  [4, 4, 0, 'UNSUPPORTED', 4, /^Unsupported qcow2 version 0$/],
  [4, 4, 4, 'UNSUPPORTED', 4, /^Unsupported qcow2 version 4$/],
  [8, 8, 513, 'CORRUPT', 8, /^Invalid backing file offset$/],
  [8, 8, 2n ** 32n, 'CORRUPT', 8, /^Invalid backing file offset$/],
  [20, 4, 0, 'UNSUPPORTED', 20, /^Unsupported cluster size: 2\^0$/],
  [20, 4, 8, 'UNSUPPORTED', 20, /^Unsupported cluster size: 2\^8$/],
  [20, 4, 22, 'UNSUPPORTED', 20, /^Unsupported cluster size: 2\^22$/],
  [24, 8, 2n ** 52n, 'UNSUPPORTED', 24, /^Image is too big$/],
  [24, 8, 2n ** 64n - 2n ** 32n, 'UNSUPPORTED', 24, /^Image is too big$/],
  [24, 8, 2 ** 17, 'CORRUPT', 36, /^L1 table is too small$/],
  [36, 4, 1, 'CORRUPT', 36, /^L1 table is too small$/],
  [36, 4, 2 ** 22 + 1, 'UNSUPPORTED', 36, /^Active L1 table too large$/],
  ...OFFSETS.flatMap((value): Wrong[] => [
    [40, 8, value, 'CORRUPT', 40, /^Active L1 table offset invalid$/],
    [48, 8, value, 'CORRUPT', 48, /^Reference count table offset invalid$/],
    [64, 8, value, 'CORRUPT', 64, /^Snapshot table offset invalid$/],
  ]),
  [56, 4, 0, 'CORRUPT', 56, /^Image does not contain a reference count table$/],
  [56, 4, 2 ** 14 + 1, 'UNSUPPORTED', 56, /^Reference count table too large$/],
  [60, 4, 65537, 'UNSUPPORTED', 60, /^Snapshot table too large$/],
  [72, 8, 8, 'CORRUPT', 72, /^qcow2: Compression type incompatible feature bit must not be set$/],
  [72, 8, 16, 'UNSUPPORTED', 20, /^Unsupported subcluster size: 16$/],
  [96, 4, 7, 'UNSUPPORTED', 96, /^Reference count entry width too large/],
  [100, 4, 103, 'CORRUPT', 100, /^qcow2 header too short$/],
  [100, 4, 513, 'CORRUPT', 100, /^qcow2 header exceeds cluster size$/],
  [104, 1, 1, 'CORRUPT', 104, /^qcow2: Compression type incompatible feature bit must be set$/],
  [104, 1, 255, 'UNSUPPORTED', 104, /^qcow2: unknown compression type: 255$/],
];

// As QEMU has it: what is wrong with a table's length is said before what is wrong with its place.
for (const [countAt, count, at, message] of [
  [36, 2 ** 22 + 1, 40, /^Active L1 table too large$/],
  [56, 2 ** 14 + 1, 48, /^Reference count table too large$/],
  [60, 65537, 64, /^Snapshot table too large$/],
] as const) {
  test(`refuses the length in the field at ${countAt} before the offset`, () => {
    const { bytes } = buildImage();
    put(bytes, at, 8, 1n);
    put(bytes, countAt, 4, count);
    refused(() => parseHeader(bytes), 'UNSUPPORTED', countAt, message);
  });
}

for (const [at, length, value, code, field, message] of WRONG) {
  test(`refuses 0x${value.toString(16)} in the field at ${at}`, () => {
    const { bytes } = buildImage();
    put(bytes, at, length, value);
    refused(() => parseHeader(bytes), code, field, message);
  });
}

test('a header that the file cuts short has zeros for the rest', () => {
  const { bytes } = buildImage({ version: 2 });
  assert.equal(parseHeader(bytes.subarray(0, 72)), parseHeader(bytes));
  refused(() => parseHeader(bytes.subarray(0, 40)), 'CORRUPT', 56);
  refused(() => parseHeader(new Uint8Array()), 'NOT_QCOW2', 0);
});

test('version 2 has no features, whatever stands where they would', () => {
  const { bytes } = buildImage({ version: 2 });
  bytes.fill(0xff, 72, 112);
  const { incompatible, refcountOrder, headerLength, compression } = parseHeader(bytes);
  assert.equal(
    { incompatible, refcountOrder, headerLength, compression },
    {
      incompatible: { high: 0, low: 0 },
      refcountOrder: 4,
      headerLength: 72,
      compression: 'deflate',
    },
  );
});

test('a short version 3 header has no compression type, whatever stands there', () => {
  const { bytes } = buildImage();
  put(bytes, 100, 4, 104);
  bytes.fill(0xff, 104, 112);
  assert.is(parseHeader(bytes).compression, 'deflate');
});

test('feature bits that are not known are for the caller, before the sizes', () => {
  const { bytes } = buildImage();
  put(bytes, 72, 8, 2n ** 40n + 16n);
  put(bytes, 36, 4, 0);
  assert.equal(parseHeader(bytes).incompatible, { high: 256, low: 16 });
});

test('repair opens what has lost its refcount table or its snapshots', () => {
  const { bytes } = buildImage();
  put(bytes, 56, 4, 0);
  put(bytes, 60, 4, 2 ** 32 - 1);
  put(bytes, 64, 8, 2n ** 64n - 1n);
  const { refcountTableClusters, snapshotsOffset } = parseHeader(bytes, { lenient: true });
  assert.equal([refcountTableClusters, snapshotsOffset], [0, 0]);
});

test('extensions end at the backing name, or with the first cluster', () => {
  assert.is(extensionsEnd(buildImage().header), 512);
  const named = buildImage({ backing: { name: 'base' } });
  assert.is(extensionsEnd(named.header), named.at.backingName);
});

test('the backing name is what its length says, up to a NUL', () => {
  const { bytes, header, at } = buildImage({ backing: { name: 'bäse' } });
  assert.is(parseBackingName(bytes, header), 'bäse');
  assert.is(parseBackingName(bytes, { ...header, backingNameLength: 1 }), 'b');
  assert.is(parseBackingName(bytes, { ...header, backingNameLength: 20 }), 'bäse');
  assert.is(parseBackingName(bytes, { ...header, backingNameOffset: 0 }), undefined);
  const room = 512 - at.backingName;
  parseBackingName(bytes, { ...header, backingNameLength: room });
  const longer = { ...header, backingNameLength: room + 1 };
  const message = 'Backing file name too long';
  refused(() => parseBackingName(bytes, longer), 'CORRUPT', 16, message);
  const wide = { ...header, clusterBits: 16, backingNameLength: 1024 };
  refused(() => parseBackingName(bytes, wide), 'CORRUPT', 16, message);
});

test('the geometry follows from the header', () => {
  const { header } = buildImage({ extendedL2: true, refcountOrder: 6 });
  const { clusterSize, extendedL2, refcountBlockEntries } = headerGeometry(header);
  assert.equal([clusterSize, extendedL2, refcountBlockEntries], [16384, true, 2048]);
});

test.run();
