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

test('amend: of what is no image, and the steps of what takes long', () =>
  expectAlike(
    [
      ...[
        'driver=file,filename=raw.img',
        'driver=null-co',
        'driver=blkdebug,image.filename=raw.img',
      ].flatMap((name) => ['size=1M', 'help'].map((what) => `-o ${what} --image-opts ${name}`)),
      ...['refcount_bits=64', 'refcount_bits=1', 'compat=0.10', 'size=512k', 'size=3', 'help'].map(
        (what) => `-p -o ${what} plain.qcow2`,
      ),
      ...['-p -o refcount_bits=1 snaps.qcow2', '-p -o compat=1.1,refcount_bits=64 v2.qcow2'],
    ].map((line) => `amend ${line}`),
  ));

test('what is guessed to be raw is warned of, and what is said to be is not', () =>
  expectAlike(
    [
      'raw.img',
      '--image-opts driver=null-co',
      '--image-opts driver=raw,file.filename=raw.img',
    ].flatMap((name) => [`snapshot -a x ${name}`, `snapshot -c x ${name}`, `snapshot -l ${name}`]),
  ));

test('create: a container at an impossible place', () =>
  expectAlike(
    ['metadata', 'bogus'].flatMap((mode) =>
      ['nowhere/x', 'sub', 'new.img'].map(
        (name) => `create -f luks -o preallocation=${mode} ${name} 64k`,
      ),
    ),
  ));

test('resize: words that are too few, and what has no size of its own', () =>
  expectAlike(
    [
      ...['', 'x', '--image- ', '--object=secret,id=s,data=x y', '--image-opts driver=null-co 1M'],
      ...['--image-opts driver=blkdebug,image.driver=null-co 5G', '--image-opts bogus=1 1M'],
    ].map((line) => `resize ${line}`),
  ));

test('check: sharing what is to be repaired', () =>
  expectAlike(['nowhere', 'plain.qcow2', 'raw.img'].map((name) => `check -U -r all ${name}`)));

test.run();
