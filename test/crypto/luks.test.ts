/** LUKS volumes made and opened, on every host; those of others are in test/interop. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import { afMerge, afSplit } from '../../src/crypto/af-split.ts';
import { makeSlot, payloadKeys, unlockLuks, withoutSlot } from '../../src/crypto/luks.ts';
import { formatLuks, type LuksFormatOptions } from '../../src/crypto/luks-format.ts';
import { HASH_NAMES } from '../../src/format/luks-algorithms.ts';
import { parseLuksHeader, serializeLuksHeader } from '../../src/format/luks-header.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import { platforms, toHex, unequal } from './platforms.ts';

const text = (passphrase: string) => new TextEncoder().encode(passphrase);
const SECRET = text('correct horse');

async function refused(work: Promise<unknown>, code: string, message: RegExp): Promise<void> {
  try {
    await work;
  } catch (cause) {
    assert.ok(isQcow2Error(cause), String(cause));
    assert.is(cause.code, code);
    assert.match(cause.message, message);
    return;
  }
  assert.unreachable(`expected ${code}`);
}

// The other host's parts run in a browser: in Node its many small hashes are slow.
for (const [host, platform] of platforms.slice(0, 1)) {
  const test = suite(`LUKS, ${host}`);
  const quick = { iterTime: 1, platform };

  async function volume(options: LuksFormatOptions = {}) {
    const { area, masterKey } = await formatLuks(SECRET, { ...quick, ...options });
    // The header may lie anywhere: offsets in it count from its start.
    const at = 4096;
    const bytes = new Uint8Array(at + area.length);
    bytes.set(area, at);
    const storage = memoryStorage(bytes);
    return { storage, at, header: parseLuksHeader(area, at), masterKey, bytes };
  }

  test('a key that was split is the same when it is merged', async () => {
    const key = Uint8Array.from({ length: 48 }, (_, i) => i * 5);
    for (const hash of ['sha1', 'sha256', 'sha512'] as const) {
      const shape = { platform, hash, stripes: 50 };
      const material = await afSplit(key, shape);
      assert.is(material.length, 48 * 50);
      assert.is(unequal(await afMerge(material, 48, shape), key), '');
      material[100]! ^= 1;
      assert.is.not(unequal(await afMerge(material, 48, shape), key), '');
    }
  });

  test('a volume opens with its passphrase, and with no other', async () => {
    const made = await volume();
    const { masterKey, slot } = await unlockLuks(made, SECRET, { platform });
    assert.is(slot, 0);
    assert.is(toHex(masterKey), toHex(made.masterKey));
    const wrong = unlockLuks(made, text('correct house'), { platform });
    await refused(wrong, 'WRONG_KEY', /^Invalid password, cannot unlock any keyslot$/);
    await refused(unlockLuks(made, text(''), { platform }), 'WRONG_KEY', /Invalid password/);
  });

  test('every cipher, mode and generator that QEMU can open', async () => {
    for (const options of [
      { cipher: 'aes-128' },
      { cipher: 'aes-192', hash: 'sha1' },
      { cipher: 'aes-256', mode: 'cbc', generator: 'essiv', hash: 'sha512' },
      { cipher: 'aes-128', mode: 'ctr', generator: 'plain' },
      { cipher: 'aes-256', mode: 'ecb' },
      { mode: 'xts', generator: 'essiv', generatorHash: 'sha256' },
    ] satisfies LuksFormatOptions[]) {
      const made = await volume(options);
      const { masterKey } = await unlockLuks(made, SECRET, { platform });
      assert.is(toHex(masterKey), toHex(made.masterKey));
      const keys = await payloadKeys(made.header, masterKey, platform);
      assert.is(keys.mode, options.mode ?? 'xts');
      assert.is(keys.vectorBits, options.generator === 'plain' ? 32 : 64);
      assert.is(keys.vectorKey !== undefined, options.generator === 'essiv');
    }
  });

  test('slots come and go, each with a passphrase of its own', async () => {
    const made = await volume({ cipher: 'aes-128' });
    const other = { slot: 5, passphrase: text('another'), iterTime: 1, platform };
    const added = await makeSlot(made.header, made.masterKey, other);
    made.bytes.set(added.material, made.at + added.at);
    const both = { ...made, header: added.header };
    assert.is((await unlockLuks(both, text('another'), { platform })).slot, 5);
    assert.is((await unlockLuks(both, SECRET, { platform })).slot, 0);
    const one = { ...both, header: withoutSlot(added.header, 0) };
    await refused(unlockLuks(one, SECRET, { platform }), 'WRONG_KEY', /Invalid password/);
    assert.is((await unlockLuks(one, text('another'), { platform })).slot, 5);
    const again = parseLuksHeader(serializeLuksHeader(one.header), 0);
    assert.equal(
      again.slots.map(({ active }) => active),
      [false, false, false, false, false, true, false, false],
    );
  });

  test('a damaged stripe loses the slot, and the slot alone', async () => {
    const made = await volume({ cipher: 'aes-128' });
    const second = { slot: 1, passphrase: SECRET, iterTime: 1, platform };
    const added = await makeSlot(made.header, made.masterKey, second);
    made.bytes.set(added.material, made.at + added.at);
    const both = { ...made, header: added.header };
    made.bytes[made.at + 4096 + 77777]! ^= 0x10;
    assert.is((await unlockLuks(both, SECRET, { platform })).slot, 1);
    made.bytes[made.at + added.at]! ^= 1;
    await refused(unlockLuks(both, SECRET, { platform }), 'WRONG_KEY', /Invalid password/);
  });

  test('iterations beyond the limit are refused before they are done', async () => {
    const made = await volume({ cipher: 'aes-128' });
    const slots = made.header.slots.map((slot) => ({ ...slot, iterations: 2 ** 32 - 1 }));
    const many = { ...made, header: { ...made.header, slots } };
    const message = /^the LUKS header asks for 4294967295 PBKDF2 iterations, more than 100000000$/;
    await refused(unlockLuks(many, SECRET, { platform }), 'UNSUPPORTED', message);
    const digest = { ...made, header: { ...made.header, digestIterations: 2 ** 31 } };
    await refused(unlockLuks(digest, SECRET, { platform }), 'UNSUPPORTED', /asks for 2147483648/);
    const options = { platform, iterationsMax: 10 };
    await refused(unlockLuks(made, SECRET, options), 'UNSUPPORTED', /more than 10$/);
    // One such slot does not keep the others from being tried.
    const [first, ...rest] = made.header.slots;
    const mixed = [
      first!,
      { ...rest[0]!, active: true, iterations: 2 ** 32 - 1 },
      ...rest.slice(1),
    ];
    const one = { ...made, header: { ...made.header, slots: mixed } };
    assert.is((await unlockLuks(one, SECRET, { platform })).slot, 0);
  });

  test('ciphers and hashes that are not there are named', async () => {
    const made = await volume({ cipher: 'aes-128' });
    for (const cipherName of ['serpent', 'twofish']) {
      const header = { ...made.header, cipherName };
      const message = new RegExp(`^images encrypted with ${cipherName}-128 cannot be opened`);
      await refused(unlockLuks({ ...made, header }, SECRET, { platform }), 'UNSUPPORTED', message);
    }
    if (host !== 'web') return;
    for (const hash of HASH_NAMES.filter((name) => /md5|224|ripemd/.test(name))) {
      const header = { ...made.header, hash };
      const message = new RegExp(`^Hash algorithm '${hash}' not supported$`);
      await refused(unlockLuks({ ...made, header }, SECRET, { platform }), 'UNSUPPORTED', message);
    }
  });

  test('what QEMU could not open is not made', async () => {
    const make = (options: LuksFormatOptions) => formatLuks(SECRET, { ...quick, ...options });
    const keySize = /^aes-192 in cbc mode makes key slots that QEMU cannot open$/;
    await refused(make({ cipher: 'aes-192', mode: 'cbc' }), 'UNSUPPORTED', keySize);
    const essiv = { mode: 'cbc', generator: 'essiv' } as const;
    const message = /^No AES cipher with key size 64 available$/;
    await refused(make({ ...essiv, generatorHash: 'sha512' }), 'UNSUPPORTED', message);
  });

  test.run();
}
