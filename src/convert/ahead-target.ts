/** A disk that takes requests while earlier ones are still being carried out. */
import { Qcow2Error } from '../base/errors.ts';
import type { WritableDisk, WriteUnderWay, ZeroOptions } from '../image/disk.ts';
import { ClusterCount } from './cluster-count.ts';

/**
 * Writes into a disk, ahead where it can do that. Requests begin in the order they come, so that
 * they are given the same clusters however long each takes, and none begins after one has failed.
 * None may overlap another that is not done.
 */
export class AheadTarget {
  /** Clusters that bytes were written to, in the order of the disk. */
  readonly written: ClusterCount;
  /** Resolves when the last request has begun. */
  private begun: Promise<unknown> = Promise.resolve();
  private readonly underWay = new Set<Promise<void>>();
  private failure: { readonly cause: unknown } | undefined;

  /** @param explain puts in other words why a request failed */
  constructor(
    private readonly disk: WritableDisk,
    private readonly explain: (cause: unknown) => unknown = (cause) => cause,
  ) {
    this.written = new ClusterCount(disk);
  }

  /** Resolves when it is written; `from` stays as it is until then. */
  write(guest: number, from: Uint8Array): Promise<void> {
    this.written.add(guest, from.length);
    return this.inLine(() => this.begin(guest, from));
  }

  /**
   * Makes zeros, which give up the clusters that held something; alone: what finds out how long a
   * file is must not have it grow meanwhile.
   */
  zero(guest: number, length: number, options: ZeroOptions = { unmap: true }): Promise<void> {
    return this.inLine(async () => {
      await this.settle();
      await this.disk.zero(guest, length, options);
      return DONE;
    });
  }

  /** Writes a cluster compressed, alone. */
  writeCompressed(guest: number, from: Uint8Array): Promise<void> {
    return this.inLine(async () => {
      await this.settle();
      await this.disk.writeCompressed(guest, from);
      return DONE;
    });
  }

  get size(): number {
    return this.disk.size;
  }

  /**
   * Has no request begin any more, and waits for those that have, however they end: whoever closes
   * the disk sooner has them write to whatever file comes next.
   */
  async close(): Promise<void> {
    this.failure ??= { cause: new Qcow2Error('ABORTED', 'the disk is not written any more') };
    await this.begun;
    await this.settle();
  }

  private async settle(): Promise<void> {
    await Promise.allSettled(this.underWay);
  }

  private async begin(guest: number, from: Uint8Array): Promise<WriteUnderWay> {
    const { disk } = this;
    if (disk.writeAhead) return disk.writeAhead(guest, from);
    await disk.write(guest, from);
    return DONE;
  }

  private inLine(work: () => Promise<WriteUnderWay>): Promise<void> {
    const fail = (cause: unknown) => {
      throw this.explain(cause);
    };
    const begun = this.begun.then(() => {
      if (this.failure) throw this.failure.cause;
      return work().catch(fail);
    });
    const written = begun.then((request) => {
      const done = request.written.catch(fail).finally(() => this.underWay.delete(done));
      this.underWay.add(done);
      return done;
    });
    written.catch((cause) => {
      this.failure ??= { cause };
    });
    this.begun = begun.catch(() => {});
    return written;
  }
}

const DONE: WriteUnderWay = { written: Promise.resolve() };
