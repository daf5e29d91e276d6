/** Ways to name an image: the built tools and QEMU's say and do the same with each. */
import { cpSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { eachAtOnce, inScratch, qemuImg, qemuIo, run, TOOL } from '../tool.ts';

const IO_TOOL = resolve('dist/qcow2-io.js');
/** Rules for a qcow2 image, behind what names it. */
const DEBUG = 'driver=qcow2,file.driver=blkdebug,file.image.filename=a.qcow2';
const RULE = `${DEBUG},file.inject-error.0.once=on,file.inject-error.0.event`;
const RAW_DEBUG = 'driver=raw,file.driver=blkdebug,file.image.filename=r.img';

const NAMES = [
  'driver=qcow2,file.filename=a.qcow2',
  'driver=raw,offset=512,size=1024,file.filename=r.img',
  'driver=null-co,size=1M',
  'driver=raw,file.driver=null-co,file.size=1M',
  DEBUG,
  `${DEBUG},file.inject-error.0.event=l1_update`,
  'driver=qcow2,lazy-refcounts=on,file.filename=a.qcow2',
  'file.filename=a.qcow2',
  'filename=a.qcow2',
  'driver=file,filename=a.qcow2',
  'a.qcow2',
  'driver=qcow2',
  'driver=qcow2,file.filename=nope',
  'driver=qcow2,foo=bar,file.filename=a.qcow2',
  'driver=qcow2,file.driver=raw,file.file.filename=a.qcow2',
  'driver=null-co,size=1M,foo=1',
  'driver=raw,offset=2M,file.filename=r.img',
  'driver=raw,size=2M,file.filename=r.img',
  'driver=raw,size=1023,file.filename=r.img',
  'driver=blub,file.filename=r.img',
  'driver=qcow2,backing.driver=raw,backing.file.filename=r.img,file.filename=a.qcow2',
  'driver=null-co',
];
const NAMELESS =
  'driver=qcow2,file.filename=nameless,data-file.driver=file,data-file.filename=r.img';
/** Its data file is counted from the current directory. */
const FAR = 'driver=qcow2,file.filename=sub/far.qcow2';
const DATA_RULE =
  'data-file.driver=raw,data-file.file.driver=blkdebug,data-file.file.image.filename=far.data,' +
  'data-file.file.inject-error.0.event=write_aio,data-file.file.inject-error.0.once=on';
const PATHS = [
  'blkdebug::a.qcow2',
  'blkdebug:a.qcow2',
  'blkdebug:nope:a.qcow2',
  'blkdebug:rules:a.qcow2',
  'null-co://',
  'null-co://foo',
  'null-aio:',
  'json:{"file":{"driver":"file","filename":"a.qcow2"}}',
  "json:{'driver':'blkdebug','image':{'driver':'file','filename':'a.qcow2'}}",
  'json:',
  'json:[1]',
  'json:{"a":',
  'foo:bar',
  'file:a.qcow2',
];
/** Each is `img` or `io`, and arguments; what they print and leave behind is compared. */
const COMMANDS: readonly (readonly string[])[] = [
  ...NAMES.map((name) => ['img', 'info', '--image-opts', name]),
  ...PATHS.map((name) => ['img', 'info', name]),
  ...['read-only=on', 'overlap-check=foo', 'l2-cache-entry-size=5', 'discard=unmap'].map((more) => [
    'img',
    'resize',
    '--image-opts',
    `driver=qcow2,file.filename=a.qcow2,${more}`,
    '2M',
  ]),
  ['img', 'check', '--image-opts', 'driver=qcow2,file.filename=a.qcow2,lazy-refcounts=foo'],
  ['img', 'check', '--image-opts', DEBUG],
  // Commands that open nothing behind an image take no settings for that.
  ...['backing=', 'backing.driver=qcow2', 'backing.bogus=1'].flatMap((more) =>
    [['info'], ['bitmap', '--add'], ['rebase', '-u', '-b', 'a.qcow2', '-F', 'qcow2']].map(
      ([verb = '', ...options]) => {
        const name = `driver=qcow2,${more},file.filename=over.qcow2`;
        return ['img', verb, ...options, '--image-opts', name, ...(verb === 'bitmap' ? ['b'] : [])];
      },
    ),
  ),
  ['img', 'info', 'json:{"driver":"qcow2","backing":null,"file.filename":"over.qcow2"}'],
  ['img', 'bitmap', '--add', 'json:{"backing":null,"file.filename":"over.qcow2"}', 'b'],
  ['img', 'convert', '-O', 'raw', '--image-opts', 'driver=raw,file.filename=r.img,size=1536', 'o'],
  [
    ...['img', 'convert', '-n', '--target-image-opts', 'r.img'],
    'driver=qcow2,file.filename=a.qcow2,overlap-check=none',
  ],
  ['img', 'convert', '--target-image-opts', 'a.qcow2', 'driver=raw,file.filename=r.img'],
  ['img', 'convert', '-O', 'raw', 'a.qcow2', 'file:new.img'],
  ['img', 'convert', '-O', 'qcow2', 'file:a.qcow2', 'file:sub/new.qcow2'],
  ['img', 'convert', '-n', '-O', 'raw', 'a.qcow2', 'file:r.img'],
  ['img', 'convert', '-O', 'raw', 'a.qcow2', 'file:nowhere/new.img'],
  ['img', 'convert', '-n', '-O', 'raw', '--target-image-opts', 'a.qcow2', 'file.filename=r.img'],
  ['io', '-c', 'read -P 17 0 512', '--image-opts', `${NAMES[0]},backing.driver=raw`],
  [
    ...['io', '-c', 'read -P 0 0 512', '--image-opts'],
    'driver=qcow2,file.filename=a.qcow2,backing.driver=raw,backing.file.filename=r.img',
  ],
  ...['event=foo', 'foo=foo', 'errno=foo'].map((setting) => [
    'io',
    '-c',
    'read 0 512',
    '--image-opts',
    `${RAW_DEBUG},file.inject-error.0.${setting}`,
  ]),
  ...['write_aio', 'cluster_alloc', 'l2_alloc_write', 'l1_update'].map((event) => [
    'io',
    '-c',
    'write 0 64k',
    '-c',
    'write 64k 4k',
    '--image-opts',
    `${RULE}=${event}`,
  ]),
  [
    'io',
    '-c',
    'write 0 64k',
    '-c',
    'read 0 4k',
    '-c',
    'read 0 4k',
    '--image-opts',
    `${RULE}=read_aio`,
  ],
  [
    'io',
    '-c',
    'write 0 64k',
    '-c',
    'write 64k 64k',
    '-c',
    'write 128k 4k',
    'blkdebug:rules:a.qcow2',
  ],
  [
    ...['io', '-c', 'read 0 512', '-c', 'read 1k 512', '-c', 'write 512 512', '--image-opts'],
    `${RAW_DEBUG},file.inject-error.0.event=none,file.inject-error.0.sector=2`,
  ],
  [
    ...['io', '-c', 'break write_aio A', '-c', 'aio_write -P 10 0 64k', '-c', 'wait_break A'],
    ...['-c', 'aio_write -P 11 0 64k', '-c', 'resume A', '-c', 'aio_flush'],
    ...['-c', 'read -P 11 0 64k', 'blkdebug::a.qcow2'],
  ],
  // Its data file has no name in the image.
  ...['check', 'map'].flatMap((verb) => [
    ['img', verb, 'nameless'],
    ['img', verb, '--image-opts', NAMELESS],
  ]),
  ['io', '-c', 'read -P 17 0 2k', '-c', 'write 64k 4k', '--image-opts', NAMELESS],
  // A colon in a name, behind a scheme; a data file that is not beside its image.
  ['img', 'info', 'file:image:top'],
  ['img', 'info', '--backing-chain', 'file:./image:top'],
  ['img', 'compare', 'sub/far.qcow2', 'a.qcow2'],
  ['img', 'compare', 'sub/gone.qcow2', 'a.qcow2'],
  // A data file's name is a path, also where it looks like more.
  ['img', 'map', 'named.qcow2'],
  ['io', '-c', 'write -P 5 64k 64k', '-c', 'read -P 5 64k 64k', 'named.qcow2'],
  ['img', 'map', 'unnamed.qcow2'],
  ['img', 'info', '--image-opts', `${FAR},data-file.filename=far.data`],
  [
    ...['img', 'info', '--image-opts'],
    'driver=qcow2,file.driver=raw,file.size=64k,file.file.filename=sub/far.qcow2,' +
      'data-file.filename=far.data',
  ],
  ['io', '-c', 'write 0 4k', '-c', 'write 0 4k', '--image-opts', `${FAR},${DATA_RULE}`],
  // Copied up is also what nobody has.
  ['io', '-C', '-c', 'read 32k 128k', '-c', 'map', 'a.qcow2'],
  ['io', '-C', '-c', 'read 32k 128k', '-c', 'map', 'over.qcow2'],
  // Rules for images that commands of qemu-img read and change.
  ['img', 'compare', 'blkdebug:no-read:a.qcow2', 'a.qcow2'],
  ['img', 'compare', 'a.qcow2', 'blkdebug:no-read:a.qcow2'],
  ['img', 'compare', 'r.img', 'blkdebug:no-read:a.qcow2'],
  ['img', 'snapshot', '-d', 'one', 'blkdebug:no-free:snapped.qcow2'],
  ['img', 'commit', 'blkdebug:no-empty:over.qcow2'],
  // Names of several lines, as JSON often is, stand in messages as they are.
  ...['info', 'check', 'snapshot'].map((verb) => [
    ...['img', verb, ...(verb === 'snapshot' ? ['-l'] : [])],
    'json:{"driver":"qcow2",\n"file":{"driver":"file",\n"filename":"nowhere"}}',
  ]),
  ['img', 'info', 'no\nfile'],
  ['io', '-c', 'read 0 512', 'no\nfile'],
  // Settings come one way or the other.
  ...['-o driver=raw', '-r -o driver=raw driver=raw,file.filename=r.img', '-o x r.img -x'].map(
    (line) => ['io', '--image-opts', '-c', `open ${line}`, '-c', 'read 0 512'],
  ),
  ['io', '--image-opts', '-c', 'open driver=raw,file.filename=r.img', '-c', 'read -P 17 0 512'],
  ['io', '-c', 'break foo A', '-c', 'resume B', '-c', 'remove_break C', 'blkdebug::a.qcow2'],
  ['io', '-c', 'open -o driver=null-co,read-zeroes=on', '-c', 'read -P 0 0 512', '-c', 'info'],
];

const RULES = `[set-state]
state = "1"
event = "write_aio"
new_state = "2"
[inject-error]
state = "2"
event = "write_aio"
errno = "5"
once = "on"
`;

/** Everything fails after an event. */
function failing(event: string): string {
  return `[inject-error]\nevent = "${event}"\nerrno = "5"\n`;
}

/** Speeds differ from run to run, and each program has a name. */
function plain(text: string): string {
  return text
    .replaceAll(/qcow2-(img|io)(\.js)?/g, 'qemu-$1')
    .replaceAll(/\d+ ops; .*/g, 'ops')
    .replaceAll(/disk size: \d.*/g, 'disk size');
}

const test = qemuSuite('ways to name an image');

test('names, settings and rules mean what they mean to QEMU', async () => {
  await inScratch(async (folder) => {
    const base = join(folder, 'base');
    mkdirSync(base);
    await qemuImg(['create', '-q', '-f', 'qcow2', 'a.qcow2', '1M'], { cwd: base });
    const raw = new Uint8Array(2 ** 20);
    writeFileSync(join(base, 'r.img'), raw.fill(17, 0, 2048));
    writeFileSync(join(base, 'rules'), RULES);
    const nameless = ['-o', 'data_file=r.img', 'nameless'];
    await qemuImg(['create', '-q', '-f', 'qcow2', ...nameless, '1M'], { cwd: base });
    await qemuIo('nameless', ['write -P 17 0 2k'], { cwd: base });
    await qemuImg(['amend', '-o', 'data_file=', 'nameless'], { cwd: base });
    writeFileSync(join(base, 'no-read'), failing('read_aio'));
    writeFileSync(join(base, 'no-free'), failing('cluster_free'));
    writeFileSync(join(base, 'no-empty'), failing('empty_image_prepare'));
    mkdirSync(join(base, 'sub'));
    for (const [name, data] of [
      ['sub/far.qcow2', 'far.data'],
      ['sub/gone.qcow2', 'gone.data'],
    ]) {
      const options = ['-o', `data_file=${data}`, name as string, '1M'];
      await qemuImg(['create', '-q', '-f', 'qcow2', ...options], { cwd: base });
    }
    rmSync(join(base, 'gone.data'));
    for (const [name, data] of [
      ['named.qcow2', 'file:named.data'],
      ['unnamed.qcow2', 'json:{"driver":"null-co"}'],
    ]) {
      const options = ['-o', 'data_file=for-now', name as string, '1M'];
      await qemuImg(['create', '-q', '-f', 'qcow2', ...options], { cwd: base });
      await qemuIo(name as string, ['write -P 3 0 64k'], { cwd: base });
      const amended = ['-f', 'qcow2', '-o', `data_file=${data}`, name as string];
      await qemuImg(['amend', ...amended], { cwd: base });
    }
    renameSync(join(base, 'for-now'), join(base, 'file:named.data'));
    for (const name of ['file:image:top', 'over.qcow2']) {
      const options = ['-b', 'nether.qcow2', '-F', 'qcow2', name, '1M'];
      await qemuImg(['create', '-q', '-f', 'qcow2', 'nether.qcow2', '1M'], { cwd: base });
      await qemuImg(['create', '-q', '-f', 'qcow2', ...options], { cwd: base });
    }
    await qemuIo('over.qcow2', ['write -P 3 0 64k'], { cwd: base });
    await qemuImg(['create', '-q', '-f', 'qcow2', 'snapped.qcow2', '1M'], { cwd: base });
    await qemuIo('snapped.qcow2', ['write -P 3 0 64k'], { cwd: base });
    await qemuImg(['snapshot', '-c', 'one', 'snapped.qcow2'], { cwd: base });
    await eachAtOnce(COMMANDS.entries(), async ([index, [kind, ...args]]) => {
      const { img, io } = requireQemu();
      const [mine, wanted] = await Promise.all(
        (['mine', 'theirs'] as const).map(async (who) => {
          const cwd = join(folder, `${who}-${index}`);
          cpSync(base, cwd, { recursive: true });
          const theirs = [kind === 'io' ? io : img, ...args] as const;
          const ours = [process.execPath, kind === 'io' ? IO_TOOL : TOOL, ...args] as const;
          const [program, ...rest] = who === 'mine' ? ours : theirs;
          const { code, stdout, stderr } = await run(program, rest, { cwd });
          const out = plain(stdout.toString());
          const left = readFileSync(join(cwd, 'r.img'));
          return { result: { code, out, err: plain(stderr) }, left, cwd };
        }),
      );
      const line = `${kind} ${args.join(' ')}`;
      assert.equal(mine!.result, wanted!.result, line);
      assert.ok(mine!.left.equals(wanted!.left), `${line}: the raw file is the same`);
      const same = await run(img, ['compare', 'a.qcow2', join(wanted!.cwd, 'a.qcow2')], {
        cwd: mine!.cwd,
      });
      assert.is(same.code, 0, `${line}: ${same.stdout}`);
      const sound = await run(img, ['check', '-q', 'a.qcow2'], { cwd: mine!.cwd });
      assert.ok(sound.code === 0 || sound.code === 3, `${line}: no errors but leaks`);
    });
  });
});

test('refcounts lag behind where a setting says so', async () => {
  await inScratch(async (folder) => {
    const cwd = { cwd: folder };
    await qemuImg(['create', '-q', '-f', 'qcow2', 'a.qcow2', '1M'], cwd);
    const name = 'driver=qcow2,lazy-refcounts=on,file.filename=a.qcow2';
    const write = ['-c', 'write 0 64k', '-c', 'abort', '--image-opts', name];
    await run(process.execPath, [IO_TOOL, ...write], cwd);
    const info = JSON.parse(String(await qemuImg(['info', '--output=json', 'a.qcow2'], cwd)));
    assert.is(info['dirty-flag'], true);
    assert.is(info['format-specific'].data['lazy-refcounts'], false);
  });
});

test.run();
