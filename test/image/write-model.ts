/**
 * The model of a writable disk: an array of bytes. Random requests go to both, some of them many
 * at a time; what the disk reads as must be what the array has, at any time and after reopening.
 */
import { isQcow2Error } from '../../src/base/errors.ts';
import type { WritableDisk } from '../../src/image/disk.ts';
import type { Random } from '../random.ts';
import { delayedFiles } from './faulty-storage.ts';
import { type Files, MemoryFiles } from './paged-bytes.ts';
import { checkQcow2 } from './qcow2-check.ts';
import {
  describeSetting,
  firstContent,
  firstDifference,
  firstFiles,
  IMAGE,
  randomBytes,
  readWhole,
  type WriteEngine,
  type WriteSetting,
} from './write-engine.ts';

/** How long, and what with. */
export interface ModelOptions {
  /** Steps; one is a request, a batch of them, a flush, a resize, or closing and opening again. */
  readonly steps: number;
  /** Requests start and end on multiples of this. 1: anywhere. */
  readonly unit?: number;
  /** The storage answers late and in any order. */
  readonly delayed?: boolean;
  readonly resize?: boolean;
  readonly compress?: boolean;
  /** Looks at the files after each close, beside the checker. */
  readonly afterClose?: (files: MemoryFiles, content: Uint8Array) => Promise<void>;
}

/** What goes to the disk and to the model. */
type Request =
  | { readonly kind: 'write' | 'compress'; readonly at: number; readonly bytes: Uint8Array }
  | { readonly kind: 'zero'; readonly at: number; readonly length: number; unmap: boolean }
  | { readonly kind: 'discard'; readonly at: number; readonly length: number }
  | { readonly kind: 'read'; readonly at: number; readonly length: number }
  | { readonly kind: 'flush' };

/** Runs a random workload. @throws an error that has the setting and the last steps in it */
export async function runModel(
  engine: WriteEngine,
  setting: WriteSetting,
  next: Random,
  options: ModelOptions,
): Promise<void> {
  const run = new ModelRun(engine, setting, next, options);
  try {
    await run.all();
  } catch (cause) {
    const text = cause instanceof Error ? cause.message : String(cause);
    const steps = run.log.slice(-12).join('\n  ');
    throw new Error(`${describeSetting(setting)}\n${text}\nafter\n  ${steps}`, { cause });
  }
}

class ModelRun {
  readonly log: string[] = [];
  private content: Uint8Array;
  private readonly memory: MemoryFiles;
  private readonly files: Files;
  private disk!: WritableDisk;
  private readonly cluster: number;

  constructor(
    private readonly engine: WriteEngine,
    private readonly setting: WriteSetting,
    private readonly next: Random,
    private readonly options: ModelOptions,
  ) {
    const first = firstFiles(next, setting);
    this.content = firstContent(first, setting);
    this.memory = new MemoryFiles(first);
    this.files = options.delayed ? delayedFiles(this.memory, next) : this.memory;
    this.cluster = 2 ** setting.clusterBits;
  }

  async all(): Promise<void> {
    const { next, options, setting } = this;
    this.log.push('create');
    this.disk = await this.engine.create(this.files, setting);
    await this.compareAll();
    for (let step = 0; step < options.steps; step++) {
      const what = next.below(24);
      if (what === 0) await this.reopen();
      else if (what === 1) await this.compareAll();
      else if (what === 2 && options.resize !== false) await this.resize();
      else if (what === 3) await this.beyond();
      else if (what === 4) await this.discardToEnd();
      else if (what < 12) await this.batch(2 + next.below(6));
      else await this.batch(1);
    }
    await this.compareAll();
    await this.close();
  }

  // ---- steps ----------------------------------------------------------------------------------

  /** Some requests at once. Those that overlap have to look as if they came one by one. */
  private async batch(count: number): Promise<void> {
    const requests: Request[] = [];
    let near: number | undefined;
    for (let i = 0; i < count; i++) {
      const request = this.request(near);
      if (!request) continue;
      requests.push(request);
      if (request.kind !== 'flush') near = request.at;
    }
    this.log.push(requests.map(describe).join(' | '));
    const answers = requests.map((request) => this.send(request));
    const wanted = requests.map((request) => this.model(request));
    const results = await Promise.allSettled(answers);
    for (const [i, result] of results.entries()) {
      if (result.status === 'rejected') throw result.reason;
      if (!wanted[i] || !result.value) continue;
      const wrong = firstDifference(result.value, wanted[i]);
      if (wrong) throw new Error(`${describe(requests[i]!)}: ${wrong} (counted from its start)`);
    }
  }

