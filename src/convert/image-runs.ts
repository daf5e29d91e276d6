/**
 * What one image of a chain has, run by run, without those behind it. A run is as long as QEMU's
 * own count of what goes on alike (`qcow2_get_host_offset`): one kind, places one after another,
 * compressed clusters one by one.
 */
import { type Awaitable, settled } from '../base/awaitable.ts';
import { alignDown } from '../base/bits.ts';
import { isQcow2Error } from '../base/errors.ts';
import { NO_PLACE } from '../image/qcow2/mapping.ts';
import type { Qcow2Image } from '../image/qcow2/qcow2-image.ts';
import { RunKind } from '../kernels/kernels.ts';

/** Clusters whose runs are in memory at a time, if they are not one run. */
const WINDOW_CLUSTERS = 2 ** 14;
/** Kind, guest offset and place of a run. Where it ends, the next one begins. */
const STRIDE = 3;

/** Going through the runs of an image front to back. */
export class ImageRuns {
  kind: RunKind = RunKind.unallocated;
  /** Where the run that was sought begins, as far as is known. */
  start = 0;
  end = 0;
  /** Of its start, or `NO_PLACE`. */
  host = NO_PLACE;
  private readonly window: number;
  private records = new Float64Array(STRIDE * 64);
  private count = 0;
  private record = 0;
  private windowEnd = 0;

  constructor(private readonly image: Qcow2Image) {
    this.window = WINDOW_CLUSTERS * image.clusterSize;
  }

  /**
   * Goes to the run of a place that is inside of the disk, at or behind the last one.
   * @throws Qcow2Error CORRUPT or IO
   */
  seek(at: number): Awaitable<void> {
    if (at < this.end) return;
    if (at >= this.windowEnd) {
      const loaded = this.load(at);
      if (!settled(loaded)) return loaded.then(() => this.take(at));
    }
    return this.take(at);
  }

  private take(at: number): Awaitable<void> {
    while (this.record + 1 < this.count && this.guestOf(this.record + 1) <= at) this.record++;
    this.kind = this.kindOf(this.record);
    this.start = this.guestOf(this.record);
    this.host = this.hostOf(this.record);
    return this.finish();
  }

  /** Finds the run's end, which may lie in one of the next windows. */
  private finish(): Awaitable<void> {
    const { image } = this;
    while (true) {
      const isLast = this.record + 1 === this.count;
      this.end = isLast ? this.windowEnd : this.guestOf(this.record + 1);
      if (!isLast || this.end >= image.size || this.kind === RunKind.compressed) return;
      const begun = this.end;
      let loaded: Awaitable<void>;
      try {
        loaded = this.load(begun);
      } catch (cause) {
        return this.stopBefore(cause);
      }
      if (!settled(loaded)) {
        return loaded.then(
          () => (this.goesOn(begun) ? this.finish() : undefined),
          (cause: unknown) => this.stopBefore(cause),
        );
      }
      if (!this.goesOn(begun)) return;
    }
  }

  /** Whether the window that was just loaded begins with more of the run. */
  private goesOn(at: number): boolean {
    const host = this.host === NO_PLACE ? NO_PLACE : this.host + at - this.start;
    return this.kindOf(0) === this.kind && this.hostOf(0) === host;
  }

  /** What cannot be had will be met again by whoever gets there. */
  private stopBefore(cause: unknown): void {
    if (!isQcow2Error(cause)) throw cause;
  }

  private load(at: number): Awaitable<void> {
    const { image, window } = this;
    const empty = image.emptyFrom(at);
    if (empty > at) {
      this.setEmpty(at, empty);
      return;
    }
    const end = Math.min(image.size, alignDown(at, window) + window);
    // What lies before a broken entry can be had.
    const upTo = (cause: unknown): Awaitable<void> => {
      const guest = isQcow2Error(cause) ? (cause.guest ?? 0) : 0;
      if (guest <= at || guest >= end) throw cause;
      return this.visit(at, guest);
    };
    try {
      const visited = this.visit(at, end);
      return settled(visited) ? undefined : visited.catch(upTo);
    } catch (cause) {
      return upTo(cause);
    }
  }

  /** A whole stretch is one run. */
  private setEmpty(from: number, to: number): void {
    this.records[0] = RunKind.unallocated;
    this.records[1] = from;
    this.records[2] = NO_PLACE;
    this.count = 1;
    this.record = 0;
    this.windowEnd = to;
  }

  private visit(from: number, to: number): Awaitable<void> {
    let records = this.records;
    let count = 0;
    let [lastKind, lastNext]: [RunKind, number] = [RunKind.corrupt, 0];
    const visited = this.image.visitRuns(from, to, (kind, guest, length, host) => {
      const next = host === NO_PLACE || kind === RunKind.compressed ? host : host + length;
      const joins = kind === lastKind && host === lastNext && kind !== RunKind.compressed;
      [lastKind, lastNext] = [kind, next];
      if (joins) return;
      if ((count + 1) * STRIDE > records.length) {
        const grown = new Float64Array(records.length * 2);
        grown.set(records);
        records = grown;
      }
      records[count * STRIDE] = kind;
      records[count * STRIDE + 1] = guest;
      records[count * STRIDE + 2] = host;
      count++;
    });
    const finish = () => {
      this.records = records;
      this.count = count;
      this.record = 0;
      this.windowEnd = to;
    };
    return settled(visited) ? finish() : visited.then(finish);
  }

  private kindOf(record: number): RunKind {
    return this.records[record * STRIDE] as RunKind;
  }
  private guestOf(record: number): number {
    return this.records[record * STRIDE + 1] as number;
  }
  private hostOf(record: number): number {
    return this.records[record * STRIDE + 2] as number;
  }
}
