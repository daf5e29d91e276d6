/**
 * A qcow2 writer as simple as one can be: one request at a time, every step written through and
 * flushed before the next. Right by construction, so that the proofs of writing can be proved: they
 * must find nothing in it, and must find each of its flaws when that is switched on.
 *
 * Version 3, 16-bit refcounts, nothing compressed, no backing file.
 */
import { Qcow2Error } from '../../src/base/errors.ts';
import type { DataSource, Extent, WritableDisk, ZeroOptions } from '../../src/image/disk.ts';
import type { Storage } from '../../src/storage/storage.ts';
import { IMAGE, type WriteEngine, type WriteSetting } from './write-engine.ts';

/** Mistakes that writers make. */
export const FLAWS = [
  /** Nothing is flushed between steps that depend on each other. */
  'no barriers',
  /** `flush` answers without having flushed. */
  'flush does nothing',
  /** A cluster is linked before its refcount is raised. */
  'linked before counted',
  /** A freed cluster's refcount falls before the link to it is gone. */
  'freed before unlinked',
  /** A new L2 table is linked before it is written. */
  'L1 before L2',
  /** The rest of a new cluster is not filled. */
  'no copy on write',
  /** Requests do not wait for each other. */
  'no locks',
  /** Freed clusters keep their refcount. */
  'leaks',
  /** The host's errors come out as plain ones. */
  'plain errors',
  /** An error of a data write is not reported. */
  'swallows errors',
  /** After an error nothing works any more. */
  'gives up after an error',
  /** Zeroing takes one byte too many. */
  'zeroes too much',
  /** Shrinking leaves old bytes in the last cluster. */
  'shrinks only the size',
  /** COPIED is not set on new clusters. */
  'forgets COPIED',
] as const;
export type Flaw = (typeof FLAWS)[number];

const COPIED = 2 ** 31;

/** The simple writer as an engine under test. */
export function toyEngine(...flaws: Flaw[]): WriteEngine {
  return {
    create: async (files, setting) => {
      const storage = files.open(IMAGE);
      await format(storage, setting);
      return ToyDisk.open(storage, new Set(flaws));
    },
    open: (files) => ToyDisk.open(files.open(IMAGE), new Set(flaws)),
  };
}

/** Writes an empty image: header, refcount table, one block, L1 table. */
async function format(storage: Storage, { clusterBits, size }: WriteSetting): Promise<void> {
  const cluster = 2 ** clusterBits;
  const l1Entries = Math.ceil(size / (cluster * (cluster / 8)));
  const l1Clusters = Math.max(1, Math.ceil((l1Entries * 8) / cluster));
  const bytes = new Uint8Array((3 + l1Clusters) * cluster);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x514649fb);
  view.setUint32(4, 3);
  view.setUint32(20, clusterBits);
  view.setUint32(24, Math.floor(size / 2 ** 32));
  view.setUint32(28, size);
  view.setUint32(36, l1Entries);
  view.setUint32(44, 3 * cluster);
  view.setUint32(52, cluster);
  view.setUint32(56, 1);
  view.setUint32(96, 4);
  view.setUint32(100, 104);
  view.setUint32(cluster + 4, 2 * cluster);
  for (let index = 0; index < 3 + l1Clusters; index++) view.setUint16(2 * cluster + index * 2, 1);
  await storage.write(0, bytes);
  await storage.flush();
}

class ToyDisk implements WritableDisk {
  readonly format = 'qcow2';
  readonly sources: readonly DataSource[] = [];
  private last: Promise<unknown> = Promise.resolve();
  private failed = false;

  private constructor(
    private readonly storage: Storage,
    private readonly flaws: ReadonlySet<Flaw>,
    private readonly cluster: number,
    public size: number,
    private l1Offset: number,
    private l1Entries: number,
    private readonly refcountTable: number,
  ) {}

  static async open(storage: Storage, flaws: ReadonlySet<Flaw>): Promise<ToyDisk> {
    try {
      const head = new Uint8Array(104);
      await storage.read(0, head);
      const view = new DataView(head.buffer);
      if (view.getUint32(0) !== 0x514649fb) throw new Qcow2Error('NOT_QCOW2', 'no image');
      const size = view.getUint32(24) * 2 ** 32 + view.getUint32(28);
      const cluster = 2 ** view.getUint32(20);
      const l1 = view.getUint32(44);
      return new ToyDisk(storage, flaws, cluster, size, l1, view.getUint32(36), view.getUint32(52));
    } catch (cause) {
      await storage.close();
      throw cause;
    }
  }

