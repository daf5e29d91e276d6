/**
 * The worker's half of a conversion: gets jobs by message, has a runner carry them out, and says
 * what became of them. How messages come and storages are opened is the host's.
 */
import { type Awaitable, settled } from '../base/awaitable.ts';
import { assert } from '../base/errors.ts';
import { CipherStorage } from '../crypto/cipher-storage.ts';
import { GuestCipherStorage } from '../crypto/guest-cipher-storage.ts';
import { adoptKernelModule } from '../kernels/wasm.ts';
import type { Storage, StorageHandle } from '../storage/storage.ts';
import { ImageRunner } from './image-runner.ts';
import { type FromWorker, type ToWorker, toWire, type WorkerSetup } from './pool.ts';
import { RawRunner } from './raw-runner.ts';
import type { Placement, Runner, Units } from './runner.ts';

/** A handle that names storage, without a cipher around it. */
export type PlainHandle = Exclude<StorageHandle, { kind: 'cipher' | 'guest-cipher' }>;

/** What a worker's host can open. */
export interface WorkerHost {
  open(handle: PlainHandle, writable: boolean): Awaitable<Storage>;
  /** A target without positions, which gets its bytes front to back. */
  openPipe(handle: PlainHandle): Pick<Storage, 'write' | 'zero'>;
}

/** Serves one conversion after another, on one end of a channel. */
export class JobServer {
  private runner: Awaitable<Runner> | undefined;
  private opened: Storage[] = [];
  private readonly waiting = new Map<number, (placement: Placement | undefined) => void>();

  constructor(
    private readonly host: WorkerHost,
    private readonly answer: (message: FromWorker) => void,
  ) {}

  receive(message: ToWorker): void {
    if (message.kind === 'setup') {
      adoptKernelModule(message.setup.module);
      const runner = this.makeRunner(message.setup);
      this.runner = runner;
      const up = () => this.answer({ kind: 'up' });
      if (settled(runner)) up();
      // Why there is none, the first job will say.
      else runner.then(up, up);
      return;
    }
    const { id } = message;
    if (message.kind === 'go') {
      this.waiting.get(id)?.(message.placement);
      this.waiting.delete(id);
      return;
    }
    const run = async (runner: Runner) => {
      if (message.kind === 'copy') {
        assert(runner.copy, 'clusters are copied to images');
        await runner.copy(message.batch);
      } else await runner.run(message.ops, message.ordered ? this.turnOf(id) : undefined);
      this.answer({ kind: 'done', id, tally: runner.tally });
    };
    const { runner } = this;
    assert(runner, 'a worker is told what it works for first');
    const done = settled(runner) ? run(runner) : runner.then(run);
    done.catch((cause) => this.answer({ kind: 'failed', id, error: toWire(cause) }));
  }

  private turnOf(id: number) {
    return (units?: Units) =>
      new Promise<Placement | undefined>((resolve) => {
        this.waiting.set(id, resolve);
        this.answer({ kind: 'turn', id, units });
      });
  }

  private makeRunner(setup: WorkerSetup): Awaitable<Runner> {
    for (const storage of this.opened.splice(0)) storage.close();
    const { target, data, stream, options } = setup;
    const sources = setup.sources.map((handle) => this.openHandle(handle, false));
    const dataFile = data ? this.openHandle(data, true) : undefined;
    const file = stream ? this.host.openPipe(plain(target)) : this.openHandle(target, true);
    // A host that opens files at once has its runner before the first job comes.
    if (sources.every(settled) && settled(dataFile) && settled(file)) {
      return this.runnerOver(sources, { file, data: dataFile }, options);
    }
    return Promise.all([Promise.all(sources), file, dataFile]).then(([sources, file, data]) =>
      this.runnerOver(sources, { file, data }, options),
    );
  }

  private runnerOver(
    sources: readonly Storage[],
    target: { readonly file: Pick<Storage, 'write' | 'zero'>; readonly data: Storage | undefined },
    options: WorkerSetup['options'],
  ): Runner {
    const { file, data } = target;
    this.opened = [...sources, file, data].filter((storage): storage is Storage => {
      return storage !== undefined && 'close' in storage;
    });
    if (options.kind === 'raw') return new RawRunner(sources, file, options);
    return new ImageRunner(sources, { file, data: data ?? file }, options);
  }

  private openHandle(handle: StorageHandle, writable: boolean): Awaitable<Storage> {
    if (!isEncrypted(handle)) return this.host.open(handle, writable);
    const decrypting = (storage: Storage) =>
      handle.kind === 'cipher'
        ? new CipherStorage(storage, { keys: handle.keys, start: handle.start })
        : new GuestCipherStorage(storage, handle.keys);
    const inner = this.openHandle(handle.inner, writable);
    return settled(inner) ? decrypting(inner) : inner.then(decrypting);
  }
}

function isEncrypted(handle: StorageHandle): handle is Exclude<StorageHandle, PlainHandle> {
  return handle.kind === 'cipher' || handle.kind === 'guest-cipher';
}

function plain(handle: StorageHandle): PlainHandle {
  assert(!isEncrypted(handle), 'sectors are not written without positions');
  return handle;
}
