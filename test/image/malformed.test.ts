// Whole images with one thing broken at a time, and then with anything broken: each gets a result
// or a typed error with the place of what is wrong. Replay with SEED=…, longer with SLOW=1.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type ErrorCode, isQcow2Error } from '../../src/base/errors.ts';
import { ExtensionType } from '../../src/format/header-extensions.ts';
import type { Disk } from '../../src/image/disk.ts';
import { type OpenDiskOptions, openDisk } from '../../src/image/open.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import type { Storage } from '../../src/storage/storage.ts';
import {
  type BuiltImage,
  buildImage,
  deflateStored,
  type ImageSpec,
  zstdStored,
} from '../format/image-builder.ts';
import { rng, SEED } from '../random.ts';

const CLUSTER = 512;
const BLOCK_BYTES = 65536;

/** What a broken image is answered with. `at` is the file offset of what is wrong. */
type Answer = readonly [code: ErrorCode, at: number | undefined, message: string | RegExp];

/** Reads a disk from its first byte to its last. Bounded: huge disks are read in part. */
async function readWhole(disk: Disk): Promise<void> {
  const block = new Uint8Array(BLOCK_BYTES);
  const end = Math.min(disk.size, 2 ** 20);
  for (let at = 0; at < end; at += block.length) {
    await disk.read(at, block.subarray(0, Math.min(block.length, end - at)));
  }
  if (disk.size > end) await disk.read(disk.size - 512, block.subarray(0, 512));
}

async function openAndRead(storage: Storage, options: OpenDiskOptions = {}): Promise<void> {
  const disk = await openDisk(storage, options);
  try {
    await readWhole(disk);
  } finally {
    await disk.close();
  }
}

/** Asserts how opening and reading an image ends. */
async function refused(storage: Storage, answer: Answer, options?: OpenDiskOptions) {
  const [code, at, message] = answer;
  try {
    await openAndRead(storage, { format: 'qcow2', ...options });
  } catch (cause) {
    assert.ok(isQcow2Error(cause), String((cause as Error).stack));
    if (typeof message === 'string') assert.is(cause.message, message);
    else assert.match(cause.message, message);
    assert.equal({ code: cause.code, at: cause.at }, { code, at });
    return;
  }
  assert.unreachable('nothing was refused');
}

/** One way to break an image, and the answer to it. */
type Breakage = readonly [fact: string, damage: (image: BuiltImage) => void, answer: AnswerOf];
type AnswerOf = Answer | ((image: BuiltImage) => Answer);

/** @param toWrite the image is opened to be written, and is looked at more closely for that */
function breakages(
  name: string,
  spec: ImageSpec,
  list: readonly Breakage[],
  { toWrite = false } = {},
): void {
  const test = suite(`malformed images, ${name}`);
  test('nothing is refused before it is broken', async () => {
    const gate = () => memoryStorage(new Uint8Array(70_000), { writable: false });
    await openAndRead(buildImage(spec).storage(), { gate });
  });
  for (const [fact, damage, answer] of list) {
    test(fact, async () => {
      const image = buildImage(spec);
      damage(image);
      const storage = toWrite ? memoryStorage(image.bytes.slice()) : image.storage();
      const options = toWrite ? { writable: true } : {};
      await refused(storage, typeof answer === 'function' ? answer(image) : answer, options);
    });
  }
  test.run();
}

const put =
  (at: number, bytes: number, value: number | bigint) =>
  (image: BuiltImage): void =>
    image.put(at, bytes, value);

const DATA: ImageSpec = {
  clusters: { 0: { kind: 'data', fill: 1 }, 5: { kind: 'zero' }, 100: { kind: 'data', fill: 2 } },
};

/** Values that each table offset is refused for. */
function badOffsets(field: number, what: string): Breakage[] {
  return [1n, 511n, 2n ** 32n + 8n, 2n ** 62n, 2n ** 63n, 2n ** 64n - 512n, 2n ** 64n - 1n].map(
    (value) => [
      `${what} offset 0x${value.toString(16)}`,
      put(field, 8, value),
      ['CORRUPT', field, `${what} offset invalid`],
    ],
  );
}

