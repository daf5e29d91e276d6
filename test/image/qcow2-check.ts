/**
 * A second opinion on an image: every reference of every table is counted and compared with the
 * refcounts. Written from the specification alone, slow and plain, and shares no code with the
 * engine that it judges.
 *
 * What it calls corruption: a refcount below the number of references; a COPIED flag that does not
 * say whether the refcount is 1; an entry that is reserved, unaligned or outside of the file; two
 * structures in one cluster. A refcount above the references is a leak.
 */

/** Bytes of a file, at hand. */
export interface ByteSource {
  readonly size: number;
  /** Fills `into` with what there is at `at`. */
  read(at: number, into: Uint8Array): number;
}

/** What is wrong with an image. */
export interface Qcow2Verdict {
  readonly corruptions: string[];
  /** Clusters of the file that count more references than there are. */
  readonly leaks: number;
  /** The same for clusters past the file's end, which other checkers do not look at. */
  readonly leaksPastEnd: number;
  /** The dirty bit is set: refcounts (and COPIED flags) are not to be believed. */
  readonly dirty: boolean;
  /** What would be corruptions if the image were not dirty. */
  readonly stale: string[];
}

const OFFSET = 0x00ff_ffff_ffff_fe00n;
const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;
const L1_RESERVED = ~(OFFSET | COPIED) & 0xffff_ffff_ffff_ffffn;
const L2_RESERVED = 0x3f00_0000_0000_01fen;
const MESSAGES_MAX = 50;

/** Judges an image. Never throws for what is in it. */
export function checkQcow2(file: ByteSource): Qcow2Verdict {
  return new Checker(file).run();
}

/** Kinds of clusters that may not meet in one. */
type Use =
  | 'header'
  | 'refcount table'
  | 'refcount block'
  | 'L1 table'
  | 'L2 table'
  | 'data'
  | 'compressed data'
  | 'snapshot table'
  | 'bitmap directory'
  | 'bitmap table'
  | 'bitmap'
  | 'encryption header';

/** Uses that snapshots and the active image may share a cluster for. */
const SHARED: readonly Use[] = ['L2 table', 'data', 'compressed data'];

interface CopiedFlag {
  readonly cluster: number;
  readonly set: boolean;
  readonly what: string;
}

class Checker {
  private readonly corruptions: string[] = [];
  private readonly stale: string[] = [];
  private readonly references = new Map<number, { count: number; use: Use }>();
  private readonly flags: CopiedFlag[] = [];
  private clusterBits = 16;
  private clusterSize = 65536;
  private version = 3;
  private dirty = false;
  private dataFile = false;
  private extended = false;
  private refcountBits = 16;
  private leaks = 0;
  private leaksPastEnd = 0;
  private readonly blocks = new Map<number, Uint8Array>();
  /** Refcount blocks by their index in the table. */
  private readonly blockOffsets = new Map<number, number>();

  constructor(private readonly file: ByteSource) {}

  run(): Qcow2Verdict {
    if (this.header()) {
      this.compareRefcounts();
      this.compareFlags();
    }
    const { corruptions, leaks, leaksPastEnd, dirty, stale } = this;
    return { corruptions, leaks, leaksPastEnd, dirty, stale };
  }

  // ---- references -----------------------------------------------------------------------------

