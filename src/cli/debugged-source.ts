/** A disk to be read whose requests fail by rules: `blkdebug` above a format. */
import { settled } from '../base/awaitable.ts';
import {
  type DataSource,
  type Disk,
  ExtentKind,
  ExtentList,
  iterateExtents,
} from '../image/disk.ts';
import { DiskStorage } from '../image/disk-storage.ts';
import { DebugStorage } from '../storage/debug-storage.ts';
import type { Host } from './command.ts';
import { debugLimits, debugRules } from './debug-settings.ts';
import type { DebugNode } from './image-node.ts';

/**
 * A disk whose bytes are all had by asking another one for them, for that one's requests are not
 * those that rules are for. What is not there it says as that one does.
 */
export class DebuggedSource implements Disk {
  readonly format = 'raw';
  readonly sources: readonly DataSource[];
  private readonly storage: DebugStorage;

  /**
   * @param node what the disk is named by, with rules and limits
   * @param disk it owns
   * @throws Qcow2Error OUT_OF_RANGE or IO, in QEMU's words
   */
  constructor(
    host: Host,
    { config, settings }: DebugNode,
    private readonly disk: Disk,
  ) {
    const rules = debugRules(host, config, settings);
    const limits = debugLimits(settings);
    this.storage = new DebugStorage(new DiskStorage(disk), rules, { limits });
    this.sources = [{ storage: this.storage, depth: 0, clusterSize: 1, codec: 'deflate' }];
  }

  get size(): number {
    return this.disk.size;
  }

  get passesTo(): Disk {
    return this.disk;
  }

  meetStatus(from: number, length: number): void {
    this.storage.meetStatus(from, length);
  }

  async read(guest: number, into: Uint8Array): Promise<void> {
    await this.storage.read(guest, into);
  }

  extents(from = 0, to = this.size) {
    return iterateExtents(this, from, to);
  }

  async collectExtents(from: number, to: number, list: ExtentList, sourceBase = 0): Promise<void> {
    this.meetStatus(from, to - from);
    const inner = new ExtentList();
    const collected = this.disk.collectExtents(from, to, inner);
    if (!settled(collected)) await collected;
    for (let index = 0; index < inner.count; index++) {
      const [kind, guest] = [inner.kind(index), inner.guest(index)];
      const isData = kind === ExtentKind.data || kind === ExtentKind.compressed;
      const place = isData ? guest : -1;
      list.push(isData ? ExtentKind.data : kind, guest, inner.length(index), sourceBase, place);
    }
  }

  async close(): Promise<void> {
    await this.storage.close();
  }
}