breakages('header', DATA, [
  ['magic', put(0, 4, 0x514649fa), ['NOT_QCOW2', 0, 'Image is not in qcow2 format']],
  ['version 1', put(4, 4, 1), ['UNSUPPORTED', 4, 'Unsupported qcow2 version 1']],
  ['version 4', put(4, 4, 4), ['UNSUPPORTED', 4, 'Unsupported qcow2 version 4']],
  [
    'version 2^32 - 1',
    put(4, 4, 2 ** 32 - 1),
    ['UNSUPPORTED', 4, 'Unsupported qcow2 version 4294967295'],
  ],
  ['backing name past the cluster', put(8, 8, 513), ['CORRUPT', 8, 'Invalid backing file offset']],
  ['backing name at 2^32', put(8, 8, 2n ** 32n), ['CORRUPT', 8, 'Invalid backing file offset']],
  ['clusters of 256 bytes', put(20, 4, 8), ['UNSUPPORTED', 20, 'Unsupported cluster size: 2^8']],
  ['clusters of 4 MiB', put(20, 4, 22), ['UNSUPPORTED', 20, 'Unsupported cluster size: 2^22']],
  [
    'clusters of 2^(2^32 - 1)',
    put(20, 4, 2 ** 32 - 1),
    ['UNSUPPORTED', 20, 'Unsupported cluster size: 2^4294967295'],
  ],
  [
    '2^32 bytes with an L1 of 64 KiB',
    put(24, 8, 2n ** 32n),
    ['CORRUPT', 36, 'L1 table is too small'],
  ],
  ['2^53 bytes', put(24, 8, 2n ** 53n), ['UNSUPPORTED', 24, 'Image is too big']],
  ['2^63 - 512 bytes', put(24, 8, 2n ** 63n - 512n), ['UNSUPPORTED', 24, 'Image is too big']],
  ['2^63 bytes', put(24, 8, 2n ** 63n), ['UNSUPPORTED', 24, 'Image is too big']],
  [
    '2^64 - 1 bytes',
    put(24, 8, 2n ** 64n - 1n),
    ['UNSUPPORTED', 24, 'Could not refresh total sector count: File too large'],
  ],
  [
    'legacy encryption',
    put(32, 4, 1),
    ['UNSUPPORTED', 32, "Parameter 'encrypt.key-secret' is required for cipher"],
  ],
  [
    'LUKS without its header',
    put(32, 4, 2),
    ['CORRUPT', 32, 'Missing CRYPTO header for crypt method 2'],
  ],
  ['encryption 3', put(32, 4, 3), ['UNSUPPORTED', 32, 'Unsupported encryption method 3']],
  ['an L1 of no entries', put(36, 4, 0), ['CORRUPT', 36, 'L1 table is too small']],
  [
    'an L1 of 2^22 + 1 entries',
    put(36, 4, 2 ** 22 + 1),
    ['UNSUPPORTED', 36, 'Active L1 table too large'],
  ],
  [
    'an L1 of 2^32 - 1 entries',
    put(36, 4, 2 ** 32 - 1),
    ['UNSUPPORTED', 36, 'Active L1 table too large'],
  ],
  ...badOffsets(40, 'Active L1 table'),
  [
    'an L1 past the end of the file',
    put(40, 8, 2n ** 40n),
    ['CORRUPT', 2 ** 40, 'L1 table at 1099511627776 lies past the end of the file'],
  ],
  ...badOffsets(48, 'Reference count table'),
  [
    'no refcount table',
    put(56, 4, 0),
    ['CORRUPT', 56, 'Image does not contain a reference count table'],
  ],
  [
    'a refcount table of 8 MiB and a cluster',
    put(56, 4, 2 ** 14 + 1),
    ['UNSUPPORTED', 56, 'Reference count table too large'],
  ],
  [
    'a refcount table of 2^32 - 1 clusters',
    put(56, 4, 2 ** 32 - 1),
    ['UNSUPPORTED', 56, 'Reference count table too large'],
  ],
  ['65537 snapshots', put(60, 4, 65537), ['UNSUPPORTED', 60, 'Snapshot table too large']],
  ['2^32 - 1 snapshots', put(60, 4, 2 ** 32 - 1), ['UNSUPPORTED', 60, 'Snapshot table too large']],
  ...badOffsets(64, 'Snapshot table'),
  [
    'refcounts of 128 bits',
    put(96, 4, 7),
    ['UNSUPPORTED', 96, 'Reference count entry width too large; may not exceed 64 bits'],
  ],
  [
    'refcounts of 2^(2^32 - 1) bits',
    put(96, 4, 2 ** 32 - 1),
    ['UNSUPPORTED', 96, 'Reference count entry width too large; may not exceed 64 bits'],
  ],
  ['a header of 96 bytes', put(100, 4, 96), ['CORRUPT', 100, 'qcow2 header too short']],
  [
    'a header of 513 bytes',
    put(100, 4, 513),
    ['CORRUPT', 100, 'qcow2 header exceeds cluster size'],
  ],
  [
    'a header of 2^32 - 1 bytes',
    put(100, 4, 2 ** 32 - 1),
    ['CORRUPT', 100, 'qcow2 header exceeds cluster size'],
  ],
  ['compression 2', put(104, 1, 2), ['UNSUPPORTED', 104, 'qcow2: unknown compression type: 2']],
  [
    'zstd without its feature bit',
    put(104, 1, 1),
    ['CORRUPT', 104, 'qcow2: Compression type incompatible feature bit must be set'],
  ],
  [
    "zstd's feature bit alone",
    put(72, 8, 8),
    ['CORRUPT', 72, 'qcow2: Compression type incompatible feature bit must not be set'],
  ],
  [
    'extended L2 entries in small clusters',
    put(72, 8, 16),
    ['UNSUPPORTED', 20, 'Unsupported subcluster size: 16'],
  ],
  [
    "an external data file's bit without its name",
    put(72, 8, 4),
    ['CORRUPT', 72, "'data-file' is required for this image"],
  ],
]);

