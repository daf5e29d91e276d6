/**
 * Copying ranges of source files into a target's file as they are: by the host where it can, so
 * that no byte passes through here, and otherwise through memory, with neighbouring ranges read at
 * once.
 */
import { settled } from '../base/awaitable.ts';
import { Qcow2Error } from '../base/errors.ts';
import type { Region, Workspace } from '../kernels/arena.ts';
import type { Storage } from '../storage/storage.ts';
import type { Tally } from './runner.ts';

/** Small enough for a core's cache to keep between read and write. */
const BUFFER_BYTES = 512 * 1024;
/** Bytes between ranges that are read along rather than read around. */
const GAP_BYTES = 64 * 1024;

/** A range to be copied. Offsets and lengths are bytes. */
export interface CopiedRange {
  /** Index of the source, and where the range is in its file. */
  readonly source: number;
  readonly from: number;
  length: number;
  /** Where it goes in the target's file. */
  readonly host: number;
  /** Plain bytes, which are zeros behind the source's end. Of a stream there must be all. */
  readonly isData: boolean;
}

/** Where ranges go. */
export type CopyTarget = Pick<Storage, 'write' | 'copyFrom'>;

/** Copies ranges, one list of them at a time. */
export class RangeCopier {
  private readonly buffer: Region;
  private last: Promise<unknown> = Promise.resolve();

  constructor(
    workspace: Workspace,
    private readonly sources: readonly Storage[],
    private readonly tally: Tally,
  ) {
    this.buffer = workspace.reserve(BUFFER_BYTES);
  }

  /**
   * Copies ranges, in their order.
   * @throws Qcow2Error IO or NO_SPACE; CORRUPT where a source ends within a stream
   */
  async copy(ranges: readonly CopiedRange[], target: CopyTarget): Promise<void> {
    /** What is copied meanwhile. It ends before this does: files are closed then. */
    const underWay: Promise<void>[] = [];
    let failure: { readonly cause: unknown } | undefined;
    const fail = (cause: unknown) => {
      failure ??= { cause };
    };
    try {
      let index = 0;
      for (; index < ranges.length; index++) {
        const range = ranges[index]!;
        const { source, from, host, length } = range;
        const copied = target.copyFrom?.(this.sources[source] as Storage, from, host, length) ?? 0;
        if (copied === 0) break;
        const finish = (bytes: number) => this.finish(range, bytes, target);
        if (settled(copied)) await finish(copied);
        else underWay.push(copied.then(finish).catch(fail));
      }
      if (index < ranges.length) await this.throughMemory(ranges.slice(index), target);
    } catch (cause) {
      fail(cause);
    }
    await Promise.all(underWay);
    if (failure) throw failure.cause;
  }

  /** What the host has not copied of a range goes through memory. */
  private async finish(range: CopiedRange, bytes: number, target: CopyTarget): Promise<void> {
    this.tally.bytesRead += bytes;
    if (bytes < range.length) await this.throughMemory([rest(range, bytes)], target);
  }

  /** The buffer is one list's at a time. */
  private throughMemory(ranges: readonly CopiedRange[], target: CopyTarget): Promise<void> {
    const done = this.last.then(() => this.readAndWrite(ranges, target));
    this.last = done.catch(() => {});
    return done;
  }

  private async readAndWrite(ranges: readonly CopiedRange[], target: CopyTarget): Promise<void> {
    for (let first = 0; first < ranges.length; ) {
      const { source, from } = ranges[first]!;
      if (ranges[first]!.length > BUFFER_BYTES) {
        await this.readAndWrite(pieces(ranges[first]!), target);
        first++;
        continue;
      }
      let [start, end] = [from, from];
      let next = first;
      for (let wanted = 0; next < ranges.length; next++) {
        const range = ranges[next]!;
        const low = Math.min(start, range.from);
        const high = Math.max(end, range.from + range.length);
        wanted += range.length;
        const fits = high - low <= Math.min(BUFFER_BYTES, wanted + GAP_BYTES);
        if (range.source !== source || !fits) break;
        [start, end] = [low, high];
      }
      const into = this.buffer.bytes.subarray(0, end - start);
      const read = (this.sources[source] as Storage).read(start, into);
      const got = settled(read) ? read : await read;
      this.tally.bytesRead += got;
      if (got < into.length) into.fill(0, got);
      for (; first < next; first++) {
        const range = ranges[first]!;
        const at = range.from - start;
        if (!range.isData && at + range.length > got) {
          throw new Qcow2Error('CORRUPT', 'the file ends within a compressed cluster', range.from);
        }
        const written = target.write(range.host, into.subarray(at, at + range.length));
        if (!settled(written)) await written;
      }
    }
  }
}

/** What of a range comes after its first bytes. */
function rest(range: CopiedRange, done: number): CopiedRange {
  const { from, host, length } = range;
  return { ...range, from: from + done, host: host + done, length: length - done };
}

/** A range cut into what the buffer holds. */
function pieces(range: CopiedRange): CopiedRange[] {
  const cut: CopiedRange[] = [];
  for (let done = 0; done < range.length; done += BUFFER_BYTES) {
    cut.push({ ...rest(range, done), length: Math.min(BUFFER_BYTES, range.length - done) });
  }
  return cut;
}