  /** Reads everything that the header leads to; false where that makes no sense. */
  private header(): boolean {
    const head = this.bytes(0, 112);
    const u32 = (at: number) => Number(be(head, at, 4));
    const u64 = (at: number) => be(head, at, 8);
    if (u32(0) !== 0x514649fb) return this.give('not a qcow2 image');
    this.version = u32(4);
    if (this.version !== 2 && this.version !== 3) return this.give(`version ${this.version}`);
    this.clusterBits = u32(20);
    if (this.clusterBits < 9 || this.clusterBits > 21) {
      return this.give(`cluster_bits ${this.clusterBits}`);
    }
    this.clusterSize = 2 ** this.clusterBits;
    const v3 = this.version === 3;
    const incompatible = v3 ? u64(72) : 0n;
    const autoclear = v3 ? u64(88) : 0n;
    if (incompatible >> 5n) this.bad(`unknown incompatible features ${incompatible.toString(16)}`);
    this.dirty = (incompatible & 1n) !== 0n;
    if (incompatible & 2n) this.bad('the corrupt bit is set');
    this.dataFile = (incompatible & 4n) !== 0n;
    this.extended = (incompatible & 16n) !== 0n;
    const compressionType = v3 && u32(100) > 104 ? head[104]! : 0;
    if ((compressionType !== 0) !== ((incompatible & 8n) !== 0n) || compressionType > 1) {
      this.bad(`compression type ${compressionType} does not agree with its feature bit`);
    }
    if (this.extended && this.clusterBits < 14) return this.give('subclusters below 512 bytes');
    const order = v3 ? u32(96) : 4;
    if (order > 6) return this.give(`refcount_order ${order}`);
    this.refcountBits = 2 ** order;

    this.use('header', 0, 1, 'the header');
    this.refcountTable(u64(48), u32(56));
    const l1Entries = u32(36);
    const perL1 = BigInt(this.clusterSize) * BigInt(this.clusterSize / (this.extended ? 16 : 8));
    const needed = (u64(24) + perL1 - 1n) / perL1;
    if (BigInt(l1Entries) < needed) this.bad(`the L1 table has ${l1Entries} of ${needed} entries`);
    this.l1(u64(40), l1Entries, 'active', true);
    this.snapshots(u64(64), u32(60));
    this.extensions(v3 ? u32(100) : 72, u64(8), u32(16), autoclear);
    return true;
  }

  private refcountTable(offset: bigint, clusters: number) {
    const what = 'the refcount table';
    if (clusters === 0) return this.bad(`${what} has no clusters`);
    if (!this.useTable('refcount table', offset, clusters * this.clusterSize, what)) return;
    const table = this.bytes(Number(offset), clusters * this.clusterSize);
    for (let index = 0; index < table.length / 8; index++) {
      const entry = be(table, index * 8, 8);
      if (entry === 0n) continue;
      const name = `refcount block ${index}`;
      if (entry & 0x1ffn) this.bad(`${name}: reserved bits in ${hex(entry)}`);
      const at = entry & ~0x1ffn;
      if (!this.useTable('refcount block', at, this.clusterSize, name)) continue;
      this.blockOffsets.set(index, Number(at));
    }
  }

  private l1(offset: bigint, entries: number, owner: string, active: boolean) {
    if (entries === 0) return;
    const what = `the L1 table (${owner})`;
    if (!this.useTable('L1 table', offset, entries * 8, what)) return;
    const table = this.bytes(Number(offset), entries * 8);
    for (let index = 0; index < entries; index++) {
      const entry = be(table, index * 8, 8);
      if (entry === 0n) continue;
      const name = `L1 entry ${index} (${owner})`;
      if (entry & L1_RESERVED) this.bad(`${name}: reserved bits in ${hex(entry)}`);
      const at = entry & OFFSET;
      if (at === 0n) {
        if (entry & COPIED) this.bad(`${name}: COPIED without a table`);
        continue;
      }
      if (!this.useTable('L2 table', at, this.clusterSize, name)) continue;
      const cluster = Number(at) / this.clusterSize;
      if (active) this.flags.push({ cluster, set: (entry & COPIED) !== 0n, what: name });
      this.l2(Number(at), index, owner, active);
    }
  }

