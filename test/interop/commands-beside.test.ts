/**
 * Command lines of every command, given to our tool and to qemu-img on equal files:
 * the same words on both outputs, the same exit codes, the same files afterwards. Random ones, and
 * each option with each of its values. Replay with SEED=…, and try many more with SLOW=1.
 */
import * as assert from 'uvu/assert';
import { qemuSuite } from '../oracle.ts';
import { rng, SEED, someOf } from '../random.ts';
import { GRAMMARS } from './command-grammars.ts';
import { eachOption, makeWorld, randomCases, tryCases, type World } from './side-by-side.ts';

const COUNT = process.env.SLOW ? 300 : 5;

const test = qemuSuite('commands by both tools');
let world: World | undefined;
test.before(async () => {
  world = await makeWorld();
});
test.after(() => world?.remove());

for (const grammar of GRAMMARS) {
  const { command } = grammar;

  test(`${command}: random command lines`, async () => {
    const found = await tryCases(world as World, randomCases(grammar, COUNT));
    assert.is(found.join('\n\n'), '', `SEED=${SEED}\n${found.join('\n\n')}`);
  });

  test(`${command}: each option by itself`, async () => {
    const found = await tryCases(world as World, someOf(eachOption(grammar), 3, rng(SEED)));
    assert.is(found.join('\n\n'), '', `SEED=${SEED}\n${found.join('\n\n')}`);
  });
}

test('every command warns of bitmaps that nobody vouches for', async () => {
  const lines = [
    ...['info over.qcow2', 'map stale.qcow2', 'convert stale.qcow2 new.img', 'check over.qcow2'],
    ...[
      'compare stale.qcow2 over.qcow2',
      'measure -O qcow2 over.qcow2',
      'snapshot -c x over.qcow2',
    ],
    ...['dd if=over.qcow2 of=new.img', 'resize stale.qcow2 1M', 'rebase -b  over.qcow2'],
    ...['create -f qcow2 -b stale.qcow2 -F qcow2 new.img', 'commit over.qcow2'],
    ...['amend -o lazy_refcounts=on stale.qcow2', 'bitmap --add stale.qcow2 new'],
  ];
  const cases = lines.map((line) => ({
    args: line.split(' ').map((word) => word.replace('over', 'overstale')),
    writes: true,
  }));
  const found = await tryCases(world as World, cases);
  assert.is(found.join('\n\n'), '', found.join('\n\n'));
});

test('rebase onto an image of its own chain by another format keeps the bytes', async () => {
  const lines = [
    ...[
      '-b base.raw -F luks top.qcow2',
      '-b base.raw -F qcow2 top.qcow2',
      '-b top.qcow2 same.qcow2',
    ],
    ...['-b mid.qcow2 -F raw same.qcow2', '-b ../base.raw -F luks sub/over.qcow2'],
    ...['-b sub/../base.raw -F raw same.qcow2', '-p -b base.raw -F luks same.qcow2'],
  ];
  const cases = lines.map((line) => ({ args: ['rebase', ...line.split(' ')], writes: true }));
  const found = await tryCases(world as World, cases);
  assert.is(found.join('\n\n'), '', found.join('\n\n'));
});

test('convert: of several errors the same one is told', async () => {
  const lines = [
    ...['-O qcow2 -o compat=bad plain.qcow2 new.img', '-O raw plain.qcow2 nowhere/x'],
    ...['-O qcow2 -B nowhere -F raw plain.qcow2 new.img', '-n -O qcow2 plain.qcow2 new.img'],
    ...['--bitmaps -O raw plain.qcow2 new.img', '-c -O raw plain.qcow2 new.img'],
    ...['-O raw -o preallocation=bad plain.qcow2 new.img', '-l x plain.qcow2 new.img'],
    ...['-O qcow2 plain.qcow2 nowhere/x', '-O qcow2 -o data_file=nowhere/x plain.qcow2 new.img'],
    ...['-O luks -o key-secret=s plain.qcow2 nowhere/x', '-O qcow2 plain.qcow2 sub'],
  ];
  // What is wrong with the files comes before what is wrong with what is to be in them.
  const creations = [
    ...['-O qcow2 -o cluster_size=3', '-O qcow2 -o compat=bad', '-O qcow2 -o data_file_raw=on'],
    ...['-O qcow2 -o compat=0.10,data_file=d.raw', '-O qcow2 -o encrypt.format=luks', '-O luks'],
    ...['-O qcow2 -c -o data_file=d.raw', '-O qcow2 -o backing_file=x,backing_fmt=bogus'],
    ...['-O qcow2 -B nowhere -F raw', '-O luks -o cipher-alg=bad,key-secret=s'],
  ];
  const targets = ['nowhere/x', 'sub', 'new.img'];
  lines.push(...creations.flatMap((one) => targets.map((to) => `${one} plain.qcow2 ${to}`)));
  const cases = lines.flatMap((line) =>
    [['-t', 'bogus'], []].map((cache) => ({
      args: ['convert', ...cache, ...line.split(' ')],
      writes: true,
    })),
  );
  const found = await tryCases(world as World, cases);
  assert.is(found.join('\n\n'), '', found.join('\n\n'));
});

test.run();
