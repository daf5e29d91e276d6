/**
 * Settings of nodes, good and wrong, as `--image-opts` and `json:` give them: both tools say the
 * same, whatever the command. Replay with SEED=…, and try all with SLOW=1.
 */
import * as assert from 'uvu/assert';
import { qemuSuite } from '../oracle.ts';
import { rng, SEED, someOf } from '../random.ts';
import { makeWorld, tryCases, type World } from './side-by-side.ts';

const test = qemuSuite('settings by both tools');
let world: World | undefined;
test.before(async () => {
  world = await makeWorld();
});
test.after(() => world?.remove());

const PLAIN = 'driver=qcow2,file.filename=plain.qcow2';
/** What is said of an image, beside which one it is. */
const SETTINGS = [
  ...['lazy-refcounts=on', 'lazy-refcounts=foo', 'l2-cache-size=1,cache-size=0', 'overlap-check=x'],
  ...['l2-cache-entry-size=3', 'read-only=foo', 'auto-read-only=foo', 'force-share=foo'],
  ...['cache.direct=x,file.locking=y', 'cache.no-flush=x', 'discard=foo', 'discard=unmap'],
  ...['detect-zeroes=foo', 'detect-zeroes=unmap', 'discard=on,detect-zeroes=unmap', 'bogus=1'],
  ...['discard=foo,auto-read-only=g,bogus=1', 'lazy-refcounts=foo,bogus=1', 'file.bogus=1'],
  ...['file.detect-zeroes=unmap', 'file.discard=ignore,file.detect-zeroes=unmap'],
  ...['file.aio=foo,file.locking=x', 'file.aio=io_uring', 'file.aio=native,cache.direct=on'],
  ...['file.aio-max-batch=x', 'file.aio-max-batch=-1', 'file.pr-manager=x', 'file.drop-cache=foo'],
  ...['file.x-check-cache-dropped=on', 'file.drop-cache=on', 'data-file.filename=raw.img'],
  ...['data-file.filename=nowhere', 'data-file.driver=bogus', 'data-file=x', 'data-file.foo=1'],
  ...['data-file.filename=nowhere,lazy-refcounts=foo', 'data-file.filename=nowhere,bogus=1'],
  ...['encrypt.format=luks', 'encrypt.format=aes,encrypt.foo=1', 'encrypt.foo=1', 'encrypt.foo'],
  ...['encrypt.key-secret=x', 'node-name=1', 'node-name=a', 'node-name='],
  ...['file.driver=file', 'file.driver=host_device', 'file.driver=host_cdrom', 'file.driver=bogus'],
];
const WHOLE = [
  ...['v2.qcow2,lazy-refcounts=on', 'nowhere,discard=foo', 'nowhere,read-only=foo'],
  ...['short.img,discard=foo', 'short.img,lazy-refcounts=foo', 'short.img,bogus=1'],
  ...['luks.qcow2,encrypt.format=aes', 'luks.qcow2,encrypt.format=x', 'luks.qcow2,encrypt.foo=1'],
  ...['sub', 'sub,file.driver=host_device', '/dev/null', '/dev/null,file.driver=file'],
  ...['/dev/null,file.driver=host_device', 'nowhere,file.driver=host_cdrom'],
].map((name) => `driver=qcow2,file.filename=${name}`);
const BEHIND = [
  ...['read-only=foo', 'detect-zeroes=foo', 'lazy-refcounts=foo', 'driver=raw', 'driver=luks'],
  ...['discard=foo', 'file.filename=short.img', 'driver=qcow2,backing.overlap-check=foo'],
  ...['driver=bogus', 'driver=file', 'foo=1', 'node-name=1', 'file=foo', 'file.driver=bogus'],
  ...['driver=raw,backing.size=3,backing.file.filename=base.raw', 'backing.foo=1', 'cache-size=x'],
  ...['driver=raw,backing.size=5G,backing.file.filename=base.raw', 'driver=raw,backing.size=x'],
  ...['data-file.filename=nowhere', 'data-file.filename=raw.img', 'data-file.foo=1'],
  ...['driver=null-co,backing.size=64k', 'driver=file,backing.filename=base.raw'],
  ...['driver=host_device', 'driver=host_cdrom,backing.node-name=a', 'driver=host_device,bogus=1'],
].map((what) => `driver=qcow2,file.filename=top.qcow2,backing.${what}`);
/** The same of images that name no such thing, or none at all, or are not there. */
const BACKING_LISTS = [
  ...['driver=qcow2,file.filename=mid.qcow2,backing.foo=1', 'file.filename=raw.img,backing.foo=1'],
  ...['driver=qcow2,file.filename=mid.qcow2,backing.backing.foo=1', 'driver=null-co,backing=foo'],
  ...['driver=qcow2,file.filename=mid.qcow2,backing.driver=raw,backing.foo=1', 'backing=foo'],
  ...['driver=qcow2,file.filename=nowhere,backing=foo', 'driver=file,filename=raw.img,backing=foo'],
  ...['driver=raw,file.filename=raw.img,backing.foo=1,bogus=1', 'driver=file,filename=x,backing='],
  ...['', '=foo', '=foo,backing.foo=1', '=,backing.foo=1'].flatMap((what) => [
    `driver=qcow2,file.filename=top.qcow2,backing${what}`,
    `driver=raw,file.filename=raw.img,backing${what}`,
    `driver=file,filename=raw.img,backing${what}`,
  ]),
  'driver=raw,file.filename=raw.img,bogus=1,abc=2,xyz=3',
];
/** Without a format above them; a drive that is none has no medium, which only QEMU looks for. */
const BARE = ['file', 'host_device', 'host_cdrom'].flatMap((driver) =>
  ['raw.img', 'sub', '/dev/null', 'nowhere', '']
    .filter((name) => driver !== 'host_cdrom' || name !== '/dev/null')
    .map((name) => `driver=${driver},filename=${name}`),
);
const LISTS = [
  ...SETTINGS.map((what) => `${PLAIN},${what}`),
  ...WHOLE,
  ...['driver=qcow2,file.aio=native', 'driver=qcow2,file.driver=file', 'driver=host_device'],
  ...['driver=raw,file.driver=raw,file.file.filename=raw.img'],
  ...['driver=raw,offset=512,file.driver=raw,file.file.filename=raw.img'],
  ...['driver=raw,file.driver=raw,file.offset=512,file.file.filename=raw.img'],
  ...['driver=blkdebug,image.driver=raw,image.file.filename=raw.img'],
  ...['driver=qcow2,node-name=a,file.node-name=a,file.filename=plain.qcow2'],
  ...['driver=null-co,size=64k', 'driver=null-aio,latency-ns=5', 'driver=null-co,read-zeroes=on'],
  ...['driver=raw,offset=512,file.driver=null-co', 'driver=blkdebug,image.driver=null-co'],
];
const NAMES = [
  '{"driver":"qcow2","backing":{},"file.filename":"top.qcow2"}',
  '{"driver":"qcow2","foo":null,"file.filename":"top.qcow2"}',
  '{"driver":"qcow2","backing":[1],"file.filename":"top.qcow2"}',
  '{"driver":"qcow2","lazy-refcounts":null,"file.filename":"plain.qcow2"}',
  '{"driver":"qcow2","cache-size":null,"file.filename":"plain.qcow2"}',
  '{"driver":"qcow2","cache-size":true,"file.filename":"plain.qcow2"}',
  '{"driver":"qcow2","read-only":null,"node-name":null,"file.filename":"plain.qcow2"}',
  '{"driver":"qcow2","file.driver":null,"file.filename":"plain.qcow2"}',
  '{"driver":"qcow2","file.filename":null}',
  '{"driver":"qcow2","file":{"filename":{}}}',
  '{"driver":"qcow2","file":[1,2]}',
  '{"driver":null,"file.filename":"plain.qcow2"}',
  '{"driver":{"a":1},"file.filename":"plain.qcow2"}',
  '{"driver":"qcow2","encrypt":{},"file.filename":"plain.qcow2"}',
  '{"driver":"qcow2","file.filename":"plain.qcow2","file":{"filename":"plain.qcow2"}}',
  '{"driver":"raw","size":-512,"file.filename":"raw.img"}',
  '{"driver":"raw","size":1.5,"file.filename":"raw.img"}',
  '{"driver":"raw","read-only":1,"file.filename":"raw.img"}',
  '{"driver":"raw","offset":512,"size":1024,"file.filename":"raw.img"}',
  '{"driver":"raw","offset":"512","size":"1k","file.filename":"raw.img"}',
  '{"driver":"raw","offset":null,"file.filename":"raw.img"}',
  '{"driver":"raw","backing":null,"file.filename":"raw.img"}',
  '{"driver":"qcow2","backing":"foo","file.filename":"top.qcow2"}',
  '{"driver":"null-co","size":65536,"read-zeroes":true,"latency-ns":5}',
  '{"driver":"raw","offset":0,"file":{"driver":"blkdebug","align":512,"image.filename":"raw.img"}}',
].map((text) => `json:${text}`);