  private l2(offset: number, l1Index: number, owner: string, active: boolean): void {
    const bytes = this.bytes(offset, this.clusterSize);
    const entryBytes = this.extended ? 16 : 8;
    const entries = this.clusterSize / entryBytes;
    const words = new DataView(bytes.buffer);
    for (let index = 0; index < entries; index++) {
      const at = index * entryBytes;
      const empty = words.getUint32(at) === 0 && words.getUint32(at + 4) === 0;
      const bitmap = this.extended ? be(bytes, at + 8, 8) : 0n;
      if (empty && bitmap === 0n) continue;
      const guest = (l1Index * entries + index) * this.clusterSize;
      const name = `L2 entry of guest 0x${guest.toString(16)} (${owner})`;
      this.l2Entry(be(bytes, at, 8), bitmap, { guest, name, active });
    }
  }

  private l2Entry(
    entry: bigint,
    bitmap: bigint,
    place: { readonly guest: number; readonly name: string; readonly active: boolean },
  ) {
    const { guest, name, active } = place;
    if (entry & COMPRESSED) return this.compressed(entry, bitmap, name);
    if (entry & L2_RESERVED) this.bad(`${name}: reserved bits in ${hex(entry)}`);
    if (entry & 1n && this.extended) this.bad(`${name}: the zero bit beside subclusters`);
    if (entry & 1n && this.version === 2) this.bad(`${name}: the zero bit in version 2`);
    const allocated = bitmap & 0xffff_ffffn;
    if (allocated & (bitmap >> 32n)) this.bad(`${name}: a subcluster is data and zero`);
    const host = entry & OFFSET;
    const copied = (entry & COPIED) !== 0n;
    const zero = this.extended ? allocated === 0n : (entry & 1n) !== 0n;
    if (this.dataFile) {
      if (host !== 0n || copied) {
        if (host !== BigInt(guest)) this.bad(`${name}: data file offset ${hex(host)}`);
        if (!copied) this.bad(`${name}: not COPIED, with a data file`);
      } else if (allocated !== 0n) this.bad(`${name}: subclusters without a cluster`);
      return;
    }
    if (host === 0n) {
      if (allocated !== 0n) this.bad(`${name}: subclusters without a cluster`);
      if (copied) this.bad(`${name}: COPIED without a cluster`);
      return;
    }
    if (host % BigInt(this.clusterSize) !== 0n) return this.bad(`${name}: unaligned ${hex(host)}`);
    const cluster = Number(host) / this.clusterSize;
    // A cluster that is kept but reads as zeros need not have been written.
    if (!this.use('data', cluster, 1, name, zero)) return;
    if (active) this.flags.push({ cluster, set: copied, what: name });
  }

  private compressed(entry: bigint, bitmap: bigint, name: string) {
    if (this.dataFile) this.bad(`${name}: compressed, with a data file`);
    if (entry & COPIED) this.bad(`${name}: compressed and COPIED`);
    if (bitmap !== 0n) this.bad(`${name}: compressed, with subclusters`);
    const offsetBits = BigInt(62 - (this.clusterBits - 8));
    const host = entry & ((1n << offsetBits) - 1n);
    const sectors = ((entry & ~(COPIED | COMPRESSED)) >> offsetBits) + 1n;
    const first = host / BigInt(this.clusterSize);
    // Sectors count from the one that the data starts in.
    const end = (host / 512n + sectors) * 512n;
    const last = (end - 1n) / BigInt(this.clusterSize);
    if (first === 0n) return this.bad(`${name}: compressed data in the header`);
    this.use('compressed data', Number(first), Number(last - first) + 1, name);
  }

  private snapshots(offset: bigint, count: number) {
    if (count === 0) return;
    if (this.dataFile) this.bad('snapshots, with a data file');
    let at = Number(offset);
    const start = at;
    for (let index = 0; index < count; index++) {
      at = Math.ceil(at / 8) * 8;
      if (at + 40 > this.file.size) return this.bad(`snapshot ${index} is past the end`);
      const head = this.bytes(at, 40);
      const idBytes = Number(be(head, 12, 2));
      const nameBytes = Number(be(head, 14, 2));
      const extra = Number(be(head, 36, 4));
      if (this.version === 3 && extra < 16) this.bad(`snapshot ${index}: ${extra} extra bytes`);
      this.l1(be(head, 0, 8), Number(be(head, 8, 4)), `snapshot ${index}`, false);
      at += 40 + extra + idBytes + nameBytes;
    }
    this.useTable('snapshot table', offset, at - start, 'the snapshot table');
  }

