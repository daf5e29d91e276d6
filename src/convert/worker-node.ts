/** A conversion worker: the entry point of its thread in Node. */
import { parentPort, workerData } from 'node:worker_threads';
import { assert } from '../base/errors.ts';
import { adoptKernelModule } from '../kernels/wasm.ts';
import { blobStorage } from '../storage/blob.ts';
import { NodeFileStorage } from '../storage/node-file.ts';
import { PipeStorage } from '../storage/node-pipe.ts';
import type { Storage, StorageHandle } from '../storage/storage.ts';
import { type FromWorker, type ToWorker, toWire, type WorkerSetup } from './pool.ts';
import { JobRunner } from './worker.ts';

function openHandle(handle: StorageHandle, writable: boolean): Storage {
  if (handle.kind === 'blob') return blobStorage(handle.blob, { name: handle.name });
  return new NodeFileStorage(handle.fd, handle.name, writable, false);
}

function serve(setup: WorkerSetup): void {
  const port = parentPort;
  assert(port, 'a worker needs its parent');
  adoptKernelModule(setup.module);
  const sources = setup.sources.map((handle) => openHandle(handle, false));
  const { target } = setup;
  assert(target.kind === 'fd', 'a target is a file');
  const out = setup.stream ? new PipeStorage(target.fd, target.name) : openHandle(target, true);
  const runner = new JobRunner(sources, out, setup.options);
  const answer = (message: FromWorker) => port.postMessage(message);
  let go = () => {};
  const turn = () =>
    new Promise<void>((resolve) => {
      go = resolve;
      answer({ kind: 'turn' });
    });
  let last = Promise.resolve();
  port.on('message', (message: ToWorker) => {
    if (message.kind === 'go') {
      go();
      return;
    }
    last = last
      .then(() => runner.run(message.ops, message.ordered ? turn : undefined))
      .then(
        () => answer({ kind: 'done' }),
        (cause) => answer({ kind: 'failed', error: toWire(cause) }),
      );
  });
}

serve(workerData as WorkerSetup);
