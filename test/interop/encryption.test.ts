// Encrypted images against QEMU's tools: theirs opened here, ours opened there, written by both.
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { type ErrorCode, isQcow2Error } from '../../src/base/errors.ts';
import { scanSize } from '../../src/cli/options.ts';
import type { LuksFormatOptions } from '../../src/crypto/luks-format.ts';
import type { EncryptionChoice } from '../../src/image/qcow2/encrypt-fresh.ts';
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import { openDisk, openNodeFile, type Secret } from '../../src/node.ts';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { rng, SEED } from '../random.ts';
import {
  askedAlike,
  difference,
  inScratch,
  must,
  oftenEnough,
  qemuImg,
  qemuIo,
  run,
  TOOL,
} from '../tool.ts';

const PASSPHRASE = 'tête à tête';
const OBJECT = ['--object', `secret,id=s,data=${PASSPHRASE}`];
const SIZE = 3 * 2 ** 20;
const cryptsetup = ['/usr/sbin/cryptsetup', '/sbin/cryptsetup'].find(existsSync);

const optionsOf = (path: string, format = 'qcow2') => {
  const name = format === 'qcow2' ? 'encrypt.key-secret' : 'key-secret';
  return `driver=${format},file.filename=${path},${name}=s`;
};

/** Writes patterns through qemu-io. */
async function qemuWrite(path: string, commands: readonly string[], format?: string) {
  const lines = commands.flatMap((command) => ['-c', command]);
  const args = [...OBJECT, '--image-opts', ...lines, optionsOf(path, format)];
  const output = await must(requireQemu().io, args);
  assert.not.match(output.toString(), /failed|error|invalid/i);
}

/** The guest bytes, by QEMU. */
async function qemuRead(path: string, folder: string, format?: string): Promise<Buffer> {
  const plain = `${folder}/plain.raw`;
  const source = optionsOf(path, format);
  await qemuImg(['convert', ...OBJECT, '--image-opts', '-O', 'raw', source, plain]);
  return readFileSync(plain);
}

async function ourRead(path: string, secret: Secret = PASSPHRASE): Promise<Uint8Array> {
  const disk = await openDisk(openNodeFile(path), { secret });
  const bytes = new Uint8Array(disk.size);
  // In pieces that begin and end anywhere.
  for (let at = 0; at < bytes.length; ) {
    const end = Math.min(bytes.length, at + 1 + ((at * 7 + 100_003) % 300_001));
    await disk.read(at, bytes.subarray(at, end));
    at = end;
  }
  await disk.close();
  return bytes;
}

const LAYOUTS = [
  'encrypt.format=luks',
  'encrypt.format=luks,encrypt.cipher-alg=aes-128,encrypt.hash-alg=sha1',
  'encrypt.format=luks,encrypt.cipher-alg=aes-192,encrypt.hash-alg=sha512',
  'encrypt.format=luks,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv',
  'encrypt.format=luks,encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,' +
    'encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=md5,encrypt.hash-alg=ripemd160',
  'encrypt.format=luks,encrypt.cipher-mode=ctr,encrypt.ivgen-alg=plain',
  'encrypt.format=luks,encrypt.cipher-mode=ctr,encrypt.ivgen-alg=essiv',
  'encrypt.format=luks,encrypt.cipher-mode=ecb',
  'encrypt.format=luks,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256',
  'encrypt.format=luks,cluster_size=2M',
  'encrypt.format=luks,cluster_size=512,compat=0.10',
  'encrypt.format=luks,extended_l2=on,cluster_size=16k',
  'encrypt.format=aes',
  'encrypt.format=aes,extended_l2=on',
];

