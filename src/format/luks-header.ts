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
import { Qcow2Error } from '../base/errors.ts';

/** Bytes of the header before the key material. */
export const LUKS_HEADER_BYTES = 592;

const SLOTS = 8;
const SLOTS_AT = 208;
const SLOT_BYTES = 48;
const SLOT_ACTIVE = 0x00ac71f3;
const SLOT_INACTIVE = 0x0000dead;
/** What every implementation writes, and QEMU demands. */
const STRIPES = 4000;
/** Key material begins and ends at multiples of this. */
const ALIGNMENT = 4096;
const SECTOR = 512;

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
  if (reader.u32(0, what) !== 0x4c554b53 || reader.u16(4, what) !== 0xbabe) {
    throw new Qcow2Error('CORRUPT', 'Volume is not in LUKS format', at);
  }
  const version = reader.u16(6, what);
  if (version !== 1) {
    throw new Qcow2Error('UNSUPPORTED', `LUKS version ${version} is not supported`, at + 6);
  }
  needTerminated(reader, 8, 'cipher name');
  needTerminated(reader, 40, 'cipher mode');
  needTerminated(reader, 72, 'hash spec');
  const slots = Array.from({ length: SLOTS }, (_, index): LuksKeySlot => {
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
    if (slot.stripes !== STRIPES) {
      fail(`${name} is corrupted (stripes ${slot.stripes} != ${STRIPES})`, field + 44);
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

function keyMaterialBytes({ keyBytes }: LuksHeader): number {
  return alignUp(keyBytes * STRIPES, ALIGNMENT);
}