  private async send(request: Request): Promise<Uint8Array | undefined> {
    const { disk } = this;
    if ('bytes' in request) {
      const { kind, at, bytes } = request;
      await (kind === 'write' ? disk.write(at, bytes) : disk.writeCompressed(at, bytes));
    } else if (request.kind === 'discard') await disk.discard(request.at, request.length);
    else if (request.kind === 'flush') await disk.flush();
    else if (request.kind === 'zero') {
      const { unmap } = request;
      await disk.zero(request.at, request.length, unmap ? { unmap } : undefined);
    } else {
      const bytes = new Uint8Array(request.length).fill(0xa5);
      await disk.read(request.at, bytes);
      return bytes;
    }
    return undefined;
  }

  private model(request: Request): Uint8Array | undefined {
    const { content, cluster } = this;
    if ('bytes' in request) {
      content.set(request.bytes, request.at);
    } else if (request.kind === 'zero') {
      content.fill(0, request.at, request.at + request.length);
    } else if (request.kind === 'discard' && this.canDiscard()) {
      const start = Math.ceil(request.at / cluster) * cluster;
      const end = Math.floor((request.at + request.length) / cluster) * cluster;
      if (end > start) content.fill(0, start, end);
    } else if (request.kind === 'read') {
      return content.slice(request.at, request.at + request.length);
    }
    return undefined;
  }

  /** Version 2 cannot hide a backing file's bytes but by writing, which a discard does not. */
  private canDiscard(): boolean {
    return this.setting.version > 2 || this.setting.backingBytes === undefined;
  }

  /** @param near where an earlier request of the batch is */
  private request(near: number | undefined): Request | undefined {
    const { next, cluster } = this;
    const size = this.content.length;
    const kind = next.below(16);
    if (kind === 0) return { kind: 'flush' };
    if (kind === 1 && this.setting.dataFile === 'none' && this.options.compress !== false) {
      const first = this.place(near);
      const at = first - (first % cluster);
      const length = Math.min(size - at, cluster * (1 + next.below(4)));
      return { kind: 'compress', at, bytes: randomBytes(next, length) };
    }
    const { at, length } = this.range(near);
    if (length === 0) return undefined;
    if (kind < 4) return { kind: 'zero', at, length, unmap: next.oneIn(2) };
    if (kind === 4) return { kind: 'zero', ...this.widened(at, length), unmap: next.oneIn(2) };
    if (kind < 7) {
      const wide = next.oneIn(2) ? this.widened(at, length) : { at, length };
      // Whether a last cluster that the disk's end cuts counts as whole is asked elsewhere.
      if (wide.at + wide.length === size && size % cluster !== 0) return undefined;
      return { kind: 'discard', ...wide };
    }
    if (kind < 10) return { kind: 'read', at, length };
    return { kind: 'write', at, bytes: randomBytes(next, length) };
  }

  private place(near: number | undefined): number {
    const { next, cluster } = this;
    const { unit = 512 } = this.options;
    const size = this.content.length;
    const around = (near ?? 0) - cluster + next.below(3 * cluster);
    const at =
      near === undefined || next.oneIn(3)
        ? next.below(size)
        : Math.max(0, Math.min(size - 1, around));
    return at - (at % unit);
  }

  private range(near: number | undefined): { at: number; length: number } {
    const { next, cluster } = this;
    const { unit = 512 } = this.options;
    const at = this.place(near);
    const most = next.pick([unit, cluster, cluster, 4 * cluster, 40 * cluster]);
    const length = Math.min(this.content.length - at, 1 + next.below(Math.min(most, 2 ** 20)));
    // Disks end on a sector, so what is rounded up does not reach past the end.
    return { at, length: Math.ceil(length / unit) * unit };
  }

  private widened(at: number, length: number): { at: number; length: number } {
    const { cluster } = this;
    const start = at - (at % cluster);
    const end = Math.min(this.content.length, Math.ceil((at + length) / cluster) * cluster);
    return { at: start, length: end - start };
  }