breakages('features that are not known', DATA, [
  [
    'bit 5',
    put(72, 8, 0x20),
    ['UNSUPPORTED', 72, /^Unsupported qcow2 feature\(s\): Unknown incompatible feature: 20$/],
  ],
  [
    'bit 63',
    put(72, 8, 2n ** 63n),
    ['UNSUPPORTED', 72, /Unknown incompatible feature: 8000000000000000$/],
  ],
  [
    'all bits',
    put(72, 8, 2n ** 64n - 1n),
    ['CORRUPT', 72, 'qcow2: Compression type incompatible feature bit must not be set'],
  ],
]);

{
  const name = new Uint8Array(96);
  name.set([0, 40, ...new TextEncoder().encode('time travel')]);
  name.set([1, 41, ...new TextEncoder().encode('a compatible one')], 48);
  const named = { ...DATA, extensions: [{ type: ExtensionType.featureNames, data: name }] };
  breakages('features that have a name', named, [
    [
      'the name is told',
      put(72, 8, 2n ** 40n),
      ['UNSUPPORTED', 72, /^Unsupported qcow2 feature\(s\): time travel$/],
    ],
    [
      'what has no name is told by its number',
      put(72, 8, 2n ** 40n + 2n ** 41n),
      ['UNSUPPORTED', 72, /: time travel, Unknown incompatible feature: 20000000000$/],
    ],
    [
      'a broken table does not hide the bits',
      (image) => {
        image.put(72, 8, 2n ** 40n);
        image.put(image.at.extensions[ExtensionType.featureNames]! - 4, 4, 2 ** 32 - 1);
      },
      ['UNSUPPORTED', 72, /Unknown incompatible feature: 10000000000$/],
    ],
  ]);
}

/** The length field of an extension of this type. */
const extension = (image: BuiltImage, type: number) => image.at.extensions[type]! - 8;

breakages('extensions', { ...DATA, dataFile: 'data' }, [
  [
    'one of 2^32 - 1 bytes',
    (image) => image.put(extension(image, ExtensionType.end), 8, 0x12345678_ffffffffn),
    (image) => ['CORRUPT', extension(image, ExtensionType.end), 'Header extension too large'],
  ],
  [
    'one byte past the first cluster',
    (image) => {
      const room = CLUSTER - image.at.extensions[ExtensionType.end]!;
      image.put(extension(image, ExtensionType.end), 8, 0x12345678_00000001n + BigInt(room));
    },
    (image) => ['CORRUPT', extension(image, ExtensionType.end), 'Header extension too large'],
  ],
  [
    'a header that ends within the last 8 bytes of the first cluster',
    put(100, 4, CLUSTER - 4),
    ['CORRUPT', CLUSTER - 4, 'Header extension too large'],
  ],
  [
    'a LUKS header of an image that is not encrypted',
    (image) => image.put(extension(image, ExtensionType.dataFileName), 4, 0x0537be77),
    (image) => [
      'CORRUPT',
      extension(image, ExtensionType.dataFileName),
      'CRYPTO header extension only expected with LUKS encryption method',
    ],
  ],
]);

