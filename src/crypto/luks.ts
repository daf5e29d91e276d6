/**
 * LUKS version 1: a random master key encrypts the data, and each key slot keeps that key under a
 * passphrase of its own, split into stripes.
 *
 *   passphrase ── PBKDF2 ──▶ slot's key ── decrypts ──▶ stripes ── merge ──▶ master key
 *
 * A digest of the master key tells whether a passphrase was the right one. Specification: LUKS
 * On-Disk Format, version 1.2.3; limits and words are QEMU's.
 */
import { settled } from '../base/awaitable.ts';
import { alignUp } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';
import { LUKS_ITERATIONS_MAX, LUKS_ITERATIONS_MIN } from '../base/limits.ts';
import type { LuksAlgorithms } from '../format/luks-algorithms.ts';
import {
  keyMaterialBytes,
  LUKS_DIGEST_BYTES,
  LUKS_SALT_BYTES,
  LUKS_STRIPES,
  type LuksHeader,
  type LuksKeySlot,
} from '../format/luks-header.ts';
import type { SectorKeys, Storage } from '../storage/storage.ts';
import { afMerge, afSplit } from './af-split.ts';
import { luksKeys, supportedAlgorithms } from './luks-cipher.ts';
import { calibrate } from './pbkdf2.ts';
import { hostPlatform, type Platform, randomBytes } from './platform.ts';
import { SECTOR_BYTES } from './sector-batch.ts';
import { SectorCipher } from './sector-cipher.ts';

/** A header and where it lies. */
export interface LuksVolume {
  readonly storage: Storage;
  /** Byte offset of the header in the storage. */
  readonly at: number;
  readonly header: LuksHeader;
  /** Bytes from the header on that are for it and its key slots. Default: as many as there are. */
  readonly areaBytes?: number | undefined;
}

/**
 * Where a key slot's material is in the storage.
 * @param offset counted from the header
 * @throws Qcow2Error CORRUPT where its bytes are not all in the header's area
 */
export function placeOf({ at, areaBytes }: LuksVolume, offset: number, bytes: number): number {
  if (areaBytes === undefined || offset + bytes <= areaBytes) return at + offset;
  throw new Qcow2Error('CORRUPT', 'Request for data outside of extension header', at);
}

/** How much work a header may ask for. */
export interface UnlockOptions {
  /** PBKDF2 iterations; slots that ask for more are passed over. Default 100 million. */
  readonly iterationsMax?: number;
  readonly platform?: Platform;
}

/** An open volume: its master key, and the slot that gave it. */
export interface Unlocked {
  readonly masterKey: Uint8Array;
  readonly slot: number;
}

/**
 * Tries a passphrase on every active slot.
 * @throws Qcow2Error WRONG_KEY where it fits none; UNSUPPORTED for algorithms or iterations beyond
 * what there is or may be
 */
export async function unlockLuks(
  volume: LuksVolume,
  passphrase: Uint8Array,
  options: UnlockOptions = {},
): Promise<Unlocked> {
  const { iterationsMax = LUKS_ITERATIONS_MAX, platform = hostPlatform() } = options;
  const { header } = volume;
  const algorithms = supportedAlgorithms(header);
  refuseIterations(header.digestIterations, iterationsMax);
  let passedOver: number | undefined;
  for (const [slot, { active, iterations }] of header.slots.entries()) {
    if (!active) continue;
    if (iterations > iterationsMax) {
      passedOver ??= iterations;
      continue;
    }
    const work = { header, algorithms, platform };
    const masterKey = await openSlot(work, volume, slot, passphrase);
    if (masterKey) return { masterKey, slot };
  }
  if (passedOver !== undefined) refuseIterations(passedOver, iterationsMax);
  throw new Qcow2Error('WRONG_KEY', 'Invalid password, cannot unlock any keyslot');
}

/** True where a passphrase opens a certain slot. @throws Qcow2Error as `unlockLuks` does */
export async function opensSlot(
  volume: LuksVolume,
  slot: number,
  passphrase: Uint8Array,
  options: UnlockOptions = {},
): Promise<boolean> {
  const { iterationsMax = LUKS_ITERATIONS_MAX, platform = hostPlatform() } = options;
  const { header } = volume;
  const { active = false, iterations = 0 } = header.slots[slot] ?? {};
  if (!active) return false;
  refuseIterations(iterations, iterationsMax);
  const work = { header, algorithms: supportedAlgorithms(header), platform };
  const key = await openSlot(work, volume, slot, passphrase);
  key?.fill(0);
  return key !== undefined;
}

function refuseIterations(iterations: number, max: number): void {
  if (iterations <= max) return;
  const message = `the LUKS header asks for ${iterations} PBKDF2 iterations, more than ${max}`;
  throw new Qcow2Error('UNSUPPORTED', message);
}

/** The keys of a volume's sectors. */
export function payloadKeys(
  header: LuksHeader,
  masterKey: Uint8Array,
  platform: Platform = hostPlatform(),
): Promise<SectorKeys> {
  return luksKeys(supportedAlgorithms(header), masterKey, platform);
}

