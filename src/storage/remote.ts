/**
 * Storage that a worker has open and another thread uses, by message: what a page has of files that
 * only workers may open. Bytes are moved, not shared, so no page needs to be isolated for it.
 */
import { type ErrorCode, Qcow2Error } from '../base/errors.ts';
import { rangeCursor, type Storage, type StorageCursor, type StorageHandle } from './storage.ts';

/** To the worker that has the storage. */
export type RemoteRequest =
  | { readonly op: 'open'; readonly handle: StorageHandle; readonly writable: boolean }
  | { readonly op: 'size' | 'flush' | 'close' }
  | { readonly op: 'read'; readonly at: number; readonly length: number }
  | { readonly op: 'write'; readonly at: number; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly op: 'zero'; readonly at: number; readonly length: number }
  | { readonly op: 'truncate'; readonly size: number };

/** From it, in the order of the requests. */
export type RemoteAnswer =
  | { readonly kind: 'number'; readonly value: number }
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly kind: 'done' }
  | {
      readonly kind: 'failed';
      readonly code: ErrorCode | undefined;
      readonly message: string;
      readonly at: number | undefined;
    };

/** Opens in a worker of its own what a handle names. */
export async function remoteStorage(handle: StorageHandle, writable: boolean): Promise<Storage> {
  const worker = new Worker(new URL('./web-worker.js', import.meta.url), { type: 'module' });
  const storage = new RemoteStorage(worker, handle, writable);
  try {
    await storage.open();
  } catch (cause) {
    worker.terminate();
    throw cause;
  }
  return storage;
}

interface Waiting {
  readonly resolve: (answer: RemoteAnswer) => void;
  readonly reject: (cause: Error) => void;
}

class RemoteStorage implements Storage {
  private readonly waiting: Waiting[] = [];
  private failure: Error | undefined;

  constructor(
    private readonly worker: Worker,
    private readonly handle: StorageHandle,
    readonly writable: boolean,
  ) {
    worker.onmessage = ({ data }: MessageEvent<RemoteAnswer>) => this.receive(data);
    worker.onerror = (event) => {
      this.end(new Qcow2Error('IO', `the worker of ${this.name} failed: ${event.message}`));
    };
  }

  get name(): string {
    return this.handle.name;
  }

  async open(): Promise<void> {
    const { handle, writable } = this;
    await this.ask({ op: 'open', handle, writable });
  }

  async size(): Promise<number> {
    const answer = await this.ask({ op: 'size' });
    return answer.kind === 'number' ? answer.value : 0;
  }

  async read(at: number, into: Uint8Array): Promise<number> {
    const answer = await this.ask({ op: 'read', at, length: into.length });
    if (answer.kind !== 'bytes') return 0;
    into.set(answer.bytes);
    return answer.bytes.length;
  }

  cursor(from: number, to: number): StorageCursor {
    return rangeCursor(this, from, to);
  }

  async write(at: number, from: Uint8Array): Promise<void> {
    this.needWritable();
    const bytes = from.slice();
    await this.ask({ op: 'write', at, bytes }, [bytes.buffer]);
  }

  async zero(at: number, length: number): Promise<void> {
    this.needWritable();
    await this.ask({ op: 'zero', at, length });
  }

  async truncate(size: number): Promise<void> {
    this.needWritable();
    await this.ask({ op: 'truncate', size });
  }

  async flush(): Promise<void> {
    await this.ask({ op: 'flush' });
  }

  async close(): Promise<void> {
    if (this.failure) return;
    await this.ask({ op: 'close' });
    this.worker.terminate();
    this.end(new Qcow2Error('IO', `${this.name} is closed`));
  }

  share(): StorageHandle {
    return this.handle;
  }

  private ask(request: RemoteRequest, moved: readonly ArrayBuffer[] = []): Promise<RemoteAnswer> {
    if (this.failure) return Promise.reject(this.failure);
    return new Promise((resolve, reject) => {
      this.waiting.push({ resolve, reject });
      this.worker.postMessage({ kind: 'storage', request }, [...moved]);
    });
  }

  private receive(answer: RemoteAnswer): void {
    const asked = this.waiting.shift();
    if (answer.kind !== 'failed') asked?.resolve(answer);
    else {
      const { code, message, at } = answer;
      asked?.reject(code ? new Qcow2Error(code, message, at) : new Error(message));
    }
  }

  private end(failure: Error): void {
    this.failure ??= failure;
    for (const { reject } of this.waiting.splice(0)) reject(this.failure);
  }

  private needWritable(): void {
    if (!this.writable) throw new Qcow2Error('READ_ONLY', `${this.name} is read-only`);
  }
}

/** The worker's end: carries out requests one after another. */
export class RemoteServer {
  private storage: Storage | undefined;
  private last: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly open: (handle: StorageHandle, writable: boolean) => Promise<Storage>,
    private readonly answer: (answer: RemoteAnswer, moved: readonly ArrayBuffer[]) => void,
  ) {}

  receive(request: RemoteRequest): void {
    this.last = this.last.then(async () => {
      try {
        const answer = await this.carryOut(request);
        this.answer(answer, answer.kind === 'bytes' ? [answer.bytes.buffer] : []);
      } catch (cause) {
        const { code, at } =
          cause instanceof Qcow2Error ? cause : { code: undefined, at: undefined };
        const message = cause instanceof Error ? cause.message : String(cause);
        this.answer({ kind: 'failed', code, message, at }, []);
      }
    });
  }

  private async carryOut(request: RemoteRequest): Promise<RemoteAnswer> {
    if (request.op === 'open') {
      this.storage = await this.open(request.handle, request.writable);
      return { kind: 'done' };
    }
    const { storage } = this;
    if (!storage) throw new Qcow2Error('IO', 'no storage is open here');
    switch (request.op) {
      case 'size':
        return { kind: 'number', value: await storage.size() };
      case 'read':
        return { kind: 'bytes', bytes: await readPart(storage, request.at, request.length) };
      case 'write':
        await storage.write(request.at, request.bytes);
        break;
      case 'zero':
        await storage.zero(request.at, request.length);
        break;
      case 'truncate':
        await storage.truncate(request.size);
        break;
      case 'flush':
        await storage.flush();
        break;
      default:
        await storage.close();
        this.storage = undefined;
    }
    return { kind: 'done' };
  }
}

async function readPart(
  storage: Storage,
  at: number,
  length: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(Math.max(0, Math.min(length, (await storage.size()) - at)));
  const got = await storage.read(at, bytes);
  return got === bytes.length ? bytes : bytes.slice(0, got);
}
