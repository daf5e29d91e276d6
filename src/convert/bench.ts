/** Requests to a disk at a steady depth: how fast it answers. */
import { assert, Qcow2Error } from '../base/errors.ts';
import { tick } from '../base/tick.ts';
import type { Disk, WritableDisk } from '../image/disk.ts';

/** What is sent. Offsets and lengths are guest bytes. */
export interface BenchOptions {
  readonly requests: number;
  /** Requests in flight at a time. */
  readonly depth: number;
  /** Bytes of each. */
  readonly bytes: number;
  /** Where the first one starts; each starts `step` further, from the disk's start at its end. */
  readonly offset?: number;
  /** Default: as many as a request has bytes. */
  readonly step?: number;
  /** Writes this byte; absent: reads. */
  readonly pattern?: number | undefined;
  /** Flushes after so many writes; 0: never. No less than `depth`. */
  readonly flushEvery?: number;
  /** A flush waits until nothing is in flight, and what follows for the flush. Default true. */
  readonly drain?: boolean;
  readonly signal?: AbortSignal | undefined;
}

/** Bytes that requests read into; where they need more, they share. */
const BUFFER_BYTES_MAX = 2 ** 26;
/** Between two looks at the host's events, milliseconds. */
const TURN_MS = 50;

/**
 * Sends requests, and resolves when all are answered.
 * @throws Qcow2Error OUT_OF_RANGE where one reaches past the disk's end; as the disk does
 */
export function benchDisk(disk: Disk | WritableDisk, options: BenchOptions): Promise<void> {
  assert(options.depth > 0, 'something is in flight');
  return new Promise((resolve, reject) => {
    new Bench(disk, options, resolve, reject).send();
  });
}

/** A run: counts what is to be sent and what is in flight. */
class Bench {
  private unsent: number;
  private inFlight = 0;
  private offset: number;
  private readonly step: number;
  private readonly buffers: Uint8Array[] = [];
  private readonly buffersMax: number;
  private turn = 0;
  private turnAt = performance.now();
  private flushing = 0;
  /** Nothing more is sent before the flush. */
  private isFlushDue = false;
  private failure: { readonly cause: unknown } | undefined;

  constructor(
    private readonly disk: Disk | WritableDisk,
    private readonly options: BenchOptions,
    private readonly resolve: () => void,
    private readonly reject: (cause: unknown) => void,
  ) {
    const { requests, depth, bytes, offset = 0, step = bytes } = options;
    this.unsent = requests;
    this.offset = offset;
    this.step = step;
    const room = Math.max(1, Math.floor(BUFFER_BYTES_MAX / Math.max(1, bytes)));
    this.buffersMax = options.pattern === undefined ? Math.min(depth, room) : 1;
  }

  /** Sends until the depth is reached, or ends the run. */
  send(): void {
    const { flushEvery = 0 } = this.options;
    while (this.maySend()) {
      this.unsent--;
      this.inFlight++;
      const at = this.offset;
      // An empty disk has no first byte to go back to: the request is refused.
      this.offset = this.disk.size === 0 ? 0 : (at + this.step) % this.disk.size;
      this.request(at).then(this.answered, (cause) => {
        this.inFlight--;
        this.giveUp(cause);
      });
      this.isFlushDue = flushEvery > 0 && this.unsent % flushEvery === 0;
    }
    if (this.inFlight > 0 || this.flushing > 0) return;
    if (this.failure) this.reject(this.failure.cause);
    else if (this.unsent === 0) this.resolve();
  }

  private async request(at: number): Promise<void> {
    const { bytes, pattern, signal } = this.options;
    if (signal?.aborted) throw new Qcow2Error('ABORTED', 'the bench was interrupted');
    if (at + bytes > this.disk.size) {
      throw new Qcow2Error('OUT_OF_RANGE', 'a request past the end of the disk', at);
    }
    const buffer = this.nextBuffer();
    if (pattern === undefined) await this.disk.read(at, buffer);
    else await (this.disk as WritableDisk).write(at, buffer);
  }

  private nextBuffer(): Uint8Array {
    const { bytes, pattern = 0 } = this.options;
    const index = this.turn++ % this.buffersMax;
    this.buffers[index] ??= new Uint8Array(bytes).fill(pattern);
    return this.buffers[index];
  }

  private maySend(): boolean {
    if (this.unsent === 0 || this.failure || this.isFlushDue) return false;
    return this.inFlight < this.options.depth;
  }

  private readonly answered = (): void => {
    this.inFlight--;
    const { drain = true } = this.options;
    if (!this.isFlushDue || this.failure) this.goOn();
    else if (!drain) {
      this.flush();
      this.goOn();
    } else if (this.inFlight === 0) this.flush();
  };

  private flush(): void {
    this.isFlushDue = false;
    this.flushing++;
    (this.disk as WritableDisk)
      .flush()
      .catch((cause) => {
        this.failure ??= { cause };
      })
      .then(() => {
        this.flushing--;
        this.goOn();
      });
  }

  /** Storage that answers at once leaves the host's events no room: they get it here. */
  private goOn(): void {
    if (performance.now() - this.turnAt < TURN_MS) this.send();
    else {
      this.turnAt = performance.now();
      tick().then(() => this.send());
    }
  }

  /** What is in flight comes to its end first. */
  private giveUp(cause: unknown): void {
    this.failure ??= { cause };
    this.send();
  }
}
