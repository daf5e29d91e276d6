/** Copying bytes as they are: every one of them is written, zeros too. */
import { assert, Qcow2Error } from '../base/errors.ts';
import { tick } from '../base/tick.ts';
import type { Disk, WritableDisk } from '../image/disk.ts';
import { AheadTarget } from './ahead-target.ts';

/** What is copied, and how. Offsets and lengths are guest bytes. */
export interface CopyPlainOptions {
  /** Where in the source it starts. */
  readonly from: number;
  readonly length: number;
  readonly signal?: AbortSignal;
  /** Called as it goes with the bytes done and all of them. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** What of a copy did not work. */
export type CopyStep = 'read' | 'write';

/** Bytes of one request. */
const PIECE_BYTES = 2 ** 19;
/** Pieces in memory: one is read while others are written. */
const PIECES = 4;
/** Between two looks at the host's events, milliseconds. */
const TURN_MS = 50;

/**
 * Copies a range of a disk to the start of another one. A failure leaves some of it there.
 * @param explain makes an error of what failed, and where
 * @throws Qcow2Error ABORTED when the signal says so; otherwise what `explain` makes of it
 */
export async function copyPlain(
  source: Disk,
  target: WritableDisk,
  { from, length, signal, onProgress }: CopyPlainOptions,
  explain: (step: CopyStep, cause: unknown) => unknown = (_, cause) => cause,
): Promise<void> {
  assert(from >= 0 && length >= 0 && length <= target.size, 'what is copied fits the target');
  const ahead = new AheadTarget(target);
  const buffers = Array.from({ length: PIECES }, () => new Uint8Array(PIECE_BYTES));
  const writes: Promise<void>[] = buffers.map(() => Promise.resolve());
  let turnAt = performance.now();
  try {
    for (let done = 0, index = 0; done < length; index = (index + 1) % PIECES) {
      if (signal?.aborted) throw new Qcow2Error('ABORTED', 'the copy was interrupted');
      await writes[index];
      const buffer = buffers[index] as Uint8Array<ArrayBuffer>;
      const piece = buffer.subarray(0, Math.min(length - done, PIECE_BYTES));
      await source.read(from + done, piece).catch((cause) => {
        throw explain('read', cause);
      });
      const end = done + piece.length;
      const written = ahead.write(done, piece).then(
        () => onProgress?.(end, length),
        (cause) => {
          throw explain('write', cause);
        },
      );
      // It is heard of when its memory is needed, or at the end.
      written.catch(() => {});
      writes[index] = written;
      done = end;
      if (performance.now() - turnAt < TURN_MS) continue;
      await tick();
      turnAt = performance.now();
    }
    await Promise.all(writes);
  } finally {
    await ahead.close();
  }
}