/** Nodes above a disk. */
const FILTERED = [
  ...['compress', 'copy-on-read'].flatMap((driver) =>
    [
      ...['', 'file=x', 'file.driver=file', 'file.filename=plain.qcow2', 'file.filename=raw.img'],
      ...['file.driver=raw,file.file.filename=raw.img', 'file.driver=bogus', 'file.node-name=1'],
      'file.driver=luks,file.key-secret=s,file.file.filename=luks.img',
      ...['top.qcow2', 'snaps.qcow2', 'leaks.qcow2', 'bits.qcow2'].flatMap((name) =>
        ['', ',bogus=1', ',node-name=a,file.node-name=a', ',node-name=b,file.file.node-name=a'].map(
          (more) => `file.driver=qcow2,file.file.filename=${name}${more}`,
        ),
      ),
      'file.driver=compress,file.file.driver=qcow2,file.file.file.filename=top.qcow2',
      'file.driver=copy-on-read,file.file.driver=qcow2,file.file.file.filename=top.qcow2',
      'file.driver=blkdebug,file.image.driver=qcow2,file.image.file.filename=top.qcow2',
    ].map((more) => `driver=${driver}${more === '' ? '' : ','}${more}`),
  ),
  ...['top.qcow2', 'snaps.qcow2', 'leaks.qcow2'].flatMap((name) =>
    [
      ...['', ',node-name=a,image.node-name=a', ',config=passphrase', ',config=nowhere'],
      ...[',align=4096', ',align=3', ',bogus=1', ',set-state.0.event=x'],
    ].map((more) => `driver=blkdebug,image.driver=qcow2,image.file.filename=${name}${more}`),
  ),
  'driver=blkdebug,image.driver=compress,image.file.driver=qcow2,image.file.file.filename=v2.qcow2',
];

