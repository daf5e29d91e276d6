/** What a check has found so far: numbers, and a line of text for each thing that is wrong. */
import { Qcow2Error } from '../../base/errors.ts';

/** How much of what is wrong is put right: refcounts that are too high, or everything. */
export type Repair = 'leaks' | 'all';

/** What came of a check. Clusters are counted, the end offset is in bytes of the file. */
export interface CheckResult {
  /** Parts of the check that could not be carried out. */
  readonly checkErrors: number;
  /** What is wrong and may cost data; what was repaired is not among it. */
  readonly corruptions: number;
  /** Clusters in use by nothing, or less than their refcounts say. */
  readonly leaks: number;
  readonly corruptionsFixed: number;
  readonly leaksFixed: number;
  /** Clusters of the virtual disk. */
  readonly totalClusters: number;
  /** Guest clusters that have a place in the file, or in the data file. */
  readonly allocatedClusters: number;
  /** Those of them that do not follow the one before; all compressed ones among them. */
  readonly fragmentedClusters: number;
  readonly compressedClusters: number;
  /** Behind the last cluster that is in use, or that a refcount says is. */
  readonly imageEndOffset: number;
}

/**
 * Takes a line of what a check has to say, without its newline.
 * @param from `tool`: a line that QEMU's tools put their own name in front of
 */
export type CheckListener = (line: string, from: 'check' | 'tool') => void;

/** The numbers of a `CheckResult` that change as a check goes on. */
export interface CheckNumbers {
  checkErrors: number;
  corruptions: number;
  leaks: number;
  corruptionsFixed: number;
  leaksFixed: number;
}

/** Numbers of a check that has found nothing. */
export function noNumbers(): CheckNumbers {
  return { checkErrors: 0, corruptions: 0, leaks: 0, corruptionsFixed: 0, leaksFixed: 0 };
}

/** A check that finds so many errors ends: nobody reads them. */
const ERRORS_MAX = 2 ** 24;

/** Collects findings. */
export class Findings {
  numbers = noNumbers();
  /**
   * What was found before is being gone over again: nothing is said or counted, `known`, but what
   * concerns the window of clusters, or `all`.
   */
  muted: 'nothing' | 'known' | 'all' = 'nothing';

  constructor(private readonly listener: CheckListener | undefined) {}

  say(line: string, from: 'check' | 'tool' = 'check'): void {
    this.listener?.(line, from);
  }

  /** Counts a corruption, and says what it is. */
  corruption(line?: string): void {
    if (this.muted === 'nothing') this.count(line);
  }

  /** The same for what is found of the window's clusters. */
  windowCorruption(line: string): void {
    if (this.muted !== 'all') this.count(line);
  }

  private count(line: string | undefined): void {
    if (++this.numbers.corruptions > ERRORS_MAX) throw new Qcow2Error('CORRUPT', 'Too many errors');
    if (line !== undefined) this.say(line);
  }

  /** A corruption that was counted was put right. */
  fixed(count = 1): void {
    this.numbers.corruptions -= count;
    this.numbers.corruptionsFixed += count;
  }

  /** Something could not be checked. */
  failed(line?: string, from: 'check' | 'tool' = 'check'): void {
    this.numbers.checkErrors++;
    if (line !== undefined) this.say(line, from);
  }
}

/** A u64 in hexadecimal, from its unsigned halves. */
export function hex64(high: number, low: number): string {
  const tail = (low >>> 0).toString(16);
  return high === 0 ? tail : (high >>> 0).toString(16) + tail.padStart(8, '0');
}
