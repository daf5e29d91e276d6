/**
 * QEMU's qemu-io and the library take turns on one image: each finds what the other has left, and
 * leaves nothing that the other trips over. Replay with SEED=…, thousands of turns with SLOW=1.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { openNodeFile } from '../../src/storage/node-file.ts';
import { PagedBytes } from '../image/paged-bytes.ts';
import { checkQcow2 } from '../image/qcow2-check.ts';
import { qcow2Engine } from '../image/qcow2-engine.ts';
import { type Step, send } from '../image/workload.ts';
import {
  describeSetting,
  firstContent,
  firstFiles,
  IMAGE,
  randomWriteSetting,
  readWhole,
  type WriteSetting,
} from '../image/write-engine.ts';
import { qemuSuite } from '../oracle.ts';
import { type Random, rng, SEED } from '../random.ts';
import { difference, inScratch, qemuImg, qemuIo } from '../tool.ts';

const IMAGES = process.env.SLOW ? 60 : 4;
const TURNS = process.env.SLOW ? 60 : 10;
const STEPS = 6;

/** One image, its model, and what was done to it. */
class Game {
  readonly log: string[] = [];
  private readonly cluster: number;
  private readonly files: { open(name: string): ReturnType<typeof openNodeFile> };

  constructor(
    private readonly folder: string,
    private readonly setting: WriteSetting,
    private readonly next: Random,
    private readonly content: Uint8Array,
  ) {
    this.cluster = 2 ** setting.clusterBits;
    this.files = { open: (name) => openNodeFile(join(folder, name), { writable: true }) };
  }

  async create(): Promise<void> {
    const disk = await qcow2Engine().create(this.files, this.setting);
    await disk.close();
  }

  async ours(): Promise<void> {
    const disk = await qcow2Engine(4096).open(this.files, this.setting);
    try {
      for (let i = 0; i < STEPS; i++) {
        const step = this.step();
        this.log.push(`ours: ${step.kind} ${step.at} +${step.length}`);
        await send(disk, this.requestOf(step));
        this.model(step);
      }
      assert.is(difference(await readWhole(disk), this.content), '', this.about());
    } finally {
      await disk.close();
    }
    await this.check();
  }

  async theirs(): Promise<void> {
    const commands: string[] = [];
    for (let i = 0; i < STEPS; i++) {
      const step = this.step();
      const { kind, at, length, byte } = step;
      const verb = {
        fill: `write -P ${byte}`,
        compress: `write -P ${byte}`,
        zero: 'write -z',
        unmap: 'write -z -u',
        discard: 'discard',
      }[kind];
      this.log.push(`theirs: ${verb} ${at} ${length}`);
      commands.push(`${verb} ${at} ${length}`);
      this.model(step.kind === 'compress' ? { ...step, kind: 'fill' } : step);
    }
    await qemuIo(IMAGE, commands, { cwd: this.folder });
    await qemuImg(['convert', '-O', 'raw', IMAGE, 'theirs.raw'], { cwd: this.folder });
    const bytes = readFileSync(join(this.folder, 'theirs.raw'));
    assert.is(difference(bytes, this.content), '', this.about());
    await this.check();
  }

  private async check(): Promise<void> {
    await qemuImg(['check', '-q', IMAGE], { cwd: this.folder });
    const { corruptions, leaks } = checkQcow2(
      PagedBytes.from(readFileSync(join(this.folder, IMAGE))),
    );
    assert.equal({ corruptions, leaks }, { corruptions: [], leaks: 0 }, this.about());
  }

  about(): string {
    const steps = this.log.slice(-30).join('\n');
    return `SEED=${SEED} ${describeSetting(this.setting)}\n${steps}`;
  }

  private step(): Turn {
    const { next, cluster, setting } = this;
    const { size } = setting;
    const whole = Math.floor(size / cluster);
    const byte = next.below(256);
    const kind = next.pick(['fill', 'fill', 'compress', 'zero', 'unmap', 'discard'] as const);
    const aligned = kind === 'compress' || kind === 'discard' || next.oneIn(2);
    if (aligned && whole > 0) {
      const at = next.below(whole);
      const count = 1 + next.below(Math.min(whole - at, 5));
      const fits = kind !== 'compress' || setting.dataFile === 'none';
      const range = { at: at * cluster, length: count * cluster, byte };
      return { kind: fits ? kind : 'fill', ...range };
    }
    const sectors = size / 512;
    const at = next.below(sectors);
    const most = Math.min(sectors - at, Math.max(1, (3 * cluster) / 512));
    const range = { at: at * 512, length: 512 * (1 + next.below(most)), byte };
    return { kind: kind === 'compress' || kind === 'discard' ? 'fill' : kind, ...range };
  }

  private requestOf({ kind, at, length, byte }: Turn): Step {
    if (kind !== 'fill' && kind !== 'compress') return { kind, at, length };
    const bytes = new Uint8Array(length).fill(byte);
    return { kind: kind === 'fill' ? 'write' : 'compress', at, bytes };
  }

  private model({ kind, at, length, byte }: Turn): void {
    const written = kind === 'fill' || kind === 'compress';
    this.content.fill(written ? byte : 0, at, at + length);
  }
}

/** A range and what becomes of it: filled with one byte, or zeros. */
interface Turn {
  readonly kind: 'fill' | 'compress' | 'zero' | 'unmap' | 'discard';
  readonly at: number;
  readonly length: number;
  readonly byte: number;
}

const test = qemuSuite('interleaved with QEMU');

test('both see what both have written', async () => {
  for (let index = 0; index < IMAGES; index++) {
    const next = rng((SEED ^ Math.imul(index + 1, 0x9e3779b1)) | 0);
    let setting = randomWriteSetting(next);
    // There a discard does nothing: version 2 cannot hide a backing file's bytes.
    if (setting.version === 2) setting = { ...setting, backingBytes: undefined };
    await inScratch(async (folder) => {
      const files = firstFiles(next, setting);
      for (const [name, bytes] of files) writeFileSync(join(folder, name), bytes.toBytes());
      const game = new Game(folder, setting, next, firstContent(files, setting));
      try {
        await game.create();
        for (let turn = 0; turn < TURNS; turn++) {
          if (next.oneIn(2)) await game.ours();
          else await game.theirs();
        }
      } catch (cause) {
        throw new Error(`${(cause as Error).message}\nimage ${index} ${game.about()}`, { cause });
      }
    });
  }
});

test.run();