breakages('bitmaps', { ...DATA, bitmaps: ['one', 'two'] }, bitmapBreakages());

function bitmapBreakages(): Breakage[] {
  const inExtension = (field: number, bytes: number, value: number | bigint) => (b: BuiltImage) =>
    b.put(b.at.extensions[ExtensionType.bitmaps]! + field, bytes, value);
  const inEntry = (field: number, bytes: number, value: number | bigint) => (b: BuiltImage) =>
    b.put(b.at.bitmapDirectory + field, bytes, value);
  const extensionFails =
    (code: ErrorCode, field: number, message: string) =>
    (b: BuiltImage): Answer => [code, b.at.extensions[ExtensionType.bitmaps]! + field, message];
  const entryFails =
    (field: number, message: string) =>
    (b: BuiltImage): Answer => ['CORRUPT', b.at.bitmapDirectory + field, message];
  const constraints = "Bitmap 'one' doesn't satisfy the constraints";
  const shape = 'bitmaps_ext: Invalid extension length';
  return [
    ['length 16', inExtension(-4, 4, 16), extensionFails('CORRUPT', -8, shape)],
    ['length 32', inExtension(-4, 4, 32), extensionFails('CORRUPT', -8, shape)],
    [
      'reserved field',
      inExtension(4, 4, 1),
      extensionFails('CORRUPT', 4, 'bitmaps_ext: Reserved field is not zero'),
    ],
    [
      'no bitmap',
      inExtension(0, 4, 0),
      extensionFails('CORRUPT', 0, 'found bitmaps extension with zero bitmaps'),
    ],
    [
      '65536 bitmaps',
      inExtension(0, 4, 65536),
      extensionFails(
        'UNSUPPORTED',
        0,
        'bitmaps_ext: Image has 65536 bitmaps, exceeding the QEMU supported maximum of 65535',
      ),
    ],
    [
      'a bitmap more',
      inExtension(0, 4, 3),
      entryFails(0, 'Less bitmaps found than specified in header extension'),
    ],
    [
      'a bitmap less',
      inExtension(0, 4, 1),
      entryFails(32, 'More bitmaps found than specified in header extension'),
    ],
    [
      'an empty directory',
      inExtension(8, 8, 0),
      entryFails(0, 'Requested bitmap directory size is zero'),
    ],
    [
      'a directory of 2^63 bytes',
      inExtension(8, 8, 2n ** 63n),
      extensionFails(
        'UNSUPPORTED',
        8,
        'bitmaps_ext: bitmap directory size (9223372036854775808) exceeds ' +
          'the maximum supported size (67107840)',
      ),
    ],
    [
      'a directory of 64 MiB',
      inExtension(8, 8, 67_107_840),
      entryFails(64, 'More bitmaps found than specified in header extension'),
    ],
    [
      'a directory off its cluster',
      inExtension(16, 8, 8),
      extensionFails('CORRUPT', 16, 'bitmaps_ext: invalid bitmap directory offset'),
    ],
    [
      'a directory past the end',
      inExtension(16, 8, 2n ** 40n),
      ['CORRUPT', 2 ** 40 + 16, "Bitmap '' doesn't satisfy the constraints"],
    ],
    ['a table at 0', inEntry(0, 8, 0), entryFails(0, constraints)],
    ['a table off its cluster', inEntry(0, 8, 8), entryFails(0, constraints)],
    ['no table entries', inEntry(8, 4, 0), entryFails(8, constraints)],
    ['2^32 - 1 table entries', inEntry(8, 4, 2 ** 32 - 1), entryFails(8, constraints)],
    [
      'too many table entries',
      inEntry(8, 4, 2),
      (b) => [
        'CORRUPT',
        Number(b.view.getBigUint64(b.at.bitmapDirectory)),
        "Could not read bitmap 'one' from image: Invalid argument",
      ],
    ],
    ['reserved flags', inEntry(12, 4, 8), entryFails(12, constraints)],
    ['type 2', inEntry(16, 1, 2), entryFails(16, constraints)],
    ['granularity 256', inEntry(17, 1, 8), entryFails(17, constraints)],
    ['granularity 2^32', inEntry(17, 1, 32), entryFails(17, constraints)],
    ['no name', inEntry(18, 2, 0), entryFails(18, "Bitmap '' doesn't satisfy the constraints")],
    ['a name of 65535 bytes', inEntry(18, 2, 65535), entryFails(18, 'Broken bitmap directory')],
    ['extra data', inEntry(20, 4, 1), entryFails(20, 'Bitmap extra data is not supported')],
    [
      'extra data of 2^32 - 1 bytes',
      inEntry(20, 4, 2 ** 32 - 1),
      entryFails(20, 'Bitmap extra data is not supported'),
    ],
  ];
}