/** Makes an image with this library: it takes a moment, and QEMU's calibration seconds. */
async function make(path: string, layout: string, size = SIZE): Promise<void> {
  const values = new Map(layout.split(',').map((part) => part.split('=') as [string, string]));
  const of = (name: string) => values.get(`encrypt.${name}`);
  const luks = {
    ...(of('cipher-alg') ? { cipher: of('cipher-alg') } : {}),
    ...(of('cipher-mode') ? { mode: of('cipher-mode') } : {}),
    ...(of('ivgen-alg') ? { generator: of('ivgen-alg') } : {}),
    ...(of('ivgen-hash-alg') ? { generatorHash: of('ivgen-hash-alg') } : {}),
    ...(of('hash-alg') ? { hash: of('hash-alg') } : {}),
  } as LuksFormatOptions;
  const clusterSize = Number(scanSize(values.get('cluster_size') ?? '65536'));
  const encryption: EncryptionChoice =
    of('format') === 'aes'
      ? { format: 'aes', passphrase: PASSPHRASE }
      : { format: 'luks', passphrase: PASSPHRASE, iterTime: 1, ...luks };
  const image = await Qcow2Image.create(openNodeFile(path, { writable: true, create: true }), {
    size,
    clusterSize,
    version: values.get('compat') === '0.10' ? 2 : 3,
    extendedL2: values.get('extended_l2') === 'on',
    encryption,
  });
  await image.close();
}

async function create(path: string, layout: string, size = SIZE) {
  const quick = layout.includes('luks') ? ',encrypt.iter-time=10' : '';
  const options = `${layout},encrypt.key-secret=s${quick}`;
  const args = ['create', '-q', ...OBJECT, '-f', 'qcow2', '-o', options, path, String(size)];
  await oftenEnough(() => qemuImg(args));
}

const PATTERNS = [
  'write -P 0x11 0 100k',
  'write -P 0x22 300000 70000',
  'write -P 0x33 2M 512',
  'write -P 0x44 2600k 400k',
  'write -z 1M 300k',
];

const test = qemuSuite('encrypted images, against QEMU');

test('both read what the other writes, in every mode, whoever made the image', async () => {
  const theirs = process.env.SLOW ? LAYOUTS : LAYOUTS.filter((one) => /aes$|luks$/.test(one));
  for (const [layout, maker] of [
    ...LAYOUTS.map((one) => [one, make] as const),
    ...theirs.map((one) => [one, create] as const),
  ]) {
    await inScratch(async (folder) => {
      const path = `${folder}/image.qcow2`;
      await maker(path, layout);
      await qemuWrite(path, PATTERNS);
      const expected = await qemuRead(path, folder);
      assert.is(difference(await ourRead(path), expected), '', layout);

      const model = new Uint8Array(expected);
      const random = rng();
      const disk = await openDisk(openNodeFile(path, { writable: true }), {
        secret: PASSPHRASE,
        writable: true,
      });
      for (let round = 0; round < 40; round++) {
        const at = random.below(SIZE);
        const length = Math.min(SIZE - at, 1 + random.below(random.oneIn(3) ? 300_000 : 3000));
        if (random.oneIn(5)) {
          await disk.zero(at, length);
          model.fill(0, at, at + length);
          continue;
        }
        const bytes = new Uint8Array(length).fill(1 + random.below(255));
        await disk.write(at, bytes);
        assert.ok(
          bytes.every((byte) => byte === bytes[0]),
          'the caller keeps its bytes',
        );
        model.set(bytes, at);
      }
      await disk.close();
      const what = `${layout}, SEED=${SEED}`;
      assert.is(difference(await ourRead(path), model), '', what);
      assert.is(difference(await qemuRead(path, folder), model), '', what);
      await qemuImg(['check', ...OBJECT, '--image-opts', optionsOf(path)]);
    });
  }
});

test('plain bytes are nowhere in the file', async () => {
  for (const layout of ['encrypt.format=luks', 'encrypt.format=aes,extended_l2=on']) {
    await inScratch(async (folder) => {
      const path = `${folder}/image.qcow2`;
      await make(path, layout);
      const disk = await openDisk(openNodeFile(path, { writable: true }), {
        secret: PASSPHRASE,
        writable: true,
      });
      const needle = 'sixteen and more bytes that nobody may find here ';
      const text = Buffer.from(needle.repeat(3000));
      await disk.write(1000, text);
      await disk.write(700_000, text.subarray(0, 513));
      await disk.zero(2000, 3000);
      await assertRefused(disk.writeCompressed(0, new Uint8Array(65536)), 'UNSUPPORTED');
      await disk.resize(SIZE + 512 * 5);
      await disk.write(SIZE - 100, text.subarray(0, 200));
      await disk.close();
      const file = readFileSync(path);
      for (let at = 0; at < needle.length - 16; at++) {
        assert.is(file.indexOf(needle.slice(at, at + 16)), -1);
      }
    });
  }
});

