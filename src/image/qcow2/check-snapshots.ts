/**
 * The snapshot table as a check reads it, and what a repair does about it: entries beyond what a
 * table may hold are given up, extra data beyond its limit is cut off, and entries that lack the
 * fields of version 3 get them.
 */
import { viewOf } from '../../base/be.ts';
import { alignUp, HIGH } from '../../base/bits.ts';
import { isQcow2Error } from '../../base/errors.ts';
import {
  SNAPSHOT_EXTRA_BYTES_MAX,
  SNAPSHOT_TABLE_BYTES_MAX,
  SNAPSHOTS_MAX,
} from '../../base/limits.ts';
import { Workspace } from '../../kernels/arena.ts';
import { Allocator } from './allocate.ts';
import { type CheckedImage, type CheckedSnapshot, reasonOf, stopped } from './check-image.ts';
import { MetadataStore, numberBytes } from './metadata-store.ts';
import { Refcounts } from './refcounts.ts';
import { SCRATCH_BYTES_PER_ENTRY } from './references.ts';

const FIXED_BYTES = 40;
const KNOWN_EXTRA_BYTES = 24;
/** Extra data that version 3 asks for: VM state size and virtual size. */
const V3_EXTRA_BYTES = 16;
/** Bytes of the table that are read at a time. */
const READ_BYTES = 65536;
/** Bytes of refcount blocks that are kept in memory while the table is written. */
const CACHE_BYTES = 1024 * 1024;

/**
 * Reads the table into the image. Numbers and lines go to its findings.
 * @throws Qcow2Error where there is no reading it
 */
export async function readSnapshotTable(image: CheckedImage): Promise<void> {
  const { findings, repairsAll } = image;
  const pointer = new Uint8Array(12);
  await image.read(60, pointer);
  const view = viewOf(pointer);
  let count = view.getUint32(0);
  const offset = view.getUint32(4) * HIGH + view.getUint32(8);
  let discarded = 0;
  if (count > SNAPSHOTS_MAX && repairsAll) {
    discarded = count - SNAPSHOTS_MAX;
    findings.say(`Discarding ${discarded} overhanging snapshots`);
    count = SNAPSHOTS_MAX;
  }
  if (count > SNAPSHOTS_MAX) {
    findings.failed('ERROR snapshot table too large', 'tool');
    findings.say(
      `You can force-remove all ${count - SNAPSHOTS_MAX} overhanging snapshots with ` +
        'qemu-img check -r all',
    );
    throw stopped('File too large');
  }
  const tableEnd = offset + count * FIXED_BYTES;
  if (tableEnd >= 2 ** 63 || view.getUint32(8) % image.geometry.clusterSize !== 0) {
    findings.failed('ERROR snapshot table offset invalid', 'tool');
    throw stopped('Invalid argument');
  }
  image.snapshotsOffset = count > 0 ? offset : 0;
  const reader = new TableReader(image, offset);
  const { overhanging, cut } = await reader.entries(count);
  image.snapshots = reader.snapshots;
  image.snapshotsBytes = count > 0 ? reader.at - offset : 0;
  findings.numbers.corruptions += discarded + overhanging + cut;
  if (discarded + overhanging > 0) await writeCount(image, discarded + overhanging);
  if (image.header.version >= 3) reportIncomplete(image);
}

async function writeCount(image: CheckedImage, removed: number): Promise<void> {
  const bytes = new Uint8Array(4);
  viewOf(bytes).setUint32(0, image.snapshots.length);
  await image.write(60, bytes);
  await image.storage.flush();
  image.findings.fixed(removed);
}

function reportIncomplete({ snapshots, findings, repairsAll }: CheckedImage): void {
  for (const [index, { extra }] of snapshots.entries()) {
    if (extra.length >= V3_EXTRA_BYTES) continue;
    const verb = repairsAll ? 'Repairing' : 'ERROR';
    findings.corruption(`${verb} snapshot table entry ${index} is incomplete`);
  }
}