  read(guest: number, into: Uint8Array): Promise<void> {
    return this.request(guest, into.length, async () => {
      for (let done = 0; done < into.length; ) {
        const { at, inCluster, step } = this.piece(guest + done, into.length - done);
        const part = into.subarray(done, done + step);
        const host = await this.host(at);
        const got = host === 0 ? 0 : await this.storage.read(host + inCluster, part);
        part.fill(0, got);
        done += step;
      }
    });
  }

  write(guest: number, from: Uint8Array): Promise<void> {
    return this.request(guest, from.length, () => this.put(guest, from));
  }

  writeCompressed(guest: number, from: Uint8Array): Promise<void> {
    return this.write(guest, from);
  }

  zero(guest: number, length: number, options: ZeroOptions = {}): Promise<void> {
    return this.request(guest, length, async () => {
      const more = this.flaws.has('zeroes too much') && guest + length < this.size ? 1 : 0;
      if (options.unmap) await this.drop(guest, length);
      await this.put(guest, new Uint8Array(length + more), true);
    });
  }

  discard(guest: number, length: number): Promise<void> {
    return this.request(guest, length, () => this.drop(guest, length));
  }

  resize(size: number): Promise<void> {
    return this.request(0, 0, async () => {
      const old = this.size;
      if (size < old) {
        const kept = Math.ceil(size / this.cluster) * this.cluster;
        if (!this.flaws.has('shrinks only the size')) {
          await this.put(size, new Uint8Array(Math.max(0, Math.min(kept, old) - size)), true);
        }
        if (old > kept) await this.drop(kept, old - kept);
      }
      const entries = Math.ceil(size / (this.cluster * (this.cluster / 8)));
      if (entries > this.l1Entries) await this.growL1(entries);
      const bytes = new Uint8Array(8);
      new DataView(bytes.buffer).setUint32(0, Math.floor(size / 2 ** 32));
      new DataView(bytes.buffer).setUint32(4, size);
      await this.storage.write(24, bytes);
      this.size = size;
    });
  }

  flush(): Promise<void> {
    if (this.flaws.has('flush does nothing')) return Promise.resolve();
    return this.request(0, 0, async () => this.storage.flush());
  }

  async close(): Promise<void> {
    try {
      await this.flush();
    } finally {
      await this.storage.close();
    }
  }

  extents(): AsyncIterable<Extent> {
    throw new Error('not for a toy');
  }

  collectExtents(): void {
    throw new Error('not for a toy');
  }

  // ---- steps ----------------------------------------------------------------------------------

  private async request(guest: number, length: number, work: () => Promise<void>): Promise<void> {
    if (guest < 0 || guest + length > this.size) {
      throw new Qcow2Error('OUT_OF_RANGE', 'past the end of the disk', guest);
    }
    const before = this.last;
    const run = async () => {
      if (!this.flaws.has('no locks')) await before;
      if (this.failed) throw new Qcow2Error('IO', 'an earlier request failed');
      await work();
    };
    const done = run();
    this.last = done.catch(() => {});
    try {
      await done;
    } catch (cause) {
      if (this.flaws.has('gives up after an error')) this.failed = true;
      if (this.flaws.has('plain errors')) throw new Error('something failed');
      throw cause;
    }
  }

  private async barrier(): Promise<void> {
    if (!this.flaws.has('no barriers')) await this.storage.flush();
  }

  private piece(guest: number, length: number) {
    const inCluster = guest % this.cluster;
    return { at: guest - inCluster, inCluster, step: Math.min(length, this.cluster - inCluster) };
  }

  /** Writes cluster by cluster; zeros leave what has no cluster as it is. */
  private async put(guest: number, from: Uint8Array, zeros = false): Promise<void> {
    for (let done = 0; done < from.length; ) {
      const { at, inCluster, step } = this.piece(guest + done, from.length - done);
      const part = from.subarray(done, done + step);
      const host = await this.host(at);
      if (host !== 0) await this.writeData(host + inCluster, part);
      else if (!zeros) await this.putNew(at, inCluster, part);
      done += step;
    }
  }

  private async putNew(at: number, inCluster: number, part: Uint8Array): Promise<void> {
    const flawed = this.flaws.has('linked before counted');
    const host = await this.findFree();
    if (!flawed) await this.count(host, 1);
    if (this.flaws.has('no copy on write')) await this.writeData(host + inCluster, part);
    else {
      const whole = new Uint8Array(this.cluster);
      whole.set(part, inCluster);
      await this.writeData(host, whole);
    }
    await this.barrier();
    const table = await this.l2Table(at);
    const copied = this.flaws.has('forgets COPIED') ? 0 : COPIED;
    await this.writeEntry(table + this.l2Index(at) * 8, host, copied);
    await this.barrier();
    if (flawed) await this.count(host, 1);
  }

