/** Storage that answers late, as a network does, and that counts how it is used. */
import type { Storage } from '../../src/storage/storage.ts';
import { type Random, rng } from '../random.ts';

/** What became of storages that a test handed out. */
export class Ledger {
  opened = 0;
  closed = 0;
  /** Storages closed more than once, or used after they were closed. */
  readonly misuse: string[] = [];

  /** True when everything that was opened was closed, once. */
  get settled(): boolean {
    return this.opened === this.closed && this.misuse.length === 0;
  }
}

/** How a wrapped storage behaves. */
export interface WrapOptions {
  readonly ledger?: Ledger;
  /** Answers every call with a promise, some time later. */
  readonly late?: Random | undefined;
  /** Thrown, or the promise's rejection, for reads that touch the range. */
  readonly failing?: { readonly from: number; readonly to: number; readonly cause: unknown };
}

/** A few turns of the event loop, or none. */
async function delay(next: Random): Promise<void> {
  const kind = next.below(8);
  for (let hop = next.below(6); hop > 0; hop--) await undefined;
  if (kind === 0) await new Promise((done) => setTimeout(done, next.below(3)));
  else if (kind === 1) {
    await new Promise<void>((done) => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => {
        port1.close();
        done();
      };
      port2.postMessage(0);
    });
  }
}

/** Wraps storage. */
export function wrapStorage(storage: Storage, options: WrapOptions): Storage {
  const { ledger = new Ledger(), failing } = options;
  // Numbers of its own: which call comes first is up to the clock, and what else a test draws must
  // not depend on that.
  const late = options.late && rng(options.late.u32());
  let open = true;
  ledger.opened++;
  const answer = <T>(what: string, work: () => T): T => {
    if (!open) ledger.misuse.push(`${what} of ${storage.name} after close`);
    if (late === undefined) return work();
    return delay(late).then(work) as T;
  };
  return {
    name: storage.name,
    writable: storage.writable,
    size: () => answer('size', () => storage.size()),
    read: (at, into) =>
      answer('read', () => {
        if (failing && at < failing.to && at + into.length > failing.from) throw failing.cause;
        return storage.read(at, into);
      }),
    cursor: (from, to) => storage.cursor(from, to),
    write: (at, from) => answer('write', () => storage.write(at, from)),
    zero: (at, length) => answer('zero', () => storage.zero(at, length)),
    truncate: (size) => answer('truncate', () => storage.truncate(size)),
    flush: () => answer('flush', () => storage.flush()),
    close: () => {
      const result = answer('close', () => storage.close());
      open = false;
      ledger.closed++;
      return result;
    },
  };
}
