/**
 * The steps that qemu-img rebases in. It asks for each place whether the image holds it, which
 * depends on what it has written by then: bytes that differ take the whole cluster, or subcluster,
 * that they are in, and a step that ends within one decides where the next one begins.
 */
import { alignDown } from '../base/bits.ts';
import type { Disk } from '../image/disk.ts';
import type { Qcow2Image } from '../image/qcow2/qcow2-image.ts';
import { ChainStatus, StatusFlag } from './block-status.ts';

/** What of a rebase decides its steps. */
export interface RebaseStepOptions {
  /** The new backing file, if there is to be one. */
  readonly backing?: Disk | undefined;
  /** How deep in the chain it stands already, if it does. */
  readonly depth?: number | undefined;
}

/** QEMU's buffer. */
export const STEP_BYTES = 2 * 2 ** 20;
const QUESTION = { bounded: true, wantsZero: false } as const;
const { allocated, placed } = StatusFlag;

/**
 * Where each piece begins that is compared.
 * @throws Qcow2Error CORRUPT or IO, as it is iterated
 */
export async function* rebaseSteps(
  image: Qcow2Image,
  { backing, depth = 0 }: RebaseStepOptions,
): AsyncGenerator<number, void, undefined> {
  const { size } = image;
  const status = await ChainStatus.of(image);
  const taken = new TakenCluster(image, backing);
  for (let at = 0; at < size; ) {
    if (at < taken.until) {
      at = Math.min(taken.until, size);
      continue;
    }
    const most = Math.min(STEP_BYTES, size - at);
    const own = await status.above(at, most, QUESTION, { end: 1 });
    let length = taken.cut(at, own.length);
    let isCompared = (own.flags & allocated) === 0;
    if (isCompared && depth > 0) {
      // In what stands between the image and its future backing file.
      const between = await status.above(at, length, QUESTION, { first: 1, end: depth });
      isCompared = (between.flags & allocated) !== 0 || between.length === 0;
      if (between.length > 0) ({ length } = between);
    }
    if (isCompared) {
      for (const end of [image.backing?.size ?? 0, backing?.size ?? 0]) {
        if (at < end) length = Math.min(length, end - at);
      }
      yield at;
      await taken.note(at, at + length, (own.flags & placed) !== 0);
    }
    at += length;
  }
}

/** The cluster that a step ended in, and what the image has of it by then. */
class TakenCluster {
  /** The image holds all up to here. */
  until = 0;
  /** Subclusters go on alike no further than this. */
  private end = 0;

  constructor(
    private readonly image: Qcow2Image,
    private readonly backing: Disk | undefined,
  ) {}

  /** How far from a place on it is alike. */
  cut(at: number, length: number): number {
    return at < this.end ? Math.min(length, this.end - at) : length;
  }

  /**
   * A piece was compared, and what differs was written.
   * @param wasPlaced its clusters had their places in the file before
   */
  async note(from: number, to: number, wasPlaced: boolean): Promise<void> {
    const { clusterSize, subclusterSize, backing: old } = this.image;
    const cluster = alignDown(to, clusterSize);
    if (cluster === to || to === this.image.size) return;
    const last = alignDown(to, subclusterSize);
    const isLastTaken = last < to && (await this.differs(Math.max(from, last), to));
    if (isLastTaken) this.until = last + subclusterSize;
    // Zeros behind the end of the old backing file take no place.
    if (wasPlaced || from >= (old?.size ?? 0)) return;
    const isTaken = isLastTaken || (await this.differs(Math.max(from, cluster), last));
    if (isTaken) this.end = cluster + clusterSize;
  }

  private async differs(from: number, to: number): Promise<boolean> {
    if (from >= to) return false;
    const [old, fresh] = [
      await bytesOf(this.image.backing, from, to),
      await bytesOf(this.backing, from, to),
    ];
    return !old.every((byte, index) => byte === fresh[index]);
  }
}

/** Behind a disk's end, and where there is none, there are zeros. */
async function bytesOf(disk: Disk | undefined, from: number, to: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(to - from);
  const inside = Math.min(to, disk?.size ?? 0) - from;
  if (disk && inside > 0) await disk.read(from, bytes.subarray(0, inside));
  return bytes;
}