/** Reads entries one after another, from one stretch of the file at a time. */
class TableReader {
  readonly snapshots: CheckedSnapshot[] = [];
  /** File offset of what comes next. */
  at: number;
  private bytes = new Uint8Array();
  private start = 0;

  constructor(
    private readonly image: CheckedImage,
    private readonly offset: number,
  ) {
    this.at = offset;
  }

  async entries(count: number): Promise<{ overhanging: number; cut: number }> {
    const { findings, repairsAll } = this.image;
    let cut = 0;
    let length = 0;
    for (let index = 0; index < count; index++) {
      const before = this.at;
      length = alignUp(length, 8);
      this.at = alignUp(this.at, 8);
      const fixed = await this.take(FIXED_BYTES);
      const view = viewOf(fixed);
      const extraBytes = view.getUint32(36);
      if (extraBytes > SNAPSHOT_EXTRA_BYTES_MAX) {
        if (!repairsAll) {
          const what = `Too much extra metadata in snapshot table entry ${index}`;
          this.refuse(what, 'You can force-remove this extra metadata with qemu-img check -r all');
        }
        findings.say(
          `Discarding too much extra metadata in snapshot table entry ${index} ` +
            `(${extraBytes} > ${SNAPSHOT_EXTRA_BYTES_MAX})`,
        );
        cut++;
      }
      const extra = await this.take(Math.min(extraBytes, SNAPSHOT_EXTRA_BYTES_MAX));
      this.at += extraBytes - extra.length;
      const id = await this.take(view.getUint16(12));
      const name = await this.take(view.getUint16(14));
      length += FIXED_BYTES + extra.length + id.length + name.length;
      if (length > SNAPSHOT_TABLE_BYTES_MAX || this.at - this.offset > 0x7fff_ffff) {
        const overhanging = count - index;
        if (!repairsAll) {
          const hint = `overhanging snapshots with qemu-img check -r all`;
          this.refuse(
            'Snapshot table is too big',
            `You can force-remove all ${overhanging} ${hint}`,
          );
        }
        findings.say(`Discarding ${overhanging} overhanging snapshots (snapshot table is too big)`);
        this.at = before;
        return { overhanging, cut };
      }
      this.snapshots.push({ fixed, extra, id, name });
    }
    return { overhanging: 0, cut };
  }

  private refuse(what: string, hint: string): never {
    const { findings } = this.image;
    findings.failed(`ERROR failed to read the snapshot table: ${what}`, 'tool');
    findings.say(hint);
    throw stopped('File too large');
  }

  private async take(length: number): Promise<Uint8Array> {
    const end = this.at + length;
    if (this.at < this.start || end > this.start + this.bytes.length) {
      this.start = this.at;
      this.bytes = new Uint8Array(Math.max(length, READ_BYTES));
      try {
        await this.image.read(this.at, this.bytes);
      } catch (cause) {
        const what = `Failed to read snapshot table: ${reasonOf(cause)}`;
        this.image.findings.failed(`ERROR failed to read the snapshot table: ${what}`, 'tool');
        throw cause;
      }
    }
    const taken = this.bytes.slice(this.at - this.start, end - this.start);
    this.at = end;
    return taken;
  }
}

/**
 * Writes the table anew where something was wrong with it, now that refcounts can be trusted.
 * @throws Qcow2Error where that fails; the old table is in place then
 */
export async function fixSnapshotTable(image: CheckedImage): Promise<void> {
  const { findings } = image;
  if (findings.numbers.corruptions === 0 || !image.repairsAll) return;
  try {
    await replaceTable(image, serialize(image));
  } catch (cause) {
    findings.failed(`ERROR failed to update snapshot table: ${reasonOf(cause)}`);
    throw cause;
  }
  findings.fixed(findings.numbers.corruptions);
}

