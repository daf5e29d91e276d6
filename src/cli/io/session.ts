/** What commands share: the open disk, and the requests that are under way behind their backs. */
import { isQcow2Error } from '../../base/errors.ts';
import type { WritableDisk } from '../../image/disk.ts';
import { errorText } from './errno.ts';
import { CommandFailure } from './io-command.ts';
import type { IoHost } from './io-host.ts';
import type { OpenedDisk } from './open.ts';

/** One run of the tool. */
export class Session {
  /** The disk that commands work on. */
  opened: OpenedDisk | undefined;
  /** `quit` was called. */
  done = false;
  /** Something failed: the tool ends with 1. */
  failed = false;
  /** Requests in the background, oldest first. */
  private readonly background: Promise<void>[] = [];
  /** What those have to say that are over, in the order they ended. */
  private readonly said: string[] = [];

  /** `--image-opts`: where a path would stand there are settings. */
  readonly imageOptions: boolean;

  constructor(
    readonly host: IoHost,
    options: { readonly imageOptions?: boolean } = {},
  ) {
    this.imageOptions = options.imageOptions ?? false;
  }

  /** The open disk. Commands that need one are not called without. */
  get current(): OpenedDisk {
    if (!this.opened) throw new CommandFailure("no file open, try 'help open'", 'error');
    return this.opened;
  }

  /** @throws CommandFailure where the disk is not to be written */
  get writable(): WritableDisk {
    const { disk, readOnly, writable } = this.current;
    if (readOnly) throw new CommandFailure('Block node is read-only', 'program');
    if (!writable) {
      const message = `writing ${disk.format} images is not supported`;
      throw new CommandFailure(message, 'program');
    }
    return writable;
  }

  /** Starts a request that reports when somebody waits. */
  startBackground(request: () => Promise<string>): void {
    const done = request().then((text) => {
      if (text) this.said.push(text);
    });
    this.background.push(done);
    // Who waits for it hears what went wrong.
    done.catch(() => {});
  }

  /** Tells what came of requests in the background that are over. */
  report(): void {
    for (const text of this.said.splice(0)) this.host.out(text);
  }

  /** Waits for all requests in the background, and tells what came of them. */
  async settle(): Promise<void> {
    try {
      while (this.background.length > 0) await this.background.shift();
    } finally {
      this.report();
    }
  }

  /**
   * The same before a command that would come too soon for them. Nobody waits for a request that is
   * held at a breakpoint, nor for those behind it: it may be this command that lets it go.
   */
  async settleUnheld(): Promise<void> {
    const held = this.opened?.rules?.whenAnyHeld().then(() => 'held');
    try {
      while (this.background.length > 0) {
        const request = this.background[0] as Promise<void>;
        if ((await Promise.race(held ? [request, held] : [request])) === 'held') return;
        this.background.shift();
      }
    } finally {
      this.report();
    }
  }

  /** Closes the disk, if one is open. */
  async close(): Promise<void> {
    await this.settle();
    const { opened } = this;
    this.opened = undefined;
    if (!opened) return;
    const { disk, writable, readOnly, flags } = opened;
    try {
      try {
        if (writable && !readOnly && flags.cache !== 'unsafe') await writable.flush();
      } finally {
        await disk.close();
      }
    } catch (cause) {
      // Of an image that was found corrupt all has been told.
      if (isQcow2Error(cause, 'CORRUPT')) return;
      // QEMU's tool tells of caches that stay unwritten, and ends as it would have.
      const why = errorText(cause);
      if (disk.format !== 'qcow2') return;
      this.host.error(`Failed to flush the L2 table cache: ${why}`);
      this.host.error(`Failed to flush the refcount block cache: ${why}`);
    }
  }

  /** Runs a request: what fails becomes a message with the C library's words. */
  async attempt<T>(what: string, request: () => Promise<T>): Promise<T> {
    try {
      return await request();
    } catch (cause) {
      throw new CommandFailure(`${what} failed: ${errorText(cause)}`);
    }
  }
}
