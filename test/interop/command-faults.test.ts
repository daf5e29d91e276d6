/**
 * `create` and `check -r` on a host whose calls fail, one after the other: an exit code and a
 * message, no file that looks whole, and a later repair that finishes. Replay with SEED=….
 */
import { copyFileSync, existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { Qcow2Error } from '../../src/base/errors.ts';
import { check } from '../../src/cli/commands/check.ts';
import { create } from '../../src/cli/commands/create.ts';
import type { NodeFileStorage } from '../../src/storage/node-file.ts';
import { standIn } from '../../src/storage/stand-in.ts';
import { DAMAGES, soundImage } from '../image/repairable.ts';
import { qemuSuite } from '../oracle.ts';
import { rng, SEED } from '../random.ts';
import { inScratch, qemuImg } from '../tool.ts';
import { ours } from './image-command.ts';

const KINDS = ['read', 'write', 'zero', 'truncate', 'flush', 'allocate'] as const;
type Kind = (typeof KINDS)[number];

/** Lets the call number `index` of a kind fail, counted over all files, and those after it. */
class Faults {
  failed = false;
  private seen = 0;

  constructor(
    private readonly kind: Kind,
    private readonly index: number,
  ) {}

  readonly wrap = (file: NodeFileStorage): NodeFileStorage => {
    const { kind } = this;
    const call = (file[kind] as (...args: unknown[]) => unknown).bind(file);
    return standIn(file, {
      [kind]: (...args: unknown[]) => {
        if (this.seen++ < this.index) return call(...args);
        this.failed = true;
        const reason = Object.assign(new Error('made up'), { code: 'ENOSPC' });
        throw new Qcow2Error('NO_SPACE', `made-up failure of ${kind}`, undefined, reason);
      },
    });
  };
}

const test = qemuSuite('commands on a host that fails');

for (const options of ['preallocation=off', 'preallocation=metadata', 'preallocation=full']) {
  for (const format of ['qcow2', 'raw']) {
    if (format === 'raw' && options.endsWith('metadata')) continue;
    test(`create -f ${format} -o ${options} leaves no file`, () =>
      inScratch(async (folder) => {
        const args = ['-q', '-f', format, '-o', options, 'image', '3M'];
        for (const kind of KINDS) {
          for (let index = 0; ; index++) {
            rmSync(`${folder}/image`, { force: true });
            const faults = new Faults(kind, index);
            const { code, err } = await ours(create, folder, args, faults.wrap);
            const about = `${kind} ${index}: ${err}`;
            if (!faults.failed) {
              assert.is(code, 0, about);
              break;
            }
            // Preallocating may do without what fails, and so may the front of a raw file.
            if (code === 0 && format === 'raw') {
              assert.is(statSync(`${folder}/image`).size, 3 * 2 ** 20, about);
            } else if (code === 0) await qemuImg(['check', '-q', 'image'], { cwd: folder });
            else assert.match(err, /^qemu-img: /, about);
            assert.is(existsSync(`${folder}/image`), code === 0, about);
            assert.ok(index < 1000, about);
          }
        }
      }));
  }
}

test('a repair that fails says so, and the next one finishes', () =>
  inScratch(async (folder) => {
    const next = rng();
    for (const [name, damage] of Object.entries(DAMAGES)) {
      const bytes = await soundImage(next, next.pick([1, 16, 64]));
      writeFileSync(`${folder}/sound`, bytes);
      damage(next, new DataView(bytes.buffer));
      writeFileSync(`${folder}/damaged`, bytes);
      for (const kind of KINDS) {
        for (let index = next.below(3); ; index += 3) {
          copyFileSync(`${folder}/damaged`, `${folder}/image`);
          const faults = new Faults(kind, index);
          const outcome = await ours(check, folder, ['-r', 'all', 'image'], faults.wrap);
          const about = `SEED=${SEED} ${name}, ${kind} ${index}: ${outcome.err}`;
          if (!faults.failed) {
            assert.is(outcome.code, 0, about);
            break;
          }
          if (outcome.code !== 0) assert.match(outcome.err, /made-up|No space|rror/, about);
          const again = await ours(check, folder, ['-r', 'all', 'image']);
          assert.is(again.code, 0, about + again.err);
          if (next.oneIn(8)) {
            await qemuImg(['check', '-q', 'image'], { cwd: folder });
            await qemuImg(['compare', '-q', 'image', 'sound'], { cwd: folder });
          }
        }
      }
    }
    assert.ok(readFileSync(`${folder}/image`).length > 0);
  }));

test.run();