const SNAPSHOT: ImageSpec = { ...DATA, snapshots: ['one'] };

// What nobody asks for does not stop reading, but writing has to know of every snapshot.
const UNUSABLE_SNAPSHOTS: readonly Breakage[] = [
  [
    'a table past the end of the file',
    put(64, 8, 2n ** 40n),
    ['CORRUPT', 2 ** 40 + 12, 'snapshot table entry is cut short'],
  ],
  [
    'a name past the end of the file',
    (b) => b.put(b.at.snapshots + 14, 2, 65535),
    (b) => ['CORRUPT', b.at.snapshots + 40 + 24 + 1, 'snapshot table entry is cut short'],
  ],
  [
    'more snapshots than the table has room for',
    put(60, 4, 65536),
    (b) => [
      'CORRUPT',
      b.bytes.length + 12 - (b.bytes.length % 8),
      'snapshot table entry is cut short',
    ],
  ],
  [
    'an L1 at 2^63',
    (b) => b.put(b.at.snapshots, 8, 2n ** 63n),
    (b) => ['CORRUPT', b.at.snapshots, 'snapshot L1 table offset is out of range'],
  ],
  [
    'a disk of 2^64 - 1 bytes',
    (b) => b.put(b.at.snapshots + 48, 8, 2n ** 64n - 1n),
    (b) => ['CORRUPT', b.at.snapshots + 48, 'snapshot disk size'],
  ],
];

breakages('snapshots', SNAPSHOT, [
  [
    'too much extra data',
    (b) => b.put(b.at.snapshots + 36, 4, 1025),
    (b) => [
      'UNSUPPORTED',
      b.at.snapshots + 36,
      'Too much extra metadata in snapshot table entry 0',
    ],
  ],
  [
    'extra data of 2^32 - 1 bytes',
    (b) => b.put(b.at.snapshots + 36, 4, 2 ** 32 - 1),
    (b) => [
      'UNSUPPORTED',
      b.at.snapshots + 36,
      'Too much extra metadata in snapshot table entry 0',
    ],
  ],
]);
breakages('snapshots, to be written', SNAPSHOT, UNUSABLE_SNAPSHOTS, { toWrite: true });

{
  const test = suite('malformed images, snapshots that nobody asks for');
  for (const [fact, damage] of UNUSABLE_SNAPSHOTS) {
    test(`${fact}: the disk can be read`, async () => {
      const image = buildImage(SNAPSHOT);
      damage(image);
      await openAndRead(image.storage(), { format: 'qcow2' });
    });
  }
  test.run();
}

