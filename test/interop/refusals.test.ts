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

test('names that say by what they are opened', () =>
  expectAlike([
    ...['info host_device:raw.img', 'info host_cdrom:raw.img', 'info host_device:nowhere'],
    ...['info -f file host_device:x', 'info -f host_device file:raw.img', 'info file:/dev/null'],
    ...['info -f raw host_device:/dev/null', 'info -f host_device host_device:/dev/null'],
    ...['compare plain.qcow2 host_device:/dev/null', 'info file:plain.qcow2'],
    ...['convert -n plain.qcow2 host_device:/dev/null', 'rebase -u -b host_device:x room.qcow2'],
  ]));

test('names in which nothing is made', () =>
  expectAlike([
    ...['create -f raw null-co:// 1M', 'create -f qcow2 null-aio:// 1M', 'create null-co://'],
    ...['create -f qcow2 blkdebug::x 1M', 'create -f qcow2 -o help null-co://'],
    ...['convert plain.qcow2 null-co://', 'convert plain.qcow2 blkdebug:x'],
    ...['convert plain.qcow2 json:{}', 'dd if=plain.qcow2 of=null-aio://'],
  ]));

test('options before the command', () =>
  expectAlike([
    ...['-T', '--trace', '--bogus', '-x', '-- -V', '-', '--version=1', '--v=1'],
    ...['-T x* info plain.qcow2', '-Tx* info plain.qcow2', '--tra=x* check plain.qcow2'],
    ...['-- info plain.qcow2', '--trace x* -- info plain.qcow2', '-Tx* --bogus'],
    ...['-T x* nothing plain.qcow2', '--trace x* info --bogus'],
  ]));

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

test('what is to be written cannot be shared', () =>
  expectAlike(
    [
      'nowhere',
      'plain.qcow2',
      '--image-opts driver=qcow2,bogus=1',
      '--image-opts driver=bogus',
      '--image-opts plain.qcow2',
      '--image-opts file.filename=plain.qcow2,force-share=off',
    ].flatMap((name) => [`check -U -r all ${name}`, `snapshot -U -c x ${name}`]),
  ));

test('devices that keep nothing, as targets', () =>
  expectAlike([
    ...['convert -O qcow2 plain.qcow2 /dev/null', 'convert -c -O qcow2 plain.qcow2 /dev/zero'],
    ...['convert -O qcow2 plain.qcow2 /dev/full', 'create -f qcow2 /dev/null 1M'],
    ...['create -f qcow2 /dev/full 1M', 'create -f raw -o preallocation=metadata /dev/null 1M'],
    ...['convert -O raw -o preallocation=metadata plain.qcow2 /dev/null'],
    ...['create -f qcow2 -o data_file=/dev/null new.img 1M'],
    ...['create -f qcow2 -o data_file=/dev/null,preallocation=full new.img 1M'],
    ...['convert -O qcow2 -o data_file=/dev/null plain.qcow2 new.img'],
    ...['resize -f raw --preallocation=falloc /dev/null 1M', 'resize -f raw /dev/null 1M'],
  ]));

test('drivers that make no images, and those that have one name', () =>
  expectAlike([
    ...['null-co', 'null-aio', 'bochs', 'throttle', 'copy-before-write', 'nonsense'].flatMap(
      (one) => [
        `create -f ${one} new.img 1M`,
        `create -f ${one} -o help`,
        `convert -O ${one} plain.qcow2 new.img`,
        `convert -c -O ${one} plain.qcow2 new.img`,
        `measure -O ${one} --size 1M`,
      ],
    ),
    ...['null-co', 'null-aio'].flatMap((one) => [
      `convert -f ${one} -O raw plain.qcow2 new.img`,
      `info -f ${one} plain.qcow2`,
      `info -f ${one} null-co://`,
      `map -f ${one} null-aio://`,
    ]),
  ]));

test('convert -n: names of targets that name nothing', () =>
  expectAlike([
    ...['zeroinit:raw.img', 'json:', 'json:{x', 'json:{"driver":"bogus"}'].flatMap((name) => [
      `convert -n -O qcow2 plain.qcow2 ${name}`,
      `convert -p -n -f qcow2 -O raw plain.qcow2 ${name}`,
    ]),
    'convert -O raw plain.qcow2 zeroinit:new.img',
    ...['json:{"file.filename":"nowhere"}', 'blkdebug::short.img', 'null-co://'].map(
      (name) => `convert -n -O raw plain.qcow2 ${name}`,
    ),
    ...['driver=', 'driver=bogus,file.filename=raw.img', 'bogus=1', 'driver=qcow2'].map(
      (name) => `convert -n --target-image-opts plain.qcow2 ${name}`,
    ),
  ]));

