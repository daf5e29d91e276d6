/**
 * The kernels in plain TypeScript: what each one means, and the oracle of the tests. Numbers are
 * taken apart into two 32-bit halves, as a library without WebAssembly would do it, so the bench
 * compares like with like.
 */
import type { Kernels } from '../../../src/kernels/kernels.ts';
import { aesDecrypt, aesEncrypt, aesExpandKey } from './aes.ts';
import { bitmapMerge } from './bitmap-merge.ts';
import { bitmapBits } from './bitmap-offset.ts';
import { bitmapRuns } from './bitmap-scan.ts';
import { compressedDescriptors } from './compressed-descriptor.ts';
import { l2CopiedFlags } from './copied-flags.ts';
import { l2CopiedMismatch } from './copied-mismatch.ts';
import { firstDifference } from './first-difference.ts';
import { inflate } from './inflate.ts';
import { l2ExtendedRuns } from './l2-extended.ts';
import { l2Runs } from './l2-run.ts';
import { refcountAdd } from './refcount-add.ts';
import { refcountCompare, refcountOnes } from './refcount-compare.ts';
import { refcountGet, refcountSet } from './refcount-get-set.ts';
import { refcountFreeRuns } from './refcount-scan.ts';
import { l2References } from './reference-count.ts';
import { xorBytes, xtsXor } from './xts.ts';
import { dataRanges } from './zero-detect.ts';
import { zstdDecode } from './zstd-decode.ts';

/** Kernels that have no twin: many streams are right, and decoders tell which. */
export type Encoders = 'deflate' | 'zstdEncode';

/** The kernels whose every result is determined. */
export type Twinned = Omit<Kernels, Encoders>;

/** Binds the twins to a memory. */
export function twinKernels(memory: WebAssembly.Memory): Twinned {
  return {
    memory,
    inflate: inflate(memory),
    zstdDecode: zstdDecode(memory),
    dataRanges: dataRanges(memory),
    firstDifference: firstDifference(memory),
    l2Runs: l2Runs(memory),
    l2ExtendedRuns: l2ExtendedRuns(memory),
    compressedDescriptors: compressedDescriptors(memory),
    l2References: l2References(memory),
    l2CopiedMismatch: l2CopiedMismatch(memory),
    refcountCompare: refcountCompare(memory),
    refcountOnes: refcountOnes(memory),
    refcountGet: refcountGet(memory),
    refcountSet: refcountSet(memory),
    refcountAdd: refcountAdd(memory),
    l2CopiedFlags: l2CopiedFlags(memory),
    refcountFreeRuns: refcountFreeRuns(memory),
    bitmapBits: bitmapBits(memory),
    bitmapMerge: bitmapMerge(memory),
    bitmapRuns: bitmapRuns(memory),
    aesExpandKey: aesExpandKey(memory),
    aesEncrypt: aesEncrypt(memory),
    aesDecrypt: aesDecrypt(memory),
    xtsXor: xtsXor(memory),
    xorBytes: xorBytes(memory),
  };
}
