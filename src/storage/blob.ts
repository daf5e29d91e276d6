/** Storage over a Blob or File: what a browser gives for a file that a person picked. Read-only. */
import { Qcow2Error } from '../base/errors.ts';
import { SliceStorage } from './slices.ts';
import type { Storage, StorageHandle } from './storage.ts';

class BlobStorage extends SliceStorage {
  constructor(
    private readonly blob: Blob,
    readonly name: string,
  ) {
    super();
  }

  size(): number {
    return this.blob.size;
  }

  share(): StorageHandle {
    return { kind: 'blob', blob: this.blob, name: this.name };
  }

  protected async slice(from: number, to: number): Promise<Uint8Array> {
    try {
      return new Uint8Array(await this.blob.slice(from, to).arrayBuffer());
    } catch (cause) {
      throw new Qcow2Error('IO', `could not read ${this.name}`, from, cause);
    }
  }

  protected async stream(
    from: number,
    to: number,
  ): Promise<ReadableStreamDefaultReader<Uint8Array>> {
    return this.blob.slice(from, to).stream().getReader();
  }
}

/** Storage over a Blob; a File's own name serves in messages. */
export function blobStorage(blob: Blob, options: { readonly name?: string } = {}): Storage {
  const own = 'name' in blob && typeof blob.name === 'string' ? blob.name : 'blob';
  return new BlobStorage(blob, options.name ?? own);
}