test('convert -n: raw targets that are named by settings', () =>
  expectAlike(
    [
      'json:{"file.filename":"raw.img"}',
      'json:{"driver":"raw","offset":4096,"file":{"driver":"file","filename":"raw.img"}}',
      'blkdebug::raw.img',
    ].map((name) => `convert -n -f raw -O raw base.raw ${name}`),
  ));

test('nodes that lack what they need, and what they do not know', () =>
  expectAlike(
    [
      ...['driver=file,bogus=1', 'driver=file,file.filename=raw.img', 'driver=host_device,x=1'],
      ...['driver=qcow2,file.driver=raw,file.filename=plain.qcow2', 'driver=raw,file.driver=raw'],
      'driver=raw,file.driver=raw,file.bogus=1,file.file.filename=raw.img,file.file.bogus=2',
      ...['driver=null-co,filename=null-co://', 'file.driver=null-aio,file.filename='],
    ].map((name) => `info --image-opts ${name}`),
  ));

test('what is not measured', () =>
  expectAlike(
    ['file', 'host_device', 'vmdk', 'vpc', 'blkdebug', 'bogus'].map(
      (format) => `measure -O ${format} --size 1M`,
    ),
  ));

test('info tells in what clusters a disk within an image lies', () =>
  expectAlike(
    [
      'driver=raw,file.driver=qcow2,file.file.filename=plain.qcow2',
      'driver=raw,offset=64k,size=64k,file.driver=qcow2,file.file.filename=top.qcow2',
      'driver=raw,file.driver=raw,file.file.driver=qcow2,file.file.file.filename=ext.qcow2',
      'driver=raw,file.driver=raw,file.file.filename=raw.img',
    ].flatMap((name) => ['human', 'json'].map((as) => `info --output=${as} --image-opts ${name}`)),
  ));

test('drivers as formats of targets', () =>
  expectAlike(
    ['file', 'host_device']
      .flatMap((driver) => [
        ...[`-O ${driver} plain.qcow2 new.img`, `-p -O ${driver} plain.qcow2 raw.img`],
        ...[`-O ${driver} plain.qcow2 sub`, `-O ${driver} plain.qcow2 /dev/null`],
        ...[`-n -O ${driver} plain.qcow2 raw.img`, `-n -O ${driver} plain.qcow2 nowhere`],
        ...[`-c -O ${driver} plain.qcow2 new.img`, `-O ${driver} plain.qcow2 nowhere/new.img`],
        ...[`-B base.raw -F raw -O ${driver} plain.qcow2 new.img`],
        ...[`-o preallocation=metadata -O ${driver} plain.qcow2 new.img`],
        ...[`-o preallocation=full -O ${driver} plain.qcow2 new.img`],
      ])
      .map((line) => `convert ${line}`),
  ));

test('past the cache: what cannot be opened so', () =>
  expectAlike([
    ...['convert -T none sub new.img', 'convert -T directsync /dev/null new.img'],
    ...['convert -T off -f raw -O raw /dev/zero new.img', 'convert -T writeback sub new.img'],
    ...['convert -n -t none -O raw raw.img /dev/null', 'convert -t none -O raw raw.img sub'],
    ...['compare -T none sub raw.img', 'compare -T none plain.qcow2 /dev/null'],
    ...['check -T none sub', 'commit -t directsync sub', 'amend -t none -o compat=1.1 sub'],
    ...['bench -t none -c 1 /dev/null', 'rebase -T none -b /dev/null -F raw plain.qcow2'],
    ...['rebase -t none -b  sub', 'convert --image-opts file.filename=sub,cache.direct=on new.img'],
  ]));

test('rebase: to a name that is relative to no folder', () =>
  expectAlike(
    [
      ...['file.driver=qcow2,file.file.filename=nested.qcow2', 'backing=,file.filename=top.qcow2'],
      ...['backing.driver=raw,backing.file.filename=base.raw,file.filename=top.qcow2'],
      ...['backing.driver=qcow2,backing.file.filename=mid.qcow2,file.filename=top.qcow2'],
      ...['backing.lazy-refcounts=on,file.filename=top.qcow2', 'file.filename=top.qcow2'],
    ].map((what) => `rebase -b mid.qcow2 -F qcow2 --image-opts driver=qcow2,${what}`),
  ));