{
  const test = suite('malformed images, reading a snapshot');
  const read = async (damage: (image: BuiltImage) => void, answer: (b: BuiltImage) => Answer) => {
    const image = buildImage({ ...DATA, snapshots: ['one'] });
    damage(image);
    await refused(image.storage(), answer(image), { snapshot: 'one' });
  };

  test('reads the one that is whole', async () => {
    const image = buildImage({ ...DATA, snapshots: ['one'] });
    await openAndRead(image.storage(), { snapshot: 'one' });
  });
  test('refuses an L1 of 2^32 - 1 entries', () =>
    read(
      (b) => b.put(b.at.snapshots + 8, 4, 2 ** 32 - 1),
      (b) => ['UNSUPPORTED', b.at.snapshots, 'Snapshot L1 table too large'],
    ));
  test('refuses an L1 off its cluster', () =>
    read(
      (b) => b.put(b.at.snapshots, 8, 8),
      (b) => ['CORRUPT', b.at.snapshots, 'Snapshot L1 table offset invalid'],
    ));
  test('refuses an L1 past the end of the file', () =>
    read(
      (b) => b.put(b.at.snapshots, 8, 2n ** 40n),
      () => ['CORRUPT', 2 ** 40, 'L1 table at 1099511627776 lies past the end of the file'],
    ));
  test('refuses a snapshot that is not there', () =>
    refused(buildImage(DATA).storage(), ['OUT_OF_RANGE', undefined, "Can't find snapshot"], {
      snapshot: 'one',
    }));
  test.run();
}

/** Fails for the L2 entry of guest cluster `guest`, which lies there. */
const atEntry =
  (guest: number) =>
  (b: BuiltImage): Answer => [
    'CORRUPT',
    b.at.entries[guest]!,
    `corrupt L2 entry for guest offset 0x${(guest * b.geometry.clusterSize).toString(16)}`,
  ];

breakages('L2 entries', DATA, [
  ...[1n, 2n, 0x40n, 0x80n].map(
    (bit): Breakage => [
      `reserved bit 0x${bit.toString(16)}`,
      (b) => b.put(b.at.entries[0]!, 8, b.view.getBigUint64(b.at.entries[0]!) | (bit << 1n)),
      atEntry(0),
    ],
  ),
  ...[56n, 57n, 60n, 61n].map(
    (bit): Breakage => [
      `reserved bit ${bit}`,
      (b) => b.put(b.at.entries[100]!, 8, b.view.getBigUint64(b.at.entries[100]!) | (1n << bit)),
      atEntry(100),
    ],
  ),
]);

breakages('tables', { ...DATA, clusterBits: 16, size: 2 ** 40 }, [
  [
    'an L2 table off its cluster',
    (b) => b.put(b.at.l1 + 4, 4, b.at.l2[0]! + 512),
    (b) => [
      'CORRUPT',
      b.at.l1,
      `L2 table offset 0x${(b.at.l2[0]! + 512).toString(16)} unaligned (L1 index: 0)`,
    ],
  ],
  [
    'an L2 table past the end of the file',
    (b) => b.put(b.at.l1, 8, 2n ** 50n),
    ['CORRUPT', 2 ** 50, 'L2 table lies past the end of the file'],
  ],
  [
    'a cluster off its boundary',
    (b) => b.put(b.at.entries[5]!, 8, 512),
    (b) => [
      'CORRUPT',
      b.at.entries[5]!,
      'Cluster allocation offset 0x200 unaligned ' +
        `(L2 offset: 0x${b.at.l2[0]!.toString(16)}, L2 index: 0x5)`,
    ],
  ],
]);

{
  const test = suite('malformed images, tables that are something else');
  const spec = { ...DATA, clusterBits: 12 };
  const loops: Record<string, (b: BuiltImage) => void> = {
    'an L1 that is its own L2': (b) => b.put(b.at.l1, 8, b.at.l1),
    'an L2 that is its own data': (b) => b.put(b.at.entries[0]!, 8, b.at.l2[0]!),
    'the refcount block as L2': (b) => b.put(b.at.l1, 8, b.at.refcountBlock),
    'the refcount table as L1': (b) => b.put(40, 8, b.at.refcountTable),
    'the header as L1': (b) => b.put(40, 8, 0),
    'the header as refcount table': (b) => b.put(48, 8, 0),
    'the L2 as snapshot table': (b) => {
      b.put(60, 4, 1);
      b.put(64, 8, b.at.l2[0]!);
    },
  };
  for (const [fact, damage] of Object.entries(loops)) {
    test(`${fact} ends, one way or the other`, async () => {
      const image = buildImage(spec);
      damage(image);
      await survives(image.bytes, fact);
    });
  }
  test.run();
}

const COMPRESSED = (stream: Uint8Array): ImageSpec => ({
  clusters: { 0: { kind: 'compressed', stream }, 1: { kind: 'data', fill: 1 } },
});
const plain = new Uint8Array(CLUSTER).fill(7);

