/**
 * Sectors of 512 bytes under one key: whatever the mode, bytes are worked on in batches, each with
 * a few calls of the host's cipher over many blocks at once.
 *
 * Bytes that lie in the cipher's own memory are worked on where they are; others go through it.
 */
import type { Awaitable } from '../base/awaitable.ts';
import { assert } from '../base/errors.ts';
import { type Region, Workspace } from '../kernels/arena.ts';
import { AES_SCHEDULE_BYTES } from '../kernels/kernels.ts';
import type { SectorKeys } from '../storage/storage.ts';
import { decryptCbc, encryptCbc } from './cbc.ts';
import { chainedCbc, chainedXts } from './chained.ts';
import { cryptCtr } from './ctr.ts';
import { fillVectors } from './iv-generator.ts';
import {
  type BlockCipher,
  type ChainedDecryption,
  hostPlatform,
  type Platform,
} from './platform.ts';
import { type Batch, type CipherParts, SECTOR_BYTES } from './sector-batch.ts';
import { decryptXts, encryptXts } from './xts.ts';

/** Bytes that go to the host's cipher in one call: they stay in a core's cache. */
export const BATCH_BYTES = 128 * 1024;
const BATCH_SECTORS = BATCH_BYTES / SECTOR_BYTES;
/** Below this, what is asynchronous costs more than it gains. */
const CHAINED_FROM_BYTES = 16 * 1024;

/** Encrypts and decrypts sectors. */
export class SectorCipher {
  private readonly workspace: Workspace;
  private readonly platform: Platform;
  private readonly bounce: Region;
  private readonly vectors: Region;
  private readonly spare: Region;
  private readonly schedules: readonly [Region, Region, Region];
  private made: CipherParts | undefined;
  /** Further keys that vectors go through, in this order: that of ESSIV, and XTS's second one. */
  private vectorBlocks: BlockCipher[] = [];
  private chained: ChainedDecryption | undefined;

  /** @param options.workspace memory whose bytes are worked on in place; not in use yet */
  constructor(
    readonly keys: SectorKeys,
    options: { readonly workspace?: Workspace; readonly platform?: Platform } = {},
  ) {
    const { workspace = new Workspace(), platform = hostPlatform() } = options;
    this.workspace = workspace;
    this.platform = platform;
    const schedule = () => workspace.reserve(AES_SCHEDULE_BYTES);
    this.schedules = [schedule(), schedule(), schedule()];
    this.vectors = workspace.reserve(BATCH_SECTORS * 16);
    this.bounce = workspace.reserve(BATCH_BYTES + 16);
    this.spare = workspace.reserve(BATCH_BYTES + 16);
  }

  /**
   * Encrypts whole sectors in place.
   * @param sector number of the first
   */
  encrypt(bytes: Uint8Array, sector: number): void {
    this.eachBatch(bytes, sector, (parts, batch) => this.encryptBatch(parts, batch));
  }

  /**
   * The same for one batch at most, whose bytes stay as they are.
   * @returns encrypted bytes, good until this is used again
   */
  encrypted(bytes: Uint8Array, sector: number): Uint8Array {
    assert(bytes.length <= BATCH_BYTES, 'more than one batch');
    const { bounce, parts } = this;
    const sectors = bytes.length / SECTOR_BYTES;
    this.makeVectors(sector, sectors);
    bounce.bytes.set(bytes);
    this.encryptBatch(parts, { at: bounce.at, sectors });
    return bounce.bytes.subarray(0, bytes.length);
  }

  private encryptBatch(parts: CipherParts, batch: Batch): void {
    const { mode } = this.keys;
    if (mode === 'xts') encryptXts(parts, batch);
    else if (mode === 'cbc') encryptCbc(parts, batch);
    else if (mode === 'ctr') cryptCtr(parts, batch);
    else parts.blocks.encrypt(batch.at, batch.sectors * SECTOR_BYTES);
  }

