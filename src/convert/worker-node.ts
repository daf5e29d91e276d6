/** A conversion worker: the entry point of its thread in Node. */
import { parentPort, workerData } from 'node:worker_threads';
import { assert } from '../base/errors.ts';
import { CipherStorage } from '../crypto/cipher-storage.ts';
import { adoptKernelModule } from '../kernels/wasm.ts';
import { blobStorage } from '../storage/blob.ts';
import { NodeFileStorage } from '../storage/node-file.ts';
import { PipeStorage } from '../storage/node-pipe.ts';
import type { Storage, StorageHandle } from '../storage/storage.ts';
import { ImageRunner } from './image-runner.ts';
import { type FromWorker, type ToWorker, toWire, type WorkerSetup } from './pool.ts';
import { RawRunner } from './raw-runner.ts';
import type { Placement, Runner, Units } from './runner.ts';

function openHandle(handle: StorageHandle, writable: boolean): Storage {
  if (handle.kind === 'blob') return blobStorage(handle.blob, { name: handle.name });
  if (handle.kind === 'cipher') {
    const { keys, start } = handle;
    return new CipherStorage(openHandle(handle.inner, writable), { keys, start });
  }
  return new NodeFileStorage(handle.fd, handle.name, writable, false);
}

function makeRunner(setup: WorkerSetup): Runner {
  const { target, data, options, stream } = setup;
  const sources = setup.sources.map((handle) => openHandle(handle, false));
  const file =
    stream && target.kind === 'fd'
      ? new PipeStorage(target.fd, target.name)
      : openHandle(target, true);
  if (options.kind === 'raw') return new RawRunner(sources, file, options);
  return new ImageRunner(sources, { file, data: data ? openHandle(data, true) : file }, options);
}

function serve(setup: WorkerSetup): void {
  const port = parentPort;
  assert(port, 'a worker needs its parent');
  adoptKernelModule(setup.module);
  let runner = makeRunner(setup);
  const answer = (message: FromWorker) => port.postMessage(message);
  const waiting = new Map<number, (placement: Placement | undefined) => void>();
  const turnOf = (id: number) => (units?: Units) =>
    new Promise<Placement | undefined>((resolve) => {
      waiting.set(id, resolve);
      answer({ kind: 'turn', id, units });
    });
  port.on('message', (message: ToWorker) => {
    if (message.kind === 'setup') {
      runner = makeRunner(message.setup);
      return;
    }
    const { id } = message;
    if (message.kind === 'go') {
      waiting.get(id)?.(message.placement);
      waiting.delete(id);
      return;
    }
    const { tally } = runner;
    runner.run(message.ops, message.ordered ? turnOf(id) : undefined).then(
      () => answer({ kind: 'done', id, tally }),
      (cause) => answer({ kind: 'failed', id, error: toWire(cause) }),
    );
  });
}

serve(workerData as WorkerSetup);
