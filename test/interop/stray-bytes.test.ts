/**
 * Names that are not UTF-8: files, snapshots, bitmaps, options and what stands in JSON. Both tools
 * run the same lines of a shell, for Node has no way to give a program such arguments.
 */
import { mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { inScratch, must, TOOL } from '../tool.ts';
import { settled } from './side-by-side.ts';

const test = qemuSuite('names that are not UTF-8');

/** Each character is a byte. */
const RAW = "'b\xff\xc3.raw'";
const SNAPSHOT = "'a\xe9\x80x\xc3\xf0\x9f\x98\xed\xa0\x80\xf4\x90\x80\x80\xc0\x80z\xe2\x82'";
const NEVER = "'\xf8\x80\x80\x80\x80\xfd\x80\x81\xfe\x80\xef\xbf\xbe\xef\xb7\x90\xe0\x80\x80'";

const json = (name: string) => `'json:{"driver":"raw","file.filename":"${name}"}'`;

const LINES = [
  ...[`qemu-img create -f raw ${RAW} 1M`, 'qemu-img create -f qcow2 a.qcow2 1M'],
  `qemu-img create -f qcow2 -b ${RAW} -F raw c.qcow2`,
  ...[`qemu-img snapshot -c ${SNAPSHOT} a.qcow2`, `qemu-img snapshot -c ${NEVER} a.qcow2`],
  ...["qemu-img bitmap --add a.qcow2 '\xe9\x80x'", 'qemu-img info a.qcow2'],
  ...['qemu-img info --output=json a.qcow2', 'qemu-img snapshot -l a.qcow2'],
  ...[`qemu-img snapshot -d ${SNAPSHOT} a.qcow2`, "qemu-img bitmap --remove a.qcow2 '\xe9\x80x'"],
  ...['qemu-img info --backing-chain c.qcow2', 'qemu-img info --output=json c.qcow2'],
  ...['qemu-img map c.qcow2', 'qemu-img map --output=json c.qcow2'],
  `qemu-img convert -O qcow2 -B ${RAW} -F raw c.qcow2 d.qcow2`,
  ...[`qemu-img compare ${RAW} c.qcow2`, "qemu-img convert -O raw c.qcow2 'e\xff'"],
  ...["qemu-img rebase -u -b 'q\xff' -F raw d.qcow2", 'qemu-img info d.qcow2'],
  `qemu-img create -f qcow2 -o backing_file=${RAW},backing_fmt=raw f.qcow2`,
  "qemu-img create -f qcow2 -o data_file='data\xff' g.qcow2 1M",
  ...["qemu-io -c 'write -q 0 4k' g.qcow2", 'qemu-img info g.qcow2', 'qemu-img check g.qcow2'],
  ...["qemu-img dd if=c.qcow2 of='dd\xff'", "qemu-img resize -f raw 'dd\xff' 2M"],
  ...["qemu-img info 'nope\xff'", `qemu-img info --image-opts driver=raw,file.filename=${RAW}`],
  ...['b\xff', 'b\xe9\x80.raw', 'b\xc0\x80.raw', 'b\xc0.raw', 'b\xfd.raw', 'b\xef\xbf\xbe.raw'].map(
    (name) => `qemu-img info ${json(name)}`,
  ),
  `qemu-img info ${json('b\xf0\x9f\x98\x80.raw')}`,
  ...["qemu-img 'fro\xffb'", "qemu-img convert '--fro\xff' x", "qemu-img create -f 'fo\xff' x 1M"],
  ...["qemu-img create -f qcow2 -o 'fo\xff=x' x 1M", "qemu-io -c 'fro\xffb' a.qcow2"],
  `printf 'open -o driver=raw b\xff\xc3.raw\nread -q 0 5\nopen nope\xfe\n' | qemu-io`,
];

const moments = /"(actual-size|date-n?sec)": \d+|disk size: .*/g;

async function outcome(folder: string, programs: Record<string, string>): Promise<string[]> {
  mkdirSync(join(folder, 'bin'), { recursive: true });
  for (const [name, path] of Object.entries(programs)) symlinkSync(path, join(folder, 'bin', name));
  const work = join(folder, 'work');
  mkdirSync(work);
  const lines = LINES.map((line) => `echo; ${line}\necho "exit $?"`);
  const script = ['exec 2>&1', 'PATH=../bin:$PATH', ...lines, ''].join('\n');
  writeFileSync(join(folder, 'script'), Buffer.from(script, 'latin1'));
  const said = (await must('sh', ['../script'], { cwd: work })).toString('latin1');
  const files = readdirSync(Buffer.from(work), 'buffer').map((name) => name.toString('latin1'));
  return [...settled(said).replaceAll(moments, '$1').split('\n'), ...files.sort()];
}

test('both tools say the same and make the same files', () =>
  inScratch(async (folder) => {
    const { img, io } = requireQemu();
    const io2 = resolve('dist/qcow2-io.js');
    const ours = { 'qemu-img': TOOL, 'qemu-io': io2 };
    const wanted = await outcome(join(folder, 'theirs'), { 'qemu-img': img, 'qemu-io': io });
    assert.equal(await outcome(join(folder, 'ours'), ours), wanted);
  }));

test.run();
