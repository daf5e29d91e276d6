/**
 * Power cuts at every moment of a workload. Whatever the storage kept of what was not flushed, the
 * image must open and be whole, and every byte that a flush had acknowledged must be there.
 */
import { isQcow2Error } from '../../src/base/errors.ts';
import type { WritableDisk } from '../../src/image/disk.ts';
import type { Random } from '../random.ts';
import { CrashFiles, type CrashState } from './crash-storage.ts';
import { type Doubt, DoubtfulBytes } from './doubtful-bytes.ts';
import { delayedFiles } from './faulty-storage.ts';
import { checkQcow2 } from './qcow2-check.ts';
import { type Batch, describeStep, outcome, send } from './workload.ts';
import {
  describeSetting,
  firstContent,
  firstFiles,
  IMAGE,
  randomBytes,
  readWhole,
  type WriteEngine,
  type WriteSetting,
} from './write-engine.ts';

/** How thorough. */
export interface PowerCutOptions {
  /** Random states at each moment. */
  readonly subsets?: number;
  /** At most so many moments. */
  readonly cutsMax?: number;
  /** The storage answers late and in any order. */
  readonly delayed?: boolean;
  /** What a range may hold that was being changed: anything, or only what was written there. */
  readonly doubt?: Doubt;
  /** The workload ends with closing the image; its last moments are tried, too. */
  readonly close?: boolean;
}

/** What the disk held, and when. */
interface Era {
  /** Where in the history a batch begins, or is done. */
  readonly start: number;
  readonly end: number;
  readonly batch: Batch;
  /** Content and size before it. */
  readonly before: Uint8Array;
}

/** Runs a workload and then looks at every state. @returns how many there were */
export async function runPowerCuts(
  engine: WriteEngine,
  setting: WriteSetting,
  workload: readonly Batch[],
  next: Random,
  options: PowerCutOptions = {},
): Promise<number> {
  const first = firstFiles(next, setting);
  const files = new CrashFiles(first);
  const host = options.delayed ? delayedFiles(files, next) : files;
  const disk = await engine.create(host, setting);
  await disk.flush();
  const from = files.position;
  const eras: Era[] = [];
  let content = firstContent(first, setting);
  for (const batch of workload) {
    const start = files.position;
    await Promise.all(batch.map((step) => send(disk, step)));
    eras.push({ start, end: files.position, batch, before: content });
    for (const step of batch) content = after(content, step);
  }
  const start = files.position;
  if (options.close !== false) await disk.close();
  // Closing acknowledges all, as a flush does.
  const batch: Batch = options.close !== false ? [{ kind: 'flush' }] : [];
  eras.push({ start, end: files.position, batch, before: content });

  let count = 0;
  for (const state of files.states(next, { ...options, from })) {
    count++;
    await judge(engine, setting, state, { eras, next, doubt: options.doubt ?? 'any' }).catch(
      (cause) => {
        const text = cause instanceof Error ? cause.message : String(cause);
        const era = eras.findIndex(({ end }) => end >= state.cut);
        const steps = eras.slice(Math.max(0, era - 4), era + 1).map(describeEra);
        const events = files.describe(Math.max(0, state.cut - 25), state.cut);
        throw new Error(
          `${describeSetting(setting)}\n${text}\n${state.about}\nsteps until then:\n${steps.join(
            '\n',
          )}\nevents until then:\n${events}`,
          { cause },
        );
      },
    );
  }
  return count;
}

/** Content after a step. */
function after(content: Uint8Array, step: Batch[number]): Uint8Array {
  const change = outcome(step, content.length);
  if (!change) return content;
  const result = new Uint8Array(step.kind === 'resize' ? step.size : content.length);
  result.set(content.subarray(0, result.length));
  if (change.at < result.length) {
    result.set(change.bytes.subarray(0, result.length - change.at), change.at);
  }
  return result;
}

interface JudgeContext {
  readonly eras: readonly Era[];
  readonly next: Random;
  readonly doubt: Doubt;
}

async function judge(
  engine: WriteEngine,
  setting: WriteSetting,
  state: CrashState,
  { eras, next, doubt }: JudgeContext,
): Promise<void> {
  const { files, cut } = state;
  const found = checkQcow2(files.bytes(IMAGE));
  if (found.corruptions.length > 0) throw damaged('found', found.corruptions);
  if (found.dirty && !setting.lazy) throw new Error('dirty without lazy refcounts');

  const wanted = expected(eras, cut, doubt);
  const disk = await engine.open(files, setting).catch((cause) => {
    throw new Error(`does not open: ${isQcow2Error(cause) ? cause.code : ''} ${cause}`, { cause });
  });
  const content = await readWhole(disk);
  const wrong = wanted.mismatch(content);
  if (wrong) throw new Error(wrong);

  if (next.oneIn(3)) await growsEmpty(disk, content, next);
  // Life goes on: what is found is written to, closed, and must be whole again.
  const at = 512 * next.below(content.length / 512);
  const length = Math.min(content.length - at, 512 * (1 + next.below(9)));
  const bytes = randomBytes(next, length);
  await disk.write(at, bytes);
  content.set(bytes, at);
  await disk.close();
  const left = checkQcow2(files.bytes(IMAGE));
  if (left.corruptions.length > 0) throw damaged('left by the next writer', left.corruptions);
  if (left.dirty) throw new Error('still dirty after a writer has closed it');
  if (!next.oneIn(4)) return;
  const again = await engine.open(files, setting);
  const lost = new DoubtfulBytes(content, content.length).mismatch(await readWhole(again));
  await again.close();
  if (lost) throw new Error(`after another write: ${lost}`);
}

/** What lies behind the end is nobody's, whatever was cut off there. */
async function growsEmpty(disk: WritableDisk, content: Uint8Array, next: Random): Promise<void> {
  const more = 512 * (1 + next.below(256));
  await disk.resize(content.length + more);
  const fresh = new Uint8Array(more).fill(0xa5);
  await disk.read(content.length, fresh);
  const at = fresh.findIndex((byte) => byte !== 0);
  if (at >= 0) throw new Error(`byte ${at} of what the disk grew by is ${fresh[at]}`);
  await disk.resize(content.length);
}

/** What may be found after a cut: the last flush that was done counts, and what began since. */
function expected(eras: readonly Era[], cut: number, doubt: Doubt): DoubtfulBytes {
  let last = 0;
  for (const [index, { end, batch }] of eras.entries()) {
    if (end <= cut && batch.some(({ kind }) => kind === 'flush')) last = index;
  }
  const { before } = eras[last]!;
  let { length } = before;
  const result = new DoubtfulBytes(before, length);
  for (const { start, batch } of eras.slice(last)) {
    // Nothing of it can have reached the storage: an event that it caused comes after the cut.
    if (start >= cut) break;
    for (const step of batch) {
      const change = outcome(step, length);
      if (step.kind === 'resize') {
        length = step.size;
        result.sizes.add(length);
      }
      if (change) result.maybe(change.at, change.bytes, doubt);
    }
  }
  return result;
}

function damaged(when: string, corruptions: readonly string[]): Error {
  return new Error(`corruption ${when}:\n  ${corruptions.slice(0, 8).join('\n  ')}`);
}

function describeEra({ start, end, batch }: Era): string {
  return `  events ${start} to ${end}: ${batch.map(describeStep).join(' | ')}`;
}
