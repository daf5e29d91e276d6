/**
 * What a process with few addresses does: services run image tools with a limit of one or two GiB
 * (`ulimit -v`), so that a hostile image cannot take all memory.
 *
 * V8 sets aside 10 GiB of addresses for each WebAssembly memory, however small, for then no access
 * needs to be checked. It does so from the start or not at all: where that is more than there may
 * be, the tool is run again with checks, and with fewer threads.
 */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

/** Node's option for checked accesses. */
const CHECKED = '--disable-wasm-trap-handler';
/** Addresses for each memory with unchecked accesses. */
const UNCHECKED_BYTES = 10 * 2 ** 30;
/** Addresses that Node and the thread that it starts with take: 0.75 GiB, and room to work in. */
const FIRST_THREAD_BYTES = 2 ** 30;
/** What each thread more takes: 0.55 GiB. */
const THREAD_BYTES = 640 * 2 ** 20;

let limit: number | undefined;

/** How many bytes of addresses this process may have, as far as that can be told. */
function addressLimit(): number {
  limit ??= readAddressLimit();
  return limit;
}

function readAddressLimit(): number {
  if (process.platform !== 'linux') return Number.POSITIVE_INFINITY;
  try {
    const limits = readFileSync('/proc/self/limits', 'latin1');
    return Number(/^Max address space +(\d+)/m.exec(limits)?.[1] ?? Number.POSITIVE_INFINITY);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

/** Threads that there are processors and addresses for. */
export function threadsWithin(processors = availableParallelism()): number {
  const room = addressLimit() - FIRST_THREAD_BYTES;
  return Math.max(1, Math.min(processors, 1 + Math.floor(room / THREAD_BYTES)));
}

/**
 * Runs the tool again where its kernels need that: resolves with the exit code of that run.
 * Undefined where this process can do it.
 */
export function runAgain(): Promise<number> | undefined {
  if (addressLimit() === Number.POSITIVE_INFINITY) return undefined;
  // Each thread has a memory, and the first one some for images that it writes besides.
  if (addressLimit() >= UNCHECKED_BYTES * (availableParallelism() + 8)) return undefined;
  if (process.execArgv.includes(CHECKED)) {
    void import('./run-again.ts').then(({ endWithStarter }) => endWithStarter());
    return undefined;
  }
  // Node before 20.15 has no such option.
  if (!process.allowedNodeEnvironmentFlags.has(CHECKED)) return undefined;
  return import('./run-again.ts').then(({ runWith }) => runWith([CHECKED]));
}