/** Words before and behind the image. */
const COMMANDS = [
  ...[['info', '--output=json'], ['map'], ['check', '-q'], ['measure', '-O', 'raw']],
  ...[
    ['resize', '--', '512k'],
    ['amend', '-o', 'size=512k'],
    ['snapshot', '-l'],
  ],
];

const WRITERS = [
  ...[
    ['bitmap', '--', 'b', '--add'],
    ['bitmap', '--', 'b0', '--remove'],
    ['snapshot', '-d', 'one'],
    ['snapshot', '-c', 'new'],
  ],
  ...[['rebase', '-b', ''], ['rebase', '-u', '-b', 'base.raw', '-F', 'raw'], ['commit']],
  ...[['check'], ['check', '-r', 'all'], ['amend', '-o', 'help'], ['info']],
];

function linesOf(
  name: string,
  isList: boolean,
  commands = COMMANDS,
): { args: string[]; writes: boolean }[] {
  return commands.map(([command = '', ...more]) => {
    const options = isList ? ['--image-opts'] : [];
    const writes = commands !== COMMANDS || command === 'resize' || command === 'amend';
    const args =
      more[0] === '--'
        ? [command, ...options, name, ...more.slice(1)]
        : [command, ...options, ...more, name];
    return { args, writes };
  });
}

