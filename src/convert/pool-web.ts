/** Workers as a browser has them, in pages and in workers of pages. */
import type { FromWorker, JobWorker, ToWorker, WorkerSetup } from './pool.ts';
import { type JobThread, ThreadWorker } from './pool-thread.ts';

class WebThread implements JobThread {
  private readonly worker = new Worker(new URL('./web-worker.js', import.meta.url), {
    type: 'module',
  });
  private listener: Parameters<JobThread['listen']>[0];

  constructor() {
    const { worker } = this;
    worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.listener?.message(data);
    worker.onerror = (event) => {
      this.listener?.fail(new Error(`a conversion worker failed: ${event.message}`));
    };
    worker.onmessageerror = () => {
      this.listener?.fail(new Error('a message of a conversion worker could not be read'));
    };
  }

  send(message: ToWorker, moved: readonly ArrayBuffer[]): void {
    this.worker.postMessage(message, [...moved]);
  }

  listen(listener: Parameters<JobThread['listen']>[0]): void {
    this.listener = listener;
  }

  /** A page lives on without anybody waiting. */
  needed(): void {}

  async end(): Promise<void> {
    this.worker.terminate();
  }
}

/**
 * Starts workers; they are `web-worker.js`, which lies beside the library's file. A content
 * security policy has to allow `'wasm-unsafe-eval'` and workers from there.
 */
export function startWebWorkers(setup: WorkerSetup, count: number): JobWorker[] {
  return Array.from({ length: count }, () => new ThreadWorker(new WebThread(), setup));
}
