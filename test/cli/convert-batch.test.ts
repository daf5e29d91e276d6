/** Lists of conversions: what is told of each, what goes on, what is done again. */
import { readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { qemuSuite } from '../oracle.ts';
import { inScratch, qemuImg, qemuIo, run, TOOL, tool } from '../tool.ts';

const test = qemuSuite('convert --batch');

/** Two images, one of them with a name that needs quotes, and a raw disk. */
async function makeSources(cwd: string): Promise<void> {
  for (const [name, byte] of [
    ['a.qcow2', 1],
    ['b c.qcow2', 2],
  ] as const) {
    await qemuImg(['create', '-q', '-f', 'qcow2', name, '40M'], { cwd });
    await qemuIo(name, [`write -P ${byte} 1M 30M`], { cwd });
  }
  await qemuImg(['convert', '-O', 'raw', 'a.qcow2', 'a.raw'], { cwd });
}

const LIST = `# lists have comments
a.qcow2 one.qcow2 -c

{"source": "b c.qcow2", "target": "two.raw", "options": ["-O", "raw"]}
"b c.qcow2" 'three four.qcow2' -o cluster_size=4k
missing.qcow2 five.qcow2
{"source": ["a.raw", "a.raw"], "target": "six.qcow2", "options": "-f raw -c"}
a.qcow2 seven.qcow2 -o cluster_size=7
`;

interface Told {
  readonly source: string | string[];
  readonly target: string;
  readonly status: string;
  readonly error?: string;
  readonly result?: { readonly clusters: Record<string, number> };
}

function parse(stdout: Buffer): Told[] {
  return stdout
    .toString()
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Told);
}

test('each line is done or fails by itself, and is told of', () =>
  inScratch(async (cwd) => {
    await makeSources(cwd);
    writeFileSync(join(cwd, 'list'), LIST);
    const { code, stdout, stderr } = await tool(
      ['convert', '-O', 'qcow2', '--batch', 'list', '-m', '2'],
      { cwd },
    );
    assert.is(stderr, '');
    assert.is(code, 1);
    const told = parse(stdout);
    assert.equal(
      told.map(({ target, status }) => [target, status]),
      [
        ['one.qcow2', 'done'],
        ['two.raw', 'done'],
        ['three four.qcow2', 'done'],
        ['five.qcow2', 'failed'],
        ['six.qcow2', 'done'],
        ['seven.qcow2', 'failed'],
      ],
    );
    assert.match(told[3]?.error ?? '', /No such file or directory/);
    assert.match(told[5]?.error ?? '', /Cluster size must be a power of two/);
    assert.equal(told[0]?.result?.clusters, { data: 0, compressed: 480, copied: 0 });
    for (const [source, target] of [
      ['a.qcow2', 'one.qcow2'],
      ['b c.qcow2', 'two.raw'],
      ['b c.qcow2', 'three four.qcow2'],
    ] as const) {
      await qemuImg(['compare', '-q', source, target], { cwd });
      if (target.endsWith('qcow2')) await qemuImg(['check', '-q', target], { cwd });
    }
    const twice = Buffer.concat([
      readFileSync(join(cwd, 'a.raw')),
      readFileSync(join(cwd, 'a.raw')),
    ]);
    writeFileSync(join(cwd, 'twice.raw'), twice);
    await qemuImg(['compare', '-q', '-f', 'raw', '-F', 'qcow2', 'twice.raw', 'six.qcow2'], { cwd });
  }));

test('what is whole and newer than its source is not done again', () =>
  inScratch(async (cwd) => {
    await makeSources(cwd);
    writeFileSync(join(cwd, 'list'), 'a.qcow2 one.qcow2\na.qcow2 two.raw -O raw\n');
    const line = ['convert', '-O', 'qcow2', '--batch', 'list'];
    const statuses = async () =>
      parse((await tool(line, { cwd })).stdout).map(({ status }) => status);
    assert.equal(await statuses(), ['done', 'done']);
    assert.equal(await statuses(), ['skipped', 'skipped']);
    // One was cut off, the other's source has changed.
    writeFileSync(join(cwd, 'two.raw'), readFileSync(join(cwd, 'two.raw')).subarray(0, 1000));
    assert.equal(await statuses(), ['skipped', 'done']);
    const later = statSync(join(cwd, 'two.raw')).mtimeMs / 1000 + 10;
    utimesSync(join(cwd, 'a.qcow2'), later, later);
    assert.equal(await statuses(), ['done', 'done']);
  }));

test('a list from standard input, and lists that make no sense', () =>
  inScratch(async (cwd) => {
    await makeSources(cwd);
    const command = `"${process.execPath}" "${TOOL}" convert --batch - -O qcow2`;
    const script = `echo 'a.qcow2 one.qcow2' | ${command}`;
    const { code, stdout } = await run('bash', ['-c', script], { cwd });
    assert.is(code, 0);
    assert.is(parse(stdout)[0]?.status, 'done');
    for (const list of ['only-one\n', '{"source": 3}\n', '{\n']) {
      writeFileSync(join(cwd, 'list'), list);
      const bad = await tool(['convert', '--batch', 'list'], { cwd });
      assert.is(bad.code, 1);
      assert.match(bad.stderr, /line 1 of the list: no source and target/);
    }
  }));

test.run();
