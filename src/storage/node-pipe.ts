/** The writing end of a pipe, a terminal or a socket in Node: bytes go in the order they come. */
import { writeSync } from 'node:fs';
import { ioError } from './node-error.ts';

const ZEROS_BYTES = 256 * 1024;

/** Waits a millisecond without letting events in: for a reader that is slower than we are. */
function nap(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
}

/** What a conversion writes to when its target has no positions. `at` is for messages alone. */
export class PipeStorage {
  private zeros: Uint8Array | undefined;

  constructor(
    private readonly fd: number,
    private readonly name: string,
  ) {}

  write(at: number, from: Uint8Array): void {
    for (let done = 0; done < from.length; ) {
      try {
        done += writeSync(this.fd, from, done, from.length - done);
      } catch (cause) {
        if ((cause as { code?: string }).code !== 'EAGAIN') {
          throw ioError(cause, `error while writing '${this.name}'`, at + done);
        }
        nap();
      }
    }
  }

  zero(at: number, length: number): void {
    this.zeros ??= new Uint8Array(ZEROS_BYTES);
    for (let done = 0; done < length; done += ZEROS_BYTES) {
      this.write(at + done, this.zeros.subarray(0, Math.min(ZEROS_BYTES, length - done)));
    }
  }
}
