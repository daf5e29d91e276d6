/**
 * LUKS version 1 header: the cipher, the digest of the master key, and eight key slots.
 *
 *   0 magic "LUKS\xba\xbe" · 6 version u16 · 8 cipher name [32] · 40 cipher mode [32]
 *   72 hash [32] · 104 payload offset u32, sectors · 108 key bytes u32 · 112 key digest [20]
 *   132 digest salt [32] · 164 digest iterations u32 · 168 UUID [40] · 208 eight slots of 48:
 *     0 active u32 · 4 iterations u32 · 8 salt [32] · 40 key material u32, sectors · 44 stripes u32
 *
 * Specification: LUKS On-Disk Format, version 1.2.3.
 */

import { BigEndianReader } from '../base/be.ts';
import { alignUp } from '../base/bits.ts';
import { assert, Qcow2Error } from '../base/errors.ts';
import { encodeText } from '../base/text.ts';

/** Bytes of the header before the key material. */
export const LUKS_HEADER_BYTES = 592;

/** "LUKS" and two bytes that no text has. */
const MAGIC = [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe];

/** Key slots of a header. */
export const LUKS_SLOTS = 8;
const SLOTS_AT = 208;
const SLOT_BYTES = 48;
const SLOT_ACTIVE = 0x00ac71f3;
const SLOT_INACTIVE = 0x0000dead;
/** Anti-forensic stripes of a key: what every implementation writes, and QEMU demands. */
export const LUKS_STRIPES = 4000;
/** Key material begins and ends at multiples of this. */
const ALIGNMENT = 4096;
const SECTOR = 512;
/** Bytes of each name, its NUL included. */
const NAME_BYTES = 32;
/** Bytes of the master key's digest. */
export const LUKS_DIGEST_BYTES = 20;
/** Bytes of each salt. */
export const LUKS_SALT_BYTES = 32;
const UUID_BYTES = 40;

/** One key slot. Offsets are bytes from the start of the LUKS header. */
export interface LuksKeySlot {
  readonly active: boolean;
  readonly iterations: number;
  readonly salt: Uint8Array;
  readonly keyOffset: number;
  readonly stripes: number;
}

/** A decoded header. */
export interface LuksHeader {
  readonly cipherName: string;
  /** As stored: block mode, a dash, the IV generator: `xts-plain64`, `cbc-essiv:sha256`. */
  readonly cipherMode: string;
  readonly hash: string;
  /** Bytes from the start of the LUKS header to where a payload would begin. */
  readonly payloadOffset: number;
  readonly keyBytes: number;
  readonly digest: Uint8Array;
  readonly digestSalt: Uint8Array;
  readonly digestIterations: number;
  readonly uuid: string;
  readonly slots: readonly LuksKeySlot[];
}

/**
 * Parses a LUKS header.
 * @param at file offset of `bytes`
 * @throws Qcow2Error CORRUPT or UNSUPPORTED
 */
export function parseLuksHeader(bytes: Uint8Array, at: number): LuksHeader {
  const reader = new BigEndianReader(bytes, at);
  const what = 'LUKS header';
  if (!isLuks(reader.slice(0, MAGIC.length, what))) {
    throw new Qcow2Error('CORRUPT', 'Volume is not in LUKS format', at);
  }
  const version = reader.u16(6, what);
  if (version !== 1) {
    throw new Qcow2Error('UNSUPPORTED', `LUKS version ${version} is not supported`, at + 6);
  }
  needTerminated(reader, 8, 'cipher name');
  needTerminated(reader, 40, 'cipher mode');
  needTerminated(reader, 72, 'hash spec');
  const slots = Array.from({ length: LUKS_SLOTS }, (_, index): LuksKeySlot => {
    const slot = SLOTS_AT + index * SLOT_BYTES;
    return {
      active: reader.u32(slot, what) === SLOT_ACTIVE,
      iterations: reader.u32(slot + 4, what),
      salt: reader.slice(slot + 8, 32, what).slice(),
      keyOffset: reader.u32(slot + 40, what) * SECTOR,
      stripes: reader.u32(slot + 44, what),
    };
  });
  const header: LuksHeader = {
    cipherName: reader.text(8, 32, what),
    cipherMode: reader.text(40, 32, what),
    hash: reader.text(72, 32, what),
    payloadOffset: reader.u32(104, what) * SECTOR,
    keyBytes: reader.u32(108, what),
    digest: reader.slice(112, 20, what).slice(),
    digestSalt: reader.slice(132, 32, what).slice(),
    digestIterations: reader.u32(164, what),
    uuid: reader.text(168, 40, what),
    slots,
  };
  checkLuksHeader(header, reader);
  return header;
}

