/**
 * Command lines that are refused late, or in more than one way: which reason is told, after which
 * steps of progress, is what qemu-img tells.
 */
import * as assert from 'uvu/assert';
import { qemuSuite } from '../oracle.ts';
import { rng, SEED, someOf } from '../random.ts';
import { makeWorld, tryCases, type World } from './side-by-side.ts';

const test = qemuSuite('refusals by both tools');
let world: World | undefined;
test.before(async () => {
  world = await makeWorld();
});
test.after(() => world?.remove());

/** One command line of words with single blanks in between. */
async function expectAlike(lines: readonly string[]): Promise<void> {
  const cases = lines.map((line) => ({ args: line.split(' '), writes: true }));
  const found = await tryCases(world as World, someOf(cases, 4, rng(SEED)));
  assert.is(found.join('\n\n'), '', `SEED=${SEED}\n${found.join('\n\n')}`);
}

test('convert: progress begins before anything is opened', () =>
  expectAlike(
    [
      ...['-O bogus plain.qcow2', '-q -O bogus plain.qcow2', '-t bogus plain.qcow2', 'nowhere'],
      ...['-T bogus plain.qcow2', '-r x plain.qcow2', '-m 17 plain.qcow2', '-c plain.qcow2'],
      ...['-O qcow2 -o bogus=1 plain.qcow2', '-l nowhere snaps.qcow2', '-O qcow2 json:{'],
      ...['-O qcow2 -B base.raw plain.qcow2', '-B base.raw plain.qcow2'],
      ...['-O qcow2 -l one snaps.qcow2 raw.img', '-n -c plain.qcow2', '-n -O bogus plain.qcow2'],
    ].map((line) => `convert -p ${line} new.img`),
  ));

test('convert -n: what is wrong with the target', () =>
  expectAlike(
    [
      ...['-O bogus plain.qcow2 raw.img', '-O bogus -t bogus plain.qcow2 raw.img'],
      ...['-c -O bogus plain.qcow2 raw.img', '-c -O raw plain.qcow2 raw.img'],
      ...['-c -O raw plain.qcow2 nowhere', '-c -O raw plain.qcow2 short.img'],
      ...['-O bogus nowhere nowhere', '-O  plain.qcow2 raw.img'],
      ...['-B base.raw -O bogus plain.qcow2 raw.img', '-F raw -O qcow2 plain.qcow2 same.qcow2'],
    ].map((line) => `convert -n ${line}`),
  ));

test('convert -B: what is wrong with the backing file', () =>
  expectAlike(
    [
      ...['nowhere -F raw', 'raw.img -F qcow2', 'badl1.qcow2 -F qcow2', 'orphan.qcow2 -F qcow2'],
      ...['luks.qcow2 -F qcow2', 'plain.qcow2 -F bogus', 'plain.qcow2 -F ', 'sub -F raw'],
    ].map((line) => `convert -O qcow2 -B ${line} plain.qcow2 new.img`),
  ));

test.run();
