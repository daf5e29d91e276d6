/**
 * Reading guest bytes: runs become reads of files, decoded clusters, zeros, and reads of the
 * backing disk.
 */
import { type Awaitable, settled } from '../../base/awaitable.ts';
import { alignUp } from '../../base/bits.ts';
import type { Mutex } from '../../base/locks.ts';
import { type ClusterCodec, decodeFailure, decodeInto } from '../../codec/codec.ts';
import { SECTOR_BYTES } from '../../crypto/sector-batch.ts';
import type { Region } from '../../kernels/arena.ts';
import { RunKind } from '../../kernels/kernels.ts';
import { readFully } from '../../storage/read-fully.ts';
import type { Storage } from '../../storage/storage.ts';
import type { Disk } from '../disk.ts';
import type { CorruptionWatch } from './corruption.ts';
import type { Encryption } from './encryption.ts';
import type { Mapping } from './mapping.ts';

/** What a read needs of its image. */
export interface ReadParts {
  readonly mapping: Mapping;
  /** The file of compressed clusters and tables. */
  readonly storage: Storage;
  /** The file of plain clusters: the external data file, or the same. */
  readonly data: Storage;
  readonly backing: Disk | undefined;
  readonly codec: ClusterCodec;
  readonly clusterSize: number;
  /** Kernel memory for one stream (a cluster and its slack) and for one decoded cluster. */
  readonly stream: Region;
  readonly cluster: Region;
  /** Held while tables are looked at, where they may change. */
  readonly lock?: Mutex | undefined;
  readonly corruption: CorruptionWatch;
  /** What plain clusters are encrypted with. */
  encryption?: Encryption | undefined;
}

interface Piece {
  readonly kind: RunKind;
  readonly guest: number;
  readonly length: number;
  readonly host: number;
  readonly stored: number;
}

/** Reads guest bytes of one image. */
export class GuestReader {
  /** Host offset of the stream whose plain bytes `cluster` holds: neighbouring reads hit it. */
  private decoded = -1;

  constructor(private readonly parts: ReadParts) {}

  /** From now on plain clusters are encrypted: an image that is being made. */
  encryptWith(encryption: Encryption): void {
    this.parts.encryption = encryption;
  }

  /** Fills `into` with the guest bytes from `guest`; the range lies inside the disk. */
  async read(guest: number, into: Uint8Array): Promise<void> {
    const pieces: Piece[] = [];
    const { mapping, lock } = this.parts;
    const visit = () =>
      mapping.visit(guest, guest + into.length, (kind, at, length, host, stored) => {
        pieces.push({ kind, guest: at, length, host, stored });
      });
    const visited = this.watched(() => (lock ? lock.run(visit) : visit()));
    if (!settled(visited)) await visited;
    for (const piece of pieces) {
      const start = piece.guest - guest;
      await this.readPiece(piece, into.subarray(start, start + piece.length));
    }
  }

  /** Looks at tables; whoever opened the image is told where they cannot be as they are. */
  watched(look: () => Awaitable<void>): Awaitable<void> {
    const { corruption } = this.parts;
    corruption.refuse();
    const note = async (cause: unknown) => {
      await corruption.note(cause);
      throw cause;
    };
    try {
      const looked = look();
      return settled(looked) ? undefined : looked.catch(note);
    } catch (cause) {
      return note(cause);
    }
  }

  /** Clusters have moved or gone: what was decoded may be another's place now. */
  forget(): void {
    this.decoded = -1;
  }

  private async readPiece(piece: Piece, into: Uint8Array): Promise<void> {
    const { storage, data, backing, encryption } = this.parts;
    switch (piece.kind) {
      case RunKind.data: {
        if (encryption) return this.readEncrypted(encryption, piece, into);
        if (storage.announce) await storage.announce('read_aio');
        const got = await readFully(data, piece.host, into);
        into.fill(0, got);
        return;
      }
      case RunKind.compressed:
        return this.readCompressed(piece, into);
      case RunKind.unallocated: {
        const inBacking = backing ? clamp(backing.size - piece.guest, into.length) : 0;
        if (backing && storage.announce) await storage.announce('read_backing_aio');
        if (backing && inBacking > 0) await backing.read(piece.guest, into.subarray(0, inBacking));
        into.fill(0, inBacking);
        return;
      }
      default:
        into.fill(0);
    }
  }

  /** Whole sectors are read, whatever of them is wanted. */
  private async readEncrypted(
    encryption: Encryption,
    { guest, host }: Piece,
    into: Uint8Array,
  ): Promise<void> {
    const head = guest % SECTOR_BYTES;
    const length = alignUp(head + into.length, SECTOR_BYTES);
    const sectors = length === into.length ? into : new Uint8Array(length);
    const got = await readFully(this.parts.data, host - head, sectors);
    sectors.fill(0, got);
    const place = { guest: guest - head, host: host - head };
    const decrypted = encryption.decrypt(sectors, place);
    if (!settled(decrypted)) await decrypted;
    if (sectors !== into) into.set(sectors.subarray(head, head + into.length));
  }

  private async readCompressed(piece: Piece, into: Uint8Array): Promise<void> {
    const { storage, clusterSize, cluster } = this.parts;
    if (this.decoded !== piece.host) {
      // Through memory of its own: while a read waits, another may decode in kernel memory.
      const stream = new Uint8Array(piece.stored);
      if (storage.announce) await storage.announce('read_compressed');
      const read = readFully(storage, piece.host, stream);
      const got = settled(read) ? read : await read;
      this.decode(piece.host, stream.subarray(0, got));
    }
    const from = piece.guest % clusterSize;
    into.set(cluster.bytes.subarray(from, from + into.length));
  }

  private decode(host: number, stream: Uint8Array): void {
    const { stream: region, cluster, codec, clusterSize } = this.parts;
    this.decoded = -1;
    region.bytes.set(stream);
    const result = decodeInto(region.kernels, codec, {
      src: region.at,
      srcBytes: stream.length,
      dst: cluster.at,
      dstBytes: clusterSize,
    });
    if (result !== clusterSize) throw decodeFailure(result, codec, host);
    this.decoded = host;
  }
}

function clamp(value: number, max: number): number {
  return Math.max(0, Math.min(value, max));
}
