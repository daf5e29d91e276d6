/**
 * Key slots of a volume that is open: added, and erased. Rules and words are QEMU's: what would
 * leave no way in is only done by force.
 */

import type { Awaitable } from '../base/awaitable.ts';
import { settled } from '../base/awaitable.ts';
import { Qcow2Error } from '../base/errors.ts';
import { LUKS_SLOTS, type LuksHeader, serializeLuksHeader } from '../format/luks-header.ts';
import { type LuksVolume, makeSlot, opensSlot, placeOf, slotNoise, withoutSlot } from './luks.ts';
import { ITER_TIME_DEFAULT } from './luks-format.ts';

/** What becomes of key slots. */
export interface KeySlotChange {
  /** `active`: a slot for a new passphrase. `inactive`: slots are erased. */
  readonly state: 'active' | 'inactive';
  readonly newPassphrase?: Uint8Array | undefined;
  /** Erases the slots that this one opens. */
  readonly oldPassphrase?: Uint8Array | undefined;
  readonly slot?: number | undefined;
  /** Milliseconds that trying the new passphrase is to take. Default 2000. */
  readonly iterTime?: number | undefined;
  /** Overwrites a slot in use, and erases the last one. */
  readonly force?: boolean | undefined;
}

/**
 * Changes slots, durably.
 * @returns the header as it is now
 * @throws Qcow2Error OUT_OF_RANGE for a change that is not to be made
 */
export async function changeKeySlots(
  volume: LuksVolume,
  masterKey: Uint8Array,
  change: KeySlotChange,
): Promise<LuksHeader> {
  if (change.state === 'active') return activate(volume, masterKey, change);
  return erase(volume, change);
}

function refuse(message: string): never {
  throw new Qcow2Error('OUT_OF_RANGE', message);
}

/** @param shown how QEMU prints it: where a slot is to be filled, without a sign */
function checkSlot(slot: number, shown = slot): void {
  if (slot >= 0 && slot < LUKS_SLOTS) return;
  refuse(`Invalid keyslot ${shown} specified, must be between 0 and ${LUKS_SLOTS - 1}`);
}

async function activate(
  volume: LuksVolume,
  masterKey: Uint8Array,
  { newPassphrase, oldPassphrase, slot, iterTime, force = false }: KeySlotChange,
): Promise<LuksHeader> {
  const { storage, at, header } = volume;
  if (!newPassphrase) refuse("'new-secret' is required to activate a keyslot");
  if (oldPassphrase) refuse("'old-secret' must not be given when activating keyslots");
  if (slot !== undefined) {
    checkSlot(slot, slot >>> 0);
    if (header.slots[slot]?.active && !force) {
      refuse(`Refusing to overwrite active keyslot ${slot} - please erase it first`);
    }
  }
  const free = slot ?? header.slots.findIndex(({ active }) => !active);
  if (free < 0) refuse("Can't add a keyslot - all keyslots are in use");
  const made = await makeSlot(header, masterKey, {
    slot: free,
    passphrase: newPassphrase,
    iterTime: iterTime ?? ITER_TIME_DEFAULT,
  });
  // The header says so when the key is there.
  await durably(
    volume,
    storage.write(placeOf(volume, made.at, made.material.length), made.material),
  );
  await durably(volume, storage.write(at, serializeLuksHeader(made.header)));
  return made.header;
}

async function erase(volume: LuksVolume, change: KeySlotChange): Promise<LuksHeader> {
  const { newPassphrase, oldPassphrase, slot, iterTime, force = false } = change;
  if (newPassphrase) refuse("'new-secret' must not be given when erasing keyslots");
  if (iterTime !== undefined) refuse("'iter-time' must not be given when erasing keyslots");
  const { header } = volume;
  if (slot !== undefined) {
    checkSlot(slot);
    if (oldPassphrase && !(await opensSlot(volume, slot, oldPassphrase))) {
      refuse(`Given keyslot ${slot} doesn't contain the given old password for erase operation`);
    }
    if (!header.slots[slot]?.active && !force) {
      refuse(`Given keyslot ${slot} is already erased (inactive) `);
    }
    if (activeCount(header) === 1 && header.slots[slot]?.active && !force) {
      refuse(
        `Attempt to erase the only active keyslot ${slot} which will erase all the data in the ` +
          'image irreversibly - refusing operation',
      );
    }
    return eraseSlots(volume, [slot]);
  }
  if (!oldPassphrase) {
    refuse(
      'To erase keyslot(s), either explicit keyslot index or the password currently contained ' +
        'in them must be given',
    );
  }
  const matching: number[] = [];
  for (let index = 0; index < LUKS_SLOTS; index++) {
    if (await opensSlot(volume, index, oldPassphrase)) matching.push(index);
  }
  if (matching.length === 0) refuse('No keyslots match given (old) password for erase operation');
  if (matching.length === activeCount(header) && !force) {
    refuse(
      'All the active keyslots match the (old) password that was given and erasing them will ' +
        'erase all the data in the image irreversibly - refusing operation',
    );
  }
  return eraseSlots(volume, matching);
}

function activeCount({ slots }: LuksHeader): number {
  return slots.filter(({ active }) => active).length;
}

/** The header forgets them first, so that a slot in use is never half a key. */
async function eraseSlots(volume: LuksVolume, slots: readonly number[]): Promise<LuksHeader> {
  const { storage, at } = volume;
  const header = slots.reduce(withoutSlot, volume.header);
  await durably(volume, storage.write(at, serializeLuksHeader(header)));
  for (const slot of slots) {
    const { keyOffset } = header.slots[slot] as LuksHeader['slots'][number];
    const noise = slotNoise(header);
    await durably(volume, storage.write(placeOf(volume, keyOffset, noise.length), noise));
  }
  return header;
}

async function durably({ storage }: LuksVolume, written: Awaitable<void>): Promise<void> {
  if (!settled(written)) await written;
  await storage.flush();
}
