/**
 * Sequences of commands, given to our tools and to QEMU's in equal folders: each step finds what
 * the earlier ones have left, and all prints the same, ends the same and leaves the same. Replay
 * with SEED=…, and try many more with SLOW=1.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { type Random, rng, SEED } from '../random.ts';
import { eachAtOnce, inScratch, run, TOOL } from '../tool.ts';
import { type Found, imagesOf, type Step, StepMaker } from './command-sequences.ts';
import { makeImage, makeRaw, randomSetting, randomSize, writePattern } from './random-image.ts';
import { compareFolders, settled } from './side-by-side.ts';

const SEQUENCES = process.env.SLOW ? 100 : 6;
const STEPS = 12;
const IO_TOOL = resolve('dist/qcow2-io.js');

/** How a program ended, and what it said. */
interface Done {
  readonly code: number | string | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Two folders with equal images, and what was done in both. */
class Twins {
  readonly log: string[] = [];
  private readonly here: string;
  private readonly there: string;
  private readonly bin: string;

  constructor(
    folder: string,
    private readonly next: Random,
  ) {
    this.here = join(folder, 'ours');
    this.there = join(folder, 'theirs');
    this.bin = join(folder, 'bin');
  }

  /** A raw image, one over it and one by itself, full of all kinds of clusters. */
  async start(): Promise<void> {
    const { next, there, bin } = this;
    mkdirSync(there);
    mkdirSync(bin);
    symlinkSync(TOOL, join(bin, 'qemu-img'));
    symlinkSync(IO_TOOL, join(bin, 'qemu-io'));
    writePattern(next, there);
    await makeRaw(
      next,
      there,
      'base.raw',
      randomSize(next, 16) + next.pick([0, 0, 0, 1, 100, 511]),
    );
    const fixed = { dataFile: 'none' } as const;
    const over = { name: 'base.raw', format: 'raw', stated: true } as const;
    const settings = [randomSetting(next, fixed), randomSetting(next, fixed)];
    await makeImage(next, there, 'a.qcow2', settings[0]!, over);
    const below = { name: 'a.qcow2', format: 'qcow2', stated: true } as const;
    await makeImage(next, there, 'b.qcow2', settings[1]!, next.oneIn(2) ? below : undefined);
    this.log.push(...settings.map((setting) => JSON.stringify(setting)));
    this.copy(there, this.here);
  }

  private copy(from: string, to: string): void {
    rmSync(to, { recursive: true, force: true });
    const { status } = spawnSync('cp', ['-a', '--sparse=auto', from, to]);
    if (status !== 0) throw new Error(`cannot copy ${from}`);
  }

  private async ask(step: Step, cwd: string, ours: boolean): Promise<Done> {
    const qemu = requireQemu()[step.program];
    const { code, signal, stdout, stderr } = ours
      ? await run(process.execPath, [join(this.bin, `qemu-${step.program}`), ...step.args], { cwd })
      : await run(qemu, step.args, { cwd });
    return {
      code: code ?? signal,
      stdout: settled(stdout.toString()),
      stderr: settled(stderr).replaceAll(qemu, `qemu-${step.program}`),
    };
  }

