// `info` must print what qemu-img prints, to the byte: scripts read it, in either form.
import {
  chmodSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import { type Host, UsageError } from '../../src/cli/command.ts';
import { info } from '../../src/cli/commands/info.ts';
import { definitionOf, takeGlobalOptions } from '../../src/cli/global-options.ts';
import { nodeHost } from '../../src/cli/host-node.ts';
import {
  buildImage,
  type ClusterSpec,
  deflateStored,
  type ImageSpec,
  zstdStored,
} from '../format/image-builder.ts';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { rng, SEED } from '../random.ts';
import {
  askedAlike,
  eachAtOnce,
  inScratch,
  oftenEnough,
  qemuImg,
  qemuIo,
  run,
  tool,
} from '../tool.ts';

/** What a run printed, and how it ended. */
interface Printed {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

const realHost = nodeHost('qemu-img');
const SLOW = Boolean(process.env.SLOW);
const HINT = "Try 'qemu-img --help' for more information\n";

/** The command in this process, under the name of QEMU's tool. */
async function ours(args: readonly string[]): Promise<Printed> {
  const printed = { out: '', err: '' };
  const host: Host = Object.assign(Object.create(realHost), {
    out: (text: string) => void (printed.out += text),
    error: (message: string) => void (printed.err += `qemu-img: ${message}\n`),
    note: (text: string) => void (printed.err += text),
  });
  try {
    const left = takeGlobalOptions(host, info, args, await definitionOf(args));
    assert.ok(left, 'no call for help');
    return { code: await info.run(left, host), ...printed };
  } catch (cause) {
    if (!(cause instanceof UsageError) && !isQcow2Error(cause)) throw cause;
    host.error(cause.message);
    if ('hintText' in cause) host.note(String(cause.hintText));
    if (cause instanceof UsageError && cause.hint) host.note(HINT);
    return { code: 1, ...printed };
  }
}

async function theirs(args: readonly string[]): Promise<Printed> {
  const { code, stdout, stderr } = await run(requireQemu().img, ['info', ...args]);
  return { code, out: stdout.toString(), err: stderr };
}

/** Compares both tools on one command line. */
async function same(...args: string[]): Promise<Printed> {
  const [mine, expected] = await askedAlike(() => Promise.all([ours(args), theirs(args)]));
  assert.equal(mine, expected, `info ${args.join(' ')}`);
  return expected;
}

/** Compares both forms of one image, alone and as a chain. */
async function sameForms(...args: string[]): Promise<void> {
  const forms = ['--output=human', '--output=json'].flatMap((output) => [
    [output],
    [output, '--backing-chain'],
  ]);
  await Promise.all(forms.map((form) => same(...form, ...args)));
}

/** Runs `work` in a folder of its own, which is the working directory meanwhile. */
function inFolder(work: () => Promise<void>): () => Promise<void> {
  return () =>
    inScratch(async (folder) => {
      const before = process.cwd();
      process.chdir(folder);
      try {
        await work();
      } finally {
        process.chdir(before);
      }
    });
}

const create = (file: string, size: string, ...options: string[]) =>
  qemuImg(['create', '-q', '-f', 'qcow2', ...options, file, size]);

/** Writes numbers over bytes of a file, big-endian. */
function patch(file: string, at: number, bytes: number, value: bigint | number): void {
  const content = readFileSync(file);
  const word = Buffer.alloc(8);
  word.writeBigUInt64BE(BigInt.asUintN(64, BigInt(value)));
  word.copy(content, at, 8 - bytes);
  writeFileSync(file, content);
}

function placeOf(file: string, bytes: string): number {
  const at = readFileSync(file).indexOf(Buffer.from(bytes, 'hex'));
  assert.ok(at >= 0, `${bytes} in ${file}`);
  return at;
}

const BACKING_FORMAT = 'e2792aca';
const BITMAPS = '23852875';

const test = qemuSuite('info, against qemu-img');

test(
  'every option that shapes an image',
  inFolder(async () => {
    const images: string[][] = [['compat=0.10'], ['compat=0.10', 'cluster_size=512']];
    for (const cluster of [512, 4096, 65536, 2097152]) {
      for (const bits of [1, 16, 64]) {
        images.push([`cluster_size=${cluster}`, `refcount_bits=${bits}`]);
      }
    }
    for (const more of ['lazy_refcounts=on', 'extended_l2=on', 'compression_type=zstd']) {
      images.push([more], [more, 'cluster_size=16384']);
    }
    images.push(['preallocation=metadata'], ['refcount_bits=2'], ['refcount_bits=8']);
    await eachAtOnce(images.entries(), async ([index, options]) => {
      const file = `image-${index}`;
      await create(file, `${12 + index}M`, '-o', options.join(','));
      await qemuIo(file, ['write 0 70000', 'write -z 1M 1M']);
      await sameForms(file);
    });
  }),
);

test(
  'sizes of every magnitude, in the images and on the disk',
  inFolder(async () => {
    const next = rng();
    const sizes = ['0', '512', '1000', '1024k', '12.25M', '1.125G', '999M', '1000M', '63T'];
    for (let i = 0; i < 20; i++) sizes.push(String((next.below(2 ** 30) + 1) * 512));
    await eachAtOnce(sizes.entries(), async ([index, size]) => {
      await create(`size-${index}`, size, '-o', 'cluster_size=2M');
      await sameForms(`size-${index}`);
    });
    await create('huge', '1M', '-o', 'cluster_size=2M');
    for (const size of [2n ** 53n + 512n, 2n ** 60n, 2n ** 61n + 512n * 77n, 2n ** 62n]) {
      patch('huge', 24, 8, size);
      // Enough L1 entries, of which all but the first read as zeros past the end of the file.
      patch('huge', 36, 4, 2 ** 22);
      await sameForms('huge');
    }
    for (const length of [0, 1, 511, 513, 1_000_000, 12_544, 2 ** 31 + 1]) {
      writeFileSync('raw', '');
      truncateSync('raw', length);
      await sameForms('raw');
      await sameForms('-f', 'raw', 'raw');
    }
    writeFileSync('full', Buffer.alloc(12_345_678, 1));
    await sameForms('full');
    await same('/dev/null');
    await same('/dev/zero');
  }),
);

test(
  'snapshots: names, clocks, dates and states of any size',
  inFolder(async () => {
    const next = rng();
    for (const compat of ['0.10', '1.1']) {
      const file = `snapshots-${compat}`;
      await create(file, '5M', '-o', `compat=${compat}`);
      for (const name of ['one', 'é'.repeat(9), 'long '.repeat(40), '', '"\\\t\u{1f600}']) {
        await qemuImg(['snapshot', '-c', name, file]);
      }
      await sameForms(file);
      const table = Number(readFileSync(file).readBigUInt64BE(64));
      for (let i = 0; i < (SLOW ? 400 : 20); i++) {
        const wide = BigInt(next.u32()) * 2n ** 32n + BigInt(next.u32());
        patch(file, table + 16, 4, next.u32());
        patch(file, table + 20, 4, next.u32());
        patch(file, table + 24, 8, next.pick([0n, 59_999_999_999n, wide >> 20n, wide >> 1n]));
        patch(file, table + 40, 8, next.pick([0, 999, 1000, 12_544, next.u32(), 2 ** 50 + 1]));
        if (compat === '1.1') patch(file, table + 56, 8, next.pick([-1n, 0n, wide, wide >> 40n]));
        await sameForms(file);
      }
    }
  }),
);

test(
  'snapshots that say less than QEMU writes today',
  inFolder(async () => {
    await create('image', '5M');
    await qemuImg(['snapshot', '-c', 'x'.repeat(50), 'image']);
    const table = Number(readFileSync('image').readBigUInt64BE(64));
    // Less extra data leaves more for the id, which is as long as it was; more of it reaches past
    // the end of the file, where QEMU finds zeros.
    truncateSync('image', 2 ** 20);
    for (const extra of [0, 8, 16, 24, 25, 32]) {
      patch('image', table + 36, 4, extra);
      await sameForms('image');
    }
    patch('image', table + 32, 4, 123_456_789);
    for (const extra of [0, 8]) {
      patch('image', table + 36, 4, extra);
      await sameForms('image');
    }
  }),
);

test(
  'bitmaps: trusted, in use, and out of date',
  inFolder(async () => {
    await create('image', '5M');
    await qemuImg(['bitmap', '--add', 'image', 'first']);
    await qemuImg(['bitmap', '--add', '-g', '512', '--disable', 'image', 'zwölf']);
    await sameForms('image');
    const extension = placeOf('image', BITMAPS);
    const directory = Number(readFileSync('image').readBigUInt64BE(extension + 24));
    for (const flags of [0, 1, 2, 3]) {
      patch('image', directory + 12, 4, flags);
      await sameForms('image');
    }
    patch('image', 88, 8, 0);
    const { err } = await same('image');
    assert.match(err, 'warning: a program lacking bitmap support');
    await same('--output=json', 'image');
    for (const length of [0, 16, 32]) {
      patch('image', 88, 8, 1);
      patch('image', extension + 4, 4, length);
      await same('image');
    }
  }),
);

test(
  'an old image with bitmaps is warned of in other words',
  inFolder(async () => {
    await create('image', '5M', '-o', 'compat=0.10');
    const bitmaps = Buffer.alloc(40);
    bitmaps.writeUInt32BE(0x23852875, 0);
    bitmaps.writeUInt32BE(24, 4);
    const content = readFileSync('image');
    bitmaps.copy(content, 72);
    writeFileSync('image', content);
    const { err } = await same('image');
    assert.match(err, 'This qcow2 v2 image contains bitmaps');
    await sameForms('image');
  }),
);

test(
  'dirty and corrupt images',
  inFolder(async () => {
    await create('image', '5M', '-o', 'lazy_refcounts=on');
    for (const bits of [1, 2, 3]) {
      patch('image', 72, 8, bits);
      await sameForms('image');
    }
  }),
);

test(
  'external data files, which need not be there',
  inFolder(async () => {
    await create('image', '5M', '-o', 'data_file=data.raw');
    await create('plain', '5M', '-o', 'data_file=plain.raw,data_file_raw=on');
    await qemuIo('image', ['write 0 1M']);
    await sameForms('image');
    await sameForms('plain');
    writeFileSync('data.raw', '');
    await sameForms('image');
  }),
);

test(
  'snapshots are not shown where the data is elsewhere',
  inFolder(async () => {
    await create('image', '5M');
    await qemuImg(['snapshot', '-c', 'one', 'image']);
    patch('image', 72, 8, 4);
    await sameForms('image');
  }),
);

test(
  'encrypted images',
  inFolder(async () => {
    const secret = ['--object', 'secret,id=s,data=secret'];
    const layouts = [
      'format=aes',
      'format=luks',
      'format=luks,encrypt.cipher-alg=aes-128,encrypt.hash-alg=sha1',
      'format=luks,encrypt.cipher-alg=aes-256,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,' +
        'encrypt.ivgen-hash-alg=sha256',
      'format=luks,encrypt.cipher-alg=serpent-256,encrypt.ivgen-alg=plain',
    ];
    for (const [index, layout] of layouts.entries()) {
      const quick = layout === 'format=aes' ? '' : ',encrypt.iter-time=10';
      const options = `encrypt.${layout},encrypt.key-secret=s${quick}`;
      await oftenEnough(() => create(`image-${index}`, '5M', ...secret, '-o', options));
      await sameForms(`image-${index}`);
    }
    const luks = placeOf('image-1', '4c554b53babe');
    for (const [field, bytes, value] of [
      [6, 2, 2],
      [104, 4, 0],
      [104, 4, 10],
      [108, 4, 50],
      [164, 4, 0],
      [208, 4, 7],
      [212, 4, 0],
      [248, 4, 0],
      [248, 4, 0x208],
      [252, 4, 3999],
    ] as const) {
      await qemuImg(['convert', '-f', 'raw', '-O', 'raw', 'image-1', 'broken']);
      patch('broken', luks + field, bytes, value);
      const { code } = await same('broken');
      assert.is(code, 1, `LUKS header byte ${field}`);
    }
    for (const text of [8, 40, 72]) {
      await qemuImg(['convert', '-f', 'raw', '-O', 'raw', 'image-1', 'broken']);
      for (let at = 0; at < 32; at += 8) patch('broken', luks + text + at, 8, 0x4141414141414141n);
      assert.match((await same('broken')).err, 'is not NUL terminated');
    }
  }),
);

test(
  'backing files: relative, absolute, elsewhere, with protocols, without a format',
  inFolder(async () => {
    mkdirSync('folder');
    await create('folder/base', '3M');
    await create('base', '2M');
    symlinkSync('folder/base', 'link');
    const names = ['base', './base', '../base', '/nowhere/base', 'folder/base', 'file:base'];
    names.push('missing', 'file:missing', '.', './a:b', 'bogus:base', 'link', 'base/x');
    for (const name of names) {
      for (const file of ['image', 'folder/image']) {
        await create(file, '5M', '-u', '-F', 'raw', '-b', name);
        await sameForms(file);
        if (file !== 'image') {
          await sameForms(`file:${file}`);
          continue;
        }
        patch(file, placeOf(file, BACKING_FORMAT), 4, 0x11111111);
        await sameForms(file);
      }
    }
    for (const name of ['nbd://localhost/x', 'json:{"driver":"null-co"}']) {
      await create('image', '5M', '-u', '-F', 'raw', '-b', name);
      await same('image');
      await same('--output=json', 'image');
    }
    await create('image', '5M', '-u', '-F', 'qcow2', '-b', 'folder/base');
    await sameForms('image');
    patch('image', placeOf('image', BACKING_FORMAT) + 8, 4, 0x626f6775);
    await sameForms('image');
  }),
);

test(
  'chains that go round, and chains that break',
  inFolder(async () => {
    mkdirSync('folder');
    await create('a', '1M', '-u', '-F', 'qcow2', '-b', 'b');
    await create('b', '1M', '-u', '-F', 'qcow2', '-b', 'a');
    const { err } = await same('--backing-chain', 'a');
    assert.match(err, "Backing file 'a' creates an infinite loop.");
    await sameForms('b');
    await sameForms('./a');
    await create('folder/self', '1M');
    await qemuImg(['rebase', '-u', '-F', 'qcow2', '-b', 'self', 'folder/self']);
    await sameForms('folder/self');
    // The name grows with each step, until the system takes it no more.
    await qemuImg(['rebase', '-u', '-F', 'qcow2', '-b', '../folder/self', 'folder/self']);
    await sameForms('folder/self');
    writeFileSync('text', 'hello');
    await create('c', '1M', '-u', '-F', 'qcow2', '-b', 'text');
    await sameForms('c');
    await create('d', '1M', '-u', '-F', 'raw', '-b', 'text');
    await create('e', '1M', '-u', '-F', 'qcow2', '-b', 'd');
    await sameForms('e');
  }),
);

test(
  'command lines that are wrong',
  inFolder(async () => {
    await create('image', '1M');
    await create('-U', '1M').catch(() => {});
    writeFileSync('text', 'hello');
    for (const line of [
      '',
      'image image',
      'missing',
      'text/missing',
      '.',
      '-f qcow2 missing',
      '-f bogus missing',
      '-f bogus image',
      '-f qcow2 text',
      '-f raw image',
      '-f raw -f qcow2 image',
      '-fraw image',
      '-Uf raw image',
      '--format raw image',
      '--fo=raw image',
      '--f raw image',
      '--force image',
      '--output=xml image',
      '--output= image',
      '--output=JSON missing',
      '--out json image',
      '--o=json image',
      '--output',
      '-f',
      '-Uf',
      '-x image',
      '-Ux image',
      'image -x',
      '--bogus image',
      '--bogus=3 image',
      '--backing-chain=3 image',
      '--back image',
      '-- image',
      '-- image -U',
      'image -U',
      '-- -U',
      '-',
      'bogus:image',
      'file:image',
      'file:missing',
    ]) {
      await same(...line.split(' ').filter((word) => word !== ''));
    }
  }),
);

test(
  'entries of snapshots that the end of the file cuts short',
  inFolder(async () => {
    await create('good', '1M');
    for (const name of ['one', 'two']) await qemuImg(['snapshot', '-c', name, 'good']);
    const good = readFileSync('good');
    const table = good.readUInt32BE(68);
    const next = rng();
    for (let i = 0; i < 12; i++) {
      writeFileSync('bad', good);
      if (next.below(2) > 0) patch('bad', table + 36, 4, next.pick([0, 16, 100, 1024]));
      if (next.below(2) > 0) patch('bad', table + 14, 2, next.pick([0, 9, 2000, 65535]));
      // The file's last sector is there as a whole.
      truncateSync('bad', table + 512 * next.below(3));
      if (next.below(2) > 0) patch('bad', 60, 4, next.pick([3, 4, 9]));
      const [mine, expected] = await askedAlike(() =>
        Promise.all([ours(['-U', 'bad']), theirs(['-U', 'bad'])]),
      );
      assert.equal(mine, expected, `SEED=${SEED}, ${i}`);
    }
  }),
);

test(
  'headers that are wrong',
  inFolder(async () => {
    await create('good', '5M');
    const good = readFileSync('good');
    const next = rng();
    const fields = [0, 4, 16, 20, 32, 36, 56, 60, 76, 80, 84, 88, 92, 96, 100, 104];
    for (let i = 0; i < (SLOW ? 3000 : 100); i++) {
      const at = next.pick(fields);
      const value = next.pick([0, 1, 2, 3, 7, 9, 22, 104, 2 ** 16, 2 ** 24, 2 ** 32 - 1]);
      // A snapshot table of nothing: QEMU lists what it finds in the zeros past the file's end.
      if (at === 60 && value !== 0 && value <= 2 ** 16) continue;
      // QEMU knows the first version of the format.
      if (at === 4 && value === 1) continue;
      // QEMU crashes: LUKS without its header extension.
      if (at === 32 && value === 2) continue;
      const bad = Buffer.from(good);
      bad.writeUInt32BE(value, at);
      writeFileSync('bad', bad);
      const [mine, expected] = await askedAlike(() =>
        Promise.all([ours(['bad']), theirs(['bad'])]),
      );
      assert.equal(mine, expected, `${value} at ${at}, SEED=${SEED}`);
    }
  }),
);

test(
  "images of the tests' own builder are clean in QEMU's eyes",
  inFolder(async () => {
    const cluster = new Uint8Array(512).fill(7);
    const clusters: Record<number, ClusterSpec> = {
      0: { kind: 'data', fill: 1 },
      1: { kind: 'zero' },
      2: { kind: 'zero', kept: true },
      70: { kind: 'data', fill: 2 },
    };
    const deflated = { 3: { kind: 'compressed', stream: deflateStored(cluster) } } as const;
    const zstd = { 3: { kind: 'compressed', stream: zstdStored(cluster) } } as const;
    const { 0: data } = clusters;
    const specs: ImageSpec[] = [
      {},
      { clusters: { ...clusters, ...deflated } },
      { version: 2, clusters: { 0: data!, ...deflated } },
      { zstd: true, clusters: { ...clusters, ...zstd } },
      { extendedL2: true, clusters: { 0: data!, 1: { kind: 'zero' }, 3: data! } },
      { snapshots: ['one', 'two'], clusters },
      { version: 2, snapshots: ['one', 'two'], clusters: { 5: data! } },
      { bitmaps: ['b', 'c'], clusters },
      { backing: { name: 'base', format: 'raw' }, clusters },
      { dataFile: 'data', clusters },
      ...[0, 3, 6].map((refcountOrder) => ({ refcountOrder, clusters })),
      { size: 65536 + 1000 },
    ];
    writeFileSync('base', Buffer.alloc(70_000, 9));
    writeFileSync('data', Buffer.alloc(70_000, 9));
    for (const [index, spec] of specs.entries()) {
      const { bytes } = buildImage(spec);
      writeFileSync(`image-${index}`, bytes);
      await qemuImg(['check', `image-${index}`]);
      await sameForms(`image-${index}`);
      await qemuImg(['convert', '-O', 'raw', `image-${index}`, 'copy']);
      const copy = readFileSync('copy');
      const compressed = Object.values(spec.clusters ?? {}).some((c) => c.kind === 'compressed');
      if (compressed) assert.ok(copy.subarray(1536, 2048).every((byte) => byte === 7));
    }
  }),
);

test(
  'what cannot be read says so',
  inFolder(async () => {
    await create('image', '1M', '-u', '-F', 'raw', '-b', 'loop');
    symlinkSync('loop', 'loop');
    await sameForms('loop');
    await sameForms('image');
    await same('x'.repeat(300));
    // Root reads it all the same, in both tools.
    await create('closed', '1M');
    chmodSync('closed', 0);
    await sameForms('closed');
  }),
);

test(
  'the real process says the same, under its own name',
  inFolder(async () => {
    await create('base', '1M');
    await create('image', '1M', '-F', 'qcow2', '-b', 'base');
    for (const args of [
      ['image'],
      ['--output=json', '--backing-chain', 'image'],
      ['missing'],
      ['--bogus'],
      [],
    ]) {
      const renamed = async () => {
        const { code, stdout, stderr } = await tool(['info', ...args]);
        return { code, out: stdout.toString(), err: stderr.replaceAll('qcow2-img', 'qemu-img') };
      };
      const [mine, expected] = await askedAlike(() => Promise.all([renamed(), theirs(args)]));
      assert.equal(mine, expected, `info ${args.join(' ')}`);
    }
  }),
);

test(
  '--untrusted keeps the chain in the folder of its first image',
  inFolder(async () => {
    mkdirSync('folder');
    await create('outside', '1M');
    await create('folder/inside', '1M');
    await create('folder/a', '1M', '-u', '-F', 'qcow2', '-b', 'inside');
    await create('folder/b', '1M', '-u', '-F', 'qcow2', '-b', '../outside');
    assert.is((await ours(['--untrusted', '--backing-chain', 'folder/a'])).code, 0);
    assert.is((await ours(['--untrusted', 'folder/b'])).code, 0);
    const { code, err } = await ours(['--untrusted', '--backing-chain', 'folder/b']);
    assert.is(code, 1);
    assert.match(err, "lies outside of the image's folder");
  }),
);

test.run();