  private extensions(
    headerLength: number,
    backingOffset: bigint,
    backingLength: number,
    autoclear: bigint,
  ) {
    const first = this.bytes(0, this.clusterSize);
    const end = backingOffset === 0n ? this.clusterSize : Number(backingOffset);
    if (backingOffset !== 0n) {
      if (end + backingLength > this.clusterSize) return this.bad('the backing name is cut off');
      if (backingLength > 1023) this.bad('the backing name is too long');
    }
    for (let at = headerLength; at + 8 <= end; ) {
      const type = Number(be(first, at, 4));
      const length = Number(be(first, at + 4, 4));
      if (type === 0) return;
      if (at + 8 + length > end) return this.bad(`extension ${type.toString(16)} is cut off`);
      const content = first.subarray(at + 8, at + 8 + length);
      if (type === 0x23852875) this.bitmaps(content, (autoclear & 1n) !== 0n);
      if (type === 0x0537be77) {
        const what = 'the encryption header';
        const bytes = Number(be(content, 8, 8));
        this.useTable('encryption header', be(content, 0, 8), bytes, what);
      }
      at += 8 + Math.ceil(length / 8) * 8;
    }
  }

  private bitmaps(content: Uint8Array, consistent: boolean) {
    // Written by who does not know of bitmaps: nobody vouches for what the extension says.
    if (!consistent) return;
    const count = Number(be(content, 0, 4));
    const directoryBytes = Number(be(content, 8, 8));
    const offset = be(content, 16, 8);
    const what = 'the bitmap directory';
    if (!this.useTable('bitmap directory', offset, directoryBytes, what)) return;
    const directory = this.bytes(Number(offset), directoryBytes);
    let at = 0;
    for (let index = 0; index < count; index++) {
      if (at + 24 > directory.length) return this.bad(`${what} ends within bitmap ${index}`);
      const tableOffset = be(directory, at, 8);
      const entries = Number(be(directory, at + 8, 4));
      this.bitmapTable(tableOffset, entries, `bitmap ${index}`);
      const nameBytes = Number(be(directory, at + 18, 2));
      const extra = Number(be(directory, at + 20, 4));
      at += Math.ceil((24 + extra + nameBytes) / 8) * 8;
    }
    if (at !== directory.length) this.bad(`${what} has ${directory.length} bytes and uses ${at}`);
  }

  private bitmapTable(offset: bigint, entries: number, name: string) {
    if (entries === 0) return;
    if (!this.useTable('bitmap table', offset, entries * 8, `the table of ${name}`)) return;
    const table = this.bytes(Number(offset), entries * 8);
    for (let index = 0; index < entries; index++) {
      const entry = be(table, index * 8, 8);
      const at = entry & OFFSET;
      const what = `entry ${index} of ${name}`;
      if (entry & ~(OFFSET | 1n) || (at !== 0n && entry & 1n)) {
        this.bad(`${what}: reserved bits in ${hex(entry)}`);
      }
      if (at !== 0n) this.useTable('bitmap', at, this.clusterSize, what);
    }
  }

  // ---- what was counted -----------------------------------------------------------------------

  private compareRefcounts(): void {
    const inFile = Math.ceil(this.file.size / this.clusterSize);
    for (const [cluster, { count, use }] of this.references) {
      const refcount = this.refcount(cluster);
      if (refcount >= BigInt(count)) continue;
      const where = hex(BigInt(cluster) * BigInt(this.clusterSize));
      this.wrong(`cluster ${where} (${use}): refcount ${refcount}, referenced ${count} times`);
    }
    const perBlock = (this.clusterSize * 8) / this.refcountBits;
    for (const index of this.blockOffsets.keys()) {
      const block = this.block(index);
      if (block.every((byte) => byte === 0)) continue;
      for (let entry = 0; entry < perBlock; entry++) {
        const cluster = index * perBlock + entry;
        const count = BigInt(this.references.get(cluster)?.count ?? 0);
        if (entryOf(block, entry, this.refcountBits) <= count) continue;
        if (cluster < inFile) this.leaks++;
        else this.leaksPastEnd++;
      }
    }
  }

