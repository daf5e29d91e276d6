/**
 * What lies around the data of a write in clusters that are new to it. Where that is nothing but
 * zeros, the host is asked for room that reads as such, and only the data is written: a few bytes
 * in a large cluster cost what few bytes cost.
 */
import { type Awaitable, settled } from '../../base/awaitable.ts';
import type { Storage } from '../../storage/storage.ts';
import { type Disk, ExtentKind, ExtentList } from '../disk.ts';
import type { Cell } from './l2-tables.ts';
import type { WriteParts } from './write-parts.ts';

/** From what takes least to what takes most: no bytes, zeros by the image's own entries, what the
 * backing file shows, or any bytes. */
const EDGES = ['none', 'zeros', 'backing', 'bytes'] as const;

/** What the bytes are that go along with data. */
export type Edge = (typeof EDGES)[number];

/** What an edge is, as the entry of its cluster has it. @param mask the edge's subclusters */
export function edgeOf({ backing }: WriteParts, cell: Cell, mask: number): Edge {
  if (cell.kind === 'compressed' || (cell.data & mask) !== 0) return 'bytes';
  const zero = (cell.zero & mask) >>> 0;
  if (zero === mask) return 'zeros';
  // An edge lies in one subcluster, but for what moves along with data.
  if (zero !== 0) return 'bytes';
  return backing ? 'backing' : 'zeros';
}

/** Of two edges the one that takes more. */
export function largerEdge(a: Edge, b: Edge): Edge {
  return EDGES.indexOf(a) > EDGES.indexOf(b) ? a : b;
}

/** Guest bytes with edges around them: [from, to) is all that gets a place. */
interface Edged {
  readonly guest: number;
  readonly length: number;
  readonly from: number;
  readonly to: number;
  readonly edges: Edge;
}

/**
 * Makes the place of a range read as zeros, where its edges are nothing else and the host need not
 * write them.
 * @param host where in the file the byte at `from` goes
 * @returns whether the data alone is left to be written
 */
export function zeroEdges(
  parts: WriteParts,
  range: Edged,
  host: number,
  data: Storage,
): Awaitable<boolean> {
  const { edges } = range;
  if (edges === 'none' || edges === 'bytes') return false;
  // Zeros of an encrypted disk are no zeros in its file.
  if (parts.encryption || !data.zeroUnwritten) return false;
  return zeroPlace(parts, range, host, data);
}

async function zeroPlace(
  parts: WriteParts,
  { guest, length, from, to, edges }: Edged,
  host: number,
  data: Storage,
): Promise<boolean> {
  const { store, backing } = parts;
  if (edges === 'backing' && backing) {
    if (!(await isEmpty(backing, from, guest))) return false;
    if (!(await isEmpty(backing, guest + length, to))) return false;
  }
  if (!store.hasDataFile) store.overlap.check(host, to - from, 'data');
  if (store.storage.announce) await store.storage.announce('cluster_alloc_space');
  return (await data.zeroUnwritten?.(host, to - from)) ?? false;
}

/**
 * Whether the entries of images say that a range is zeros. Ranges that have a place are taken for
 * bytes, and so are a raw file's holes: QEMU does not ask the host here.
 */
async function isEmpty(backing: Disk, from: number, to: number): Promise<boolean> {
  const end = Math.min(to, backing.size);
  if (from >= end) return true;
  const list = new ExtentList();
  const collected = backing.collectExtents(from, end, list);
  if (!settled(collected)) await collected;
  for (let index = 0; index < list.count; index++) {
    const kind = list.kind(index);
    if (kind === ExtentKind.hole) continue;
    if (kind !== ExtentKind.zero || list.host(index) >= 0) return false;
  }
  return true;
}
