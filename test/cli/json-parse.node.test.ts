/**
 * JSON behind `json:`, beside qemu-img: what is a value, what is wrong with a text that is none,
 * and what strings say. Node only. Replay with SEED=…, and try many more with SLOW=1.
 */
import * as assert from 'uvu/assert';
import { settingsOfName } from '../../src/cli/settings.ts';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { type Random, rng, SEED, someOf } from '../random.ts';
import { eachAtOnce, run } from '../tool.ts';

const test = qemuSuite('JSON behind json:');
const COUNT = process.env.SLOW ? 20_000 : 200;

/** All of ASCII: of other characters QEMU may show a part. */
const STRINGS = [
  ...['"a"', "'b'", `"it's"`, `'"'`, '"\\n\\"\\u00e9"', '"\\ud83d\\ude00"', "'\\''", '""'],
];
const SCALARS = [
  '0',
  '-0.5e1',
  '-1',
  '12',
  '1.5',
  '-0.25e3',
  '1e+2',
  'true',
  'false',
  'null',
  ...STRINGS,
];
const PIECES = [
  ...['{', '}', '[', ']', ',', ':', '"', "'", '\\', ' ', '\n', '\t', '@', '%', '\u0001', '/'],
  ...['0', '7', '00', '-', '.', 'e', 'E', '+', 't', 'nul', 'true', 'x', '\\u', '\\ud800', '\\x'],
  ...['\\uffff', '\\ufdd0', '\\udc00', '18446744073709551616', '1e999', '{"a":1,"a":2}', ''],
];

function valueText(next: Random, depth: number): string {
  const kind = depth > 3 ? 2 : next.below(4);
  if (kind > 1) return next.pick(SCALARS);
  const items = Array.from({ length: next.below(4) }, (_, index) => {
    const value = valueText(next, depth + 1);
    return kind === 0 ? value : `"k${next.oneIn(9) ? 0 : index}":${next.pick(['', ' '])}${value}`;
  });
  return kind === 0 ? `[${items.join(',')}]` : `{${items.join(', ')}}`;
}

/** A text that is a value, or was one before something was cut out or put in. */
function randomText(next: Random): string {
  let text = next.oneIn(3) ? valueText(next, 0) : `{"k":${valueText(next, 1)}}`;
  for (let changes = next.below(3); changes > 0; changes--) {
    const at = next.below(text.length + 1);
    text = text.slice(0, at) + next.pick(PIECES) + text.slice(at + next.below(3));
  }
  return text;
}

function said(filename: string): string {
  try {
    settingsOfName(filename);
    return '';
  } catch (cause) {
    return (cause as Error).message;
  }
}

const OF_JSON = /^(Could not parse the JSON options: |Invalid JSON object given)/;

async function saidByQemu(filename: string): Promise<string> {
  const { stderr } = await run(requireQemu().img, ['info', filename]);
  const prefix = `qemu-img: Could not open '${filename}': `;
  assert.ok(stderr.startsWith(prefix), stderr);
  const message = stderr.slice(prefix.length).trimEnd();
  return OF_JSON.test(message) ? message : '';
}

async function expectEqual(texts: Iterable<string>): Promise<void> {
  const found: string[] = [];
  await eachAtOnce(texts, async (text) => {
    const filename = `json:${text}`;
    const theirs = await saidByQemu(filename);
    const ours = said(filename).trimEnd();
    if (ours !== theirs) found.push(`${text}\n  ours   ${ours}\n  theirs ${theirs}`);
  });
  assert.is(found.join('\n'), '', `SEED=${SEED}\n${found.join('\n')}`);
}

test('texts of every kind that is no value', async () => {
  const kinds = [
    ...['', ' ', '1 2', '01', '-', '-a', '1.', '1.x', '1e', '1ex', '12.5.5', '1.5e5x', '00', '@'],
    ...['{"a":@}', '{"a":"b', '{"a":"b\\', '{"a":"\\u12"}', '"\\u12', "{'a':'b", '{"a":tru}'],
    ...['{1:2}', '{"a" 1}', '{"a":1 "b":2}', '[1 2]', '[1,]', '{,}', '}', ']', '{"a":[}', 'nulA'],
    ...['{"a":truE}', '{"a":1}@', '{"a":1}"', '"\t"', '{"a":1,"a":2}', '{"a":1,}', '{"a":', '{'],
    ...['{"a":"\\q"}', '{"a":"\\ud800x"}', '[1,[2', `${'['.repeat(1030)}`, '{"a":}}', '"a" 1 @'],
  ];
  await expectEqual(someOf(kinds, 20));
});

test('random texts', async () => {
  const texts = Array.from({ length: COUNT }, (_, index) =>
    randomText(rng(SEED ^ Math.imul(index + 1, 0x9e3779b1))),
  );
  await expectEqual(texts);
});

test('strings say the same', async () => {
  for (const text of [...STRINGS.slice(0, -1), '"é"']) {
    const name = `json:{"driver":"file","filename":${text}}`;
    const { stderr } = await run(requireQemu().img, ['info', name]);
    const path = settingsOfName(name)?.get('filename');
    assert.is(
      stderr,
      `qemu-img: Could not open '${name}': Could not open '${path}': No such file or directory\n`,
    );
  }
});

test.run();
