// LUKS headers that are damaged or mean harm: refused in QEMU's words, or in better ones where it
// would take its time or says something that is not so. In containers and in qcow2 images.
import { readFileSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { rng, SEED, someOf } from '../random.ts';
import { inScratch, must, run, TOOL } from '../tool.ts';

const SECRETS = ['--object', 'secret,id=s,data=first', '--object', 'secret,id=n,data=second'];

/** Bytes of a header, and what is said of it: by both, or by ours alone. */
interface Damage {
  readonly what: string;
  readonly at: number;
  readonly bytes: string;
  readonly ours?: RegExp;
  readonly only?: 'luks';
}

const ALL = '\xff\xff\xff\xff';
/** Key slot 0: active, iterations, salt, place of the material, stripes. */
const SLOT = 208;
const DAMAGES: readonly Damage[] = [
  { what: 'magic', at: 0, bytes: 'SKUL', ours: /LUKS/ },
  { what: 'version 2', at: 6, bytes: '\0\x02' },
  // QEMU knows the cipher, and takes the key that it makes for a wrong password.
  { what: 'serpent', at: 8, bytes: 'serpent\0', ours: /encrypted with serpent-256 cannot be/ },
  { what: 'twofish', at: 8, bytes: 'twofish\0', ours: /encrypted with twofish-256 cannot be/ },
  { what: 'cast5', at: 8, bytes: 'cast5\0' },
  { what: 'a cipher that nobody knows', at: 8, bytes: 'nonsense\0' },
  { what: 'a cipher without an end', at: 8, bytes: 'x'.repeat(32) },
  { what: 'a mode that nobody knows', at: 40, bytes: 'lrw-benbi\0' },
  { what: 'a generator that nobody knows', at: 40, bytes: 'xts-benbi\0' },
  { what: 'a hash that nobody knows', at: 72, bytes: 'whirlpool\0' },
  // In qcow2 images nobody asks for it: clusters lie where the tables say.
  { what: 'a payload behind the end', at: 104, bytes: ALL, only: 'luks', ours: /its payload$/m },
  { what: 'a long key', at: 108, bytes: ALL },
  { what: 'a key of no bytes', at: 108, bytes: '\0\0\0\0', ours: /key|Key|cipher|Algorithm/ },
  // QEMU does what it is told: half an hour of it.
  { what: 'digest iterations', at: 164, bytes: ALL, ours: /asks for 4294967295 PBKDF2 iterations/ },
  { what: 'a slot that is neither', at: SLOT, bytes: ALL },
  { what: 'iterations', at: SLOT + 4, bytes: ALL, ours: /asks for 4294967295 PBKDF2 iterations/ },
  { what: 'another salt', at: SLOT + 8, bytes: 'salt' },
  { what: 'material in the header', at: SLOT + 40, bytes: '\0\0\0\0' },
  { what: 'material far behind', at: SLOT + 40, bytes: ALL, ours: /Keyslot 0 is overlapping/ },
  {
    what: 'stripes',
    at: SLOT + 44,
    bytes: ALL,
    ours: /^.*corrupted \(stripes 4294967295 != 4000\)/,
  },
  { what: 'no stripes', at: SLOT + 44, bytes: '\0\0\0\0' },
  { what: 'other stripes', at: SLOT + 44, bytes: '\0\0\x10\0' },
];

/** The two places of a header. */
const HOLDERS = {
  luks: { options: 'key-secret=s,iter-time=10', secret: 'key-secret' },
  qcow2: {
    options: 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10',
    secret: 'encrypt.key-secret',
  },
} as const;

const told = (text: string) => text.replace(/^(qemu-img|qcow2-img\.js|qcow2-img): /gm, '');

async function make(folder: string, format: keyof typeof HOLDERS): Promise<Buffer> {
  const { options } = HOLDERS[format];
  const line = ['create', '-q', ...SECRETS, '-f', format, '-o', options, 'made', '256k'];
  await must(process.execPath, [TOOL, ...line], { cwd: folder });
  return readFileSync(`${folder}/made`);
}

/** Reads `image` whole, with a secret. */
function read(program: readonly string[], folder: string, format: string, secret: string) {
  const name = `driver=${format},file.filename=image,${secret}`;
  const line = ['convert', ...SECRETS, '--image-opts', '-O', 'raw', name, 'plain'];
  const [first = '', ...rest] = program;
  return run(first, [...rest, ...line], { cwd: folder });
}

const test = qemuSuite('damaged LUKS headers, against QEMU');

for (const format of ['luks', 'qcow2'] as const) {
  const { secret } = HOLDERS[format];

  test(`in ${format}: what is wrong is said, at once`, async () => {
    await inScratch(async (folder) => {
      const whole = await make(folder, format);
      const header = whole.indexOf('LUKS\xba\xbe', 0, 'latin1');
      for (const { what, at, bytes, ours, only = format } of someOf(DAMAGES, 8)) {
        if (only !== format) continue;
        const image = Buffer.from(whole);
        image.write(bytes, header + at, 'latin1');
        writeFileSync(`${folder}/image`, image);
        const mine = await read([process.execPath, TOOL], folder, format, `${secret}=s`);
        assert.is(mine.code, 1, `${what}: ${mine.stderr}`);
        if (ours) {
          assert.match(mine.stderr, ours, what);
          continue;
        }
        const theirs = await read([requireQemu().img], folder, format, `${secret}=s`);
        assert.is(told(mine.stderr), told(theirs.stderr), what);
      }
    });
  });

  test(`in ${format}: a stripe that is damaged takes its slot with it, and no other`, async () => {
    await inScratch(async (folder) => {
      await make(folder, format);
      const prefix = format === 'qcow2' ? 'encrypt.' : '';
      const change = `${prefix}state=active,${prefix}new-secret=n,${prefix}iter-time=10`;
      const name = `driver=${format},file.filename=made,${secret}=s`;
      const line = ['amend', ...SECRETS, '--image-opts', '-o', change, name];
      await must(process.execPath, [TOOL, ...line], { cwd: folder });
      const image = readFileSync(`${folder}/made`);
      const header = image.indexOf('LUKS\xba\xbe', 0, 'latin1');
      const material = header + image.readUInt32BE(header + SLOT + 40) * 512;
      const length = image.readUInt32BE(header + 108) * 4000;
      const at = material + rng().below(length);
      image[at]! ^= 1;
      writeFileSync(`${folder}/image`, image);
      for (const program of [[process.execPath, TOOL], [requireQemu().img]]) {
        const first = await read(program, folder, format, `${secret}=s`);
        assert.is(first.code, 1, `SEED=${SEED}`);
        assert.match(first.stderr, 'Invalid password, cannot unlock any keyslot');
        const second = await read(program, folder, format, `${secret}=n`);
        assert.is(second.code, 0, `SEED=${SEED} ${second.stderr}`);
      }
    });
  });
}

test.run();