  private async writeData(host: number, bytes: Uint8Array): Promise<void> {
    try {
      await this.storage.write(host, bytes);
    } catch (cause) {
      if (!this.flaws.has('swallows errors')) throw cause;
    }
  }

  /** Lets clusters go that the range covers whole, up to the end of the disk. */
  private async drop(guest: number, length: number): Promise<void> {
    const first = Math.ceil(guest / this.cluster) * this.cluster;
    const end = guest + length;
    for (let at = first; at < end; at += this.cluster) {
      if (Math.min(at + this.cluster, this.size) > end) return;
      const host = await this.host(at);
      if (host === 0) continue;
      const flawed = this.flaws.has('freed before unlinked');
      if (flawed) await this.count(host, 0);
      await this.writeEntry((await this.l2Table(at)) + this.l2Index(at) * 8, 0, 0);
      await this.barrier();
      if (!flawed && !this.flaws.has('leaks')) await this.count(host, 0);
    }
  }

  private async host(at: number): Promise<number> {
    const table = await this.readEntry(this.l1Offset + this.l1Index(at) * 8);
    return table === 0 ? 0 : this.readEntry(table + this.l2Index(at) * 8);
  }

  /** The L2 table of a guest cluster, made where there is none. */
  private async l2Table(at: number): Promise<number> {
    const entry = this.l1Offset + this.l1Index(at) * 8;
    const known = await this.readEntry(entry);
    if (known !== 0) return known;
    const table = await this.findFree();
    await this.count(table, 1);
    if (this.flaws.has('L1 before L2')) await this.writeEntry(entry, table, COPIED);
    await this.storage.write(table, new Uint8Array(this.cluster));
    await this.barrier();
    await this.writeEntry(entry, table, COPIED);
    await this.barrier();
    return table;
  }

  private async growL1(entries: number): Promise<void> {
    if (entries * 8 > this.cluster) throw new Qcow2Error('OUT_OF_RANGE', 'too large for a toy');
    const old = { offset: this.l1Offset, entries: this.l1Entries };
    const table = new Uint8Array(this.cluster);
    await this.storage.read(old.offset, table.subarray(0, old.entries * 8));
    const place = await this.findFree();
    await this.count(place, 1);
    await this.storage.write(place, table);
    await this.barrier();
    // One write within one sector: a power cut leaves the old table or the new one.
    const bytes = new Uint8Array(12);
    new DataView(bytes.buffer).setUint32(0, entries);
    new DataView(bytes.buffer).setUint32(8, place);
    await this.storage.write(36, bytes);
    this.l1Offset = place;
    this.l1Entries = entries;
    await this.barrier();
    await this.count(old.offset, 0);
  }

  private l1Index(at: number): number {
    return Math.floor(at / (this.cluster * (this.cluster / 8)));
  }

  private l2Index(at: number): number {
    return (at / this.cluster) % (this.cluster / 8);
  }

  private async readEntry(at: number): Promise<number> {
    const bytes = new Uint8Array(8);
    await this.storage.read(at, bytes);
    return new DataView(bytes.buffer).getUint32(4) & 0x7fff_fe00;
  }

  private async writeEntry(at: number, host: number, flag: number): Promise<void> {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setUint32(0, flag);
    new DataView(bytes.buffer).setUint32(4, host);
    await this.storage.write(at, bytes);
  }

  // ---- refcounts ------------------------------------------------------------------------------

  /** The first cluster that nothing uses. A missing block is made, and lies in its own range. */
  private async findFree(): Promise<number> {
    const perBlock = this.cluster / 2;
    for (let index = 0; index < this.cluster / 8; index++) {
      let block = await this.readEntry(this.refcountTable + index * 8);
      if (block === 0) {
        block = index * perBlock * this.cluster;
        const bytes = new Uint8Array(this.cluster);
        bytes[1] = 1;
        await this.storage.write(block, bytes);
        await this.barrier();
        await this.writeEntry(this.refcountTable + index * 8, block, 0);
        await this.barrier();
      }
      const bytes = new Uint8Array(this.cluster);
      await this.storage.read(block, bytes);
      for (let i = 0; i < perBlock; i++) {
        if (bytes[i * 2 + 1] === 0) return (index * perBlock + i) * this.cluster;
      }
    }
    throw new Qcow2Error('NO_SPACE', 'too large for a toy');
  }

  private async count(host: number, refcount: 0 | 1): Promise<void> {
    const index = host / this.cluster;
    const perBlock = this.cluster / 2;
    const block = await this.readEntry(this.refcountTable + Math.floor(index / perBlock) * 8);
    await this.storage.write(block + (index % perBlock) * 2, Uint8Array.of(0, refcount));
    await this.barrier();
  }
}
