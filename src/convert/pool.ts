/**
 * Workers as the control plane sees them, and the messages between the two. How a worker is
 * started is the host's: `pool-node.ts` has threads.
 */
import type { Awaitable } from '../base/awaitable.ts';
import { type ErrorCode, Qcow2Error } from '../base/errors.ts';
import type { StorageHandle } from '../storage/storage.ts';
import type { CopyBatch, Placement, RunnerOptions, Tally, Turn, Units } from './runner.ts';

/** What a worker is started with. */
export interface WorkerSetup {
  readonly module: WebAssembly.Module;
  readonly sources: readonly StorageHandle[];
  readonly target: StorageHandle;
  /** The external data file of the target, where it has one. */
  readonly data: StorageHandle | undefined;
  readonly options: RunnerOptions;
  /** The target is a pipe: written without positions, in the order of the jobs. */
  readonly stream: boolean;
}

/** One worker. Jobs are started on in the order that they were given. */
export interface JobWorker {
  /** Whether it is up: a job would be started on at once. Before, jobs may be given, and wait. */
  readonly isUp: boolean;
  /** What the worker has done so far. */
  readonly tally: Tally;
  run(ops: Float64Array<ArrayBuffer>, turn?: Turn): Promise<void>;
  /** Copies ranges, as `Runner.copy`. */
  copy(batch: CopyBatch): Promise<void>;
  /** Ends the worker at once, whatever it is doing. */
  close(): Promise<void>;
}

/** Starts workers; they need not be up when this is done. */
export type StartWorkers = (setup: WorkerSetup, count: number) => Awaitable<JobWorker[]>;

/** To a worker: a conversion, first of all; a job of it, of either kind, or leave to write. */
export type ToWorker =
  | { readonly kind: 'setup'; readonly setup: WorkerSetup }
  | {
      readonly kind: 'job';
      readonly id: number;
      readonly ops: Float64Array<ArrayBuffer>;
      readonly ordered: boolean;
    }
  | { readonly kind: 'copy'; readonly id: number; readonly batch: CopyBatch }
  | { readonly kind: 'go'; readonly id: number; readonly placement: Placement | undefined };

/** From a worker: it is up; a job wants to write, is done, or failed. */
export type FromWorker =
  | { readonly kind: 'up' }
  | { readonly kind: 'turn'; readonly id: number; readonly units: Units | undefined }
  | { readonly kind: 'done'; readonly id: number; readonly tally: Tally }
  | { readonly kind: 'failed'; readonly id: number; readonly error: WireError };

/** An error as it crosses a thread boundary. */
export interface WireError {
  readonly code: ErrorCode | undefined;
  readonly message: string;
  readonly at: number | undefined;
  readonly guest: number | undefined;
}

/** The opposite of `fromWire`. */
export function toWire(cause: unknown): WireError {
  const { code, message, at, guest } = cause as Partial<Qcow2Error>;
  const known = cause instanceof Qcow2Error;
  return { code: known ? code : undefined, message: message ?? String(cause), at, guest };
}

/** An error of a worker as one of this thread. */
export function fromWire({ code, message, at, guest }: WireError): Error {
  if (code === undefined) return new Error(message);
  return new Qcow2Error(code, message, at, undefined, guest);
}