async function assertRefused(work: Promise<unknown>, code: ErrorCode): Promise<void> {
  try {
    await work;
  } catch (cause) {
    assert.ok(isQcow2Error(cause, code), String(cause));
    return;
  }
  assert.unreachable(`expected ${code}`);
}

test('a wrong passphrase and a missing one', async () => {
  await inScratch(async (folder) => {
    const path = `${folder}/image.qcow2`;
    await make(path, 'encrypt.format=luks,encrypt.cipher-alg=aes-128', 65536);
    const attempt = async (secret: Secret | undefined) => {
      try {
        await openDisk(openNodeFile(path), { secret });
      } catch (cause) {
        assert.ok(isQcow2Error(cause));
        return `${cause.code}: ${cause.message}`;
      }
      return 'opened';
    };
    const wrong = 'WRONG_KEY: Invalid password, cannot unlock any keyslot';
    const missing = "UNSUPPORTED: Parameter 'encrypt.key-secret' is required for cipher";
    assert.is(await attempt('other'), wrong);
    assert.is(await attempt(() => 'other'), wrong);
    assert.is(await attempt(undefined), missing);
    assert.is(await attempt(() => undefined), missing);
    assert.is(
      await attempt(({ name, depth, format }) => {
        assert.equal([name, depth, format], [path, 0, 'luks']);
        return new TextEncoder().encode(PASSPHRASE);
      }),
      'opened',
    );
  });
});

test('converted into and out of, by workers and without', async () => {
  await inScratch(async (folder) => {
    const at = (name: string) => `${folder}/${name}`;
    const plain = Buffer.alloc(40 * 2 ** 20);
    const random = rng();
    for (let from = 0; from < 33 * 2 ** 20; from += 4096) plain.writeUInt32LE(random.u32(), from);
    writeFileSync(at('plain'), plain);
    const ours = (...args: string[]) =>
      must(process.execPath, [TOOL, 'convert', ...OBJECT, ...args]);
    for (const [layout, threads] of [
      ['encrypt.format=luks', '2'],
      ['encrypt.format=luks,extended_l2=on,encrypt.cipher-mode=cbc', '1'],
      ['encrypt.format=aes', '2'],
    ] as const) {
      const quick = layout.includes('luks') ? ',encrypt.iter-time=10' : '';
      const options = `${layout},encrypt.key-secret=s${quick}`;
      await ours('-m', threads, '-O', 'qcow2', '-o', options, at('plain'), at('image'));
      const compare = ['compare', ...OBJECT, '--image-opts', optionsOf(at('image'))];
      await qemuImg([...compare, `driver=raw,file.filename=${at('plain')}`]);
      await qemuImg(['check', ...OBJECT, '--image-opts', optionsOf(at('image'))]);
      const out = ['--image-opts', '-O', 'raw', optionsOf(at('image')), at('back')];
      await ours('-m', threads, ...out);
      assert.is(difference(readFileSync(at('back')), plain), '', layout);
      // One behind the other: the second one's sectors count from its own start.
      const twice = ['--image-opts', '-O', 'raw', ...Array(2).fill(optionsOf(at('image')))];
      await ours('-m', threads, ...twice, at('back'));
      assert.is(difference(readFileSync(at('back')), Buffer.concat([plain, plain])), '', layout);
      await ours('-n', '--target-image-opts', at('plain'), optionsOf(at('image')));
      await qemuImg([...compare, `driver=raw,file.filename=${at('plain')}`]);
    }
  });
});

test('what has a place before it is written reads as the source, zeros too', async () => {
  await inScratch(async (folder) => {
    const [source, target] = [`${folder}/source.qcow2`, `${folder}/target.qcow2`];
    await qemuImg(['create', '-q', '-f', 'qcow2', source, String(SIZE)]);
    await qemuIo(source, ['write -P 5 1M 64k']);
    const modes = ['metadata', 'falloc', 'full'].map((mode) => `preallocation=${mode}`);
    for (const extra of modes) {
      for (const format of ['luks,encrypt.iter-time=10', 'aes']) {
        const options = `encrypt.format=${format},encrypt.key-secret=s,${extra}`;
        await must(process.execPath, [
          ...[TOOL, 'convert', '-O', 'qcow2', ...OBJECT, '-o', options, source, target],
        ]);
        const right = optionsOf(target);
        const left = `driver=qcow2,file.filename=${source}`;
        const said = await qemuImg(['compare', ...OBJECT, '--image-opts', left, right]);
        assert.is(said.toString(), 'Images are identical.\n', options);
      }
    }
  });
});

