/**
 * A LUKS1 container by itself: a header, key slots, and behind them a raw disk whose sectors are
 * encrypted. What stands below is a raw image over storage that decrypts.
 */
import type { Awaitable } from '../../base/awaitable.ts';
import { alignDown } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { CipherStorage } from '../../crypto/cipher-storage.ts';
import { type LuksVolume, payloadKeys, unlockLuks } from '../../crypto/luks.ts';
import { formatLuks, type LuksFormatOptions } from '../../crypto/luks-format.ts';
import { changeKeySlots, type KeySlotChange } from '../../crypto/luks-slots.ts';
import type { LuksHeader } from '../../format/luks-header.ts';
import type { SectorKeys, Storage } from '../../storage/storage.ts';
import {
  type DataSource,
  type Extent,
  type ExtentList,
  iterateExtents,
  type ResizeOptions,
  type WritableDisk,
} from '../disk.ts';
import { RawImage } from '../raw/raw-image.ts';
import { askSecret, type Passphrase, passphraseBytes, type Secret } from '../secret.ts';
import { readLuksContainer } from './container-header.ts';

/** How a container is opened. */
export interface LuksOpenOptions {
  readonly secret?: Secret | undefined;
  readonly depth?: number;
  readonly writable?: boolean;
  readonly iterationsMax?: number | undefined;
}

/** An open container. Owns its storage. */
export class LuksImage implements WritableDisk {
  readonly format = 'luks';

  private constructor(
    private volume: LuksVolume,
    private readonly keys: SectorKeys,
    private readonly raw: RawImage,
    private readonly writable: boolean,
  ) {}

  /** @throws Qcow2Error WRONG_KEY, UNSUPPORTED, CORRUPT, READ_ONLY or IO */
  static async open(storage: Storage, options: LuksOpenOptions = {}): Promise<LuksImage> {
    const { secret, depth = 0, writable = false, iterationsMax } = options;
    let passphrase: Uint8Array | undefined;
    try {
      const request = {
        name: storage.name,
        depth,
        format: 'luks',
        parameter: 'key-secret',
      } as const;
      // As in QEMU the key comes first, whatever the file turns out to be.
      passphrase = await askSecret(secret, request);
      const header = await readLuksContainer(storage);
      const volume = { storage, at: 0, header };
      const limits = iterationsMax === undefined ? {} : { iterationsMax };
      const { masterKey } = await unlockLuks(volume, passphrase, limits);
      return await LuksImage.over(volume, masterKey, { writable, depth });
    } catch (cause) {
      await storage.close();
      throw cause;
    } finally {
      passphrase?.fill(0);
    }
  }

  /** Makes a container in empty storage. What its payload reads as is not to be relied on. */
  static async create(
    storage: Storage,
    options: LuksFormatOptions & { readonly size: number; readonly passphrase: Passphrase },
  ): Promise<LuksImage> {
    const passphrase = passphraseBytes(options.passphrase);
    try {
      const { area, header, masterKey } = await formatLuks(passphrase, options);
      await storage.truncate(0);
      await storage.truncate(area.length + options.size);
      await storage.write(0, area);
      const volume = { storage, at: 0, header };
      return await LuksImage.over(volume, masterKey, { writable: true, depth: 0 });
    } catch (cause) {
      await storage.close();
      throw cause;
    } finally {
      passphrase.fill(0);
    }
  }

  private static async over(
    volume: LuksVolume,
    masterKey: Uint8Array,
    options: { readonly writable: boolean; readonly depth: number },
  ): Promise<LuksImage> {
    const keys = await payloadKeys(volume.header, masterKey);
    const start = volume.header.payloadOffset;
    const size = await volume.storage.size();
    if (size < start) {
      throw new Qcow2Error('CORRUPT', 'the LUKS container ends before its payload', size);
    }
    const raw = await RawImage.open(new CipherStorage(volume.storage, { keys, start }), options);
    return new LuksImage(volume, keys, raw, options.writable);
  }

  /** The file, header and all. */
  get container(): Storage {
    return this.volume.storage;
  }

  /** The header and key slots. */
  get header(): LuksHeader {
    return this.volume.header;
  }

  get size(): number {
    return this.raw.size;
  }

  get sources(): readonly DataSource[] {
    return this.raw.sources.map((source) => ({ ...source, encrypted: true }));
  }

  read(guest: number, into: Uint8Array): Promise<void> {
    return this.raw.read(guest, into);
  }

  write(guest: number, from: Uint8Array): Promise<void> {
    return this.raw.write(guest, from);
  }

  zero(guest: number, length: number): Promise<void> {
    return this.raw.zero(guest, length);
  }

  /** Does nothing: a hole would read as something else than zeros. */
  async discard(): Promise<void> {}

  writeCompressed(): Promise<void> {
    return this.raw.writeCompressed();
  }

  /** Only whole sectors; what is new reads as whatever decrypting zeros gives. */
  resize(size: number, options?: ResizeOptions): Promise<void> {
    return this.raw.resize(alignDown(size, 512), options);
  }

  flush(): Promise<void> {
    return this.raw.flush();
  }

  extents(from = 0, to = this.size): AsyncIterable<Extent> {
    return iterateExtents(this, from, to);
  }

  collectExtents(from: number, to: number, list: ExtentList, sourceBase?: number): Awaitable<void> {
    return this.raw.collectExtents(from, to, list, sourceBase);
  }

  /** Adds or erases key slots. @throws Qcow2Error as `Qcow2Image.changeKeySlots` does */
  async changeKeySlots(change: KeySlotChange): Promise<void> {
    if (!this.writable) {
      throw new Qcow2Error('READ_ONLY', 'the image is open for reading only');
    }
    const header = await changeKeySlots(this.volume, this.keys.key, change);
    this.volume = { ...this.volume, header };
  }

  close(): Promise<void> {
    return this.raw.close();
  }
}