  /**
   * The opposite of `encrypt`. Many sectors may take a promise where the host's cipher does; the
   * bytes are left alone until it resolves.
   */
  decrypt(bytes: Uint8Array, sector: number): Awaitable<void> {
    if (bytes.length >= CHAINED_FROM_BYTES && this.parts && this.chained) {
      return this.decryptMany(bytes, sector, this.chained);
    }
    this.eachBatch(bytes, sector, (parts, batch) => {
      const { mode } = this.keys;
      if (mode === 'xts') decryptXts(parts, batch);
      else if (mode === 'cbc') decryptCbc(parts, batch);
      else if (mode === 'ctr') cryptCtr(parts, batch);
      else parts.blocks.decrypt(batch.at, batch.sectors * SECTOR_BYTES);
    });
  }

  /** Whether these bytes lie in the cipher's memory, where they are worked on in place. */
  hasInPlace(bytes: Uint8Array): boolean {
    return bytes.buffer === this.parts.kernels.memory.buffer;
  }

  /** Overwrites the keys, in so far as they are in this program's hands. No use afterwards. */
  wipe(): void {
    this.made?.blocks.wipe();
    for (const blocks of this.vectorBlocks) blocks.wipe();
    this.keys.key.fill(0);
    this.keys.vectorKey?.fill(0);
  }

  private get parts(): CipherParts {
    this.made ??= this.make();
    return this.made;
  }

  /** Not before the first use: until then others may reserve room in the same memory. */
  private make(): CipherParts {
    const { workspace, platform, schedules, vectors, spare, keys } = this;
    const { mode, key, vectorKey } = keys;
    const dataKey = mode === 'xts' ? key.subarray(0, key.length / 2) : key;
    if (vectorKey) this.vectorBlocks.push(platform.aes(vectorKey, schedules[1]));
    if (mode === 'xts') {
      this.vectorBlocks.push(platform.aes(key.subarray(key.length / 2), schedules[2]));
    }
    if (mode === 'xts' || mode === 'cbc') this.chained = platform.chainedDecryption?.(dataKey);
    const blocks = platform.aes(dataKey, schedules[0]);
    return { kernels: workspace.kernels, blocks, vectors, spare };
  }

  private eachBatch(
    bytes: Uint8Array,
    sector: number,
    work: (parts: CipherParts, batch: Batch) => void,
  ): void {
    assert(bytes.length % SECTOR_BYTES === 0, 'a sector cipher works on whole sectors');
    const { parts, bounce } = this;
    const inPlace = this.hasInPlace(bytes);
    for (let done = 0; done < bytes.length; done += BATCH_BYTES) {
      const part = bytes.subarray(done, done + BATCH_BYTES);
      const sectors = part.length / SECTOR_BYTES;
      this.makeVectors(sector + done / SECTOR_BYTES, sectors);
      if (inPlace) {
        work(parts, { at: part.byteOffset, sectors });
        continue;
      }
      bounce.bytes.set(part);
      work(parts, { at: bounce.at, sectors });
      part.set(bounce.bytes.subarray(0, part.length));
    }
  }

  /** What each sector's number makes of its first block. */
  private makeVectors(sector: number, sectors: number): void {
    const { vectors, keys } = this;
    fillVectors(vectors.bytes.subarray(0, sectors * 16), sector, keys.vectorBits);
    for (const blocks of this.vectorBlocks) blocks.encrypt(vectors.at, sectors * 16);
  }

  /** All batches at once: the host works on them in threads of its own. */
  private async decryptMany(
    bytes: Uint8Array,
    sector: number,
    chained: ChainedDecryption,
  ): Promise<void> {
    const { bounce } = this;
    const crypt = this.keys.mode === 'xts' ? chainedXts : chainedCbc;
    const work: Promise<void>[] = [];
    for (let done = 0; done < bytes.length; done += BATCH_BYTES) {
      const part = bytes.subarray(done, done + BATCH_BYTES);
      const first = sector + done / SECTOR_BYTES;
      const vectors = () => this.makeVectors(first, part.length / SECTOR_BYTES);
      work.push(crypt({ parts: this.parts, bounce, chained, vectors }, part));
    }
    await Promise.all(work);
  }
}