  /** @returns what differs; empty where nothing does */
  async step(): Promise<string> {
    const { here, there, next } = this;
    const images = imagesOf(there);
    const step = new StepMaker(next, images).step();
    this.log.push(`qemu-${step.program} ${step.args.map(quoted).join(' ')}`);
    // Who only looks is shown the same files: where a file has holes is up to the file system.
    const ours = await this.ask(step, step.writes ? here : there, true);
    const theirs = await this.ask(step, there, false);
    const [mine, wanted] = [shown(ours), shown(theirs)];
    const how = isMeant(step, ours, theirs);
    if (mine !== wanted && !how) return `${mine}=== not\n${wanted}`;
    this.log.push(`  # ${ours.code} ${ours.stderr.trim()}`);
    if (!step.writes) return '';
    const files = how ? '' : await compareFolders(here, there, otherData(step));
    if (files !== '') return files;
    if (how || step.loose) {
      this.copy(there, here);
      return '';
    }
    for (const image of imagesOf(there)) {
      if (image.format !== 'qcow2') continue;
      const [left, right] = await Promise.all([here, there].map((cwd) => layoutOf(cwd, image)));
      if (left !== right) return `${image.name} is\n${left}\nnot\n${right}`;
    }
    return '';
  }
}

/** What `docs/differences.md` tells of: the files are QEMU's afterwards. */
function isMeant(
  { program, args: [command = '', ...args] }: Step,
  ours: Done,
  theirs: Done,
): boolean {
  const same = shown(ours) === shown(theirs);
  // It has died: of an empty disk's `bench`, of a division by zero.
  if (/^SIG(FPE|SEGV|ABRT)$/.test(String(theirs.code)) && typeof ours.code === 'number')
    return true;
  // What fails leaves no half an image here, and leaves alone what was there.
  if (/^(convert|create|dd)$/.test(command) && same && ours.code !== 0) return true;
  // It prints its help, and ends well.
  if (command === 'measure' && ours.code === 1 && /^qemu-img version/.test(theirs.stdout))
    return true;
  // QEMU has carried out what comes before the option that it refuses.
  if (command === 'amend' && same && ours.code !== 0) return true;
  // A refcount that is too narrow: QEMU leaks what it had counted by then.
  if (command === 'snapshot' && same && /Invalid argument/.test(ours.stderr)) return true;
  // A disk of no bytes: QEMU takes no memory for a failure, and loses the bitmap.
  const lost = /Lost persistent bitmaps .*: No memory/.test(theirs.stderr);
  if (command === 'bitmap' && ours.code === 0 && lost) return true;
  // It ends on the spot, and with it what its caches have.
  if (command === 'bench' && same && ours.code !== 0) return true;
  // Version 2 cannot say zero over a backing file; ours writes zeros there.
  const ungrown = /Failed to zero out new clusters: Operation not supported/.test(theirs.stderr);
  if (program === 'io' && ungrown) return true;
  const growing = /^(resize|amend|commit)$/.test(command) && ours.code === 0;
  if (growing && /Operation not supported/.test(theirs.stderr)) return true;
  // QEMU has compared and written when it finds that a format is needed.
  return command === 'rebase' && same && ours.code !== 0 && !args.some((arg) => /^-F/.test(arg));
}

/** Data files with other bytes than QEMU's: nothing is copied of what the backing file shows. */
function otherData({ args: [command, ...args] }: Step): ReadonlySet<string> {
  const isOver = command === 'convert' && args.includes('-B');
  const files = args.flatMap((arg) => /\bdata_file=([^,]+)/.exec(arg)?.[1] ?? []);
  return new Set(isOver ? files : []);
}

/** Where the clusters of an image are, without what file systems add. */
async function layoutOf(cwd: string, { name, hasBitmaps }: Found): Promise<string> {
  const { img } = requireQemu();
  const [map, check] = await Promise.all([
    run(img, ['map', '-U', '--output=json', name], { cwd }),
    run(img, ['check', '-U', name], { cwd }),
  ]);
  if (map.code !== 0) return map.stderr;
  const lines: string[] = [];
  for (const { start, depth, present, data, offset } of JSON.parse(map.stdout.toString())) {
    const place = offset === undefined || hasBitmaps ? '' : `at +${offset - start}`;
    const what = `depth ${depth} ${present} ${depth === 0 && data} ${place}`;
    if (!lines.at(-1)?.endsWith(`: ${what}`)) lines.push(`${start}: ${what}`);
  }
  const found = check.stdout.toString();
  // Bitmaps are stored anew by who opens an image, or left alone: the rest lies around them.
  const counts = hasBitmaps ? found.replaceAll(/, .*fragmented|^Image end .*$/gm, '') : found;
  return `${lines.join('\n')}\n${counts}${check.stderr}`;
}

const quoted = (word: string) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word}'`);

function shown({ code, stdout, stderr }: Done): string {
  return `exit ${code}\n--- stdout\n${stdout}--- stderr\n${stderr}`;
}

const test = qemuSuite('sequences of commands by both tools');

test('random ones', async () => {
  const found: string[] = [];
  await eachAtOnce(Array(SEQUENCES).keys(), (index) =>
    inScratch(async (folder) => {
      const twins = new Twins(folder, rng(SEED ^ Math.imul(index + 1, 0x9e3779b1)));
      await twins.start();
      for (let i = 0; i < STEPS; i++) {
        const what = await twins.step();
        if (what === '') continue;
        found.push(`SEED=${SEED}, sequence ${index}\n${twins.log.join('\n')}\n${what}`);
        break;
      }
    }),
  );
  if (found.length > 0) throw new Error(found.join('\n\n'));
});

test.run();
