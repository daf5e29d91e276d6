/**
 * What a guest range is, in the terms of `qemu-img map`: what extents say, and where data lies in
 * holes of the host's files, what the host says.
 *
 *   kind         present  zero   data   offset
 *   hole         false    true   false  –        true: behind the end of a backing file
 *   zero         true     true   false  of the cluster that is kept, if any
 *   data         true     false  true   of the bytes
 *   compressed   true     false  true   –
 *   raw, a hole  true     true   false  of the hole
 *   no bytes     false    false  false  –
 */
import { type DataSource, type Disk, ExtentKind, type ExtentList } from '../image/disk.ts';
import { Qcow2Image } from '../image/qcow2/qcow2-image.ts';
import type { Storage } from '../storage/storage.ts';

/** A guest range, all of it alike. */
export interface BlockStatus {
  readonly length: number;
  /** How many images down the chain the answer was found. */
  readonly depth: number;
  readonly present: boolean;
  readonly zero: boolean;
  readonly data: boolean;
  /** Where in `storage` its bytes are. */
  readonly offset: number | undefined;
  readonly storage: Storage | undefined;
  /** What that is called: by an image as what it is, by a raw disk as the file below it all. */
  readonly file: string | undefined;
}

/** What of an image in a chain decides how its extents are told. */
export interface Layer {
  readonly format: Disk['format'];
  /** Its data may lie in holes of its file. */
  readonly preallocated: boolean;
  /** Guest bytes that QEMU looks at together. */
  readonly sliceSpan: number;
}

/**
 * The images of a chain, from the disk itself down.
 * @throws Qcow2Error CORRUPT or IO
 */
export async function layersOf(disk: Disk): Promise<Layer[]> {
  const layers: Layer[] = [];
  for (let layer: Disk | undefined = disk; layer; ) {
    if (!(layer instanceof Qcow2Image)) {
      const sliceSpan = Number.POSITIVE_INFINITY;
      layers.push({ format: 'raw', preallocated: true, sliceSpan });
      break;
    }
    const preallocated = await layer.isPreallocated();
    layers.push({ format: 'qcow2', preallocated, sliceSpan: layer.sliceSpan });
    layer = layer.backing;
  }
  return layers;
}

/** A hole of the host, or data, from a file offset on. */
interface Stretch {
  readonly isHole: boolean;
  readonly length: number;
}

/** Of a file range, the first part that is a hole or is none. */
function firstStretch(storage: Storage, from: number, length: number): Stretch {
  const ranges = storage.dataRanges?.(from, from + length, true);
  if (!ranges) return { isHole: false, length };
  for (const [start, end] of ranges) {
    if (start > from) return { isHole: true, length: start - from };
    if (end > from) return { isHole: false, length: Math.min(length, end - from) };
  }
  return { isHole: true, length };
}

const nameOf = ({ label, name }: Storage, { format }: Layer) =>
  (format === 'raw' ? undefined : label) ?? name;

/**
 * What the record of a list is from a guest offset on.
 * @param at in the record
 */
export function statusAt(
  list: ExtentList,
  record: number,
  at: number,
  {
    sources,
    layers,
  }: { readonly sources: readonly DataSource[]; readonly layers: readonly Layer[] },
): BlockStatus {
  const kind = list.kind(record);
  const source = sources[list.source(record)] as DataSource;
  const { depth, storage } = source;
  const into = at - list.guest(record);
  const length = list.length(record) - into;
  const layer = layers[depth] as Layer;
  const host = list.host(record);
  const isData = kind === ExtentKind.data || kind === ExtentKind.compressed;
  const isNothing = layer.format === 'raw' && storage.holdsNothing;
  const hasPlace = host >= 0 && kind !== ExtentKind.compressed && !source.encrypted;
  const status: BlockStatus = {
    length,
    depth,
    present: kind !== ExtentKind.hole,
    zero: !isData && !(kind === ExtentKind.hole && isNothing),
    data: isData,
    offset: hasPlace ? host + into : undefined,
    storage: hasPlace ? storage : undefined,
    file: hasPlace ? nameOf(storage, layer) : undefined,
  };
  const isRaw = layer.format === 'raw' && kind !== ExtentKind.hole;
  if (!hasPlace || !layer.preallocated || !(isRaw || kind === ExtentKind.data)) return status;
  const stretch = firstStretch(storage, host + into, length);
  const { isHole } = stretch;
  const offset = host + into + (isRaw ? (storage.placedAt ?? 0) : 0);
  return { ...status, length: stretch.length, zero: isHole, data: isRaw ? !isHole : true, offset };
}
