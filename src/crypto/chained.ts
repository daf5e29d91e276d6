/**
 * Decrypting a batch by a host that only knows CBC, and takes its time: each block comes back XORed
 * with the one before it, which is XORed away again. The last block has to decrypt to padding, so
 * one is added that does.
 *
 * Nothing is kept in shared memory while the host works: other batches may come in between.
 */
import { assert } from '../base/errors.ts';
import type { Region } from '../kernels/arena.ts';
import type { ChainedDecryption } from './platform.ts';
import { type CipherParts, SECTOR_BYTES } from './sector-batch.ts';
import { applyTweaks } from './xts.ts';

/** A batch and what it takes. */
interface ChainedWork {
  readonly parts: CipherParts;
  /** Room for a batch and a block. */
  readonly bounce: Region;
  readonly chained: ChainedDecryption;
  /** Makes the batch's vectors. */
  readonly vectors: () => void;
}

/** A block of padding alone: sixteen bytes of sixteen. */
const PADDING = 16;

/** Adds a block behind `bytes` bytes of the bounce buffer, and starts the host. */
function start({ parts, bounce, chained }: ChainedWork, bytes: number): Promise<Uint8Array> {
  const room = bounce.bytes;
  for (let i = 0; i < 16; i++) room[bytes + i] = room[bytes - 16 + i]! ^ PADDING;
  parts.blocks.encrypt(bounce.at + bytes, 16);
  // A copy: the host may not have taken its own when the next batch comes.
  return chained(room.slice(0, bytes + 16));
}

/** XTS: the tweaks are XORed here, before and after. */
export async function chainedXts(work: ChainedWork, bytes: Uint8Array): Promise<void> {
  const { parts, bounce, vectors } = work;
  const { kernels, spare } = parts;
  const { length } = bytes;
  const sectors = length / SECTOR_BYTES;
  const prepare = () => {
    vectors();
    bounce.bytes.set(bytes);
    applyTweaks(parts, { at: bounce.at, sectors });
  };
  prepare();
  const plain = await start(work, length);
  prepare();
  spare.bytes.set(plain);
  const undone = kernels.xorBytes(spare.at + 16, bounce.at, length - 16);
  assert(undone === 0, 'sectors outside of the memory');
  applyTweaks(parts, { at: spare.at, sectors });
  bytes.set(spare.bytes.subarray(0, length));
}

/** CBC: what the host does, but that a sector starts with its vector. */
export async function chainedCbc(work: ChainedWork, bytes: Uint8Array): Promise<void> {
  const { parts, bounce, vectors } = work;
  bounce.bytes.set(bytes);
  const plain = await start(work, bytes.length);
  vectors();
  const starts = parts.vectors.bytes;
  for (let at = 0; at < bytes.length; at += SECTOR_BYTES) {
    for (let i = 0; i < 16; i++) {
      const before = at === 0 ? 0 : bytes[at - 16 + i]!;
      plain[at + i]! ^= before ^ starts[(at / SECTOR_BYTES) * 16 + i]!;
    }
  }
  bytes.set(plain);
}