test('map names the parts and views of files that images lie in', () =>
  expectAlike(
    [
      ...['file.driver=raw,file.offset=0,file.file.filename=top.qcow2'],
      ...['file.driver=blkdebug,file.image.filename=top.qcow2', 'file.filename=top.qcow2'],
      ...['file.driver=raw,file.size=36k,file.file.filename=top.qcow2'],
      ...['data-file.driver=raw,data-file.offset=0,data-file.file.filename=data.raw,'].map(
        (what) => `${what}file.filename=data.qcow2`,
      ),
    ].map((what) => `map --image-opts driver=qcow2,${what}`),
  ));

test('two open nodes of one name', () =>
  expectAlike(
    [
      ...['node-name=a,file.node-name=a,file.filename=plain.qcow2', 'node-name=a,file.filename=x'],
      ...['backing.node-name=a,backing.backing.node-name=a,file.filename=top.qcow2'],
      ...['file.node-name=a,backing.file.node-name=a,backing.file.filename=mid.qcow2,'].map(
        (what) => `${what}file.filename=top.qcow2`,
      ),
      ...['node-name=a,data-file.node-name=a,data-file.filename=data.raw,file.filename=data.qcow2'],
      ...['node-name=a,file.node-name=a,file.filename=short.img'],
    ]
      .flatMap((what) => ['info', 'map', 'check'].map((one) => [one, `driver=qcow2,${what}`]))
      .filter(([command, what]) => command !== 'info' || !what?.includes('backing'))
      .map(([command, what]) => `${command} --image-opts ${what}`)
      .concat(
        ['file.filename=raw.img', 'file.filename=nowhere'].map((other) => {
          const first = 'driver=raw,node-name=a,file.filename=raw.img';
          return `compare --image-opts ${first} driver=raw,node-name=a,${other}`;
        }),
      ),
  ));

test('what is read as a snapshot must be a format that has them', () =>
  expectAlike(
    [
      ...['driver=file,filename=raw.img', 'driver=null-co,size=64k', 'driver=null-aio,size=64k'],
      ...['driver=host_device,filename=raw.img', 'driver=blkdebug,image.filename=raw.img'],
      ...['driver=blkdebug,image.driver=qcow2,image.file.filename=snaps.qcow2'],
      ...['driver=compress,file.driver=qcow2,file.file.filename=snaps.qcow2'],
      ...['driver=raw,file.filename=raw.img', 'driver=qcow2,file.filename=snaps.qcow2'],
      ...['driver=blkdebug,image.driver=qcow2,image.file.filename=nowhere'],
    ].flatMap((what) => [
      `measure -l one --image-opts ${what}`,
      `convert -l nowhere -O raw --image-opts ${what} new.img`,
    ]),
  ));

test('a snapshot by names alone, or with a question', () =>
  expectAlike(
    [
      ...['snapshot.x', 'snapshot.id=1,nosnapshot.name', 'snapshot.name,snapshot.id=1'],
      ...['snapshot.name=one,help', 'snapshot.id,?', 'snapshot.?', 'snapshot.id=1,nox,noy'],
    ].flatMap((what) => [
      `measure -l ${what} snaps.qcow2`,
      `measure -l ${what} --output bogus snaps.qcow2`,
      `convert -l ${what} -O raw snaps.qcow2 new.img`,
    ]),
  ));

test('settings that name nothing to open', () =>
  expectAlike(
    [
      ...['bogus=1', 'filename=plain.qcow2', 'force-share=on', 'cache.direct=bad', 'node-name=x'],
      ...[
        'read-only=bad',
        'discard=bad',
        'driver=qcow2,node-name=##,file.filename=plain.qcow2',
        '',
      ],
    ].flatMap((list) =>
      ['snapshot -U -c x', 'check -U -r all', 'check -U', 'info'].map(
        (command) => `${command} --image-opts ${list}`,
      ),
    ),
  ));

test('what is opened twice is spoken of once', () =>
  expectAlike([
    ...['commit -b mid.qcow2 --image-opts file.filename=top.qcow2,discard'],
    ...['commit -b nowhere --image-opts file.filename=top.qcow2,discard'],
    ...['convert -l nowhere --image-opts file.filename=snaps.qcow2,discard new.img'],
    ...['measure -l nowhere --image-opts file.filename=raw.img,discard'],
  ]));

test('an image within an image keeps what lies past the end that the outer one had', () =>
  expectAlike(
    ['resize -q', 'resize --preallocation metadata'].flatMap((command) =>
      ['1G', '3G', '1M'].map(
        (size) =>
          `${command} --image-opts \
driver=qcow2,file.driver=qcow2,file.file.filename=nested.qcow2 ${size}`,
      ),
    ),
  ));

test.run();