breakages('compressed clusters', COMPRESSED(deflateStored(plain)), [
  [
    'a stream past the end of the file',
    (b) => b.put(b.at.entries[0]!, 8, 2n ** 62n + 2n ** 40n),
    ['CORRUPT', 2 ** 40, 'compressed cluster (deflate) cannot be read: its data ends too early'],
  ],
  ['a stream above 2^56', (b) => b.put(b.at.entries[0]!, 8, 2n ** 62n + 2n ** 57n), atEntry(0)],
  [
    'a block type that does not exist',
    (b) => b.put(b.at.clusters[0]!, 1, 7),
    (b) => [
      'CORRUPT',
      b.at.clusters[0]!,
      'compressed cluster (deflate) cannot be read: its data is damaged',
    ],
  ],
  [
    'a length that does not match its complement',
    (b) => b.put(b.at.clusters[0]! + 1, 2, 0),
    (b) => [
      'CORRUPT',
      b.at.clusters[0]!,
      'compressed cluster (deflate) cannot be read: its data is damaged',
    ],
  ],
  [
    'less than a cluster',
    (b) => b.put(b.at.clusters[0]! + 1, 4, 0xff_00_00_ffn),
    (b) => [
      'CORRUPT',
      b.at.clusters[0]!,
      'compressed cluster (deflate) cannot be read: it holds less than a cluster',
    ],
  ],
]);

breakages('zstd clusters', { ...COMPRESSED(zstdStored(plain)), zstd: true }, [
  [
    'another magic number',
    (b) => b.put(b.at.clusters[0]!, 1, 0),
    (b) => [
      'CORRUPT',
      b.at.clusters[0]!,
      'compressed cluster (zstd) cannot be read: its data is damaged',
    ],
  ],
  [
    'a frame of terabytes',
    (b) => b.put(b.at.clusters[0]! + 4, 1, 0xe0),
    (b) => ['CORRUPT', b.at.clusters[0]!, /^compressed cluster \(zstd\) cannot be read: /],
  ],
]);

breakages(
  'extended L2 entries',
  { extendedL2: true, clusters: { 0: { kind: 'data', fill: 1 }, 1: { kind: 'zero' } } },
  [
    [
      'a subcluster that is both allocated and zero',
      (b) => b.put(b.at.entries[0]! + 8, 4, 1 << 7),
      (b) => [
        'CORRUPT',
        b.at.entries[0]!,
        `Invalid cluster entry found  (L2 offset: 0x${b.at.l2[0]!.toString(16)}, L2 index: 0)`,
      ],
    ],
    [
      'subclusters without a cluster',
      (b) => b.put(b.at.entries[1]! + 8, 8, 1),
      (b) => [
        'CORRUPT',
        b.at.entries[1]!,
        `Invalid cluster entry found  (L2 offset: 0x${b.at.l2[0]!.toString(16)}, L2 index: 0x1)`,
      ],
    ],
    ['the old zero bit', (b) => b.put(b.at.entries[0]! + 7, 1, 1), atEntry(0)],
  ],
);

{
  const test = suite('malformed images, backing chains');
  const named = (name: string, format?: string) =>
    buildImage({ ...DATA, backing: format === undefined ? { name } : { name, format } });

  test('without a gate no name is opened', () =>
    refused(named('/etc/shadow').storage(), [
      'REFUSED',
      undefined,
      "Could not open backing file: 'image' names the backing file '/etc/shadow', " +
        'and no gate opens it',
    ]));
  test('a format that is not known', () =>
    refused(named('base', 'vmdk').storage(), [
      'UNSUPPORTED',
      undefined,
      "Could not open backing file: Unknown driver 'vmdk'",
    ]));
  test('a format name of 16 bytes', () =>
    refused(named('base', 'x'.repeat(16)).storage(), [
      'CORRUPT',
      112,
      'ERROR: ext_backing_format: len=16 too large (>=16)',
    ]));
  test('a chain that goes round', async () => {
    const image = named('image', 'qcow2');
    let opened = 0;
    let closed = 0;
    const storage = (): Storage => {
      opened++;
      return Object.assign(Object.create(image.storage()), { close: () => closed++ });
    };
    const answer: Answer = ['OUT_OF_RANGE', undefined, 'backing chain of more than 200 images'];
    await refused(storage(), answer, { gate: storage });
    assert.is(closed, opened);
  });
  test('a data file that no gate opens', () =>
    refused(buildImage({ dataFile: '/etc/shadow' }).storage(), [
      'REFUSED',
      undefined,
      "'image' names the data file '/etc/shadow', and no gate opens it",
    ]));
  test.run();
}

