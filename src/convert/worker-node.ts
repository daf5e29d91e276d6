/** A conversion worker: the entry point of its thread in Node. */
import { parentPort } from 'node:worker_threads';
import { assert } from '../base/errors.ts';
import { blobStorage } from '../storage/blob.ts';
import { NodeFileStorage } from '../storage/node-file.ts';
import { PipeStorage } from '../storage/node-pipe.ts';
import type { ToWorker } from './pool.ts';
import { JobServer, type PlainHandle, type WorkerHost } from './serve.ts';

const host: WorkerHost = {
  open(handle, writable) {
    if (handle.kind === 'blob') return blobStorage(handle.blob, { name: handle.name });
    const { fd, name } = needFile(handle);
    return new NodeFileStorage(fd, name, writable, false);
  },
  openPipe(handle) {
    const { fd, name } = needFile(handle);
    return new PipeStorage(fd, name);
  },
};

function needFile(handle: PlainHandle): Extract<PlainHandle, { kind: 'fd' }> {
  assert(handle.kind === 'fd', 'Node has no other files');
  return handle;
}

const port = parentPort;
assert(port, 'a worker needs its parent');
const server = new JobServer(host, (message) => port.postMessage(message));
port.on('message', (message: ToWorker) => server.receive(message));