async function expectNone(cases: { args: string[]; writes: boolean }[]): Promise<void> {
  const found = await tryCases(world as World, someOf(cases, 8, rng(SEED)));
  assert.is(found.join('\n\n'), '', `SEED=${SEED}\n${found.join('\n\n')}`);
}

test('lists of options', () => expectNone(LISTS.flatMap((list) => linesOf(list, true))));

test('files without a format, to commands that read', () =>
  expectNone(BARE.flatMap((list) => linesOf(list, true)).filter(({ writes }) => !writes)));

test('what is said of a backing file', () =>
  expectNone([...BEHIND, ...BACKING_LISTS].flatMap((list) => linesOf(list, true))));

test('what stands above a disk', () =>
  expectNone(FILTERED.flatMap((list) => linesOf(list, true, [...COMMANDS, ...WRITERS]))));

test('snapshots of an image with a raw disk within its own', () =>
  expectNone(
    ['', 'offset=512,', 'size=4k,', 'offset=1M,'].flatMap((part) => {
      const inner = 'file.driver=qcow2,file.file.filename=snaps.qcow2';
      const list = `driver=raw,${part}${inner}`;
      const actions = ['-l', '-c new', '-d one', '-a one', '-a nowhere', '-d nowhere'];
      return actions.map((action) => {
        return { args: ['snapshot', ...action.split(' '), '--image-opts', list], writes: true };
      });
    }),
  ));

test('JSON', () => expectNone(NAMES.flatMap((name) => linesOf(name, false))));

/** Backing files that a person names by settings. */
const BACKING = [
  '{"driver":"qcow2","file.filename":"plain.qcow2"}',
  '{"driver":"qcow2","file.filename":"top.qcow2"}',
  '{"file":{"driver":"file","filename":"orphan.qcow2"}}',
  '{"driver":"qcow2","file.filename":"luks.qcow2"}',
  '{"driver":"qcow2","file.filename":"nowhere"}',
  '{"driver":"qcow2","file.filename":"plain.qcow2","bogus":1}',
  '{"driver":"raw","file.filename":"plain.qcow2","size":65536}',
  ...['{"driver":"null-co","size":65536}', '{"driver":"bogus"}', '{'],
].map((text) => `json:${text}`);

test('who may not write is told so when all is open', () =>
  expectNone(
    ['plain.qcow2', 'orphan.qcow2', 'nowhere', 'corrupt.qcow2', 'raw.img'].flatMap((name) =>
      ['', ',force-share=on', ',bogus=1'].flatMap((more) =>
        [
          ['snapshot', '-U', '-c', 'x'],
          ['check', '-r', 'all'],
          ['amend', '-o', 'size=1M'],
        ].map((words) => {
          const list = `driver=qcow2,file.filename=${name},read-only=on${more}`;
          return { args: [...words, '--image-opts', list], writes: true };
        }),
      ),
    ),
  ));

test('a backing file of a new image', () =>
  expectNone(
    [...BACKING, 'blkdebug::plain.qcow2', 'null-co://'].flatMap((name) =>
      [['-F', 'qcow2'], ['-F', 'raw'], [], ['-u', '-F', 'qcow2']].map((format) => ({
        args: ['create', '-f', 'qcow2', '-b', name, ...format, 'new.qcow2'],
        writes: true,
      })),
    ),
  ));

test('a container without a key, or at an impossible place', () =>
  expectNone(
    ['nowhere/x', 'sub', 'new.img'].flatMap((name) =>
      [[], ['-o', 'key-secret=x'], ['-o', 'hash-alg=bad']].map((more) => ({
        args: ['create', '-f', 'luks', ...more, name, '64k'],
        writes: true,
      })),
    ),
  ));

test.run();
