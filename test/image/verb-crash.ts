/**
 * Verbs that change whole images (amend, commit, rebase), under power cuts and failing storage: at
 * every moment what a guest sees is what it saw before, or what it is to see after.
 */
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import { type Random, rng, SEED } from '../random.ts';
import { CrashFiles } from './crash-storage.ts';
import { FAULT_KINDS, type FaultKind, FaultyFiles } from './faulty-storage.ts';
import { type FileOpener, MemoryFiles, type PagedBytes } from './paged-bytes.ts';
import { checkQcow2 } from './qcow2-check.ts';
import { SLOW } from './slow.ts';

/** One change of some files. */
export interface Verb {
  /** The files before it. */
  readonly before: ReadonlyMap<string, PagedBytes>;
  /** Opens what it needs, does its work, and closes what it opened. */
  run(files: FileOpener): Promise<void>;
  /** Asserts all that must hold at any moment. The files are the judge's own, to write to. */
  judge(files: MemoryFiles): Promise<void>;
}

/** Adds two tests for each case of a verb: the power is cut, and calls to the storage fail. */
export function testVerbs<T extends { readonly about: string }>(
  test: (name: string, run: () => Promise<void>) => unknown,
  cases: readonly T[],
  verbOf: (one: T, next: Random) => Promise<Verb>,
): void {
  for (const [number, one] of cases.entries()) {
    const trial = (salt: number, proof: typeof cutPower) => async () => {
      const next = rng((SEED ^ Math.imul(number + salt, 0x9e3779b1)) | 0);
      await proof(await verbOf(one, next), next).catch((cause: Error) => {
        throw new Error(`SEED=${SEED} ${one.about}\n${cause.stack}`, { cause });
      });
    };
    test(`a power cut: ${one.about}`, trial(1, cutPower));
    test(`storage that fails: ${one.about}`, trial(101, failCalls));
  }
}

/** Cuts the power at moments of a verb, and looks at what may be found then. */
async function cutPower(verb: Verb, next: Random): Promise<void> {
  const files = new CrashFiles(verb.before);
  await verb.run(files);
  assert.ok(files.position > 0, 'the verb changes something');
  await judge(verb, files.now, next);
  for (const state of files.states(next, SLOW ? { subsets: 4 } : { subsets: 1, cutsMax: 6 })) {
    await judge(verb, state.files, next).catch((cause: Error) => {
      const events = files.describe(Math.max(0, state.cut - 25), state.cut);
      const what = `${cause.message}\n${state.about}\nevents until then:\n${events}`;
      throw new Error(what, { cause });
    });
  }
}

/** Lets calls to the storage fail, one in a run. */
async function failCalls(verb: Verb, next: Random): Promise<void> {
  const whole = new FaultyFiles(new MemoryFiles(copies(verb.before)));
  await verb.run(whole);
  for (const kind of FAULT_KINDS) {
    const calls = whole.counts[kind];
    const most = SLOW ? calls : Math.min(calls, 2);
    for (let i = 0; i < most; i++) {
      const index = most === calls ? i : next.below(calls);
      await failCall(verb, next, { kind, index });
    }
  }
}

async function failCall(
  verb: Verb,
  next: Random,
  { kind, index }: { readonly kind: FaultKind; readonly index: number },
): Promise<void> {
  const how = kind === 'write' && next.oneIn(2) ? 'NO_SPACE' : 'IO';
  const partial = next.pick(['none', 'half', 'all'] as const);
  const plan = { kinds: [kind], index, how, partial, forever: next.oneIn(3) } as const;
  const memory = new MemoryFiles(copies(verb.before));
  const files = new FaultyFiles(memory);
  files.arm(plan);
  let ended = 'succeeded';
  const work = async () => {
    await verb.run(files).catch((cause) => {
      ended = cause.stack;
      if (!isQcow2Error(cause) || files.failures === 0) throw cause;
    });
    await judge(verb, memory, next);
  };
  await work().catch((cause: Error) => {
    const about = `${JSON.stringify(plan)}\nthe verb: ${ended}`;
    throw new Error(`${cause.message}\n${about}`, { cause });
  });
}

/** What was found is sound, and the verb can be tried again. */
async function judge(verb: Verb, files: MemoryFiles, next: Random): Promise<void> {
  const again = next.oneIn(4) ? new MemoryFiles(copies(files.all)) : undefined;
  await verb.judge(files);
  if (!again) return;
  const failed = (what: string) => (cause: Error) => {
    throw new Error(`${what}: ${cause.message}`, { cause });
  };
  await verb.run(again).catch(failed('a second try fails'));
  await verb.judge(again).catch(failed('after a second try'));
}

function copies(files: ReadonlyMap<string, PagedBytes>): Map<string, PagedBytes> {
  return new Map([...files].map(([name, bytes]) => [name, bytes.copy()]));
}

/** Asserts that an image has no corruption; the flags of version 2 may lag behind. */
export function assertUndamaged(files: MemoryFiles, name: string, version: 2 | 3): void {
  const { corruptions } = checkQcow2(files.bytes(name));
  const found = version === 2 ? corruptions.filter((one) => !/COPIED/.test(one)) : corruptions;
  assert.equal(found, [], `corruption of ${name}`);
}