  private compareFlags(): void {
    for (const { cluster, set, what } of this.flags) {
      const refcount = this.refcount(cluster);
      if (set === (refcount === 1n)) continue;
      this.wrong(`${what}: ${set ? 'COPIED' : 'not COPIED'}, and the refcount is ${refcount}`);
    }
  }

  private refcount(cluster: number): bigint {
    const perBlock = (this.clusterSize * 8) / this.refcountBits;
    const index = Math.floor(cluster / perBlock);
    if (!this.blockOffsets.has(index)) return 0n;
    return entryOf(this.block(index), cluster % perBlock, this.refcountBits);
  }

  private block(index: number): Uint8Array {
    let block = this.blocks.get(index);
    if (!block) {
      block = this.bytes(this.blockOffsets.get(index)!, this.clusterSize);
      this.blocks.set(index, block);
    }
    return block;
  }

  /** Counts a table, or says why it cannot be one. */
  private useTable(use: Use, offset: bigint, length: number, what: string): boolean {
    if (offset === 0n || offset % BigInt(this.clusterSize) !== 0n) {
      return this.give(`${what}: offset ${hex(offset)}`);
    }
    if (offset + BigInt(length) > 2n ** 56n) return this.give(`${what}: outside of any file`);
    const clusters = Math.ceil(length / this.clusterSize);
    return this.use(use, Number(offset) / this.clusterSize, clusters, what);
  }

  /**
   * Counts a reference to clusters. A file may end within its last cluster, not before it.
   * @param unwritten whether they may also lie past the end of the file
   */
  private use(use: Use, first: number, count: number, what: string, unwritten = false): boolean {
    const end = (first + count) * this.clusterSize;
    if (end - this.file.size >= this.clusterSize && !unwritten) {
      const where = hex(BigInt(first * this.clusterSize));
      return this.give(`${what}: ${use} at ${where} is past the end of the file`);
    }
    for (let cluster = first; cluster < first + count; cluster++) {
      const known = this.references.get(cluster);
      if (!known) {
        this.references.set(cluster, { count: 1, use });
        continue;
      }
      known.count++;
      if (known.use !== use || !SHARED.includes(use)) {
        const where = hex(BigInt(cluster) * BigInt(this.clusterSize));
        this.bad(`${what}: cluster ${where} is ${use}, and ${known.use} as well`);
      }
    }
    return true;
  }

  private bytes(at: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    if (at < this.file.size) this.file.read(at, bytes);
    return bytes;
  }

  private bad(message: string): void {
    if (this.corruptions.length < MESSAGES_MAX) this.corruptions.push(message);
  }

  private give(message: string): false {
    this.bad(message);
    return false;
  }

  /** Something that rebuilding the refcounts would put right. */
  private wrong(message: string): void {
    if (!this.dirty) this.bad(message);
    else if (this.stale.length < MESSAGES_MAX) this.stale.push(message);
  }
}

/** One refcount. Entries below 8 bits start at the low end of a byte. */
function entryOf(block: Uint8Array, index: number, bits: number): bigint {
  if (bits >= 8) return be(block, (index * bits) / 8, bits / 8);
  const byte = block[Math.floor((index * bits) / 8)]!;
  return BigInt((byte >> ((index * bits) % 8)) & (2 ** bits - 1));
}

function be(bytes: Uint8Array, at: number, length: number): bigint {
  let value = 0n;
  for (let i = 0; i < length; i++) value = (value << 8n) | BigInt(bytes[at + i] ?? 0);
  return value;
}

function hex(value: bigint): string {
  return `0x${value.toString(16)}`;
}