test('an overlay is made without the key of what is behind it, as qemu-img does', async () => {
  await inScratch(async (folder) => {
    await make(`${folder}/base.qcow2`, 'encrypt.format=luks');
    const name = `${folder}/over.qcow2`;
    const args = ['create', '-f', 'qcow2', '-F', 'qcow2', '-b', 'base.qcow2', name];
    const ours = (await must(process.execPath, [TOOL, ...args])).toString();
    assert.is(ours, (await qemuImg(args)).toString());
    assert.match(ours, `size=${SIZE} `);
    // What lies further down is still looked for.
    await qemuImg(['create', '-q', '-f', 'qcow2', `${folder}/root.qcow2`, '1M']);
    const encrypt = 'encrypt.format=aes,encrypt.key-secret=s';
    await qemuImg([
      ...['create', '-q', ...OBJECT, '-f', 'qcow2', '-o', encrypt],
      ...['-F', 'qcow2', '-b', 'root.qcow2', `${folder}/base.qcow2`],
    ]);
    await must(process.execPath, [TOOL, ...args]);
    rmSync(`${folder}/root.qcow2`);
    assert.is((await run(process.execPath, [TOOL, ...args])).code, 1);
    assert.is((await run(requireQemu().img, args)).code, 1);
  });
});

test('LUKS containers, made and opened by QEMU, by cryptsetup where it is, and here', async () => {
  await inScratch(async (folder) => {
    const at = (name: string) => `${folder}/${name}`;
    writeFileSync(at('key'), PASSPHRASE);
    const plain = Buffer.alloc(3 * 2 ** 20, 'what stands in a container ');
    writeFileSync(at('plain'), plain);
    const ours = (...args: string[]) => must(process.execPath, [TOOL, ...args]);
    const options = ['-o', 'key-secret=s,iter-time=10'];
    await ours('create', '-q', ...OBJECT, '-f', 'luks', ...options, at('a'), '3M');
    await ours('convert', '-O', 'luks', ...OBJECT, ...options, at('plain'), at('b'));
    const makers = ['a', 'b'];
    if (cryptsetup !== undefined) {
      const size = ['create', '-q', '-f', 'raw', at('c'), '5M'];
      await qemuImg(size);
      const quick = [
        '--pbkdf-force-iterations',
        '1000',
        '--type',
        'luks1',
        '-c',
        'aes-xts-plain64',
      ];
      const cipher = [...quick, '-s', '256', '--batch-mode', '--key-file', at('key')];
      await must(cryptsetup, ['luksFormat', ...cipher, at('c')]);
      makers.push('c');
      for (const name of makers) {
        const test = ['open', '--test-passphrase', '--key-file', at('key'), at(name), 'x'];
        await must(cryptsetup, test);
        await must(cryptsetup, ['luksDump', at(name)]);
      }
    }
    for (const name of makers) {
      const image = optionsOf(at(name), 'luks');
      await ours('convert', '-n', ...OBJECT, '--target-image-opts', at('plain'), image);
      const theirs = await qemuRead(at(name), folder, 'luks');
      assert.is(difference(theirs.subarray(0, plain.length), plain), '', name);
      await qemuWrite(at(name), ['write -P 0x21 1M 4k', 'write -P 0x22 100 600'], 'luks');
      const written = await qemuRead(at(name), folder, 'luks');
      await ours('convert', ...OBJECT, '--image-opts', '-O', 'raw', image, at('back'));
      assert.is(difference(readFileSync(at('back')), written), '', name);
      const [mine, reference] = await askedAlike(async () => {
        const said = [ours('info', at(name)), qemuImg(['info', at(name)])] as const;
        const [left, right] = await Promise.all(said);
        return [left.toString(), right.toString()];
      });
      assert.is(mine, reference);
    }
  });
});

test.run();
