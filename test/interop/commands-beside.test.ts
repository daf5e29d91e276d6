/**
 * Command lines of every command but `convert`, given to our tool and to qemu-img on equal files:
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

test.run();
