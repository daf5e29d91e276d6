/**
 * Metadata that cannot be as it is, met while an image is in use: who opened it is told, in QEMU's
 * words and as often as QEMU would. What a writer meets is fatal: the image gets its corrupt bit,
 * and is of no use until it is opened anew. What a reader meets fails the request, no more.
 */
import { HIGH } from '../../base/bits.ts';
import { isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import { cHex } from '../../base/sizes.ts';
import type { Geometry } from '../../format/geometry.ts';
import { L2Flags } from '../../kernels/kernels.ts';

/** What was found. */
export interface CorruptionReport {
  readonly message: string;
  /** The image has been marked corrupt: nothing is read or written any more. */
  readonly fatal: boolean;
  /** Why clusters that nothing refers to are not free: they are leaked, and no more is wrong. */
  readonly leak?: Qcow2Error;
}

/** Hears of what is found. */
export type CorruptionListener = (report: CorruptionReport) => void;

/** Errors that whoever opened the image is told of. */
const NOTABLE = new WeakSet<Error>();

/** An error that is told of, and that makes an image corrupt which is being written. */
export function corruption(message: string, at: number): Qcow2Error {
  const error = new Qcow2Error('CORRUPT', message, at);
  NOTABLE.add(error);
  return error;
}

/** True for an error that whoever opened the image has been told of. */
export function isTold(cause: Qcow2Error): boolean {
  return NOTABLE.has(cause);
}

/** Those after which nothing that waits in caches may be written, either. */
const STRAY = new WeakSet<Error>();

/** The same, where a write was about to go to a place that is another's. */
export function strayWrite(message: string, at: number): Qcow2Error {
  const error = corruption(message, at);
  STRAY.add(error);
  return error;
}

/** What `parse` finds wrong is such an error. */
export function noticing<T>(parse: () => T): T {
  try {
    return parse();
  } catch (cause) {
    if (isQcow2Error(cause, 'CORRUPT')) NOTABLE.add(cause);
    throw cause;
  }
}

/** Where an L2 entry is: its table's file offset, its index in that, its own file offset. */
export interface EntryPlace {
  readonly table: number;
  readonly index: number;
  readonly at: number;
}

const COMPRESSED = 0x4000_0000;

/**
 * What QEMU would say of an L2 entry that the format forbids; undefined where it says nothing.
 * @param address of the entry in `view`
 */
export function entryCorruption(
  view: DataView,
  address: number,
  { table, index, at, geometry, flags, writing = false }: EntryPlace & EntryRules,
): Qcow2Error | undefined {
  const place = `(L2 offset: ${cHex(table)}, L2 index: ${cHex(index)})`;
  const high = view.getUint32(address);
  const low = view.getUint32(address + 4);
  if (geometry.extendedL2) {
    const [zero, allocated] = [view.getUint32(address + 8), view.getUint32(address + 12)];
    const placed = hostOf(high, low) !== 0 || (flags & L2Flags.dataFile && high >>> 31 === 1);
    const invalid = (zero & allocated) !== 0 || (!placed && allocated !== 0);
    // Readers have one space more between the two.
    const found = writing ? 'found' : 'found ';
    if (!(high & COMPRESSED) && invalid) {
      return corruption(`Invalid cluster entry ${found} ${place}`, at);
    }
  }
  if (high & COMPRESSED) {
    if ((flags & L2Flags.dataFile) === 0) return undefined;
    const what = 'Compressed cluster entry found in image with external data file';
    return corruption(`${what} ${place}`, at);
  }
  const host = hostOf(high, low);
  if (host % geometry.clusterSize === 0) return undefined;
  return corruption(`Cluster allocation offset ${cHex(host)} unaligned ${place}`, at);
}

function hostOf(high: number, low: number): number {
  return (high & 0x00ff_ffff) * HIGH + ((low & ~511) >>> 0);
}

/** What an entry is judged by. */
interface EntryRules {
  readonly geometry: Geometry;
  /** `L2Flags`, OR-ed. */
  readonly flags: number;
  /** It was met on the way to change it. */
  readonly writing?: boolean;
}

/** What is known of one open image's corruption. */
export class CorruptionWatch {
  /** What made the image unusable. */
  caught: Qcow2Error | undefined;
  private told = false;

  /** @param mark sets the corrupt bit; absent where the image is only read */
  constructor(
    private readonly listener: CorruptionListener | undefined,
    private readonly mark?: () => Promise<void>,
  ) {}

  /** Looks at why a request failed. */
  async note(cause: unknown): Promise<void> {
    if (!isQcow2Error(cause, 'CORRUPT') || !NOTABLE.has(cause)) return;
    const { mark } = this;
    if (!mark) return this.tell(cause.message);
    if (this.caught) return;
    this.caught = cause;
    this.told = true;
    this.listener?.({ message: cause.message, fatal: true });
    // The error in hand says what happened; that the bit could not be set adds nothing.
    await mark().catch(() => {});
  }

  /** What caches hold must not reach the file. */
  get isStray(): boolean {
    return this.caught !== undefined && STRAY.has(this.caught);
  }

  /** Tells of something that fails no request. */
  tell(message: string): void {
    if (this.told) return;
    this.told = true;
    this.listener?.({ message, fatal: false });
  }

  /** Tells that clusters could not be let go of. */
  leaked(leak: Qcow2Error): void {
    this.listener?.({ message: leak.message, fatal: false, leak });
  }

  /** @throws Qcow2Error CORRUPT once the image was found to be */
  refuse(): void {
    if (!this.caught) return;
    const message = 'the image is marked corrupt and cannot be used';
    throw new Qcow2Error('CORRUPT', message, this.caught.at, { code: 'ENOMEDIUM' });
  }
}
