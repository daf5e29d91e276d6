/**
 * The guard before every write: a place that metadata lives in is written only as that metadata.
 * What it catches is damage that was there before (two things on one cluster); letting the write
 * through would spread it. Which kinds are guarded is an option: `overlap-options.ts`.
 */
import { strayWrite } from './corruption.ts';
import type { MetadataStore } from './metadata-store.ts';
import type { GuardedKind } from './overlap-options.ts';

/** What a write is meant to be. */
export type MetadataKind =
  | 'header'
  | 'l1'
  | 'l2'
  | 'refcount-table'
  | 'refcount-block'
  | 'snapshot-table'
  | 'bitmap-directory'
  | 'inactive-l1'
  | 'inactive-l2'
  | 'data';

const NAMES: Record<MetadataKind, string> = {
  header: 'qcow2_header',
  l1: 'active L1 table',
  l2: 'active L2 table',
  'refcount-table': 'refcount table',
  'refcount-block': 'refcount block',
  'snapshot-table': 'snapshot table',
  'bitmap-directory': 'bitmap directory',
  'inactive-l1': 'inactive L1 table',
  'inactive-l2': 'inactive L2 table',
  data: 'data',
};

/** Kinds that have other names in options. */
const OPTION_NAMES: Partial<Record<MetadataKind, GuardedKind>> = {
  header: 'main-header',
  l1: 'active-l1',
  l2: 'active-l2',
};

/** A contiguous table of the file. */
export interface MetadataRange {
  readonly kind: MetadataKind;
  readonly at: number;
  readonly length: number;
}

/** Knows where metadata is, by cluster: a look-up does not grow with the image. */
export class OverlapCheck {
  private readonly tables = new Map<number, MetadataKind>();
  /** Tables that do not change while the image is open: snapshots, bitmaps. */
  fixed: readonly MetadataRange[] = [];
  /** L2 tables of snapshots, by host offset; empty where they are not guarded. */
  inactiveL2: ReadonlySet<number> = new Set();

  constructor(
    private readonly store: MetadataStore,
    private readonly guarded: ReadonlySet<GuardedKind>,
  ) {}

  /** Whether a kind of metadata is guarded. */
  guards(kind: MetadataKind): boolean {
    return this.guarded.has(OPTION_NAMES[kind] ?? (kind as GuardedKind));
  }

  /** Collects where the tables are: after opening, and after one has moved. */
  rebuild(): void {
    const { store, tables } = this;
    tables.clear();
    for (let index = 0; index < store.l1Entries; index++) {
      const { host } = store.l1Entry(index, { unaligned: true });
      if (host !== 0) this.put(host, 'l2');
    }
    for (const host of store.refcountTable) if (host !== 0) this.put(host, 'refcount-block');
  }

  /** Where an entry is wrong, its table may reach into two clusters. */
  private put(host: number, kind: MetadataKind): void {
    const { clusterSize } = this.store.geometry;
    const first = host - (host % clusterSize);
    this.tables.set(first, kind);
    if (host !== first) this.tables.set(first + clusterSize, kind);
  }

  /** A table's cluster went from one place to another; 0 is nowhere. */
  moved(kind: 'l2' | 'refcount-block', from: number, to: number): void {
    if (from !== 0) this.tables.delete(from);
    if (to !== 0) this.tables.set(to, kind);
  }

  /** @throws Qcow2Error CORRUPT where the range holds metadata of another kind */
  check(file: number, length: number, as: MetadataKind): void {
    if (this.guarded.size === 0) return;
    const hit = this.find(file, length, as);
    if (!hit) return;
    throw strayWrite(`Preventing invalid write on metadata (overlaps with ${NAMES[hit]})`, file);
  }

  private find(file: number, length: number, as: MetadataKind): MetadataKind | undefined {
    const { clusterSize } = this.store.geometry;
    const { header } = this.store;
    const overlaps = (at: number, size: number) => file < at + size && at < file + length;
    const guards = (kind: MetadataKind) => as !== kind && this.guards(kind);
    if (guards('header') && overlaps(0, clusterSize)) return 'header';
    if (guards('l1') && overlaps(header.l1Offset, this.store.l1.length)) return 'l1';
    const tableBytes = header.refcountTableClusters * clusterSize;
    if (guards('refcount-table') && overlaps(header.refcountTableOffset, tableBytes)) {
      return 'refcount-table';
    }
    for (const { kind, at, length: size } of this.fixed) {
      if (guards(kind) && overlaps(at, size)) return kind;
    }
    const first = file - (file % clusterSize);
    for (let cluster = first; cluster < file + length; cluster += clusterSize) {
      const kind = this.tables.get(cluster);
      if (kind !== undefined && guards(kind)) return kind;
      if (this.inactiveL2.has(cluster)) return 'inactive-l2';
    }
    return undefined;
  }
}