async function replaceTable(image: CheckedImage, table: Uint8Array): Promise<void> {
  const { storage, geometry, header } = image;
  const workspace = new Workspace();
  const store = new MetadataStore({
    storage,
    data: storage,
    header,
    geometry,
    l1: image.l1,
    l2Region: workspace.reserve(2 * geometry.clusterSize),
    refcountRegion: workspace.reserve(Math.max(4 * geometry.clusterSize, CACHE_BYTES)),
    discardPolicy: {},
    scratch: workspace.reserve(geometry.l2Entries * SCRATCH_BYTES_PER_ENTRY),
    snapshots: [],
  });
  await store.loadRefcountTable();
  const refcounts = new Refcounts(store);
  let at = 0;
  if (table.length > 0) {
    const allocator = new Allocator(store, refcounts);
    at = await allocator.clusters(table.length);
    await store.order.flush();
    if (!(await image.writeMetadata(at, table, 'new table'))) {
      await allocator.free(at, table.length);
      await store.order.flush();
      throw stopped('Input/output error');
    }
    await store.order.flushStorage();
  }
  const pointer = new Uint8Array(12);
  viewOf(pointer).setUint32(0, image.snapshots.length);
  pointer.set(numberBytes(at), 4);
  await store.writeHeader(60, pointer);
  if (image.snapshotsBytes > 0) {
    try {
      await refcounts.change(image.snapshotsOffset, image.snapshotsBytes, -1);
    } catch (cause) {
      // Nobody knew that it was in use: so it need not be freed.
      if (!isQcow2Error(cause, 'CORRUPT')) throw cause;
      image.findings.say('qcow2_free_clusters failed: Invalid argument');
    }
    await store.order.flush();
  }
  image.snapshotsOffset = at;
  image.snapshotsBytes = table.length;
  image.header = store.header;
}

/** The table with at least the known extra data in each entry; ids and names end at a NUL. */
function serialize({ snapshots, header }: CheckedImage): Uint8Array {
  const entries = snapshots.map((snapshot) => serializeEntry(snapshot, header.size));
  let length = 0;
  for (const entry of entries) length = alignUp(length, 8) + entry.length;
  const table = new Uint8Array(length);
  let at = 0;
  for (const entry of entries) {
    at = alignUp(at, 8);
    table.set(entry, at);
    at += entry.length;
  }
  return table;
}

function serializeEntry({ fixed, extra, id, name }: CheckedSnapshot, size: number): Uint8Array {
  const known = new Uint8Array(Math.max(KNOWN_EXTRA_BYTES, extra.length));
  // What the entry does not say: the old field's VM state, the disk's size, no instruction count.
  known.set(fixed.subarray(32, 36), 4);
  known.set(numberBytes(size), 8);
  known.fill(0xff, 16, KNOWN_EXTRA_BYTES);
  known.set(extra.subarray(0, wholeFields(extra.length)));
  if (extra.length > KNOWN_EXTRA_BYTES) known.set(extra);
  const [idText, nameText] = [untilNul(id), untilNul(name)];
  const entry = new Uint8Array(FIXED_BYTES + known.length + idText.length + nameText.length);
  entry.set(fixed);
  const view = viewOf(entry);
  view.setUint16(12, idText.length);
  view.setUint16(14, nameText.length);
  // A VM state above 4 GiB is told by the extra data alone.
  const state = viewOf(known);
  view.setUint32(32, state.getUint32(0) === 0 ? state.getUint32(4) : 0);
  view.setUint32(36, known.length);
  entry.set(known, FIXED_BYTES);
  entry.set(idText, FIXED_BYTES + known.length);
  entry.set(nameText, FIXED_BYTES + known.length + idText.length);
  return entry;
}

/** Known extra data comes in fields of 8 bytes; a part of one says nothing. */
function wholeFields(length: number): number {
  return Math.min(KNOWN_EXTRA_BYTES, length - (length % 8));
}

function untilNul(bytes: Uint8Array): Uint8Array {
  const end = bytes.indexOf(0);
  return end < 0 ? bytes : bytes.subarray(0, end);
}