  /** A discard up to the end of the disk: its last cluster may count as whole, or not. */
  private async discardToEnd(): Promise<void> {
    if (!this.canDiscard()) return;
    const { content, cluster } = this;
    const size = content.length;
    const tail = size - (size % cluster);
    const { at } = this.widened(this.place(undefined), 1);
    this.log.push(`discard ${at} to the end`);
    await this.disk.discard(at, size - at);
    content.fill(0, at, tail);
    const last = new Uint8Array(size - tail);
    await this.disk.read(tail, last);
    if (last.every((byte) => byte === 0)) content.fill(0, tail);
  }

  private async resize(): Promise<void> {
    const { next, setting, cluster } = this;
    const before = this.content.length;
    const most = Math.min(2 * setting.size, 2 ** 22 + 3 * cluster);
    if (!next.oneIn(3)) return this.resizeTo(512 * (1 + next.below(most / 512)));
    // Shorter and longer again, with bytes on both sides of the cut: they must not come back.
    const size = 512 * (1 + next.below(before / 512));
    const at = Math.max(0, size - cluster);
    const bytes = new Uint8Array(Math.min(before, size + cluster) - at).fill(1 + next.below(255));
    this.log.push(`write ${at} +${bytes.length}`);
    await this.disk.write(at, bytes);
    this.content.set(bytes, at);
    await this.resizeTo(size);
    if (next.oneIn(2)) await this.reopen();
    await this.resizeTo(512 * (size / 512 + next.below((most - size) / 512)));
  }

  private async resizeTo(size: number): Promise<void> {
    this.log.push(`resize from ${this.content.length} to ${size}`);
    await this.disk.resize(size);
    const content = new Uint8Array(size);
    content.set(this.content.subarray(0, size));
    this.content = content;
    if (this.disk.size !== size) throw new Error(`the disk says that it has ${this.disk.size}`);
  }

  /** Requests past the end are refused and change nothing. */
  private async beyond(): Promise<void> {
    const size = this.content.length;
    this.log.push('past the end');
    const at = size - 512 * this.next.below(2);
    const requests = [
      () => this.disk.write(at, new Uint8Array(1024).fill(0x77)),
      () => this.disk.zero(at, 1024),
      () => this.disk.discard(at, 1024),
      () => this.disk.read(at, new Uint8Array(1024)),
    ];
    for (const [i, request] of requests.entries()) {
      const error = await request().then(
        () => undefined,
        (cause) => cause,
      );
      if (!isQcow2Error(error, 'OUT_OF_RANGE')) {
        const kind = ['write', 'zero', 'discard', 'read'][i];
        throw new Error(`${kind} at ${at} of a disk of ${size}: ${error ?? 'not refused'}`);
      }
    }
  }

  private async reopen(): Promise<void> {
    await this.close();
    this.log.push('open');
    this.disk = await this.engine.open(this.files, this.setting);
    if (this.disk.size !== this.content.length) {
      throw new Error(`the disk has ${this.disk.size} bytes, not ${this.content.length}`);
    }
    if (this.next.oneIn(2)) await this.compareAll();
  }

  private async close(): Promise<void> {
    this.log.push('close');
    await this.disk.close();
    const { corruptions, leaks, leaksPastEnd, dirty } = checkQcow2(this.memory.bytes(IMAGE));
    const wrong = [...corruptions];
    if (leaks > 0) wrong.push(`${leaks} leaked clusters`);
    if (leaksPastEnd > 0) wrong.push(`${leaksPastEnd} leaked clusters past the end of the file`);
    if (dirty) wrong.push('the dirty bit is set');
    if (wrong.length > 0) throw new Error(`after closing:\n  ${wrong.slice(0, 8).join('\n  ')}`);
    await this.options.afterClose?.(this.memory, this.content);
  }

  private async compareAll(): Promise<void> {
    this.log.push('compare');
    const bytes = await readWhole(this.disk, this.next);
    const wrong = firstDifference(bytes, this.content);
    if (wrong) throw new Error(wrong);
  }
}

function describe(request: Request): string {
  if (request.kind === 'flush') return 'flush';
  const { kind, at } = request;
  const unmap = kind === 'zero' && request.unmap ? ' unmap' : '';
  const length = 'bytes' in request ? request.bytes.length : request.length;
  return `${kind}${unmap} ${at} +${length}`;
}
