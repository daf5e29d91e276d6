// Disks do not become smaller while their refcounts say the wrong things: nothing changes then, and
// once they are repaired nothing is lost.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import { checkStorage } from '../../src/image/qcow2/check.ts';
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import { PagedBytes } from './paged-bytes.ts';
import { checkQcow2 } from './qcow2-check.ts';

const KIB = 1024;
const CLUSTER = KIB;
const SIZE = 1024 * KIB;
const KEPT = 300 * KIB;
/** Guest offsets with data: kept, and cut off. */
const FILLED = [0, 299 * KIB, 300 * KIB, 700 * KIB];

async function soundImage(): Promise<Uint8Array> {
  const storage = memoryStorage();
  const image = await Qcow2Image.create(storage, { size: SIZE, clusterSize: CLUSTER });
  for (const [i, at] of FILLED.entries()) {
    await image.write(at, new Uint8Array(CLUSTER).fill(i + 1));
  }
  await image.close();
  return storage.snapshot();
}

/** An image as its bytes, with the places of its tables. */
class Tables {
  readonly view: DataView;
  constructor(readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer);
  }

  offset(at: number): number {
    return Number(this.view.getBigUint64(at) & 0x00ff_ffff_ffff_fe00n);
  }

  put(at: number, host: number, copied = false): void {
    this.view.setBigUint64(at, BigInt(host) | (copied ? 1n << 63n : 0n));
  }

  get refcountTable(): number {
    return this.offset(48);
  }

  /** Place of the L1 entry for a guest offset. */
  l1Entry(guest: number): number {
    return this.offset(40) + 8 * Math.floor(guest / (CLUSTER * 128));
  }

  l2Entry(guest: number): number {
    return this.offset(this.l1Entry(guest)) + 8 * (Math.floor(guest / CLUSTER) % 128);
  }

  setCount(host: number, count: number): void {
    this.view.setUint16(this.offset(this.refcountTable) + (2 * host) / CLUSTER, count);
  }
}

/** What is done to the image. */
const DAMAGES: Readonly<Record<string, (t: Tables) => void>> = {
  'a refcount block far behind the end of the file': (t) => t.put(t.refcountTable + 8, 2 ** 36),
  'a refcount block just behind it': (t) => t.put(t.refcountTable + 40, t.bytes.length + 9 * KIB),
  'a refcount table entry with reserved bits': (t) => t.put(t.refcountTable + 8, 511),
  'a refcount block that is data as well': (t) => {
    t.put(t.refcountTable + 24, t.offset(t.l2Entry(700 * KIB)));
  },
  'a refcount block named twice': (t) => t.put(t.refcountTable + 8, t.offset(t.refcountTable)),
  'no count for data that is kept': (t) => t.setCount(t.offset(t.l2Entry(0)), 0),
  'no count for data that goes': (t) => t.setCount(t.offset(t.l2Entry(700 * KIB)), 0),
  'no count for a table that goes': (t) => t.setCount(t.offset(t.l1Entry(700 * KIB)), 0),
  'no count for the L1 table': (t) => t.setCount(t.offset(40), 0),
  'no count for the refcount block': (t) => t.setCount(t.offset(t.refcountTable), 0),
  'no count for the header': (t) => t.setCount(0, 0),
  'data behind the end of the file': (t) => t.put(t.l2Entry(700 * KIB), 2 ** 36, true),
  'data that goes, and is kept elsewhere': (t) => {
    t.put(t.l2Entry(700 * KIB), t.offset(t.l2Entry(0)), true);
  },
  'data that goes, and is the refcount table': (t) => {
    t.put(t.l2Entry(700 * KIB), t.refcountTable, true);
  },
};

const errorOf = (work: Promise<unknown>) =>
  work.then(
    () => undefined,
    (cause) => cause,
  );

/** What the disk holds where something was written. */
async function filled(image: Qcow2Image): Promise<number[]> {
  const found: number[] = [];
  for (const at of FILLED.filter((one) => one < image.size)) {
    const bytes = new Uint8Array(CLUSTER);
    await image.read(at, bytes);
    assert.ok(bytes.every((byte) => byte === bytes[0]));
    found.push(bytes[0]!);
  }
  return found;
}

const test = suite('shrinking an image with wrong refcounts');

for (const [name, damage] of Object.entries(DAMAGES)) {
  test(`${name}: refused, and nothing changes`, async () => {
    const tables = new Tables(await soundImage());
    damage(tables);
    const storage = memoryStorage(tables.bytes.slice());
    const image = await Qcow2Image.open(storage, { writable: true });
    const before = await errorOf(filled(image));
    const error = await errorOf(image.resize(KEPT));
    assert.ok(isQcow2Error(error, 'CORRUPT'), String(error));
    assert.is(image.size, SIZE);
    assert.equal(await errorOf(filled(image)), before);
    await image.close();
    assert.equal(storage.snapshot(), tables.bytes);
  });
}

for (const [name, damage] of Object.entries(DAMAGES)) {
  // What names a place far behind makes the file longer than a test has memory for, or stays.
  if (/far behind|^data behind/.test(name)) continue;
  test(`${name}: fine once it is repaired`, async () => {
    const tables = new Tables(await soundImage());
    damage(tables);
    const storage = Object.assign(memoryStorage(tables.bytes), { close() {} });
    await checkStorage(storage, { repair: 'all' });
    await checkStorage(storage, { repair: 'all' });
    const image = await Qcow2Image.open(storage, { writable: true });
    await image.resize(KEPT);
    assert.equal(await filled(image), [1, 2]);
    await image.close();
    const { corruptions } = checkQcow2(PagedBytes.from(storage.snapshot()));
    // The last reference that is left of several has no flag, as in QEMU's images.
    assert.equal(
      corruptions.filter((one) => !/not COPIED/.test(one)),
      [],
    );
  });
}

test('counts that are too high are no reason to refuse, nor are COPIED flags', async () => {
  const tables = new Tables(await soundImage());
  tables.setCount(tables.offset(tables.l2Entry(700 * KIB)), 2);
  tables.put(tables.l2Entry(0), tables.offset(tables.l2Entry(0)));
  const storage = Object.assign(memoryStorage(tables.bytes), { close() {} });
  const image = await Qcow2Image.open(storage, { writable: true });
  await image.resize(KEPT);
  assert.equal(await filled(image), [1, 2]);
  await image.close();
});

test.run();
