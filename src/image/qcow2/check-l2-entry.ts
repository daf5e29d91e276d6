/**
 * L2 entries that there is something to say about, one at a time. What they refer to is counted all
 * the same, as far as it makes sense.
 */
import { HIGH } from '../../base/bits.ts';
import { hex64 } from './check-findings.ts';
import { stopped } from './check-image.ts';
import type { ReferenceWalk } from './check-references.ts';

const COPIED = 0x8000_0000;
const COMPRESSED = 0x4000_0000;
const RESERVED_HIGH = 0x3f00_0000;
const RESERVED_LOW = 0x1fe;

/** A table that is being gone through. */
export interface TablePlace {
  /** File offset of the table, and a view of its bytes in memory. */
  readonly host: number;
  readonly view: DataView;
  /** The active image's, not a snapshot's. */
  readonly active: boolean;
  /** How often its references count. */
  readonly times: number;
}

/** An entry's words. */
interface Words {
  readonly high: number;
  readonly low: number;
  /** Subclusters that read as zeros, and those that have data; 0 in standard entries. */
  readonly zeros: number;
  readonly data: number;
}

/** Says what is wrong with entry `index` of a table, and counts what it refers to. */
export async function checkOddEntry(
  walk: ReferenceWalk,
  table: TablePlace,
  index: number,
): Promise<void> {
  const { image, findings } = walk;
  const { l2EntryBytes, extendedL2 } = image.geometry;
  const at = index * l2EntryBytes;
  const { view } = table;
  const words: Words = {
    high: view.getUint32(at),
    low: view.getUint32(at + 4),
    zeros: extendedL2 ? view.getUint32(at + 8) : 0,
    data: extendedL2 ? view.getUint32(at + 12) : 0,
  };
  const { high, low } = words;
  if (high & COMPRESSED) return checkCompressed(walk, table, index, words);
  if (high & RESERVED_HIGH || low & RESERVED_LOW) {
    findings.corruption(`ERROR found l2 entry with reserved bits set: ${hex64(high, low)}`);
  }
  const host = (high & 0x00ff_ffff) * HIGH + ((low & ~511) >>> 0);
  const zero = !extendedL2 && (low & 1) !== 0;
  const copied = high >= COPIED;
  if (host === 0 && (zero || !(image.hasDataFile && copied))) {
    if (words.data !== 0) {
      findings.corruption('ERROR: Unallocated cluster has non-zero subcluster allocation map');
    }
    return;
  }
  await checkPlain(walk, table, { index, host, zero, words });
}

function checkCompressed(
  walk: ReferenceWalk,
  { times }: TablePlace,
  index: number,
  { high, low, zeros, data }: Words,
): void {
  const { image, findings, counts } = walk;
  const { clusterBits } = image.geometry;
  const split = 38 - clusterBits;
  const hostHigh = high & (2 ** split - 1);
  if (high >= COPIED) {
    findings.corruption(
      `ERROR: coffset=0x${hex64(hostHigh, low)}: ` +
        'copied flag must never be set for compressed clusters',
    );
  }
  const entry = `entry=0x${hex64((high & ~COPIED) >>> 0, low)}`;
  if (image.hasDataFile) {
    findings.corruption(`ERROR compressed cluster ${index} with data file, ${entry}`);
    return;
  }
  if (zeros !== 0 || data !== 0) {
    findings.corruption(
      `ERROR compressed cluster ${index} with non-zero subcluster allocation bitmap, ${entry}`,
    );
    return;
  }
  // Beyond 2^53 the offset's last digits go; what lies there is past the end of any file.
  const host = hostHigh * HIGH + low;
  const sectors = ((high & 0x3fff_ffff) >>> split) + 1;
  const shown = `0x${hex64(hostHigh, low)}`;
  walk.add(host, sectors * 512 - (low & 511), { times, shown });
  counts.tallyCompressed();
}

/** An entry with a place of its own. */
interface PlainEntry {
  readonly index: number;
  readonly host: number;
  readonly zero: boolean;
  readonly words: Words;
}

async function checkPlain(
  walk: ReferenceWalk,
  table: TablePlace,
  { index, host, zero, words }: PlainEntry,
): Promise<void> {
  const { image, findings, counts } = walk;
  const { clusterSize, extendedL2 } = image.geometry;
  const offset = `offset=${host.toString(16)}`;
  if (words.zeros & words.data) {
    findings.corruption(
      `ERROR ${offset}: Allocated cluster has corrupted subcluster allocation bitmap`,
    );
  }
  if (host % clusterSize !== 0) {
    if (extendedL2 ? words.data !== 0 : !zero) {
      findings.corruption(
        `ERROR ${offset}: Data cluster is not properly aligned; L2 entry corrupted.`,
      );
    } else {
      const verb = walk.repairs ? 'Repairing' : 'ERROR';
      findings.corruption(
        `${verb} ${offset}: Preallocated cluster is not properly aligned; L2 entry corrupted.`,
      );
      if (walk.repairs) return zeroEntry(walk, table, index, words);
    }
  }
  counts.tallyPlain(host, clusterSize);
  if (!image.hasDataFile) walk.add(host, clusterSize, { times: table.times });
}

/** Lets go of a place that nothing was in: what read as zeros still does. */
async function zeroEntry(
  { image, findings }: ReferenceWalk,
  { host, view, active }: TablePlace,
  index: number,
  { zeros, data }: Words,
): Promise<void> {
  const { l2EntryBytes, extendedL2 } = image.geometry;
  const at = index * l2EntryBytes;
  view.setUint32(at, 0);
  view.setUint32(at + 4, extendedL2 ? 0 : 1);
  if (extendedL2) {
    view.setUint32(at + 8, zeros | data);
    view.setUint32(at + 12, 0);
  }
  const bytes = new Uint8Array(view.buffer, view.byteOffset + at, l2EntryBytes);
  const as = active ? 'active L2 table' : 'inactive L2';
  if (!(await image.writeMetadata(host + at, bytes.slice(), as))) {
    findings.failed('ERROR: Overlap check failed');
    throw stopped('Input/output error');
  }
  await image.storage.flush();
  findings.fixed();
}
