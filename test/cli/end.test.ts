/**
 * A tool ends when it is done. Node left to itself waits for what V8 is compiling, which may wait
 * for Node: of commands that compile to their end every fourth one stayed for ever.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { eachAtOnce, inScratch, run, TOOL } from '../tool.ts';

const TIMES = 12;
const test = suite('the end of a tool');

test('comes with that of its command', async () => {
  await eachAtOnce(Array(TIMES).keys(), (index) =>
    inScratch(async (cwd) => {
      const tool = async (...args: string[]) => {
        const { code, signal, stderr } = await run(process.execPath, [TOOL, ...args], { cwd });
        assert.is(code ?? signal, 0, `${index} ${args.join(' ')}\n${stderr}`);
      };
      await tool('create', '-q', '-f', 'raw', 'base.raw', '256k');
      const over = ['-b', 'base.raw', '-F', 'raw'];
      await tool('create', '-q', '-f', 'qcow2', ...over, 'over.qcow2');
      await tool('commit', 'over.qcow2');
    }),
  );
});

test('has the exit code of the command, and is told to who asks for it', async () => {
  await inScratch(async (cwd) => {
    for (const native of ['0', '1']) {
      const ask = (...args: string[]) =>
        run('env', [`QCOW2_NATIVE=${native}`, process.execPath, ...args], { cwd });
      assert.is((await ask(TOOL, 'info', 'nowhere')).code, 1, native);
      const told = "process.on('exit', (code) => console.log('told', code))";
      const asked = ['--import', `data:text/javascript,${encodeURIComponent(told)}`];
      const done = await ask(...asked, TOOL, '--version');
      assert.is(done.code, 0, native);
      assert.match(done.stdout.toString(), 'told 0', native);
    }
  });
});

test.run();
