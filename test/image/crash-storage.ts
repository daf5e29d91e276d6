/**
 * Storage whose power may fail. It keeps every change in a history, and makes from that, for any
 * moment, the files as they may be found afterwards.
 *
 * What a completed flush of a file covers is there. Each later change of it may be there or not,
 * whatever its place in the order, and a write or a zeroing may be there in part, sector by
 * sector. Changes of one sector keep their order: a disk's own cache never lets an older version of
 * a sector win over a newer one that it had acknowledged, so of those only a later one can be lost.
 */
import type { Random } from '../random.ts';
import { type Files, MemoryFiles, openPaged, type PagedBytes } from './paged-bytes.ts';

/** What a power cut does not divide. */
const SECTOR = 512;

type Change =
  | { readonly kind: 'write'; readonly at: number; readonly bytes: Uint8Array }
  | { readonly kind: 'zero'; readonly at: number; readonly length: number }
  | { readonly kind: 'truncate'; readonly size: number };

type Event = { readonly file: string } & (
  | Change
  /** Done: the changes of this file with a position below `upTo` are durable. */
  | { readonly kind: 'flush'; readonly upTo: number }
);

/** Files as they may be after a power cut. */
export interface CrashState {
  /** How many events had happened. */
  readonly cut: number;
  /** What was lost, as a person can use it. */
  readonly about: string;
  readonly files: MemoryFiles;
}

/** Which states `CrashFiles.states` makes. */
export interface StateOptions {
  /** The first moment, a position in the history. */
  readonly from?: number;
  /** Random subsets at each moment, beside "all is there" and "nothing unflushed is". */
  readonly subsets?: number;
  /** At most so many moments, spread at random over the history. */
  readonly cutsMax?: number;
}

/** Files on one power supply. */
export class CrashFiles implements Files {
  private readonly events: Event[] = [];
  private readonly first: ReadonlyMap<string, PagedBytes>;
  private readonly current: MemoryFiles;

  constructor(files: ReadonlyMap<string, PagedBytes>) {
    this.first = copyAll(files);
    this.current = new MemoryFiles(copyAll(files));
  }

  static empty(...names: string[]): CrashFiles {
    return new CrashFiles(MemoryFiles.empty(...names).all);
  }

  /** How many changes and flushes there were. */
  get position(): number {
    return this.events.length;
  }

  /** The files as they are while the power is on. */
  get now(): MemoryFiles {
    return new MemoryFiles(copyAll(this.current.all));
  }

  open(name: string) {
    const bytes = this.current.bytes(name);
    const put = (change: Change) => {
      this.events.push({ file: name, ...change });
      apply(change, bytes);
    };
    return openPaged(bytes, name, {
      write: (at, from) => put({ kind: 'write', at, bytes: from.slice() }),
      zero: (at, length) => put({ kind: 'zero', at, length }),
      truncate: (size) => put({ kind: 'truncate', size }),
      startFlush: () => {
        const upTo = this.position;
        return () => void this.events.push({ file: name, kind: 'flush', upTo });
      },
    });
  }

  /** The events one by one, for messages. */
  describe(from = 0, to = this.position): string {
    return this.events
      .slice(from, to)
      .map((event, i) => `${from + i} ${event.file} ${text(event)}`)
      .join('\n');
  }

  /** Files as they may be after a power cut at every moment of the history. */
  *states(next: Random, options: StateOptions = {}): Generator<CrashState, void, undefined> {
    const { from = 0, subsets = 2, cutsMax = Number.POSITIVE_INFINITY } = options;
    const durable = copyAll(this.first);
    let pending: { index: number; event: { readonly file: string } & Change }[] = [];
    for (let cut = 0; cut <= this.events.length; cut++) {
      const event = this.events[cut - 1];
      if (event?.kind === 'flush') {
        const safe = (index: number, file: string) => file === event.file && index < event.upTo;
        for (const { index, event: change } of pending) {
          if (safe(index, change.file)) apply(change, durable.get(change.file)!);
        }
        pending = pending.filter(({ index, event: { file } }) => !safe(index, file));
      } else if (event) pending.push({ index: cut - 1, event });
      const rest = this.events.length - from + 1;
      if (cut < from || (cutsMax < rest && next.below(rest) >= cutsMax)) continue;

      const make = (keep: (change: Change) => Iterable<Change>) => {
        const files = copyAll(durable);
        const lost: string[] = [];
        for (const { index, event: change } of pending) {
          const parts = [...keep(change)];
          for (const part of parts) apply(part, files.get(change.file)!);
          if (parts.length !== 1 || parts[0] !== change) {
            lost.push(
              `${index} ${change.file} ${text(change)}${parts.length > 0 ? ' (torn)' : ''}`,
            );
          }
        }
        const about = `power cut after event ${cut} of ${this.events.length}, lost: ${
          lost.join(', ') || 'nothing'
        }`;
        return { cut, about, files: new MemoryFiles(files) };
      };
      yield make((change) => [change]);
      if (pending.length === 0) continue;
      yield make(() => []);
      if (pending.length === 1 && !isTearable(pending[0]!.event)) continue;
      for (let i = 0; i < subsets; i++) {
        const odds = next.pick([2, 2, 4, 8]);
        // Mostly there with a few gone, or mostly gone with a few there: both find bugs.
        const rare = next.oneIn(2);
        yield make((change) => {
          if (next.oneIn(4) && isTearable(change)) return torn(change, next);
          return next.oneIn(odds) === rare ? [change] : [];
        });
      }
    }
  }
}

function copyAll(files: ReadonlyMap<string, PagedBytes>): Map<string, PagedBytes> {
  return new Map([...files].map(([name, bytes]) => [name, bytes.copy()]));
}

function apply(change: Change, bytes: PagedBytes): void {
  if (change.kind === 'write') bytes.write(change.at, change.bytes);
  else if (change.kind === 'zero') bytes.zero(change.at, change.length);
  else bytes.truncate(change.size);
}

function isTearable(change: Change): boolean {
  if (change.kind === 'truncate') return false;
  const length = change.kind === 'write' ? change.bytes.length : change.length;
  return Math.floor(change.at / SECTOR) !== Math.floor((change.at + length - 1) / SECTOR);
}

/** Some of a change's sectors. */
function torn(change: Change, next: Random): Change[] {
  if (change.kind === 'truncate') return [change];
  const { at } = change;
  const length = change.kind === 'write' ? change.bytes.length : change.length;
  const parts: Change[] = [];
  for (let start = 0; start < length; ) {
    // Long writes are torn into few pieces, or every state would be a comb.
    const sectors = next.pick([1, 1, 3, 16, 128]);
    const end = Math.min(length, start + sectors * SECTOR - ((at + start) % SECTOR));
    if (next.oneIn(2)) {
      parts.push(
        change.kind === 'write'
          ? { kind: 'write', at: at + start, bytes: change.bytes.subarray(start, end) }
          : { kind: 'zero', at: at + start, length: end - start },
      );
    }
    start = end;
  }
  return parts;
}

function text(event: Change | { readonly kind: 'flush'; readonly upTo: number }): string {
  switch (event.kind) {
    case 'write':
      return `write 0x${event.at.toString(16)} +${event.bytes.length}`;
    case 'zero':
      return `zero 0x${event.at.toString(16)} +${event.length}`;
    case 'truncate':
      return `truncate ${event.size}`;
    default:
      return `flush of what came before ${event.upTo}`;
  }
}