{
  const test = suite('malformed images, cut short');
  test('every length gets a result or a typed error', async () => {
    const { bytes } = buildImage({ ...DATA, snapshots: ['one'], bitmaps: ['two'] });
    for (let length = 0; length <= bytes.length; length += length < 600 ? 1 : 37) {
      await survives(bytes.slice(0, length), `${length} bytes`);
    }
  });
  test.run();
}

{
  const test = suite('malformed images, flipped bytes');
  // A page of a browser and a process have different places for it.
  const host = globalThis as { SLOW?: string; process?: { env: Record<string, unknown> } };
  const slow = Boolean(host.SLOW ?? host.process?.env.SLOW);
  const specs: ImageSpec[] = [
    DATA,
    { ...DATA, version: 2 },
    { ...DATA, snapshots: ['one', 'two'], bitmaps: ['three'] },
    COMPRESSED(deflateStored(plain)),
    { ...COMPRESSED(zstdStored(plain)), zstd: true },
    { extendedL2: true, clusters: { 0: { kind: 'data', fill: 1 }, 3: { kind: 'zero' } } },
    { ...DATA, backing: { name: 'base', format: 'raw' } },
    { ...DATA, dataFile: 'data' },
  ];
  test('thousands of them get a result or a typed error', async () => {
    const next = rng();
    const images = specs.map((spec) => buildImage(spec));
    // So many, however fast the machine is: a seed tries the same ones everywhere.
    for (let round = 0; round < (slow ? 40_000 : 2_000); round++) {
      const image = next.pick(images);
      const bytes = image.bytes.slice();
      // Metadata more often than data: nothing checks data.
      const limit = next.oneIn(2) ? 200 : bytes.length;
      const flips = Array.from({ length: 1 + next.below(4) }, () => {
        const at = next.below(limit);
        bytes[at] = next.oneIn(3) ? next.pick([0, 1, 0x7f, 0x80, 0xff]) : next.below(256);
        return `${at}=${bytes[at]}`;
      });
      await survives(bytes, `SEED=${SEED} round ${round}: ${flips.join(' ')}`);
    }
  });
  test.run();
}

/** Bytes that one read may ask for: an L1 table may be this long, and is checked before. */
const READ_BYTES_MAX = 32 * 2 ** 20;

/** Storage that finds out when somebody allocates what an image only claims to have. */
function watched(bytes: Uint8Array): Storage {
  const storage = memoryStorage(bytes, { name: 'image', writable: false });
  const read = (at: number, into: Uint8Array) => {
    if (into.length > READ_BYTES_MAX) throw new Error(`a read of ${into.length} bytes`);
    return storage.read(at, into);
  };
  return Object.assign(Object.create(storage), { read });
}

/** Opens and reads whatever it is: fails for all that is no Qcow2Error, and for what takes long. */
async function survives(bytes: Uint8Array, label: string): Promise<void> {
  let took = 0;
  // A browser tells no CPU time: busy with something else it makes one of them late, and not all.
  for (let attempt = 0; attempt < 5; attempt++) {
    const start = milliseconds();
    const gate = () => memoryStorage(new Uint8Array(70_000).fill(9), { writable: false });
    try {
      await openAndRead(watched(bytes.slice()), { format: 'qcow2', gate });
    } catch (cause) {
      assert.ok(isQcow2Error(cause), `${label}\n${(cause as Error).stack}`);
    }
    took = milliseconds() - start;
    if (took < 2000) return;
  }
  assert.unreachable(`${label} took ${took} ms`);
}

/** What this process has used of a processor, or the time of day where that is not told. */
function milliseconds(): number {
  const usage = globalThis.process?.cpuUsage?.();
  return usage ? (usage.user + usage.system) / 1000 : Date.now();
}