function needTerminated(reader: BigEndianReader, at: number, what: string): void {
  if (reader.slice(at, 32, 'LUKS header').includes(0)) return;
  const message = `LUKS header ${what} is not NUL terminated`;
  throw new Qcow2Error('CORRUPT', message, reader.base + at);
}

/** The checks, their order and their words are QEMU's. */
function checkLuksHeader(header: LuksHeader, reader: BigEndianReader): void {
  const fail = (message: string, field: number): never => {
    throw new Qcow2Error('CORRUPT', message, reader.base + field);
  };
  const { payloadOffset, digestIterations, slots } = header;
  if (payloadOffset < ALIGNMENT) fail('LUKS payload is overlapping with the header', 104);
  if (digestIterations === 0) fail('LUKS key iteration count is zero', 164);
  const ends = slots.map(({ keyOffset }) => keyOffset + keyMaterialBytes(header));
  for (const [index, slot] of slots.entries()) {
    const field = SLOTS_AT + index * SLOT_BYTES;
    const name = `Keyslot ${index}`;
    const state = reader.u32(field, 'LUKS header');
    if (slot.stripes !== LUKS_STRIPES) {
      fail(`${name} is corrupted (stripes ${slot.stripes} != ${LUKS_STRIPES})`, field + 44);
    }
    if (slot.keyOffset < ALIGNMENT) fail(`${name} is overlapping with the LUKS header`, field + 40);
    if (state !== SLOT_ACTIVE && state !== SLOT_INACTIVE) {
      fail(`${name} state (active/disable) is corrupted`, field);
    }
    if (slot.active && slot.iterations === 0) fail(`${name} iteration count is zero`, field + 4);
    const end = ends[index]!;
    if (end > payloadOffset) fail(`${name} is overlapping with the encrypted payload`, field + 40);
    const other = slots.findIndex(
      ({ keyOffset }, at) => at > index && keyOffset < end && slot.keyOffset < ends[at]!,
    );
    if (other >= 0)
      fail(`Keyslots ${index} and ${other} are overlapping in the header`, field + 40);
  }
}

/** Bytes that a slot's key material has room for. */
export function keyMaterialBytes({ keyBytes }: Pick<LuksHeader, 'keyBytes'>): number {
  return alignUp(keyBytes * LUKS_STRIPES, ALIGNMENT);
}

/** Where slots and payload lie in a header that is being made: bytes from its start, as QEMU. */
export function luksLayout(keyBytes: number): {
  readonly slotOffsets: readonly number[];
  readonly payloadOffset: number;
} {
  const room = keyMaterialBytes({ keyBytes });
  const slotOffsets = Array.from({ length: LUKS_SLOTS }, (_, slot) => ALIGNMENT + slot * room);
  return { slotOffsets, payloadOffset: ALIGNMENT + LUKS_SLOTS * room };
}

/** True for bytes that start as a LUKS header of any version does. */
export function isLuks(bytes: Uint8Array): boolean {
  return MAGIC.every((byte, at) => bytes[at] === byte);
}

/** The opposite of `parseLuksHeader`. */
export function serializeLuksHeader(header: LuksHeader): Uint8Array {
  const bytes = new Uint8Array(LUKS_HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  const put = (at: number, part: Uint8Array, room: number) => {
    assert(part.length <= room, 'a field of a LUKS header is too long');
    bytes.set(part, at);
  };
  bytes.set(MAGIC);
  view.setUint16(6, 1);
  // One byte less: the names end with a NUL.
  put(8, encodeText(header.cipherName), NAME_BYTES - 1);
  put(40, encodeText(header.cipherMode), NAME_BYTES - 1);
  put(72, encodeText(header.hash), NAME_BYTES - 1);
  view.setUint32(104, header.payloadOffset / SECTOR);
  view.setUint32(108, header.keyBytes);
  put(112, header.digest, LUKS_DIGEST_BYTES);
  put(132, header.digestSalt, LUKS_SALT_BYTES);
  view.setUint32(164, header.digestIterations);
  put(168, encodeText(header.uuid), UUID_BYTES);
  for (const [index, slot] of header.slots.entries()) {
    const at = SLOTS_AT + index * SLOT_BYTES;
    view.setUint32(at, slot.active ? SLOT_ACTIVE : SLOT_INACTIVE);
    view.setUint32(at + 4, slot.iterations);
    put(at + 8, slot.salt, LUKS_SALT_BYTES);
    view.setUint32(at + 40, slot.keyOffset / SECTOR);
    view.setUint32(at + 44, slot.stripes);
  }
  return bytes;
}
