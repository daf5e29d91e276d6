/** The entry point of browsers' workers: for conversions, and for files that pages cannot open. */
import { assert, Qcow2Error } from '../base/errors.ts';
import { blobStorage } from '../storage/blob.ts';
import { httpResourceStorage } from '../storage/http.ts';
import { openOpfsHere } from '../storage/opfs.ts';
import { type RemoteRequest, RemoteServer } from '../storage/remote.ts';
import type { Storage } from '../storage/storage.ts';
import type { FromWorker, ToWorker } from './pool.ts';
import { JobServer, type PlainHandle, type WorkerHost } from './serve.ts';

/** What of a worker's global scope is used here. */
interface WorkerScope {
  postMessage(message: unknown, moved: ArrayBuffer[]): void;
  onmessage: ((event: MessageEvent) => void) | null;
}

function open(handle: PlainHandle, writable: boolean): Storage | Promise<Storage> {
  switch (handle.kind) {
    case 'blob':
      return blobStorage(handle.blob, { name: handle.name });
    case 'http':
      return httpResourceStorage(handle.resource, handle.name);
    case 'opfs':
      return openOpfsHere(handle.file, writable);
    default:
      throw new Qcow2Error('UNSUPPORTED', 'a browser has no file descriptors');
  }
}

const host: WorkerHost = {
  open,
  openPipe() {
    throw new Qcow2Error('UNSUPPORTED', 'workers of a browser have no pipes');
  },
};

const scope = globalThis as unknown as WorkerScope;
const jobs = new JobServer(host, (answer: FromWorker) => scope.postMessage(answer, []));
const storage = new RemoteServer(
  async (handle, writable) => {
    const isEncrypted = handle.kind === 'cipher' || handle.kind === 'guest-cipher';
    assert(!isEncrypted, 'sectors are decrypted by who asks for them');
    return open(handle, writable);
  },
  (answer, moved) => scope.postMessage(answer, [...moved]),
);

scope.onmessage = ({ data }) => {
  const message = data as ToWorker | { readonly kind: 'storage'; readonly request: RemoteRequest };
  if (message.kind === 'storage') storage.receive(message.request);
  else jobs.receive(message);
};
