/**
 * Where the bytes of an image's disk are: runs of its L2 tables as extents, and for what they leave
 * open those of the backing disk.
 */
import { type Awaitable, settled } from '../../base/awaitable.ts';
import { RunKind } from '../../kernels/kernels.ts';
import { type DataSource, type Disk, ExtentKind, type ExtentList } from '../disk.ts';
import type { ImageParts } from './image-parts.ts';
import { NO_PLACE, type RunVisitor } from './mapping.ts';

/** The image's own files, as sources of extents: the image, and where plain clusters are. */
export function ownSources(parts: ImageParts): DataSource[] {
  const { storage, dataStorage, plainData, metadata, depth } = parts;
  const { clusterSize } = metadata.geometry;
  const codec = metadata.header.compression;
  const own: DataSource[] = [{ storage, depth, clusterSize, codec }];
  if (plainData) own.push({ storage: plainData, depth, clusterSize, codec, encrypted: true });
  else if (dataStorage !== storage) own.push({ storage: dataStorage, depth, clusterSize, codec });
  return own;
}

/** A range that no cluster or subcluster is for; `host` −1 unless its cluster is there. */
interface Hole {
  readonly guest: number;
  readonly length: number;
  readonly host: number;
}

/** Adds the extents of the guest bytes [from, to) to a list. @see Disk.collectExtents */
export function collectImageExtents(
  parts: ImageParts,
  { from, to }: { readonly from: number; readonly to: number },
  list: ExtentList,
  sourceBase: number,
): Awaitable<void> {
  const { metadata, encryption, backing } = parts;
  const sources = ownSources(parts).length;
  const dataSource = sourceBase + sources - 1;
  // The old AES counts guest sectors, so that its plain bytes are found by guest offset.
  const byGuest = encryption?.format === 'aes';
  const { clusterSize } = metadata.geometry;
  // Ranges that the backing disk answers for, in order, until the visit is over: its answer may
  // take time, and the list must stay in guest order.
  let pending: Promise<void> | undefined;
  const keep = (host: number) => (encryption ? NO_PLACE : host);
  const pushHole = ({ guest, length, host }: Hole) => {
    list.push(ExtentKind.hole, guest, length, host >= 0 ? dataSource : sourceBase, host);
  };
  const add = (
    kind: RunKind,
    guest: number,
    length: number,
    host: number,
    stored: number,
  ): Awaitable<void> => {
    switch (kind) {
      case RunKind.data:
        if (byGuest) list.push(ExtentKind.data, guest, length, dataSource, guest, 0, host);
        else list.push(ExtentKind.data, guest, length, dataSource, host);
        return;
      case RunKind.compressed: {
        const skip = guest % clusterSize;
        list.push(ExtentKind.compressed, guest, length, sourceBase, host, stored, skip);
        return;
      }
      case RunKind.zero:
        list.push(ExtentKind.zero, guest, length, dataSource, keep(host));
        return;
      default: {
        const hole = { guest, length, host: keep(host) };
        if (!backing) pushHole(hole);
        else return collectBacking(backing, hole, { list, base: sourceBase + sources, pushHole });
      }
    }
  };
  const visitor: RunVisitor = (kind, guest, length, host, stored) => {
    const done = pending
      ? pending.then(() => add(kind, guest, length, host, stored))
      : add(kind, guest, length, host, stored);
    if (settled(done)) return;
    pending = done;
    // It is waited for at the end: until then its failure is not one that nobody handles.
    pending.catch(() => {});
  };
  const visited = visitRuns(parts, { from, to }, visitor);
  if (settled(visited)) return pending;
  return visited.then(() => pending);
}

/** Visits what the image itself has of the guest bytes [from, to). @see Mapping.visit */
export function visitRuns(
  { mapping, reader, writer }: ImageParts,
  { from, to }: { readonly from: number; readonly to: number },
  visitor: RunVisitor,
): Awaitable<void> {
  return reader.watched(() =>
    writer
      ? writer.store.lock.run(() => mapping.visit(from, to, visitor))
      : mapping.visit(from, to, visitor),
  );
}

/** What a backing disk shorter than the image does not have is the image's zeros. */
function collectBacking(
  backing: Disk,
  { guest, length, host }: Hole,
  into: {
    readonly list: ExtentList;
    readonly base: number;
    readonly pushHole: (hole: Hole) => void;
  },
): Awaitable<void> {
  const inBacking = Math.max(0, Math.min(length, backing.size - guest));
  const tail = () => {
    if (length === inBacking) return;
    const rest = { guest: guest + inBacking, length: length - inBacking };
    into.pushHole({ ...rest, host: host < 0 ? host : host + inBacking });
  };
  if (inBacking === 0) return tail();
  if (into.base >= into.list.sourceEnd) {
    into.list.push(ExtentKind.hole, guest, inBacking, into.base);
    return tail();
  }
  const done = backing.collectExtents(guest, guest + inBacking, into.list, into.base);
  return settled(done) ? tail() : done.then(tail);
}