interface SlotWork {
  readonly header: LuksHeader;
  readonly algorithms: LuksAlgorithms;
  readonly platform: Platform;
}

/** @returns the master key, undefined where the passphrase is not this slot's */
async function openSlot(
  work: SlotWork,
  volume: LuksVolume,
  index: number,
  passphrase: Uint8Array,
): Promise<Uint8Array | undefined> {
  const { header, algorithms, platform } = work;
  const slot = header.slots[index] as LuksKeySlot;
  const cipher = await slotCipher(work, slot, passphrase);
  const length = header.keyBytes * slot.stripes;
  // Whole sectors; what lies behind the stripes is decrypted and dropped.
  const material = new Uint8Array(alignUp(length, SECTOR_BYTES));
  try {
    const read = volume.storage.read(placeOf(volume, slot.keyOffset, length), material);
    if (!settled(read)) await read;
    const decrypted = cipher.decrypt(material, 0);
    if (!settled(decrypted)) await decrypted;
    const shape = { platform, hash: algorithms.hash, stripes: slot.stripes };
    const key = await afMerge(material.subarray(0, length), header.keyBytes, shape);
    if (await isMasterKey(work, key)) return key;
    key.fill(0);
    return undefined;
  } finally {
    cipher.wipe();
    material.fill(0);
  }
}

/** The cipher of a slot's material: that of the payload, with the key of the passphrase. */
async function slotCipher(
  { header, algorithms, platform }: SlotWork,
  { salt, iterations }: Pick<LuksKeySlot, 'salt' | 'iterations'>,
  passphrase: Uint8Array,
): Promise<SectorCipher> {
  const { hash } = algorithms;
  const length = header.keyBytes;
  const key = await platform.pbkdf2({ hash, passphrase, salt, iterations, length });
  return new SectorCipher(await luksKeys(algorithms, key, platform), { platform });
}

async function isMasterKey(
  { header, algorithms, platform }: SlotWork,
  key: Uint8Array,
): Promise<boolean> {
  const { digest, digestSalt, digestIterations } = header;
  const made = await platform.pbkdf2({
    hash: algorithms.hash,
    passphrase: key,
    salt: digestSalt,
    iterations: digestIterations,
    length: LUKS_DIGEST_BYTES,
  });
  // All bytes are looked at, whichever differ.
  return made.reduce((differ, byte, i) => differ | (byte ^ digest[i]!), 0) === 0;
}

/** How a slot is made. */
export interface SlotOptions {
  readonly slot: number;
  readonly passphrase: Uint8Array;
  /** Milliseconds that trying a passphrase is to take. */
  readonly iterTime: number;
  readonly platform?: Platform;
}

/** A slot that was made: what the header is to say, and its material. */
export interface MadeSlot {
  readonly header: LuksHeader;
  /** Byte offset from the header's start. */
  readonly at: number;
  readonly material: Uint8Array;
}

/** Puts a master key into a slot. Nothing is written: the material goes first, then the header. */
export async function makeSlot(
  header: LuksHeader,
  masterKey: Uint8Array,
  { slot: index, passphrase, iterTime, platform = hostPlatform() }: SlotOptions,
): Promise<MadeSlot> {
  const algorithms = supportedAlgorithms(header);
  const { hash } = algorithms;
  const length = header.keyBytes;
  const perSecond = await calibrate(platform, { hash, length, budgetMs: iterTime });
  const iterations = boundedIterations((perSecond * iterTime) / 1000);
  const old = header.slots[index] as LuksKeySlot;
  const slot = { ...old, active: true, iterations, salt: randomBytes(LUKS_SALT_BYTES) };
  const cipher = await slotCipher({ header, algorithms, platform }, slot, passphrase);
  try {
    const shape = { platform, hash, stripes: LUKS_STRIPES };
    const split = await afSplit(masterKey, shape);
    const material = new Uint8Array(alignUp(split.length, SECTOR_BYTES));
    material.set(split);
    split.fill(0);
    cipher.encrypt(material, 0);
    const slots = header.slots.map((one, at) => (at === index ? slot : one));
    return { header: { ...header, slots }, at: slot.keyOffset, material };
  } finally {
    cipher.wipe();
  }
}

/** Iterations as a header takes them: what a calibration gave, within limits. */
export function boundedIterations(iterations: number): number {
  return Math.min(LUKS_ITERATIONS_MAX, Math.max(LUKS_ITERATIONS_MIN, Math.floor(iterations)));
}

/** A header without a slot: what erasing one leaves of it. */
export function withoutSlot(header: LuksHeader, index: number): LuksHeader {
  const slots = header.slots.map((slot, at) =>
    at === index
      ? { ...slot, active: false, iterations: 0, salt: new Uint8Array(LUKS_SALT_BYTES) }
      : slot,
  );
  return { ...header, slots };
}

/** Random bytes as many as a slot's room: what is written over it when it is erased. */
export function slotNoise(header: LuksHeader): Uint8Array {
  return randomBytes(keyMaterialBytes(header));
}
