/**
 * The sizes that follow from an image's header: one place for every power of two.
 */
import { divCeil } from '../base/bits.ts';

/** Fixed numbers of one image. All sizes in bytes. */
export interface Geometry {
  readonly clusterBits: number;
  readonly clusterSize: number;
  /** Extended L2 entries: 16 bytes each, 32 subclusters a cluster. */
  readonly extendedL2: boolean;
  readonly l2EntryBytes: 8 | 16;
  /** Entries of one L2 table. */
  readonly l2Entries: number;
  /** Guest bytes that one L2 table, hence one L1 entry, maps. */
  readonly l2Span: number;
  /** The unit of allocation: a subcluster, or a cluster where there are none. */
  readonly subclusterSize: number;
  /** log2 of the refcount width in bits, 0–6. */
  readonly refcountOrder: number;
  /** Entries of one refcount block. */
  readonly refcountBlockEntries: number;
}

/** Derives the sizes; the arguments have been checked by `parseHeader`. */
export function geometryOf(options: {
  readonly clusterBits: number;
  readonly extendedL2: boolean;
  readonly refcountOrder: number;
}): Geometry {
  const { clusterBits, extendedL2, refcountOrder } = options;
  const clusterSize = 2 ** clusterBits;
  const l2EntryBytes = extendedL2 ? 16 : 8;
  const l2Entries = clusterSize / l2EntryBytes;
  return {
    clusterBits,
    clusterSize,
    extendedL2,
    l2EntryBytes,
    l2Entries,
    l2Span: l2Entries * clusterSize,
    subclusterSize: extendedL2 ? clusterSize / 32 : clusterSize,
    refcountOrder,
    refcountBlockEntries: (clusterSize * 8) / 2 ** refcountOrder,
  };
}

/** L1 entries that a disk of `size` bytes needs. */
export function l1EntriesFor(size: number, geometry: Geometry): number {
  return divCeil(size, geometry.l2Span);
}
