/**
 * What a request writes: bytes in memory, or a range of a file, which the host copies where it can,
 * so that nobody here touches its bytes.
 */
import { settled } from '../../base/awaitable.ts';
import type { Storage } from '../../storage/storage.ts';

/** Bytes that are to be the guest's. */
export type Content = Uint8Array | FileRange;

/** Bytes that are read at a time where the host does not copy them. */
const PIECE_BYTES = 512 * 1024;

/** A range of a file; behind the file's end it is zeros. Offsets and lengths are bytes. */
export class FileRange {
  /**
   * @param place where the range is
   * @param host what the host has left of it, or of a range that it is a part of
   */
  constructor(
    private readonly storage: Storage,
    private readonly place: { readonly at: number; readonly length: number },
    private readonly host = { declines: false, refuses: false },
  ) {}

  get length(): number {
    return this.place.length;
  }

  /** The host has not copied all that it was asked for: the rest went through memory. */
  get isDeclined(): boolean {
    return this.host.declines;
  }

  /** The host has copied nothing of what it was asked for: it will not the next time. */
  get isRefused(): boolean {
    return this.host.refuses;
  }

  /** The bytes [from, to) of the range. */
  subarray(from: number, to: number): FileRange {
    return new FileRange(this.storage, { at: this.place.at + from, length: to - from }, this.host);
  }

  /** All of it, in memory. */
  async bytes(): Promise<Uint8Array> {
    const bytes = new Uint8Array(this.length);
    const read = this.storage.read(this.place.at, bytes);
    bytes.fill(0, settled(read) ? read : await read);
    return bytes;
  }

  /** Copies it to a place in a file. @throws Qcow2Error IO or NO_SPACE */
  async copyTo(target: Storage, at: number): Promise<void> {
    const { storage, place, length } = this;
    const copied = target.copyFrom?.(storage, place.at, at, length) ?? 0;
    let done = settled(copied) ? copied : await copied;
    if (done === 0) this.host.refuses = true;
    if (done < length) this.host.declines = true;
    while (done < length) {
      const end = Math.min(length, done + PIECE_BYTES);
      const written = target.write(at + done, await this.subarray(done, end).bytes());
      if (!settled(written)) await written;
      done = end;
    }
  }
}

/** Content that is in memory already, or brought there. */
export async function inMemory(content: Content): Promise<Uint8Array> {
  return content instanceof FileRange ? content.bytes() : content;
}
